"""Overlap of masks, case by case: counts of pixels, and the scores that follow from them."""

import math

import torch
from torch import Tensor

from brainseg.checks import check_choice
from brainseg.metrics.functional.surface import Spacing, check_spacing
from brainseg.metrics.rules import Empty, Masks, fill_empty, left_out, to_masks


def confusion_counts(
    prediction: Tensor,
    target: Tensor,
    *,
    num_classes: int | None = None,
    threshold: float = 0.5,
    from_probabilities: bool = False,
    ignore_index: int | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """True positive, false positive, false negative and true negative pixels of each image and class.

    Args:
        prediction: logits (B, K, H, W), masks of bool or integers, or class indices (B, H, W).
        target: masks (B, K, H, W) or class indices (B, H, W), see `brainseg.metrics.rules.to_masks`.
        num_classes: K; None takes it from the class axis, and 1 where there is none.
        threshold: a probability; foreground is above it.
        from_probabilities: floating predictions are probabilities, not logits.
        ignore_index: value of an integer target whose pixels are ignored, whatever is predicted there: they are none of
            the four.
        valid: bool, False where pixels are ignored: (H, W), (B, H, W), or (B, K, H, W) if the target has masks; each
            side may be 1.

    Returns:
        int64 (B, K, 4), exact, so that the counts of a patient's slices may be added.

    Raises:
        ValueError: shapes or values that are no masks of K classes.
    """
    masks = to_masks(
        prediction,
        target,
        num_classes=num_classes,
        threshold=threshold,
        from_probabilities=from_probabilities,
        ignore_index=ignore_index,
        valid=valid,
    )
    return counts_of_masks(masks)


def counts_of_masks(masks: Masks) -> Tensor:
    """`confusion_counts` of masks."""
    predicted, true = masks.predicted.flatten(2), masks.true.flatten(2)
    # In 32 bits, in half the time of 64: no image has so many pixels, only many images do.
    both, positive, actual = (mask.sum(-1, dtype=torch.int32) for mask in (predicted & true, predicted, true))
    return torch.stack([both, positive - both, actual - both, masks.sizes() - positive - actual + both], -1).long()


def dice_score(
    prediction: Tensor,
    target: Tensor,
    *,
    num_classes: int | None = None,
    threshold: float = 0.5,
    from_probabilities: bool = False,
    ignore_index: int | None = None,
    valid: Tensor | None = None,
    empty: Empty = "exclude",
) -> Tensor:
    r"""Dice score (Dice 1945, doi:10.2307/1932409) of each image and class.

    .. math:: \frac{2 TP}{2 TP + FP + FN}

    Args:
        prediction: logits (B, K, H, W), masks of bool or integers, or class indices (B, H, W).
        target: masks (B, K, H, W) or class indices (B, H, W).
        num_classes: K; None takes it from the class axis, and 1 where there is none.
        threshold: a probability; foreground is above it.
        from_probabilities: floating predictions are probabilities, not logits.
        ignore_index: value of an integer target whose pixels are ignored, whatever is predicted there.
        valid: bool, False where pixels are ignored: (H, W), (B, H, W), or (B, K, H, W) if the target has masks; each
            side may be 1.
        empty: the value where target and prediction are both empty: NaN ("exclude"), 1 ("one") or 0 ("zero").

    Returns:
        float32 (B, K); NaN where every pixel is ignored.

    Raises:
        ValueError: shapes or values that are no masks of K classes, or an unknown `empty`.
    """
    counts = confusion_counts(
        prediction,
        target,
        num_classes=num_classes,
        threshold=threshold,
        from_probabilities=from_probabilities,
        ignore_index=ignore_index,
        valid=valid,
    )
    return dice_of_counts(counts, empty=empty).float()


def iou(
    prediction: Tensor,
    target: Tensor,
    *,
    num_classes: int | None = None,
    threshold: float = 0.5,
    from_probabilities: bool = False,
    ignore_index: int | None = None,
    valid: Tensor | None = None,
    empty: Empty = "exclude",
) -> Tensor:
    r"""Intersection over union (Jaccard 1912, doi:10.1111/j.1469-8137.1912.tb05611.x) of each image and class.

    .. math:: \frac{TP}{TP + FP + FN}

    For arguments, errors and the shape see `dice_score`.
    """
    counts = confusion_counts(
        prediction,
        target,
        num_classes=num_classes,
        threshold=threshold,
        from_probabilities=from_probabilities,
        ignore_index=ignore_index,
        valid=valid,
    )
    return iou_of_counts(counts, empty=empty).float()


def f_beta(
    prediction: Tensor,
    target: Tensor,
    *,
    beta: float = 1.0,
    num_classes: int | None = None,
    threshold: float = 0.5,
    from_probabilities: bool = False,
    ignore_index: int | None = None,
    valid: Tensor | None = None,
    empty: Empty = "exclude",
) -> Tensor:
    r"""F-beta score (van Rijsbergen 1979, Information Retrieval, chapter 7) of each image and class.

    .. math:: \frac{(1 + \beta^2) TP}{(1 + \beta^2) TP + \beta^2 FN + FP}

    `beta`, a positive number, is how many times recall weighs as much as precision; with 1 this is `dice_score`, which
    see for the other arguments, errors and the shape.
    """
    counts = confusion_counts(
        prediction,
        target,
        num_classes=num_classes,
        threshold=threshold,
        from_probabilities=from_probabilities,
        ignore_index=ignore_index,
        valid=valid,
    )
    return f_beta_of_counts(counts, beta=beta, empty=empty).float()


def precision(
    prediction: Tensor,
    target: Tensor,
    *,
    num_classes: int | None = None,
    threshold: float = 0.5,
    from_probabilities: bool = False,
    ignore_index: int | None = None,
    valid: Tensor | None = None,
    empty: Empty = "exclude",
) -> Tensor:
    r"""Precision, or positive predictive value, of each image and class.

    .. math:: \frac{TP}{TP + FP}

    A missed target, of which nothing is predicted, gets 0. For arguments, errors and the shape see `dice_score`.
    """
    counts = confusion_counts(
        prediction,
        target,
        num_classes=num_classes,
        threshold=threshold,
        from_probabilities=from_probabilities,
        ignore_index=ignore_index,
        valid=valid,
    )
    return precision_of_counts(counts, empty=empty).float()


def recall(
    prediction: Tensor,
    target: Tensor,
    *,
    num_classes: int | None = None,
    threshold: float = 0.5,
    from_probabilities: bool = False,
    ignore_index: int | None = None,
    valid: Tensor | None = None,
    empty: Empty = "exclude",
) -> Tensor:
    r"""Recall, or sensitivity, of each image and class.

    .. math:: \frac{TP}{TP + FN}

    A false alarm, where the target is empty, gets 0. For arguments, errors and the shape see `dice_score`.
    """
    counts = confusion_counts(
        prediction,
        target,
        num_classes=num_classes,
        threshold=threshold,
        from_probabilities=from_probabilities,
        ignore_index=ignore_index,
        valid=valid,
    )
    return recall_of_counts(counts, empty=empty).float()


def specificity(
    prediction: Tensor,
    target: Tensor,
    *,
    num_classes: int | None = None,
    threshold: float = 0.5,
    from_probabilities: bool = False,
    ignore_index: int | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    r"""Specificity of each image and class: the share of the background that is left alone.

    .. math:: \frac{TN}{TN + FP}

    It has no empty-mask rule, since images without foreground have one too: two empty masks get 1. A target without
    background has none, NaN. For arguments, errors and the shape see `dice_score`.
    """
    counts = confusion_counts(
        prediction,
        target,
        num_classes=num_classes,
        threshold=threshold,
        from_probabilities=from_probabilities,
        ignore_index=ignore_index,
        valid=valid,
    )
    return specificity_of_counts(counts).float()


def volume_difference(
    prediction: Tensor,
    target: Tensor,
    *,
    spacing: Spacing,
    relative: bool = False,
    num_classes: int | None = None,
    threshold: float = 0.5,
    from_probabilities: bool = False,
    ignore_index: int | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    r"""How far the predicted volume is from the true one, for each image and class, in ml or as a fraction.

    .. math:: |V_P - V_T| = |FP - FN| \cdot v \qquad \frac{|V_P - V_T|}{V_T} = \frac{|FP - FN|}{TP + FN}

    The volume v of a pixel is the product of `spacing`, mm along (slice, row, column) or one number for all three, and
    1000 cubic mm are 1 ml. With ``relative=True`` (Heimann et al. 2009, doi:10.1109/TMI.2009.2013851, who keep the
    sign) the spacing cancels, and an empty target has no value, NaN. Otherwise two empty masks get 0.

    The volume says nothing of the place: a false tumour makes up for a missed one. For the other arguments, errors and
    the shape see `dice_score`.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 1, 20, 20, dtype=torch.bool)
        >>> target[..., 5:15, 5:15] = True
        >>> volume_difference(torch.zeros_like(target), target, spacing=(5.0, 1.0, 1.0))
        tensor([[0.5000]])
    """
    counts = confusion_counts(
        prediction,
        target,
        num_classes=num_classes,
        threshold=threshold,
        from_probabilities=from_probabilities,
        ignore_index=ignore_index,
        valid=valid,
    )
    return volume_difference_of_counts(counts, spacing=spacing, relative=relative).float()


def dice_of_counts(counts: Tensor, *, empty: Empty = "exclude") -> Tensor:
    """`dice_score` of counts (..., 4), which may be those of several images added: float64 (...)."""
    return _overlap(counts, false=0.5, missed=0.5, empty=empty)


def iou_of_counts(counts: Tensor, *, empty: Empty = "exclude") -> Tensor:
    """`iou` of counts (..., 4), which may be those of several images added: float64 (...)."""
    return _overlap(counts, false=1, missed=1, empty=empty)


def f_beta_of_counts(counts: Tensor, *, beta: float = 1.0, empty: Empty = "exclude") -> Tensor:
    """`f_beta` of counts (..., 4), which may be those of several images added: float64 (...)."""
    false = 1 / (1 + check_beta(beta) * beta)
    return _overlap(counts, false=false, missed=1 - false, empty=empty)


def precision_of_counts(counts: Tensor, *, empty: Empty = "exclude") -> Tensor:
    """`precision` of counts (..., 4), which may be those of several images added: float64 (...)."""
    return _overlap(counts, false=1, missed=0, empty=empty)


def recall_of_counts(counts: Tensor, *, empty: Empty = "exclude") -> Tensor:
    """`recall` of counts (..., 4), which may be those of several images added: float64 (...)."""
    return _overlap(counts, false=0, missed=1, empty=empty)


def specificity_of_counts(counts: Tensor) -> Tensor:
    """`specificity` of counts (..., 4), which may be those of several images added: float64 (...)."""
    _, excess, _, neither = counts.double().unbind(-1)
    return neither / (neither + excess)  # without background 0 / 0, which is NaN


def volume_difference_of_counts(counts: Tensor, *, spacing: Spacing, relative: bool = False) -> Tensor:
    """`volume_difference` of counts (..., 4), which may be those of several images added: float64 (...)."""
    voxel = math.prod(check_spacing(spacing, 3)) / 1000
    both, excess, lacking, _ = counts.double().unbind(-1)
    difference, true = (excess - lacking).abs(), both + lacking
    if relative:
        return torch.where(true > 0, difference / true, math.nan)
    return left_out(difference * voxel, counts.sum(-1))


def published_batch_iou(counts: Tensor) -> Tensor:
    """IoU with 1e-5 in numerator and denominator, as in UNeXt-pytorch: float64 (...) of a batch's counts (..., 4)."""
    both, excess, lacking, _ = counts.double().unbind(-1)
    return left_out((both + 1e-5) / (both + excess + lacking + 1e-5), counts.sum(-1))


def check_beta(beta: float) -> float:
    """The weight of recall; ValueError unless it is a positive number."""
    if not 0 < beta < math.inf:
        raise ValueError(
            f"beta must be a positive number, got {beta!r}; the scores of 0 and infinity are precision and recall"
        )
    return beta


def _overlap(counts: Tensor, *, false: float, missed: float, empty: Empty) -> Tensor:
    """True positives over themselves and so much of the false positives and the false negatives."""
    check_choice("empty", empty, Empty)
    both, excess, lacking, _ = counts.double().unbind(-1)
    values = both / (both + false * excess + missed * lacking)
    return fill_empty(values, both + excess > 0, both + lacking > 0, empty=empty, worst=0.0, sizes=counts.sum(-1))
