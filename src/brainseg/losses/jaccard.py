"""Soft Jaccard loss."""

from collections.abc import Sequence

from torch import Tensor

from brainseg.losses.overlap import soft_counts
from brainseg.losses.rules import Loss, Reduction, check_smooth, prepare, reduce


def jaccard_loss(
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
    r"""Soft Jaccard loss: one minus intersection over union (Rahman and Wang 2016), per image by default.

    .. math:: 1 - \frac{\sum p t + s}{\sum p + \sum t - \sum p t + s}

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
        >>> logits, target = torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
        >>> jaccard_loss(logits, target, smooth=1e-5)
        tensor(0.5000)
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
    counts = soft_counts(case, batch=batch, gather=gather)
    union = counts.predicted + counts.target - counts.intersection
    loss = 1 - (counts.intersection + smooth) / (union + smooth)
    return reduce(loss, weight=case.weight, counted=counts.counted, reduction=reduction)


class JaccardLoss(Loss):
    """Module of `jaccard_loss`, which has the formula and the arguments.

    Example:
        >>> import torch
        >>> JaccardLoss(batch=True)(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool))
        tensor(0.9412)
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
        return jaccard_loss(logits, target, weight=self.weight, valid=valid, **self.arguments)
