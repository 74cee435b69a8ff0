"""Focal loss, of exclusive classes or of masks."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from brainseg.checks import check_between
from brainseg.losses.bce import sigmoid_cross_entropy
from brainseg.losses.rules import Loss, Reduction, prepare, reduce


def focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float = 2.0,
    alpha: float | None = None,
    weight: Tensor | Sequence[float] | None = None,
    include_background: bool = True,
    ignore_index: int | None = None,
    valid: Tensor | None = None,
    reduction: Reduction = "mean",
    check_target: bool = True,
) -> Tensor:
    r"""Focal loss: cross-entropy to which right pixels add little (Lin et al. 2017, arXiv:1708.02002, equation 5).

    .. math:: a_t \left( 1 - e^{-c} \right)^{g} c

    c is the cross-entropy of the pixel (`cross_entropy_loss`: sigmoid for masks, softmax for class indices), so that
    exp(-c) is the paper's p_t, the probability of the truth. It grows with c alone; with a soft target it is therefore
    least where the cross-entropy is, at the target itself. The mean is over pixels, where the paper divides by the
    number of positive ones: images without any are normal here.

    Args:
        logits: (B, K, H, W) or (B, K, D, H, W), any floating dtype; half types are computed in float32.
        target: (B, K, H, W) floating or bool, in [0, 1]; or (B, H, W) class indices (K = 1: the binary mask).
        gamma: g >= 0; 0 is the cross-entropy, 2 the paper's choice.
        alpha: a_t is alpha in the foreground and 1 - alpha in the background (class 0 of class indices), in between for
            soft targets; the paper has 0.25. None: 1 everywhere. The mean does not divide by it.
        weight: (K,); the mean over pixels is sum(w * loss) / sum(w).
        include_background: False gives class 0 the weight 0. With class indices nothing is then asked of its pixels,
            false positives in them included.
        ignore_index: value of an integer target whose pixels are ignored.
        valid: bool, False where pixels are ignored; (H, W), (B, H, W) or, for masks, (B, K, H, W), each side may be 1.
        reduction: "mean", "sum" or "none".
        check_target: look at the target's values, except in compiled programs.

    Returns:
        a scalar of the computing dtype; with reduction="none" one number a pixel, w * loss, 0 in ignored pixels:
        (B, H, W) for class indices, (B, K, H, W) for masks and for one channel, one class fewer without the background.

    Raises:
        ValueError: shapes that do not fit, values outside [0, 1] or class indices out of range, arguments out of range.

    Example:
        >>> import torch
        >>> focal_loss(torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4))
        tensor(0.1733)
    """
    if not 0 <= gamma < math.inf:
        raise ValueError(f"gamma must be a number from 0, got {gamma!r}")
    case = prepare(
        logits,
        target,
        weight=weight,
        include_background=include_background,
        ignore_index=ignore_index,
        valid=valid,
        check_target=check_target,
    )
    if case.multiclass:
        cross_entropy = F.cross_entropy(case.logits, case.target, reduction="none")
    else:
        cross_entropy = sigmoid_cross_entropy(case)
    loss: Tensor = _Focus.apply(cross_entropy, gamma)  # type: ignore[no-untyped-call]
    if alpha is not None:
        check_between("alpha", alpha, 0, 1)
        foreground = (case.target > 0).to(loss.dtype) if case.multiclass else case.target
        loss = loss * ((2 * alpha - 1) * foreground + (1 - alpha))
    return reduce(loss, weight=case.pixel_weight(), reduction=reduction)


class FocalLoss(Loss):
    """Module of `focal_loss`, which has the formula and the arguments.

    Example:
        >>> import torch
        >>> FocalLoss(alpha=0.25)(torch.zeros(2, 3, 4, 4), torch.ones(2, 4, 4, dtype=torch.int64))
        tensor(0.1221)
    """

    def __init__(
        self,
        *,
        gamma: float = 2.0,
        alpha: float | None = None,
        weight: Tensor | Sequence[float] | None = None,
        include_background: bool = True,
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
        check_target: bool = True,
    ) -> None:
        super().__init__(
            weight=weight,
            gamma=gamma,
            alpha=alpha,
            include_background=include_background,
            ignore_index=ignore_index,
            reduction=reduction,
            check_target=check_target,
        )

    def forward(self, logits: Tensor, target: Tensor, *, valid: Tensor | None = None) -> Tensor:
        return focal_loss(logits, target, weight=self.weight, valid=valid, **self.arguments)


class _Focus(torch.autograd.Function):
    """(1 - exp(-c)) ** gamma * c with its slope at hand: half of autograd's passes, and two tensors kept, not four."""

    @staticmethod
    def forward(ctx: Any, c: Tensor, gamma: float) -> Tensor:
        error = _error(c)
        ctx.save_for_backward(c, _slope(error, c, gamma) if ctx.needs_input_grad[0] else None)
        ctx.gamma = gamma
        return error.pow_(gamma).mul_(c)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        c, slope = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is asked for
            slope = _slope(_error(c), c, ctx.gamma)
        return gradient * slope, None


def _error(c: Tensor) -> Tensor:
    """1 - exp(-c) and a little, so that powers and their gradients are finite where c is 0."""
    return torch.finfo(c.dtype).tiny - torch.expm1(-c)


def _slope(error: Tensor, c: Tensor, gamma: float) -> Tensor:
    return error ** (gamma - 1) * torch.addcmul(error, 1 - error, c, value=gamma)
