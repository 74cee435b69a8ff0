"""Predicted objects beside true ones: which found which, and what that is worth."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RECALLS = np.linspace(0, 1, 101)
"""At which COCO reads the precision."""


def mask_iou(predicted: Tensor, true: Tensor) -> Tensor:
    """Intersection over union of masks (r, H, W) and (n, H, W) bool: (r, n) float64, 0 for two empty ones."""
    intersection = predicted.new_zeros(len(predicted), len(true), dtype=torch.float64)
    if intersection.numel() == 0:
        return intersection
    for column, mask in enumerate(true):  # one at a time: all pairs of large images need too much memory
        intersection[:, column] = (predicted & mask).sum(dim=(1, 2)).double()
    areas = [masks.sum(dim=(1, 2)).double() for masks in (predicted, true)]
    union = areas[0][:, None] + areas[1] - intersection
    return intersection / union.clamp(min=1)


def match_detections(ious: NDArray[np.float64], thresholds: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which detections of an image and class find an object, at each threshold, by COCO's rule.

    Detections take turns from the surest on; each takes the object of the largest IoU, at least the threshold, that
    none before it took.

    Args:
        ious: (r, n) of the detections, surest first, and the objects.
        thresholds: (T,).

    Returns:
        (r, T).
    """
    detections, objects = ious.shape
    found = np.zeros((detections, len(thresholds)), dtype=bool)
    if objects == 0:
        return found
    free = np.ones((len(thresholds), objects), dtype=bool)
    least = np.minimum(thresholds, 1 - 1e-10)
    rows = np.arange(len(thresholds))
    for index, iou in enumerate(ious):
        candidates = np.where(free & (iou >= least[:, None]), iou, -1)
        best = objects - 1 - candidates[:, ::-1].argmax(axis=1)  # the last of equal ones
        found[index] = candidates[rows, best] >= 0
        free[rows, best] &= ~found[index]
    return found


def average_precision(scores: NDArray[np.float64], found: NDArray[np.bool_], objects: int) -> NDArray[np.float64]:
    """COCO's average precision of a class: the mean over 101 recalls of the best precision from that recall on.

    Args:
        scores: (D,) of the detections of all images; equal ones count in the order in which they stand.
        found: (D, T) whether each finds an object, at each IoU threshold.
        objects: how many there are.

    Returns:
        (T,), NaN without objects.
    """
    if objects == 0:
        return np.full(found.shape[1], np.nan)
    right = found[np.argsort(-scores, kind="stable")].cumsum(axis=0)
    precision = right / np.arange(1, len(right) + 1)[:, None]
    best = np.maximum.accumulate(precision[::-1])[::-1]
    best = np.concatenate([best, np.zeros((1, found.shape[1]))])  # beyond the largest recall
    places = [np.searchsorted(recall, RECALLS, side="left") for recall in (right / objects).T]
    means: NDArray[np.float64] = np.array([column[where].mean() for column, where in zip(best.T, places, strict=True)])
    return means


def match_segments(ious: NDArray[np.float64]) -> NDArray[np.float64]:
    """The IoUs of the segments that match, those above 0.5 (Kirillov et al. 2019, arXiv:1801.00868).

    Segments that do not overlap can match one other alone. Of those that do, the pairs of largest IoU match first.

    Args:
        ious: (r, n) of an image and class.
    """
    left, matched = ious.copy(), []
    while left.size and (largest := left.max()) > 0.5:
        row, column = np.unravel_index(left.argmax(), left.shape)
        left[row], left[:, column] = 0, 0
        matched.append(largest)
    return np.array(matched)
