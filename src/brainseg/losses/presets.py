"""Weighted sums of a loss of pixels and a loss of masks, with defaults for data in which most masks are empty."""

from collections.abc import Sequence

from torch import Tensor

from brainseg.losses.cross_entropy import CrossEntropyLoss
from brainseg.losses.dice import DiceLoss
from brainseg.losses.focal import FocalLoss
from brainseg.losses.weighted_sum import WeightedSum


class CEDiceLoss(WeightedSum):
    r"""Cross-entropy plus Dice, for masks and class indices (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z).

    .. math:: a \, \mathrm{cross\_entropy\_loss} + b \, \mathrm{dice\_loss}

    Dice pools the batch, with a smoothing of one pixel. Per image and with the published 1e-5 (`bce_dice_loss`) a slice
    without tumour costs 1 until next to nothing is predicted, and its gradient is next to 0 until then; where most
    slices are empty this drowns the rest. Pooled, a false positive counts alike in every slice; if all are empty, a
    predicted mass of m pixels costs m / (m + 1).

    Args:
        ce_weight: a.
        dice_weight: b.
        label_smoothing: of the cross-entropy.
        smooth: of Dice, as in `dice_loss`.
        batch: Dice of the batch, as in `dice_loss`; False for Dice of each image.
        gather: with `batch`, as in `dice_loss`.
        weight: (K,), of both terms.
        include_background: False leaves class 0 out of both terms. To leave it out of Dice alone, as nnU-Net does:
            WeightedSum({"ce": CrossEntropyLoss(), "dice": DiceLoss(batch=True, include_background=False)}).
        ignore_index: value of an integer target whose pixels are ignored.
        check_target: look at the target's values, once for both terms, except in compiled programs.

    Shape:
        logits and target: as in `dice_loss`. Returns a scalar, the sum of the means of the two losses.

    Raises:
        ValueError: as the two losses do.

    Example:
        >>> import torch
        >>> CEDiceLoss().parts(torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4))
        (tensor(1.0197), {'ce': tensor(0.6931), 'dice': tensor(0.3265)})
    """

    def __init__(
        self,
        *,
        ce_weight: float = 1.0,
        dice_weight: float = 1.0,
        label_smoothing: float = 0.0,
        smooth: float = 1.0,
        batch: bool = True,
        gather: bool = True,
        weight: Tensor | Sequence[float] | None = None,
        include_background: bool = True,
        ignore_index: int | None = None,
        check_target: bool = True,
    ) -> None:
        ce = CrossEntropyLoss(
            label_smoothing=label_smoothing,
            weight=weight,
            include_background=include_background,
            ignore_index=ignore_index,
            check_target=check_target,
        )
        dice = DiceLoss(
            smooth=smooth,
            batch=batch,
            gather=gather,
            weight=weight,
            include_background=include_background,
            ignore_index=ignore_index,
            check_target=False,  # the other term has looked
        )
        super().__init__({"ce": ce, "dice": dice}, {"ce": ce_weight, "dice": dice_weight})


class DiceFocalLoss(WeightedSum):
    r"""Dice plus focal loss (Kirillov et al. 2023, Segment Anything, arXiv:2304.02643, appendix A), as `CEDiceLoss`.

    .. math:: a \, \mathrm{dice\_loss} + b \, \mathrm{focal\_loss}

    The defaults are their 1 and 20: the mean focal loss of a trained network is far smaller than its Dice. Dice pools
    the batch, with a smoothing of one pixel, for the reason that `CEDiceLoss` gives.

    Args:
        dice_weight: a.
        focal_weight: b.
        gamma: of the focal loss, as in `focal_loss`.
        alpha: of the focal loss, as in `focal_loss`.
        smooth: of Dice, as in `dice_loss`.
        batch: Dice of the batch, as in `dice_loss`; False for Dice of each image.
        gather: with `batch`, as in `dice_loss`.
        weight: (K,), of both terms.
        include_background: False leaves class 0 out of both terms.
        ignore_index: value of an integer target whose pixels are ignored.
        check_target: look at the target's values, once for both terms, except in compiled programs.

    Shape:
        logits and target: as in `dice_loss`. Returns a scalar, the sum of the means of the two losses.

    Raises:
        ValueError: as the two losses do.

    Example:
        >>> import torch
        >>> DiceFocalLoss().parts(torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4))
        (tensor(3.7923), {'dice': tensor(0.3265), 'focal': tensor(0.1733)})
    """

    def __init__(
        self,
        *,
        dice_weight: float = 1.0,
        focal_weight: float = 20.0,
        gamma: float = 2.0,
        alpha: float | None = None,
        smooth: float = 1.0,
        batch: bool = True,
        gather: bool = True,
        weight: Tensor | Sequence[float] | None = None,
        include_background: bool = True,
        ignore_index: int | None = None,
        check_target: bool = True,
    ) -> None:
        dice = DiceLoss(
            smooth=smooth,
            batch=batch,
            gather=gather,
            weight=weight,
            include_background=include_background,
            ignore_index=ignore_index,
            check_target=check_target,
        )
        focal = FocalLoss(
            gamma=gamma,
            alpha=alpha,
            weight=weight,
            include_background=include_background,
            ignore_index=ignore_index,
            check_target=False,  # the other term has looked
        )
        super().__init__({"dice": dice, "focal": focal}, {"dice": dice_weight, "focal": focal_weight})
