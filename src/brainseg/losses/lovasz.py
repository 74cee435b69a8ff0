"""Lovász losses: the convex surrogate of the Jaccard loss."""

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from brainseg.losses.rules import Loss, Reduction, prepare, reduce

Classes = Literal["all", "present"]

# Pixels that are sorted at a time: what comes of them stays in a processor's cache.
CACHED = 2**16


def lovasz_loss(
    logits: Tensor,
    target: Tensor,
    *,
    smooth: float = 0.0,
    classes: Classes = "all",
    batch: bool = False,
    weight: Tensor | Sequence[float] | None = None,
    include_background: bool = True,
    ignore_index: int | None = None,
    valid: Tensor | None = None,
    reduction: Reduction = "mean",
    from_probabilities: bool = False,
    check_target: bool = True,
) -> Tensor:
    r"""Lovász hinge of masks, Lovász-softmax of class indices (Berman et al. 2018, arXiv:1705.08790), per image.

    .. math:: \sum_i m_{\pi_i} \left( \Delta(\{\pi_1 \dots \pi_i\}) - \Delta(\{\pi_1 \dots \pi_{i-1}\}) \right),
        \quad \Delta(M) = \frac{|M|}{|T \cup M| + s}

    T is the mask, M a set of wrong pixels, \Delta the Jaccard loss that they cost, and \pi sorts the errors m from the
    largest. Of a mask with logits x the errors are max(0, 1 - x (2 t - 1)), the hinge, and the loss is in [0, inf); of
    class indices they are |t - p|, p the softmax, and the loss is in [0, 1]. A logit that is right by more than the
    hinge's margin of 1 costs nothing and has no gradient.

    Args:
        logits: (B, K, H, W) or (B, K, D, H, W), any floating dtype; half types are computed in float32.
        target: (B, K, H, W) floating or bool, in [0, 1], above 0.5 inside; or (B, H, W) class indices (K = 1: the
            binary mask).
        smooth: s, pixels that are always right. With 0, the paper's loss, the gradient on an empty mask is that of the
            largest error alone; with s > 0 every false positive has one.
        classes: "present" leaves masks without a pixel out of the mean, as the authors' code does for class indices;
            their false positives then have no gradient of their own.
        batch: pool the images of the batch, in each process its own.
        weight: (K,); the mean over classes is sum(w * loss) / sum(w).
        include_background: False leaves class 0 out of the mean.
        ignore_index: value of an integer target whose pixels are ignored.
        valid: bool, False where pixels are ignored; (H, W), (B, H, W) or (B, K, H, W), each side may be 1. A mask
            that is ignored as a whole has the loss 0 and is left out of the mean.
        reduction: "mean", "sum" or "none".
        from_probabilities: `logits` are probabilities; the errors are |t - p|, of masks too.
        check_target: look at the target's values, except in compiled programs.

    Returns:
        a scalar of the computing dtype; with reduction="none" (B, K), or (K,) if batch: w * loss, and one class fewer
        without the background.

    Raises:
        ValueError: shapes that do not fit, values outside [0, 1] or class indices out of range, arguments out of range.

    Example:
        >>> import torch
        >>> logits, target = torch.tensor([[[[2.0, 0.5, -3.0]]]]), torch.tensor([[[[True, False, False]]]])
        >>> lovasz_loss(logits, target)  # one false positive of error 1.5, with which the Jaccard index is 1/2
        tensor(0.7500)
    """
    if not 0 <= smooth < math.inf:
        raise ValueError(f"smooth must be a number of pixels from 0, got {smooth!r}")
    if classes not in get_args(Classes):
        raise ValueError(f"classes must be one of {', '.join(get_args(Classes))}, got {classes!r}")
    case = prepare(
        logits,
        target,
        weight=weight,
        include_background=include_background,
        ignore_index=ignore_index,
        valid=valid,
        from_probabilities=from_probabilities,
        check_target=check_target,
    )
    t = (case.class_masks() if case.multiclass else case.target > 0.5).to(case.logits.dtype)
    if case.multiclass or from_probabilities:
        x, offset = case.probabilities(), t
    else:
        x, offset = case.logits, torch.ones_like(t) if case.valid is None else case.valid.expand_as(t).to(t.dtype)
    x, t, offset = (y.transpose(0, 1).flatten(1) if batch else y.flatten(2) for y in (x, t, offset))
    loss: Tensor = _Extension.apply(x.contiguous(), t.contiguous(), offset, smooth)  # type: ignore[no-untyped-call]
    axes = tuple(range(2, logits.ndim))
    counted = t.any(-1) if classes == "present" else case.counted((0, *axes) if batch else axes)
    return reduce(loss, weight=case.weight, counted=counted, reduction=reduction)


class LovaszLoss(Loss):
    """Module of `lovasz_loss`, which has the formula and the arguments.

    Example:
        >>> import torch
        >>> LovaszLoss()(torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4))
        tensor(1.)
    """

    def __init__(
        self,
        *,
        smooth: float = 0.0,
        classes: Classes = "all",
        batch: bool = False,
        weight: Tensor | Sequence[float] | None = None,
        include_background: bool = True,
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
        from_probabilities: bool = False,
        check_target: bool = True,
    ) -> None:
        super().__init__(
            weight=weight,
            smooth=smooth,
            classes=classes,
            batch=batch,
            include_background=include_background,
            ignore_index=ignore_index,
            reduction=reduction,
            from_probabilities=from_probabilities,
            check_target=check_target,
        )

    def forward(self, logits: Tensor, target: Tensor, *, valid: Tensor | None = None) -> Tensor:
        return lovasz_loss(logits, target, weight=self.weight, valid=valid, **self.arguments)


