"""Lovász losses: the convex surrogate of the Jaccard loss."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from brainseg.checks import check_choice
from brainseg.losses.overlap import mask_axes
from brainseg.losses.rules import Loss, Reduction, prepare, reduce

Classes = Literal["all", "present"]

# Rows of fewer pixels are sorted all at once.
FEW = 2**12


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
    check_choice("classes", classes, Classes)
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
    axes = mask_axes(case, batch=batch)
    t = case.class_masks() if case.multiclass else case.target > 0.5
    counted = t.any(axes) if classes == "present" else case.counted(axes)
    if case.multiclass or from_probabilities:
        x, offset = case.probabilities(), t
    else:
        x, offset = case.logits, t.new_ones(()) if case.valid is None else case.valid
    rows = (_rows(y, batch=batch) for y in (x, t, offset.expand_as(t)))
    loss: Tensor = _Extension.apply(*rows, smooth)  # type: ignore[no-untyped-call]
    loss = loss if batch else loss.view(t.shape[:2])
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
    """Sum of errors times steps of each row, (R, S, N) to (R,); errors are the positive part of offset + (1 - 2 t) x.

    With the offset 1 this is the hinge of logits x, with t it is |t - p| of probabilities x. The steps are constant as
    long as the order of the errors is, so the gradient is at hand in the forward pass, and all that is kept.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, t: Tensor, offset: Tensor, smooth: float) -> Tensor:
        on_cpu = x.dtype == torch.float32 and x.device.type == "cpu" and not torch.compiler.is_compiling()
        if not on_cpu or x.shape[1:].numel() < FEW:
            loss, slopes = _extend(x, t, offset, smooth, _steps_of_rows)
        else:
            # What comes of a row stays in the processor's cache, and in memory that is used again for the next.
            loss, slopes = x.new_empty(len(x)), torch.empty_like(x)
            for i in range(len(x)):
                row = slice(i, i + 1)
                loss[row], slopes[row] = _extend(x[row], t[row], offset[row], smooth, _steps_of_row)
        ctx.save_for_backward(slopes)
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (slopes,) = ctx.saved_tensors
        return gradient[:, None, None] * slopes, None, None, None


def _rows(x: Tensor, *, batch: bool) -> Tensor:
    """(B, K, ...) as (K, B, N) of the masks of a batch, or (B K, 1, N): rows that are sorted, each by itself."""
    return x.flatten(2).transpose(0, 1) if batch else x.flatten(2).flatten(0, 1)[:, None]


def _extend(
    x: Tensor, t: Tensor, offset: Tensor, smooth: float, steps_of: Callable[[Tensor, Tensor, float], Tensor]
) -> tuple[Tensor, Tensor]:
    """Extension (R,) and gradient (R, S, N)."""
    sign = torch.rsub(t.to(x.dtype), 1, alpha=2)
    errors = torch.addcmul(offset, x, sign).clamp_(min=0)
    steps = steps_of(errors.flatten(1), t.flatten(1), smooth).view(x.shape)
    slopes = sign.mul_(steps)
    return errors.mul_(steps).sum((1, 2)), slopes


def _steps_of_rows(errors: Tensor, t: Tensor, smooth: float) -> Tensor:
    """What a pixel adds to the Jaccard loss of its row when all larger errors are in it.

    Args:
        errors: (R, N), from 0.
        t: (R, N), bool.
        smooth: pixels that are always right.

    Returns:
        (R, N), and 0 where the error is 0.
    """
    order = errors.argsort(1, descending=True)
    missed = t.to(errors.dtype).gather(1, order)
    hit = t.sum(1, keepdim=True, dtype=errors.dtype) - missed.cumsum(1)
    rank = torch.arange(errors.shape[1], dtype=errors.dtype, device=errors.device)
    return torch.empty_like(errors).scatter_(1, order, _steps(missed, hit, rank, smooth)).mul_(errors > 0)


def _steps_of_row(errors: Tensor, t: Tensor, smooth: float) -> Tensor:
    """The same of one row of float32 on the CPU, sorting the positive errors alone.

    A key is one int64: the bits of the error, which order as the error does, from the largest, then the place, then
    the mask. numpy sorts such numbers in a tenth of the time that torch takes to sort floats with their places.
    """
    errors, t = errors[0], t[0]
    places = torch.from_numpy(np.flatnonzero((errors > 0).numpy()))
    active, masks = errors.index_select(0, places), t.index_select(0, places)
    place_bits = len(errors).bit_length()
    keys = active.view(torch.int32).bitwise_not().long()
    keys <<= place_bits
    keys += places
    keys <<= 1
    keys += masks
    keys.numpy().sort()
    missed = keys & 1
    hit = t.sum() - missed.cumsum(0)
    places = keys.bitwise_right_shift_(1).bitwise_and_((1 << place_bits) - 1)
    rank = torch.arange(len(places), dtype=errors.dtype)
    steps = _steps(missed.to(errors.dtype), hit.to(errors.dtype), rank, smooth)
    return torch.zeros_like(errors).index_copy_(0, places, steps)


def _steps(missed: Tensor, hit: Tensor, rank: Tensor, smooth: float) -> Tensor:
    """Steps of pixels in the order of their errors.

    With the union u of the mask and all larger errors, a missed pixel costs 1 / (u + 1), where u does not count it; a
    false positive leaves hit / u right pixels of the union at hit / (u + 1). Written as one fraction over u (u + 1),
    not as a difference of Jaccard indices, which rounding would swallow.

    Args:
        missed: 1 for a pixel of the mask, 0 for a false positive.
        hit: pixels of the mask less those missed so far, this one among them.
        rank: number of larger errors.
        smooth: pixels that are always right.
    """
    # The first false positive on an empty mask is 0/0 of which the limit for s towards 0 is meant, 1.
    hit = hit + max(smooth, 1e-20)
    union = hit + rank
    return torch.addcmul(hit, missed, rank).div_(union.addcmul_(union, union))
