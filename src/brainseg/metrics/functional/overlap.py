"""Overlap of masks, case by case: counts of pixels, and the scores that follow from them."""

import torch
from torch import Tensor

from brainseg.metrics.rules import Empty, check_choice, check_threshold, fill_empty, to_masks


def confusion_counts(
    prediction: Tensor,
    target: Tensor,
    *,
    num_classes: int | None = None,
    threshold: float = 0.5,
    from_probabilities: bool = False,
) -> Tensor:
    """True positive, false positive, false negative and true negative pixels of each image and class.

    Args:
        prediction: logits (B, K, H, W), masks of bool or integers, or class indices (B, H, W).
        target: masks (B, K, H, W) or class indices (B, H, W), see `brainseg.metrics.rules.to_masks`.
        num_classes: K; None takes it from the class axis, and 1 where there is none.
        threshold: a probability; foreground is above it.
        from_probabilities: floating predictions are probabilities, not logits.

    Returns:
        int64 (B, K, 4), exact, so that the counts of a patient's slices may be added.

    Raises:
        ValueError: shapes or values that are no masks of K classes.
    """
    masks = to_masks(
        prediction,
        target,
        num_classes=num_classes,
        threshold=check_threshold(threshold),
        from_probabilities=from_probabilities,
    )
    predicted, true = (mask.flatten(2) for mask in masks)
    # In 32 bits, in half the time of 64: no image has so many pixels, only many images do.
    both, positive, actual = (mask.sum(-1, dtype=torch.int32) for mask in (predicted & true, predicted, true))
    return torch.stack([both, positive - both, actual - both, true.shape[-1] - positive - actual + both], -1).long()


def dice_score(
    prediction: Tensor,
    target: Tensor,
    *,
    num_classes: int | None = None,
    threshold: float = 0.5,
    from_probabilities: bool = False,
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
        empty: the value where target and prediction are both empty: NaN ("exclude"), 1 ("one") or 0 ("zero").

    Returns:
        float32 (B, K).

    Raises:
        ValueError: shapes or values that are no masks of K classes, or an unknown `empty`.
    """
    counts = confusion_counts(
        prediction, target, num_classes=num_classes, threshold=threshold, from_probabilities=from_probabilities
    )
    return dice_of_counts(counts, empty=empty).float()


def iou(
    prediction: Tensor,
    target: Tensor,
    *,
    num_classes: int | None = None,
    threshold: float = 0.5,
    from_probabilities: bool = False,
    empty: Empty = "exclude",
) -> Tensor:
    r"""Intersection over union (Jaccard 1912, doi:10.1111/j.1469-8137.1912.tb05611.x) of each image and class.

    .. math:: \frac{TP}{TP + FP + FN}

    Args:
        prediction: logits (B, K, H, W), masks of bool or integers, or class indices (B, H, W).
        target: masks (B, K, H, W) or class indices (B, H, W).
        num_classes: K; None takes it from the class axis, and 1 where there is none.
        threshold: a probability; foreground is above it.
        from_probabilities: floating predictions are probabilities, not logits.
        empty: the value where target and prediction are both empty: NaN ("exclude"), 1 ("one") or 0 ("zero").

    Returns:
        float32 (B, K).

    Raises:
        ValueError: shapes or values that are no masks of K classes, or an unknown `empty`.
    """
    counts = confusion_counts(
        prediction, target, num_classes=num_classes, threshold=threshold, from_probabilities=from_probabilities
    )
    return iou_of_counts(counts, empty=empty).float()


def dice_of_counts(counts: Tensor, *, empty: Empty = "exclude") -> Tensor:
    """`dice_score` of counts (..., 4), which may be those of several images added: float64 (...)."""
    return _overlap(counts, 2, empty)


def iou_of_counts(counts: Tensor, *, empty: Empty = "exclude") -> Tensor:
    """`iou` of counts (..., 4), which may be those of several images added: float64 (...)."""
    return _overlap(counts, 1, empty)


def published_batch_iou(counts: Tensor) -> Tensor:
    """IoU with 1e-5 in numerator and denominator, as in UNeXt-pytorch: float64 (...) of a batch's counts (..., 4)."""
    both, excess, lacking, _ = counts.double().unbind(-1)
    return (both + 1e-5) / (both + excess + lacking + 1e-5)


def _overlap(counts: Tensor, factor: int, empty: Empty) -> Tensor:
    check_choice("empty", empty, Empty)
    both, excess, lacking, _ = counts.double().unbind(-1)
    values = factor * both / (factor * both + excess + lacking)
    return fill_empty(values, both + excess > 0, both + lacking > 0, empty=empty, worst=0.0)
