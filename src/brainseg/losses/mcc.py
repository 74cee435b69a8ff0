"""Loss of Matthews' correlation coefficient."""

from collections.abc import Sequence

from torch import Tensor

from brainseg.losses.overlap import gather_sums, mask_axes
from brainseg.losses.rules import Case, Loss, Reduction, check_smooth, divide, prepare, reduce


def mcc_loss(
    logits: Tensor,
    target: Tensor,
    *,
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
    r"""One minus Matthews' correlation (Abhishek and Hamarneh 2021, arXiv:2010.13454), per image by default.

    .. math::
        1 - \frac{a d - b c}{\sqrt{(a + b) (a + c) (d + b) (d + c)}}
        \qquad a = \sum p t + s, \; b = \sum p (1 - t), \; c = \sum (1 - p) t, \; d = \sum (1 - p) (1 - t) + s

    s pixels that are right are added to each side, hits and true negatives: on an empty or a full target the
    correlation itself is 0/0, and without them nothing would be learned there. With them, n pixels and a false mass m,
    an empty target costs 1 - sqrt(s (n - m + s) / ((m + s) (n + s))), near 1 - sqrt(s / (m + s)), and a full target the
    same for a missed mass m. The loss lies in [0, 2]: no correlation costs 1.

    Args:
        logits: (B, K, H, W) or (B, K, D, H, W), any floating dtype; half types are computed in float32.
        target: (B, K, H, W) floating or bool, in [0, 1]; or (B, H, W) class indices (K = 1: the binary mask).
        smooth: s; with an empty target the loss falls to 0 as the predicted mass falls below s pixels.
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
        >>> target = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]]])
        >>> logits = torch.tensor([[[[9.0, -9.0, -9.0, -9.0]]]])
        >>> mcc_loss(logits, target, smooth=1e-5)
        tensor(0.4228)
    """
    check_smooth(smooth)
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
    loss, counted = _soft_mcc(case, smooth, batch=batch, gather=gather)
    return reduce(loss, weight=case.weight, counted=counted, reduction=reduction)


class MCCLoss(Loss):
    """Module of `mcc_loss`, which has the formula and the arguments.

    Example:
        >>> import torch
        >>> MCCLoss(batch=True)(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool))
        tensor(0.8259)
    """

    def __init__(
        self,
        *,
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
        return mcc_loss(logits, target, weight=self.weight, valid=valid, **self.arguments)


def _soft_mcc(case: Case, smooth: float, *, batch: bool, gather: bool) -> tuple[Tensor, Tensor | None]:
    p, t, axes = case.probabilities(), case.masks(), mask_axes(case, batch=batch)
    background = 1 - t if case.valid is None else (1 - t) * case.valid
    # Hits and false positives each from a sum of its own: as differences of sums, the gradient of misses on a target
    # that is nearly full is lost in float32's rounding.
    own = ((p * t).sum(axes), (p * background).sum(axes), t.sum(axes), background.sum(axes))
    sums, counted = gather_sums(own, case.counted(axes), gather=batch and gather)
    # Rounding, or a target beyond [0, 1], must not bring the root of a number below 0.
    hits, false, tumour, rest = (x.clamp(min=0) for x in sums)
    missed, negative = (tumour - hits).clamp(min=0), (rest - false).clamp(min=0)
    # Fractions of the pixels: the product of four counts overflows.
    a, b, c, d = (divide(x, tumour + rest) for x in (hits + smooth, false, missed, negative + smooth))
    return 1 - (a * d - b * c) / ((a + b) * (a + c) * (d + b) * (d + c)).sqrt(), counted
