"""A faster copy of a network for inference."""

import copy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Model = TypeVar("Model", bound=nn.Module)


def optimize(model: Model) -> Model:
    """A copy in eval mode with batch norms folded into the convolutions before them, weights in channels_last.

    A batch norm that stands before its convolution, as in the pre-activation units of ResUNet, stays.

    On the CPU also 2x2 max pooling and bilinear x2 upsampling are done in a way that is faster there. Results are equal
    up to rounding. The copy is for inference alone: it is not to be trained, and is not saved by
    `save_pretrained`.

    Args:
        model: any of our networks; it stays as it is. A module says by `conv_norm_pairs` which of its children follow
            each other as a convolution and its batch norm.

    Returns:
        the copy, on the model's device and in its dtype.
    """
    optimized = copy.deepcopy(model).eval().requires_grad_(False)
    on_cpu = all(parameter.device.type == "cpu" for parameter in optimized.parameters())
    for module in list(optimized.modules()):
        for conv, norm in getattr(module, "conv_norm_pairs", ()):
            if isinstance(getattr(module, norm), nn.BatchNorm2d):  # an optimized network has none left
                setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
                setattr(module, norm, nn.Identity())
        if on_cpu:
            for name, child in module.named_children():
                if _is_pairwise(child):
                    setattr(module, name, _PairwiseMaxPool())
                elif _is_doubling(child):
                    setattr(module, name, _TransposedUpsample())
    optimized.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return optimized


def _is_pairwise(module: nn.Module) -> bool:
    return isinstance(module, nn.MaxPool2d) and (
        (module.kernel_size, module.stride, module.padding, module.dilation) == (2, 2, 0, 1)
        and not (module.ceil_mode or module.return_indices)
    )


def _is_doubling(module: nn.Module) -> bool:
    return isinstance(module, nn.Upsample) and (
        (module.scale_factor, module.mode) == (2.0, "bilinear") and not module.align_corners
    )


class _PairwiseMaxPool(nn.Module):
    """2x2 max pooling that writes no indices: PyTorch's writes two bytes of index for each byte it pools to."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.maximum(x[:, :, 0:-1:2], x[:, :, 1::2])
        return torch.maximum(x[..., 0:-1:2], x[..., 1::2])


class _TransposedUpsample(nn.Module):
    """Bilinear x2 as a depthwise transposed convolution: PyTorch's own runs one image on one thread."""

    def __init__(self) -> None:
        super().__init__()
        row = torch.tensor([0.25, 0.75, 0.75, 0.25])
        self.register_buffer("kernel", torch.outer(row, row)[None, None], persistent=False)
        self.kernel: Tensor

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(channels, 1, 4, 4)
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
        return F.conv_transpose2d(padded, kernel, stride=2, padding=3, groups=channels)