class _Extension(torch.autograd.Function):
    """Sum of errors times steps, (..., N) to (...), where an error is the positive part of offset + (1 - 2 t) x.

    With the offset 1 this is the hinge of logits x, with t it is |t - p| of probabilities x. The steps are constant as
    long as the order of the errors is, so the gradient is at hand in the forward pass, and all that is kept.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, t: Tensor, offset: Tensor, smooth: float) -> Tensor:
        sign = torch.rsub(t, 1, alpha=2)
        errors = torch.addcmul(offset, x, sign).contiguous().clamp_min_(0)
        steps = _jaccard_steps(errors.flatten(0, -2), t.flatten(0, -2), smooth).view_as(errors)
        ctx.save_for_backward(sign.mul_(steps))
        return errors.mul_(steps).sum(-1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (slopes,) = ctx.saved_tensors
        return gradient[..., None] * slopes, None, None, None


def _jaccard_steps(errors: Tensor, t: Tensor, smooth: float) -> Tensor:
    """What a pixel adds to the Jaccard loss of its row when all larger errors are in it.

    Args:
        errors: (R, N), from 0.
        t: (R, N), 0 or 1.
        smooth: pixels that are always right.

    Returns:
        (R, N), and 0 where the error is 0.
    """
    if errors.dtype == torch.float32 and errors.device.type == "cpu" and not torch.compiler.is_compiling():
        steps = torch.zeros_like(errors)
        rows = max(1, CACHED // max(1, errors.shape[1]))
        for start in range(0, len(errors), rows):
            part = slice(start, start + rows)
            _write_steps(steps[part], errors[part], t[part], smooth)
        return steps
    order = errors.argsort(1, descending=True)
    missed = t.gather(1, order)
    hit = t.sum(1, keepdim=True) - missed.cumsum(1)
    rank = torch.arange(errors.shape[1], dtype=errors.dtype, device=errors.device)
    return torch.empty_like(errors).scatter_(1, order, _steps(missed, hit, rank, smooth)).mul_(errors > 0)


def _write_steps(steps: Tensor, errors: Tensor, t: Tensor, smooth: float) -> None:
    """The same into `steps`, which are 0, sorting the positive errors alone, those of all rows at once.

    A key is one int64: the row, then the bits of the error, which order as the error does, from the largest, then the
    place. numpy sorts such numbers in a fraction of the time that torch takes to sort floats with their places.
    """
    active = errors > 0
    places = torch.from_numpy(np.flatnonzero(active.numpy()))
    counts = active.sum(1, dtype=torch.int32)
    place_bits = errors.numel().bit_length()
    bits = errors.flatten().index_select(0, places).view(torch.int32).long()
    keys = _spread((torch.arange(len(counts)) + 1) << 31, counts, len(places)) - bits
    keys <<= place_bits
    keys += places
    keys.numpy().sort()
    places = keys.bitwise_and_((1 << place_bits) - 1)
    missed = t.flatten().index_select(0, places)
    missed_so_far = missed.cumsum(0)
    starts = counts.cumsum(0) - counts
    missed_before = F.pad(missed_so_far, (1, 0))[starts]
    hit = _spread(t.sum(1) + missed_before, counts, len(places)) - missed_so_far
    rank = torch.arange(len(places), dtype=errors.dtype) - _spread(starts.to(errors.dtype), counts, len(places))
    steps.view(-1).scatter_(0, places, _steps(missed, hit, rank, smooth))


def _spread(values: Tensor, counts: Tensor, length: int) -> Tensor:
    """values.repeat_interleave(counts), whose sum is `length`, without its index of every repetition."""
    if len(values) == 1:
        return values
    starts, jumps = counts.cumsum(0) - counts, values.diff(prepend=values.new_zeros(1))
    return values.new_zeros(length + 1).index_add_(0, starts, jumps).cumsum(0)[:length]


def _steps(missed: Tensor, hit: Tensor, rank: Tensor, smooth: float) -> Tensor:
    """Steps of pixels in the order of their errors.

    With the union u of the mask and all larger errors, a missed pixel costs 1 / (u + 1), where u does not count it; a
    false positive leaves hit / u right pixels of the union at hit / (u + 1). Written as one fraction over u (u + 1),
    not as a difference of Jaccard indices, which rounding would swallow.

    Args:
        missed: 1 for a pixel of the mask, 0 for a false positive.
        hit: pixels of the mask that have not been missed, with this one.
        rank: number of larger errors.
        smooth: pixels that are always right.
    """
    # The first false positive on an empty mask is 0/0 of which the limit for s towards 0 is meant, 1.
    hit = hit + max(smooth, 1e-20)
    union = hit + rank
    return torch.addcmul(hit, missed, rank).div_(union.addcmul_(union, union))
