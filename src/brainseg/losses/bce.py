"""Binary cross-entropy."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from brainseg.checks import check_between
from brainseg.losses.rules import (
    Case,
    Loss,
    Reduction,
    check_masks,
    per_class,
    prepare,
    reduce,
    to_weights,
)


def bce_loss(
    logits: Tensor,
    target: Tensor,
    *,
    label_smoothing: float = 0.0,
    pos_weight: Tensor | Sequence[float] | None = None,
    weight: Tensor | Sequence[float] | None = None,
    include_background: bool = True,
    ignore_index: int | None = None,
    valid: Tensor | None = None,
    reduction: Reduction = "mean",
    check_target: bool = True,
) -> Tensor:
    r"""Binary cross-entropy of each pixel (Bishop 2006, Pattern Recognition and Machine Learning, equation 4.90).

    .. math:: -\left( v t' \log p + (1 - t') \log(1 - p) \right), \quad t' = (1 - e) t + \frac{e}{2}

    p is the sigmoid of the logits. Smoothing is that of Szegedy et al. 2016, arXiv:1512.00567, section 7, over the two
    classes "in the mask" and "not". Class indices are for `cross_entropy_loss`.

    Args:
        logits: (B, K, H, W) or (B, K, D, H, W), any floating dtype; half types are computed in float32.
        target: (B, K, H, W) floating or bool, in [0, 1]; with K = 1 also (B, H, W) integer or bool.
        label_smoothing: e in [0, 1]; with e > 0 the loss is not 0 at the perfect mask.
        pos_weight: v, (K,); above 1 a missed pixel costs more than a false one. The mean does not divide by it.
        weight: (K,); the mean over pixels is sum(w * loss) / sum(w).
        include_background: False leaves class 0 out of the mean.
        ignore_index: value of an integer target whose pixels are ignored.
        valid: bool, False where pixels are ignored; (H, W), (B, H, W) or (B, K, H, W), each side may be 1.
        reduction: "mean", "sum" or "none".
        check_target: look at the target's values, except in compiled programs.

    Returns:
        a scalar of the computing dtype; with reduction="none" (B, K, H, W): w * loss, 0 in ignored pixels, and one
        class fewer without the background.

    Raises:
        ValueError: shapes that do not fit, target values outside [0, 1], class indices for K >= 2, arguments out of
            range.

    Example:
        >>> import torch
        >>> bce_loss(torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4), pos_weight=[3.0])
        tensor(2.0794)
    """
    case = prepare(
        logits,
        target,
        weight=weight,
        include_background=include_background,
        ignore_index=ignore_index,
        valid=valid,
        check_target=check_target,
    )
    check_masks(case)
    if pos_weight is not None:
        # The last ones: without the background the case has one class fewer.
        pos_weight = per_class("pos_weight", pos_weight, logits)[-case.logits.shape[1] :]
    loss = sigmoid_cross_entropy(case, label_smoothing=label_smoothing, pos_weight=pos_weight)
    return reduce(loss, weight=case.pixel_weight(), reduction=reduction)


class BCELoss(Loss):
    """Module of `bce_loss`, which has the formula and the arguments.

    Example:
        >>> import torch
        >>> BCELoss(label_smoothing=0.2)(torch.full((2, 1, 4, 4), 9.0), torch.ones(2, 4, 4, dtype=torch.bool))
        tensor(0.9001)
    """

    pos_weight: Tensor | None

    def __init__(
        self,
        *,
        label_smoothing: float = 0.0,
        pos_weight: Tensor | Sequence[float] | None = None,
        weight: Tensor | Sequence[float] | None = None,
        include_background: bool = True,
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
        check_target: bool = True,
    ) -> None:
        super().__init__(
            weight=weight,
            label_smoothing=label_smoothing,
            include_background=include_background,
            ignore_index=ignore_index,
            reduction=reduction,
            check_target=check_target,
        )
        self.register_buffer("pos_weight", to_weights("pos_weight", pos_weight), persistent=False)

    def forward(self, logits: Tensor, target: Tensor, *, valid: Tensor | None = None) -> Tensor:
        return bce_loss(logits, target, weight=self.weight, pos_weight=self.pos_weight, valid=valid, **self.arguments)

    def extra_repr(self) -> str:
        pos_weight = "" if self.pos_weight is None else f", pos_weight={self.pos_weight.tolist()}"
        return super().extra_repr() + pos_weight


def sigmoid_cross_entropy(case: Case, *, label_smoothing: float = 0.0, pos_weight: Tensor | None = None) -> Tensor:
    """(B, K, ...) binary cross-entropy of each pixel of masks, without weights of classes; `pos_weight` is (K,)."""
    check_between("label_smoothing", label_smoothing, 0, 1)
    target = case.target
    if label_smoothing:
        target = (1 - label_smoothing) * target + label_smoothing / 2
    if pos_weight is not None:
        pos_weight = pos_weight.view(-1, *[1] * (case.logits.ndim - 2))
    return F.binary_cross_entropy_with_logits(case.logits, target, pos_weight=pos_weight, reduction="none")
