"""Shifted windows as the authors of Swin have them in their code for detection."""

import torch.nn.functional as F
from torch import Tensor, nn

from brainseg._torchvision import make_importable

make_importable()

from timm.models.swin_transformer import SwinTransformerBlock  # noqa: E402


class PaddedBlock(SwinTransformerBlock):
    """Pads a map to whole windows before it shifts them, where timm shifts first.

    The published weights of Mask DINO were trained so; the two differ where a side is no multiple of the window.
    """

    def _attn(self, x: Tensor) -> Tensor:
        height, width = x.shape[1], x.shape[2]
        rows, columns = self.window_size
        padded = F.pad(x, (0, 0, 0, -width % columns, 0, -height % rows))
        attended: Tensor = super()._attn(padded)[:, :height, :width]  # type: ignore[no-untyped-call]
        return attended


def pad_before_shift(backbone: nn.Module) -> None:
    """Turns the blocks of a timm Swin into those above, with their weights; leaves other backbones alone."""
    for module in backbone.modules():
        if type(module) is SwinTransformerBlock:
            module.__class__ = PaddedBlock
