"""Layers that several boxes of Mask DINO share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class MLP(nn.Module):
    """Linear layers with ReLUs between them and none at the end."""

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int, *, layers: int) -> None:
        super().__init__()
        widths = [in_channels, *[hidden_channels] * (layers - 1), out_channels]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in zip(widths[:-1], widths[1:], strict=True))

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


def run(layer: nn.Module, *inputs: object, checkpointing: bool) -> Tensor:
    """The output of a layer, recomputed in the backward pass if checkpointing is on."""
    if checkpointing and torch.is_grad_enabled():
        recomputed: Tensor = checkpoint(layer, *inputs, use_reentrant=False)
        return recomputed
    output: Tensor = layer(*inputs)
    return output
