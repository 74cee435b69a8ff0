"""A faster copy of a network for inference."""

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from brainseg.inference.compiled import compile_network
from brainseg.inference.foreign import frozen_copy
from brainseg.inference.packed import PackedConv2d, can_pack
from brainseg.inference.winograd import WinogradConv2d, can_use_winograd
from brainseg.models import SegmentationModel

Model = TypeVar("Model", bound=nn.Module)


def optimize(model: Model, *, compile: bool = False) -> Model:  # noqa: A002
    """A copy in eval mode with batch norms folded into the convolutions before them, weights in channels_last.

    A batch norm that stands before its convolution, as in the pre-activation units of ResUNet, stays.

    On the CPU, in float32, also wide 3x3 convolutions are computed by Winograd's products, the others from weights in
    the order that oneDNN reads, both together with the activation after them, and 2x2 max pooling and bilinear x2
    upsampling are done in a way that is faster there. The weights for that are kept beside the plain ones: as much
    memory once more for oneDNN, four times for Winograd. Results are equal up to rounding. The copy is for inference
    alone: it is not to be trained, and is not saved by `save_pretrained`.

    Args:
        model: any of our networks; it stays as it is. A module says by `conv_chains` which of its children follow each
            other in evaluation: a convolution, and after it a batch norm, a max pooling, an activation, each if there
            is one.
        compile: let the copy compute by a compiled program, for all sizes that the network takes. On the CPU that takes
            up to a minute and a C++ compiler, once: the program is kept in the cache folder of PyTorch's compiler
            (TORCHINDUCTOR_CACHE_DIR) for the processes that come after. What is no float32 inference, and images of no
            more than `stride` pixels, are computed without it. On other devices it is `torch.compile`.

    Returns:
        the copy, on the model's device and in its dtype.

    Raises:
        TypeError: a module that is none of our networks cannot be compiled so.
        RuntimeError: PyTorch's, without a C++ compiler.
    """
    if compile and not isinstance(model, SegmentationModel):
        raise TypeError(
            f"compile=True takes our networks, got {type(model).__name__}; use torch.compile(optimize(model))"
        )
    optimized = frozen_copy(model)
    chains = [(module, chain) for module in optimized.modules() for chain in getattr(module, "conv_chains", ())]
    for module, (conv, *after) in chains:
        if isinstance(getattr(module, after[0]), nn.BatchNorm2d):  # an optimized network has none left
            setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, after[0])))
            setattr(module, after[0], nn.Identity())
    optimized.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if all(parameter.device.type == "cpu" for parameter in optimized.parameters()):
        for module, chain in chains:
            _join(module, chain)
        for module in list(optimized.modules()):
            if not isinstance(module, PackedConv2d):
                _replace_children(module)
    if compile and isinstance(optimized, SegmentationModel):
        compile_network(optimized)
    return optimized


def _join(module: nn.Module, chain: Sequence[str]) -> None:
    """Puts one module in the place of a convolution and what follows it."""
    name, *after = chain
    conv = getattr(module, name)
    following = {child: getattr(module, child) for child in after}
    following = {child: found for child, found in following.items() if not isinstance(found, nn.Identity)}
    pool = next((found for found in following.values() if _is_pairwise(found)), None)
    activation = next((found for found in following.values() if found is not pool), None)
    if len(following) > (pool is not None) + (activation is not None):
        return
    # A ReLU may as well stand before a max pooling; other activations may not.
    if pool is not None and not isinstance(activation, nn.ReLU):
        return
    if can_use_winograd(conv, activation):
        setattr(module, name, WinogradConv2d(conv, activation))
    elif can_pack(conv, activation):
        setattr(module, name, PackedConv2d(conv, activation))
    else:
        return
    for child, found in following.items():
        if found is activation:
            setattr(module, child, nn.Identity())


def _replace_children(module: nn.Module) -> None:
    for name, child in module.named_children():
        if can_use_winograd(child, None):
            setattr(module, name, WinogradConv2d(child, None))
        elif can_pack(child, None):
            setattr(module, name, PackedConv2d(child, None))
        elif _is_pairwise(child):
            setattr(module, name, _PairwiseMaxPool())
        elif _is_doubling(child):
            setattr(module, name, _Doubling())


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
        if torch.compiler.is_compiling():
            return F.max_pool2d(x, 2)
        # The width first: in channels_last a pair is then one stretch of memory.
        x = torch.maximum(x[..., 0:-1:2], x[..., 1::2])
        return torch.maximum(x[..., 0:-1:2, :], x[..., 1::2, :])


class _Doubling(nn.Module):
    """Bilinear x2, of few channels as a depthwise transposed convolution.

    PyTorch's own computes one image on one thread, and in channels_last one pixel at a time.
    """

    def __init__(self) -> None:
        super().__init__()
        row = torch.tensor([0.25, 0.75, 0.75, 0.25])
        self.register_buffer("kernel", torch.outer(row, row)[None, None], persistent=False)
        self.kernel: Tensor

    def forward(self, x: Tensor) -> Tensor:
        batch, channels = x.shape[:2]
        if torch.compiler.is_compiling() or (channels >= 32 and 2 * batch >= torch.get_num_threads()):
            return F.interpolate(x, scale_factor=2.0, mode="bilinear")
        kernel = self.kernel.to(x.dtype).expand(channels, 1, 4, 4)
        x = F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=channels)
        # Beyond the border the convolution sees zeros in the place of the border: a quarter of it is missing.
        for border in (x[:, :, 0], x[:, :, -1], x[..., 0], x[..., -1]):
            border *= 4 / 3
        return x
