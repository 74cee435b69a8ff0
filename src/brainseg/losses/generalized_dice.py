"""Generalised Dice loss."""

import torch
from torch import Tensor

from brainseg.losses.dice import soft_dice
from brainseg.losses.overlap import soft_counts
from brainseg.losses.rules import Loss, Reduction, prepare, reduce


def generalized_dice_loss(
    logits: Tensor,
    target: Tensor,
    *,
    smooth: float = 1.0,
    batch: bool = False,
    gather: bool = True,
    include_background: bool = True,
    ignore_index: int | None = None,
    valid: Tensor | None = None,
    reduction: Reduction = "mean",
    from_probabilities: bool = False,
    check_target: bool = True,
) -> Tensor:
    r"""Generalised Dice loss (Sudre et al. 2017, arXiv:1707.03237, section 2.1), one number an image by default.

    .. math::
        1 - \frac{2 \sum_k w_k \sum p t + s}{\sum_k w_k \left( \sum p + \sum t \right) + s}
        \qquad w_k = \left( \frac{V}{\sum t} \right)^2

    V is the size of the largest class, so that its weight is 1 and s counts its pixels, which are the cheapest: the
    smoothing matters where all is empty, and hides no class. The paper's weights differ by this factor, which leaves
    the ratio as it is. An empty class, whose weight would be infinite, has that of the smallest other: its false
    positives cost what those of the smallest class cost. Sizes count from one pixel, and the weights are constants: no
    gradient of a soft target goes through them. With one class it is the Dice loss. The classes are pooled into one
    number with weights of their own, so there is no `weight`.

    Args:
        logits: (B, K, H, W) or (B, K, D, H, W), any floating dtype; half types are computed in float32.
        target: (B, K, H, W) floating or bool, in [0, 1]; or (B, H, W) class indices (K = 1: the binary mask).
        smooth: s; if all classes are empty the loss falls to 0 as the predicted mass falls below s pixels.
        batch: pool the sums over the images of the batch.
        gather: with `batch`, pool them over the processes of torch.distributed too, as in `dice_loss`.
        include_background: False leaves class 0 out.
        ignore_index: value of an integer target whose pixels are ignored.
        valid: bool, False where pixels are ignored; (H, W), (B, H, W) or (B, K, H, W), each side may be 1. An image
            that is ignored as a whole has the loss 0 and is left out of the mean.
        reduction: "mean", "sum" or "none".
        from_probabilities: `logits` are probabilities.
        check_target: look at the target's values, except in compiled programs.

    Returns:
        a scalar of the computing dtype; with reduction="none" (B,), or a scalar if batch.

    Raises:
        ValueError: shapes that do not fit, values outside [0, 1] or class indices out of range, arguments out of range.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 2, 4, 4)
        >>> target[:, 0], target[:, 1, 0, 0] = 1, 1
        >>> generalized_dice_loss(torch.zeros(1, 2, 4, 4), target, smooth=1e-5)
        tensor(0.8832)
    """
    case = prepare(
        logits,
        target,
        include_background=include_background,
        ignore_index=ignore_index,
        valid=valid,
        from_probabilities=from_probabilities,
        check_target=check_target,
    )
    counts = soft_counts(case, batch=batch, gather=gather)
    weight = _class_weights(counts.target.detach())
    intersection, size = weight * counts.intersection, weight * (counts.predicted + counts.target)
    loss = soft_dice(intersection.sum(-1), size.sum(-1), smooth)
    counted = None if counts.counted is None else counts.counted.any(-1)
    return reduce(loss, counted=counted, reduction=reduction)


class GeneralizedDiceLoss(Loss):
    """Module of `generalized_dice_loss`, which has the formula and the arguments.

    Example:
        >>> import torch
        >>> GeneralizedDiceLoss(batch=True)(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool))
        tensor(0.9412)
    """

    def __init__(
        self,
        *,
        smooth: float = 1.0,
        batch: bool = False,
        gather: bool = True,
        include_background: bool = True,
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
        from_probabilities: bool = False,
        check_target: bool = True,
    ) -> None:
        super().__init__(
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
        return generalized_dice_loss(logits, target, valid=valid, **self.arguments)


def _class_weights(target: Tensor) -> Tensor:
    """(largest / target) ** 2 over the classes, the last axis; where the target is empty that of the smallest other."""
    empty = target == 0
    # A soft mask of less than a pixel is none that all others should vanish beside.
    size = target.clamp(min=1)
    smallest = size.masked_fill(empty, torch.inf).amin(-1, keepdim=True)
    largest = size.amax(-1, keepdim=True)
    return (largest / torch.where(empty, torch.minimum(smallest, largest), size)) ** 2
