"""What overlap losses share: soft counts of each mask, pooled over pixels, images and processes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

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
    function, given = (_IndexSums, case.class_indices()) if case.multiclass else (_MaskSums, (case.target,))
    own = function.apply(p, *given, axes)  # type: ignore[no-untyped-call]
    sums, counted = gather_sums(own, case.counted(axes), gather=batch and gather)
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


class _MaskSums(torch.autograd.Function):
    """sum(p * t), sum(p) and sum(t) of masks, whose gradient is one pass over the pixels, not autograd's three."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, t: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, ...]:
        ctx.save_for_backward(p if ctx.needs_input_grad[1] else None, t)
        ctx.axes = axes
        return (p * t).sum(axes), p.sum(axes), t.sum(axes)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        p, t = ctx.saved_tensors
        intersection, predicted, target = (_unsqueeze(g, ctx.axes) for g in gradients)
        of_t = None if p is None else torch.addcmul(target, intersection, p)
        return torch.addcmul(predicted, intersection, t), of_t, None


class _IndexSums(torch.autograd.Function):
    """The same of class indices; it keeps no masks, and its one buffer holds the true probabilities, then the masks."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, index: Tensor, kept: Tensor | None, axes: tuple[int, ...]) -> tuple[Tensor, ...]:
        ctx.save_for_backward(index, kept)
        ctx.axes, ctx.shape = axes, p.shape
        chosen = torch.zeros_like(p).scatter_(1, index, _masked(p.gather(1, index), kept))
        intersection = chosen.sum(axes)
        target = chosen.scatter_(1, index, _masked(p.new_ones(()).expand_as(index), kept)).sum(axes)
        return intersection, p.sum(axes), target

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        index, kept = ctx.saved_tensors
        intersection, predicted, _ = (_unsqueeze(g, ctx.axes).expand(ctx.shape) for g in gradients)
        own = _masked(intersection.gather(1, index), kept)
        return predicted.clone(memory_format=torch.contiguous_format).scatter_add_(1, index, own), None, None, None


def _masked(x: Tensor, kept: Tensor | None) -> Tensor:
    return x if kept is None else x * kept


def _unsqueeze(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    for axis in axes:
        x = x.unsqueeze(axis)
    return x
