"""Cross-entropy and Dice of the published experiments."""

import torch
from torch import Tensor

from brainseg.losses.bce import sigmoid_cross_entropy
from brainseg.losses.dice import soft_dice
from brainseg.losses.overlap import gather_sums, soft_counts
from brainseg.losses.rules import Case, Loss, Reduction, check_masks, divide, prepare, reduce


def bce_dice_loss(
    logits: Tensor,
    target: Tensor,
    *,
    bce_weight: float = 0.5,
    dice_weight: float = 1.0,
    smooth: float = 1e-5,
    batch: bool = False,
    gather: bool = True,
    include_background: bool = True,
    ignore_index: int | None = None,
    valid: Tensor | None = None,
    reduction: Reduction = "mean",
    check_target: bool = True,
) -> Tensor:
    r"""Binary cross-entropy plus soft Dice of all classes of an image pooled (UNeXt, arXiv:2203.04967).

    .. math::
        \frac{a}{N} \sum -\left( t \log p + (1 - t) \log(1 - p) \right)
        + b \left( 1 - \frac{2 \sum p t + s}{\sum p + \sum t + s} \right)

    p is the sigmoid of the logits; the sums run over the N pixels of all classes of an image. The defaults are those of
    the authors' code. With their small s an image without tumour costs b until the sum of its probabilities is itself
    near s, which is why published curves stay near 0.7.

    Args:
        logits: (B, K, H, W) or (B, K, D, H, W), any floating dtype; half types are computed in float32.
        target: (B, K, H, W) floating or bool, in [0, 1]; with K = 1 also (B, H, W) integer or bool.
        bce_weight: a.
        dice_weight: b.
        smooth: s.
        batch: pool the sums over the images of the batch too.
        gather: with `batch`, pool them over the processes of torch.distributed too, wherever gradients are enabled:
            DDP's mean of the gradients is then that of one process with all images, and all processes must call the
            loss equally often. Under no_grad, as in validation, each process has its own loss.
        include_background: False leaves class 0 out.
        ignore_index: value of an integer target whose pixels are ignored.
        valid: bool, False where pixels are ignored; (H, W), (B, H, W) or (B, K, H, W), each side may be 1. An image
            that is ignored as a whole has the loss 0 and is left out of the mean.
        reduction: "mean", "sum" or "none".
        check_target: look at the target's values, except in compiled programs.

    Returns:
        a scalar of the computing dtype; with reduction="none" (B,), or a scalar if batch.

    Raises:
        ValueError: shapes that do not fit, target values outside [0, 1], class indices for K >= 2, arguments out of
            range.

    Example:
        >>> import torch
        >>> bce_dice_loss(torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4), reduction="none")
        tensor([0.6799, 0.6799])
    """
    bce, dice = _terms(
        logits,
        target,
        smooth=smooth,
        batch=batch,
        gather=gather,
        include_background=include_background,
        ignore_index=ignore_index,
        valid=valid,
        reduction=reduction,
        check_target=check_target,
    )
    return bce_weight * bce + dice_weight * dice


class BCEDiceLoss(Loss):
    """Module of `bce_dice_loss`, which has the formula and the arguments.

    Example:
        >>> import torch
        >>> total, parts = BCEDiceLoss().parts(torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4))
        >>> total, parts
        (tensor(0.6799), {'bce': tensor(0.6931), 'dice': tensor(0.3333)})
    """

    def __init__(
        self,
        *,
        bce_weight: float = 0.5,
        dice_weight: float = 1.0,
        smooth: float = 1e-5,
        batch: bool = False,
        gather: bool = True,
        include_background: bool = True,
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
        check_target: bool = True,
    ) -> None:
        super().__init__(
            smooth=smooth,
            batch=batch,
            gather=gather,
            include_background=include_background,
            ignore_index=ignore_index,
            reduction=reduction,
            check_target=check_target,
        )
        self.bce_weight = bce_weight
        self.dice_weight = dice_weight

    def forward(self, logits: Tensor, target: Tensor, *, valid: Tensor | None = None) -> Tensor:
        return self.parts(logits, target, valid=valid)[0]

    def parts(self, logits: Tensor, target: Tensor, *, valid: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its terms "bce" and "dice" before their weights, detached; all in one pass."""
        bce, dice = _terms(logits, target, valid=valid, **self.arguments)
        return self.bce_weight * bce + self.dice_weight * dice, {"bce": bce.detach(), "dice": dice.detach()}

    def extra_repr(self) -> str:
        return f"bce_weight={self.bce_weight}, dice_weight={self.dice_weight}, {super().extra_repr()}"


def _terms(
    logits: Tensor,
    target: Tensor,
    *,
    smooth: float,
    batch: bool,
    gather: bool,
    include_background: bool,
    ignore_index: int | None,
    valid: Tensor | None,
    reduction: Reduction,
    check_target: bool,
) -> tuple[Tensor, Tensor]:
    case = prepare(
        logits,
        target,
        include_background=include_background,
        ignore_index=ignore_index,
        valid=valid,
        check_target=check_target,
    )
    check_masks(case)
    bce = _mean_bce(case, batch=batch, gather=gather)
    counts = soft_counts(case, batch=batch, gather=gather)
    # All classes of an image pooled.
    dice = soft_dice(counts.intersection.sum(-1), (counts.predicted + counts.target).sum(-1), smooth)
    counted = None if counts.counted is None else counts.counted.any(-1)
    return reduce(bce, counted=counted, reduction=reduction), reduce(dice, counted=counted, reduction=reduction)


def _mean_bce(case: Case, *, batch: bool, gather: bool) -> Tensor:
    axes = tuple(range(0 if batch else 1, case.logits.ndim))
    bce = sigmoid_cross_entropy(case)
    if case.valid is None:
        total = bce.sum(axes)
        pixels = torch.full_like(total, bce.shape[axes[0] :].numel())
    else:
        total, pixels = (bce * case.valid).sum(axes), case.valid.expand_as(bce).sum(axes, dtype=bce.dtype)
    (total, pixels), _ = gather_sums((total, pixels), None, gather=batch and gather)
    return divide(total, pixels)
