"""Images larger than those that a network was trained on, window by window at their own scale."""

import math
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from brainseg.checks import check_counts, check_rate


def mean_over_windows(
    network: Callable[[Tensor], Tensor], images: Tensor, size: tuple[int, int], *, overlap: float = 0.5
) -> Tensor:
    """Logits of images from windows that overlap, weighted by a Gaussian around the middle of each.

    Windows lie as evenly as can be, the first and last at the border, so that none reaches beyond the image. A side
    that is shorter than the window is seen whole.

    Args:
        network: (B, C, h, w) to logits (B, K, h, w) for windows of the size.
        images: (B, C, H, W).
        size: height and width of a window in pixels.
        overlap: the least share of a window that it has in common with the next, in [0, 1).

    Returns:
        (B, K, H, W).

    Raises:
        ValueError: a size or an overlap that cannot be.
    """
    height, width = check_counts("size", size, 2)
    overlap = check_rate("overlap", overlap)
    rows, columns = (
        _starts(side, window, overlap) for side, window in zip(images.shape[-2:], (height, width), strict=True)
    )
    height, width = min(height, images.shape[-2]), min(width, images.shape[-1])
    weights = torch.outer(_gaussian(height), _gaussian(width)).to(images)
    total = count = torch.zeros((), device=images.device)
    for number, (row, column) in enumerate(product(rows, columns)):
        logits = network(images[..., row : row + height, column : column + width])
        if number == 0:
            total = logits.new_zeros(*logits.shape[:2], *images.shape[-2:])
            count = weights.new_zeros(images.shape[-2:])
        total[..., row : row + height, column : column + width] += weights.to(logits) * logits
        count[row : row + height, column : column + width] += weights
    return total / count.to(total)


def _starts(side: int, window: int, overlap: float) -> list[int]:
    if side <= window:
        return [0]
    number = math.ceil((side - window) / max(1, math.floor(window * (1 - overlap)))) + 1
    return [round(k * (side - window) / (number - 1)) for k in range(number)]


def _gaussian(side: int) -> Tensor:
    """With a deviation of an eighth of the side, as nnU-Net weighs its patches (Isensee et al. 2021)."""
    places = torch.arange(side) - (side - 1) / 2
    return torch.exp(-0.5 * (places / (side / 8)) ** 2).clamp(min=1e-3)
