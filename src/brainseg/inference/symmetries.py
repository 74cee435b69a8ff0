"""Test-time augmentation by the eight symmetries of the square, which are exact: no pixel is interpolated."""

from collections.abc import Callable

import torch
from torch import Tensor


def mean_over_symmetries(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Mean of the logits that a network gives for the images turned and flipped in the eight ways.

    A turn or flip of the images turns or flips the result in the same way, up to rounding.

    Args:
        network: (B, C, H, W) to logits (B, K, H, W), for sides H, W in either order.
        images: (B, C, H, W).

    Returns:
        (B, K, H, W).
    """
    total = torch.zeros(())
    for flipped in (False, True):
        for turns in range(4):
            x = images.flip(-1) if flipped else images
            logits = network(torch.rot90(x, turns, (-2, -1))).rot90(-turns, (-2, -1))
            total = total.to(logits) + (logits.flip(-1) if flipped else logits)
    return total / 8
