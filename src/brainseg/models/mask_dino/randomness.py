"""The one source of randomness of denoising, matcher and criterion."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Rand: TypeAlias = Callable[[str, tuple[int, ...]], Tensor]
"""name of the draw, shape -> uniform numbers in [0, 1) of that shape."""


def torch_rand(device: torch.device) -> Rand:
    """Draws from torch's generator of the device."""

    def rand(name: str, shape: Sequence[int]) -> Tensor:  # noqa: ARG001
        return torch.rand(tuple(shape), device=device)

    return rand
