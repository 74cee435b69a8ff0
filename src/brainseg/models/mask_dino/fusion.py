"""A feature of the backbone joined by a coarser map of the pixel decoder."""

import torch.nn.functional as F
from torch import Tensor, nn

from brainseg.models.mask_dino.layers import caffe2_uniform, init_conv


class Fusion(nn.Module):
    """T(C_b) + F(C_e), then a 3x3 convolution.

    Args:
        in_channels: channels of the backbone's feature C_b.
        channels: channels E of the coarser map C_e and of the output.
        norm: group norms of 32 groups behind the convolutions, which have a bias without them.

    Shape:
        C_b (B, in_channels, H, W), C_e (B, E, h, w) -> (B, E, H, W).
    """

    def __init__(self, in_channels: int, channels: int, *, norm: bool = True) -> None:
        super().__init__()
        self.adapter = _conv(in_channels, channels, kernel_size=1, norm=norm)
        self.layer = _conv(channels, channels, kernel_size=3, norm=norm)

    def forward(self, feature: Tensor, coarser: Tensor) -> Tensor:
        upsampled = F.interpolate(coarser, size=feature.shape[-2:], mode="bilinear", align_corners=False)
        return F.relu(self.layer(self.adapter(feature) + upsampled))


def _conv(in_channels: int, channels: int, *, kernel_size: int, norm: bool) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, kernel_size, padding=kernel_size // 2, bias=not norm)
    init_conv(conv, caffe2_uniform)
    return nn.Sequential(conv, *([nn.GroupNorm(32, channels)] if norm else []))
