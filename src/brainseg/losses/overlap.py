"""What overlap losses share: soft counts of each mask, pooled over pixels, images and processes."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, distributed

from brainseg.losses.rules import Case


class Counts(NamedTuple):
    """Sums over the pixels of each mask, (B, K), or (K,) of a batch.

    Attributes:
        intersection: sum(p * t).
        predicted: sum(p).
        target: sum(t).
        counted: None, or bool: which masks have a pixel that is not ignored.
    """

    intersection: Tensor
    predicted: Tensor
    target: Tensor
    counted: Tensor | None


def soft_counts(case: Case, *, batch: bool, gather: bool) -> Counts:
    """Counts of each mask; `batch` and `gather` as in `dice_loss`."""
    axes, p = mask_axes(case, batch=batch), case.probabilities()
    if case.multiclass:
        # To choose reads a byte a pixel, and keeps it for the gradient, where a product needs a mask of floats.
        masks = case.class_masks()
        intersection, target = torch.where(masks, p, 0).sum(axes), masks.sum(axes, dtype=p.dtype)
    else:
        intersection, target = (p * case.target).sum(axes), case.target.sum(axes)
    sums, counted = gather_sums((intersection, p.sum(axes), target), case.counted(axes), gather=batch and gather)
    intersection, predicted, target = sums
    return Counts(intersection, predicted, target, counted)


def mask_axes(case: Case, *, batch: bool) -> tuple[int, ...]:
    """The axes that a sum over each mask reduces: its pixels, and the images of a batch."""
    pixels = tuple(range(2, case.logits.ndim))
    return (0, *pixels) if batch else pixels


def gather_sums(
    sums: Sequence[Tensor], counted: Tensor | None, *, gather: bool
) -> tuple[Sequence[Tensor], Tensor | None]:
    """Sums over all processes, if `gather`, several processes are there and gradients are enabled.

    Args:
        sums: of one shape and dtype, the same in all processes.
        counted: None or bool, of the shape of the sums: which of them have a pixel that is not ignored; in what comes
            back, in any process.
        gather: False gives back what came.
    """
    gather = gather and torch.is_grad_enabled() and distributed.is_available() and distributed.is_initialized()
    if not gather or distributed.get_world_size() == 1:
        return sums, counted
    # What is ignored in one process only must not change what is sent.
    kept = torch.ones_like(sums[0]) if counted is None else counted.to(sums[0].dtype)
    own = torch.stack([*sums, kept])
    total = own.detach().clone()
    distributed.all_reduce(total)
    # All processes compute the same loss of the same sums, so DDP's mean of their gradients holds each process's share
    # once over the number of processes, which this makes good without a second exchange; it adds 0 to the value.
    *sums, kept = total + distributed.get_world_size() * (own - own.detach())
    return sums, kept > 0
