"""Convolutions for inference on the CPU: weights in the order that oneDNN reads, activations in the same pass."""

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn


class PackedConv2d(nn.Conv2d):
    """A convolution and the activation after it.

    PyTorch's convolution reorders its weights for oneDNN in every call, and writes its output for the activation to
    read and write again. Here the weights are reordered once, for float32 inference on the CPU; whatever else is asked
    for (other dtypes, autocast, gradients, compiling, exporting, another device) is computed as by the two modules.

    Args:
        conv: its weights are used, not copied.
        activation: None, ReLU or GELU.
    """

    def __init__(self, conv: nn.Conv2d, activation: nn.Module | None) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            conv.groups,
            conv.bias is not None,
            device="meta",
        )
        self.weight, self.bias = conv.weight, conv.bias
        self.train(conv.training)
        self.activation = nn.Identity() if activation is None else activation
        self.attributes = onednn_name(activation) or ()
        self._prepared: Tensor | None = None
        self._source: Tensor | None = None
        self._version = -1

    def forward(self, x: Tensor) -> Tensor:
        return self._fast(x) if self._can_be_fast(x) else self._plain(x)

    def _plain(self, x: Tensor) -> Tensor:
        output: Tensor = self.activation(super().forward(x))
        return output

    def _fast(self, x: Tensor) -> Tensor:
        output: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self._prepare(), self.bias, self.padding, self.stride, self.dilation, self.groups, *self.attributes
        )
        return output

    def _prepare(self) -> Tensor:
        """The weights as the fast path reads them: made once, and again if they have been changed or replaced since."""
        weight, source = self.weight, self._source
        if source is None or source.data_ptr() != weight.data_ptr() or self._version != weight._version:
            # Holds the weights' memory, so that no other weights can come to lie there unnoticed.
            self._source, self._version = weight.detach(), weight._version
            self._prepared = self._reorder(self._source)
        assert self._prepared is not None
        return self._prepared

    def _reorder(self, weight: Tensor) -> Tensor:
        packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
            weight, self.padding, self.stride, self.dilation, self.groups, None
        )
        return packed

    def _can_be_fast(self, x: Tensor) -> bool:
        weight = self.weight
        return (
            is_plain_inference(x)
            and x.dim() == 4
            and x.shape[1] == self.in_channels
            and weight.dtype is torch.float32
            and weight.is_cpu
            and not (weight.requires_grad and torch.is_grad_enabled())
            and not weight.is_inference()  # of such weights nobody knows whether they have changed
        )

    def __getstate__(self) -> dict[str, Any]:
        # What is prepared belongs to this processor, and oneDNN's tensors cannot be pickled.
        return {**self.__dict__, "_prepared": None, "_source": None}


def is_plain_inference(x: Tensor) -> bool:
    """Whether this is nothing but float32 inference on the CPU, which is all that fast code is made for."""
    return (
        not torch.compiler.is_compiling()
        and type(x) is Tensor
        and x.dtype is torch.float32
        and x.is_cpu
        and not (x.requires_grad and torch.is_grad_enabled())
        and not torch.is_autocast_enabled("cpu")
        and torch._C._functorch.maybe_current_level() is None
        and torch._C._len_torch_dispatch_stack() == 0  # who counts operations is to see those that he knows
    )


def can_pack(conv: nn.Module, activation: nn.Module | None) -> TypeGuard[nn.Conv2d]:
    """Whether there is a packed form of this convolution and this activation after it, and it is faster."""
    return (
        type(conv) is nn.Conv2d
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        # PyTorch computes these as matrix products, faster than oneDNN the narrow convolution.
        and not (conv.kernel_size == (1, 1) and conv.out_channels < 16)
        and onednn_name(activation) is not None
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    )


def onednn_name(activation: nn.Module | None) -> tuple[str, list[float], str] | None:
    """How oneDNN's operators call an activation: its name, its numbers, its algorithm; None if they have none."""
    if activation is None:
        return "none", [], ""
    if isinstance(activation, nn.ReLU):
        return "relu", [], ""
    if isinstance(activation, nn.GELU):
        return "gelu", [], activation.approximate
    return None
