"""Soft clDice loss: Dice of a mask's centre line."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from brainseg.losses.overlap import gather_sums, mask_axes
from brainseg.losses.rules import Loss, Reduction, check_smooth, prepare, reduce


def soft_cldice_loss(
    logits: Tensor,
    target: Tensor,
    *,
    iterations: int = 3,
    smooth: float = 1.0,
    batch: bool = False,
    gather: bool = True,
    weight: Tensor | Sequence[float] | None = None,
    include_background: bool = True,
    ignore_index: int | None = None,
    valid: Tensor | None = None,
    reduction: Reduction = "mean",
    from_probabilities: bool = False,
    check_target: bool = True,
) -> Tensor:
    r"""Soft clDice loss of thin, branching structures (Shit et al. 2021, arXiv:2003.07311, algorithms 1 and 2).

    .. math::
        1 - \frac{2 P S}{P + S}, \quad P = \frac{\sum t \, s(p) + s}{\sum s(p) + s},
        \quad S = \frac{\sum p \, s(t) + s}{\sum s(t) + s}

    P and S are how much of the prediction's centre line lies in the target, and of the target's in the prediction. The
    soft centre line s(x) holds what an opening takes from x, after 0, 1, ..., `iterations` erosions: structures wider
    than 2 * iterations + 2 pixels have none and cost nothing. It says nothing on how wide they are either, and a
    single pixel that becomes right can make it worse; it is a term beside an overlap loss.

    Args:
        logits: (B, K, H, W) or (B, K, D, H, W), any floating dtype; half types are computed in float32.
        target: (B, K, H, W) floating or bool, in [0, 1]; or (B, H, W) class indices (K = 1: the binary mask).
        iterations: erosions, the largest radius whose centre line is found; time and memory grow with it.
        smooth: s, pixels of centre line; with an empty target the loss falls to 0 as that of the prediction falls
            below s.
        batch: pool the sums over the images of the batch.
        gather: with `batch`, pool them over the processes of torch.distributed too, wherever gradients are enabled;
            as in `dice_loss`.
        weight: (K,); the mean over classes is sum(w * loss) / sum(w).
        include_background: False leaves class 0 out of the mean.
        ignore_index: value of an integer target whose pixels are ignored.
        valid: bool, False where pixels are ignored; (H, W), (B, H, W) or (B, K, H, W), each side may be 1. A mask
            that is ignored as a whole has the loss 0 and is left out of the mean.
        reduction: "mean", "sum" or "none".
        from_probabilities: `logits` are probabilities.
        check_target: look at the target's values, except in compiled programs.

    Returns:
        a scalar of the computing dtype, in [0, 1]; with reduction="none" (B, K), or (K,) if batch: w * loss, and one
        class fewer without the background.

    Raises:
        ValueError: shapes that do not fit, values outside [0, 1] or class indices out of range, arguments out of range.

    Example:
        >>> import torch
        >>> line = torch.zeros(1, 1, 5, 9)
        >>> line[..., 2, :] = 1
        >>> soft_cldice_loss(line * 200 - 100, line), soft_cldice_loss(torch.full_like(line, -100), line)
        (tensor(0.), tensor(0.8182))
    """
    check_smooth(smooth)
    if iterations < 0:
        raise ValueError(f"iterations must be a number from 0, got {iterations!r}")
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
    p, t, axes = case.probabilities(), case.masks(), mask_axes(case, batch=batch)
    line_p, line_t = _soft_skeleton(p, iterations, case.valid), _soft_skeleton(t, iterations, case.valid)
    own = ((line_p * t).sum(axes), line_p.sum(axes), (line_t * p).sum(axes), line_t.sum(axes))
    sums, counted = gather_sums(own, case.counted(axes), gather=batch and gather)
    inside_t, of_p, inside_p, of_t = (x + smooth for x in sums)
    precision, sensitivity = inside_t / of_p, inside_p / of_t
    loss = 1 - 2 * precision * sensitivity / (precision + sensitivity)
    return reduce(loss, weight=case.weight, counted=counted, reduction=reduction)


class SoftClDiceLoss(Loss):
    """Module of `soft_cldice_loss`, which has the formula and the arguments.

    Example:
        >>> import torch
        >>> SoftClDiceLoss(iterations=10)(torch.zeros(2, 1, 8, 8), torch.zeros(2, 8, 8, dtype=torch.bool))
        tensor(0.)
    """

    def __init__(
        self,
        *,
        iterations: int = 3,
        smooth: float = 1.0,
        batch: bool = False,
        gather: bool = True,
        weight: Tensor | Sequence[float] | None = None,
        include_background: bool = True,
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
        from_probabilities: bool = False,
        check_target: bool = True,
    ) -> None:
        super().__init__(
            weight=weight,
            iterations=iterations,
            smooth=smooth,
            batch=batch,
            gather=gather,
            include_background=include_background,
            ignore_index=ignore_index,
            reduction=reduction,
            from_probabilities=from_probabilities,
            check_target=check_target,
        )

    def forward(self, logits: Tensor, target: Tensor, *, valid: Tensor | None = None) -> Tensor:
        return soft_cldice_loss(logits, target, weight=self.weight, valid=valid, **self.arguments)


def _soft_skeleton(x: Tensor, iterations: int, valid: Tensor | None) -> Tensor:
    """(B, K, ...) soft centre line in [0, 1], 0 in ignored pixels.

    Algorithm 1 adds (1 - skeleton) * part for each part, which is one minus the product of all 1 - part. Erosion by a
    cross and dilation by a square, the authors' choice; the erosion for an opening is the next step's x.
    """
    rest = torch.ones_like(x)
    for _ in range(iterations + 1):
        eroded = _erode(x, valid)
        rest = rest * (1 - F.relu(x - _dilate(eroded, valid)))
        x = eroded
    skeleton = 1 - rest
    return skeleton if valid is None else skeleton * valid


def _erode(x: Tensor, valid: Tensor | None) -> Tensor:
    """Minimum over a pixel and its neighbours along each axis; ignored pixels are as if beyond the image."""
    x = x if valid is None else x.masked_fill(~valid, 1)
    return _extreme(x, tuple(range(2, x.ndim)), minimum=True)


def _dilate(x: Tensor, valid: Tensor | None) -> Tensor:
    """Maximum over a pixel and its neighbours, diagonal ones too; ignored pixels are as if beyond the image."""
    x = x if valid is None else x.masked_fill(~valid, 0)
    for axis in range(2, x.ndim):
        x = _extreme(x, (axis,), minimum=False)
    return x


def _extreme(x: Tensor, axes: tuple[int, ...], *, minimum: bool) -> Tensor:
    found: Tensor = _Extreme.apply(x, axes, minimum)  # type: ignore[no-untyped-call]
    return found


class _Extreme(torch.autograd.Function):
    """Minimum or maximum over a pixel and its neighbours along each of some axes.

    Pooling visits pixel by pixel, and keeps an int64 index of each; this is one pass over the image a neighbour. The
    gradient is shared by all pixels that reach the extreme, pooling gives it to the first.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, axes: tuple[int, ...], minimum: bool) -> Tensor:
        extreme = x.clone()
        for centre, neighbour in _neighbours(x, axes):
            bounded = extreme[centre].clamp_max_ if minimum else extreme[centre].clamp_min_
            bounded(x[neighbour])
        ctx.save_for_backward(x, extreme)
        ctx.axes = axes
        return extreme

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        x, extreme = ctx.saved_tensors
        here = (x == extreme).to(x.dtype)
        count = here.clone()
        for centre, neighbour in _neighbours(x, ctx.axes):
            count[centre] += (x[neighbour] == extreme[centre]).to(x.dtype)
        share = gradient / count
        found = here.mul_(share)
        for centre, neighbour in _neighbours(x, ctx.axes):
            found[neighbour].addcmul_((x[neighbour] == extreme[centre]).to(x.dtype), share[centre])
        return found, None, None


def _neighbours(x: Tensor, axes: tuple[int, ...]) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Where the pixels are that have a neighbour on one side, and where those neighbours are, for each side."""
    whole = (slice(None),) * x.ndim
    pairs = [
        tuple((*whole[:axis], side, *whole[axis + 1 :]) for side in (slice(1, None), slice(None, -1))) for axis in axes
    ]
    return [(a, b) for after, before in pairs for a, b in ((after, before), (before, after))]
