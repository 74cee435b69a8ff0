"""Where tokens and boxes are: sine embeddings, centres of cells, and boxes without their sigmoid."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """Places and boxes of half types are computed in float32: they would be off by pixels."""
    return torch.promote_types(dtype, torch.float32)


def inverse_sigmoid(x: Tensor) -> Tensor:
    """log(x / (1 - x)) of x clamped to [0, 1], each side at least 1e-5; within -11.513 and 11.513."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=1e-5) / (1 - x).clamp(min=1e-5))


def sine_embedding(x: Tensor, features: int) -> Tensor:
    """Sines and cosines of angles (..., ) by turns, of wavelengths from 2 pi to 20000 pi: (..., features)."""
    k = torch.arange(features, device=x.device)
    angles = x[..., None] / 10000 ** (2 * (k // 2).to(x.dtype) / features)
    return torch.where(k % 2 == 0, angles.sin(), angles.cos())


def sine_map(height: int, width: int, channels: int, *, like: Tensor) -> Tensor:
    """Position encoding of a map's cells, row by row: (height * width, channels), half for y and half for x.

    On the device and, float32 at least, in the dtype of `like`. Cells are counted from 1 and the last one is at 2 pi,
    without the half pixel that one would expect.
    """

    def axis(length: int) -> Tensor:
        steps = torch.arange(1, length + 1, device=like.device, dtype=at_least_float32(like.dtype))
        return sine_embedding(2 * math.pi * steps / (length + 1e-6), channels // 2)

    y, x = axis(height)[:, None], axis(width)[None]
    return torch.cat([y.expand(-1, width, -1), x.expand(height, -1, -1)], dim=-1).flatten(0, 1)


def sine_boxes(boxes: Tensor, features: int) -> Tensor:
    """Embedding of boxes (..., 4), centre and size in [0, 1]: (..., 4 * features), in the order y, x, width, height."""
    return sine_embedding(2 * math.pi * boxes[..., [1, 0, 2, 3]], features).flatten(-2)


def cell_centers(shapes: Sequence[tuple[int, int]], *, like: Tensor) -> Tensor:
    """Centres (x, y) in [0, 1] of the cells of all levels, level by level and row by row: (S, 2).

    On the device and, float32 at least, in the dtype of `like`.
    """

    def level(height: int, width: int) -> Tensor:
        y = (torch.arange(height, device=like.device, dtype=at_least_float32(like.dtype)) + 0.5) / height
        x = (torch.arange(width, device=like.device, dtype=at_least_float32(like.dtype)) + 0.5) / width
        return torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], dim=-1).flatten(0, 1)

    return torch.cat([level(*shape) for shape in shapes])
