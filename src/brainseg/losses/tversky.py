"""Tversky loss, and its focal form."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from brainseg.losses.overlap import Counts, soft_counts
from brainseg.losses.rules import Loss, Reduction, check_smooth, prepare, reduce


def tversky_loss(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
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
    r"""Tversky loss (Salehi et al. 2017, arXiv:1706.05721), per image by default.

    .. math:: 1 - \frac{\sum p t + s}{\sum p t + \alpha \sum p (1 - t) + \beta \sum (1 - p) t + s}

    The defaults, those of the paper's best results, cost a missed pixel more than a false one. With alpha = beta = 1/2
    it is the Dice loss of twice the smoothing, with alpha = beta = 1 the Jaccard loss.

    Args:
        logits: (B, K, H, W) or (B, K, D, H, W), any floating dtype; half types are computed in float32.
        target: (B, K, H, W) floating or bool, in [0, 1]; or (B, H, W) class indices (K = 1: the binary mask).
        alpha: weight of false positives, above 0.
        beta: weight of false negatives (misses), above 0.
        smooth: s; with an empty target the loss falls to 0 as the predicted mass falls below s / alpha pixels.
        batch: pool the sums over the images of the batch.
        gather: with `batch`, pool them over the processes of torch.distributed too, as in `dice_loss`.
        weight: (K,); the mean over classes is sum(w * loss) / sum(w).
        include_background: False leaves class 0 out of the mean.
        ignore_index: value of an integer target whose pixels are ignored.
        valid: bool, False where pixels are ignored; (H, W), (B, H, W) or (B, K, H, W), each side may be 1. A mask
            that is ignored as a whole has the loss 0 and is left out of the mean.
        reduction: "mean", "sum" or "none".
        from_probabilities: `logits` are probabilities.
        check_target: look at the target's values, except in compiled programs.

    Returns:
        a scalar of the computing dtype; with reduction="none" (B, K), or (K,) if batch: w * loss, and one class fewer
        without the background.

    Raises:
        ValueError: shapes that do not fit, values outside [0, 1] or class indices out of range, arguments out of range.

    Example:
        >>> import torch
        >>> logits, target = torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
        >>> tversky_loss(logits, target, smooth=1e-5)
        tensor(0.4118)
    """
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
    counts = soft_counts(case, batch=batch, gather=gather)
    loss = _soft_tversky(counts, alpha, beta, smooth)
    return reduce(loss, weight=case.weight, counted=counts.counted, reduction=reduction)


class TverskyLoss(Loss):
    """Module of `tversky_loss`, which has the formula and the arguments.

    Example:
        >>> import torch
        >>> TverskyLoss(batch=True)(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool))
        tensor(0.8276)
    """

    def __init__(
        self,
        *,
        alpha: float = 0.3,
        beta: float = 0.7,
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
            alpha=alpha,
            beta=beta,
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
        return tversky_loss(logits, target, weight=self.weight, valid=valid, **self.arguments)


def focal_tversky_loss(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 4 / 3,
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
    r"""Focal Tversky loss (Abraham and Khan 2019, arXiv:1810.07842), per image by default.

    .. math:: \left( 1 - \frac{\sum p t + s}{\sum p t + \alpha \sum p (1 - t) + \beta \sum (1 - p) t + s}
        \right)^{1 / \gamma}

    The exponent is 1 / gamma, as the paper writes it: above 1, gamma gives masks that are nearly right a steeper
    slope. Code that raises to the power of its gamma has 0.75 where the paper has 4/3. The paper calls the weight of
    misses alpha; here it is beta, as in `tversky_loss`. Each mask has its own power, then the mean is taken.

    Args:
        logits: (B, K, H, W) or (B, K, D, H, W), any floating dtype; half types are computed in float32.
        target: (B, K, H, W) floating or bool, in [0, 1]; or (B, H, W) class indices (K = 1: the binary mask).
        alpha: weight of false positives, above 0.
        beta: weight of false negatives (misses), above 0.
        gamma: above 0; the paper looks at 1 to 3, and 1 is `tversky_loss`.
        smooth: s, as in `tversky_loss`.
        batch: pool the sums over the images of the batch.
        gather: with `batch`, pool them over the processes of torch.distributed too, as in `dice_loss`.
        weight: (K,); the mean over classes is sum(w * loss) / sum(w).
        include_background: False leaves class 0 out of the mean.
        ignore_index: value of an integer target whose pixels are ignored.
        valid: bool, False where pixels are ignored; (H, W), (B, H, W) or (B, K, H, W), each side may be 1. A mask
            that is ignored as a whole has the loss 0 and is left out of the mean.
        reduction: "mean", "sum" or "none".
        from_probabilities: `logits` are probabilities.
        check_target: look at the target's values, except in compiled programs.

    Returns:
        a scalar of the computing dtype; with reduction="none" (B, K), or (K,) if batch: w * loss, and one class fewer
        without the background.

    Raises:
        ValueError: shapes that do not fit, values outside [0, 1] or class indices out of range, arguments out of range.

    Example:
        >>> import torch
        >>> logits, target = torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
        >>> focal_tversky_loss(logits, target, smooth=1e-5)
        tensor(0.5140)
    """
    _check_positive(gamma=gamma)
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
    counts = soft_counts(case, batch=batch, gather=gather)
    loss = _power(_soft_tversky(counts, alpha, beta, smooth), 1 / gamma)
    return reduce(loss, weight=case.weight, counted=counts.counted, reduction=reduction)


class FocalTverskyLoss(Loss):
    """Module of `focal_tversky_loss`, which has the formula and the arguments.

    Example:
        >>> import torch
        >>> FocalTverskyLoss(batch=True)(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool))
        tensor(0.8677)
    """

    def __init__(
        self,
        *,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 4 / 3,
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
            alpha=alpha,
            beta=beta,
            gamma=gamma,
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
        return focal_tversky_loss(logits, target, weight=self.weight, valid=valid, **self.arguments)


def _soft_tversky(counts: Counts, alpha: float, beta: float, smooth: float) -> Tensor:
    check_smooth(smooth)
    _check_positive(alpha=alpha, beta=beta)
    hits = counts.intersection
    mistakes = alpha * (counts.predicted - hits) + beta * (counts.target - hits)
    return 1 - (hits + smooth) / (hits + mistakes + smooth)


def _power(x: Tensor, exponent: float) -> Tensor:
    """The power of x; 0, with the gradient 0, where x is 0 or by rounding below: its slope may be infinite there."""
    some = x > 0
    return torch.where(some, torch.where(some, x, 1) ** exponent, 0)


def _check_positive(**arguments: float) -> None:
    for name, value in arguments.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be a positive number, got {value!r}")
