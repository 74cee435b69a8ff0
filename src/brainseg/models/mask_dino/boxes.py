"""Corners and overlap of boxes."""

import torch
from torch import Tensor


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU (Rezatofighi et al. 2019, arXiv:1902.09630) of boxes (..., 4), centre and size; broadcasts.

    Each quotient has 1e-6 in its denominator, as the authors of Mask DINO compute it.
    """
    (a_low, a_high), (b_low, b_high) = corners(a), corners(b)
    overlap = _area((torch.minimum(a_high, b_high) - torch.maximum(a_low, b_low)).clamp(min=0))
    hull = _area(torch.maximum(a_high, b_high) - torch.minimum(a_low, b_low))
    union = _area(a_high - a_low) + _area(b_high - b_low) - overlap
    return overlap / (union + 1e-6) - (hull - union) / (hull + 1e-6)


def corners(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Upper left and lower right corners (..., 2) of boxes (..., 4), centre and size."""
    center, size = torch.split(boxes, 2, dim=-1)
    half = size / 2
    return center - half, center + half


def _area(size: Tensor) -> Tensor:
    width, height = size.unbind(-1)
    return width * height
