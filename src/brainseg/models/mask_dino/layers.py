"""Layers that several boxes of Mask DINO share."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class MLP(nn.Module):
    """Linear layers with ReLUs between them and none at the end; with `zero` the last starts from zeros."""

    def __init__(
        self, in_channels: int, hidden_channels: int, out_channels: int, *, layers: int, zero: bool = False
    ) -> None:
        super().__init__()
        widths = [in_channels, *[hidden_channels] * (layers - 1), out_channels]
        linears = [nn.Linear(*pair) for pair in pairwise(widths)]
        if zero:
            nn.init.zeros_(linears[-1].weight)
            nn.init.zeros_(linears[-1].bias)
        self.layers = nn.ModuleList(linears)

    def forward(self, x: Tensor) -> Tensor:
        *hidden, last = self.layers
        for layer in hidden:
            x = F.relu(layer(x))
        output: Tensor = last(x)
        return output


class FeedForward(nn.Module):
    """Two linear layers with a ReLU between them, and dropout after each."""

    def __init__(self, channels: int, hidden_channels: int, *, drop: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, hidden_channels)
        self.linear2 = nn.Linear(hidden_channels, channels)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.drop(self.linear2(self.drop(F.relu(self.linear1(x)))))
        return output


def init_matrices(module: nn.Module) -> None:
    """Xavier's uniform values for every matrix; vectors stay as they are."""
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)


def caffe2_uniform(weight: Tensor) -> Tensor:
    """Uniform values of variance 1 / fan-in."""
    return nn.init.kaiming_uniform_(weight, a=1)


def init_conv(conv: nn.Conv2d, init: Callable[[Tensor], Tensor]) -> nn.Conv2d:
    """The convolution with these weights and no bias."""
    init(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """Keeps what is inside in the dtype of its weights."""
    if device.type == "meta":  # on which networks are counted, and which knows no autocast
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def run(layer: nn.Module, *inputs: object, checkpointing: bool) -> Tensor:
    """The output of a layer, recomputed in the backward pass if checkpointing is on."""
    if checkpointing and torch.is_grad_enabled():
        recomputed: Tensor = checkpoint(layer, *inputs, use_reentrant=False)
        return recomputed
    output: Tensor = layer(*inputs)
    return output
