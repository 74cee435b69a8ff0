"""Lesions as what is found or missed: connected components of two masks, and which of them meet."""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from brainseg.checks import check_choice
from brainseg.metrics.rules import Empty, fill_empty, left_out, to_masks


class LesionScores(NamedTuple):
    """What `lesion_detection` gives, (B, K) each.

    Attributes:
        lesions: components of the target, int64.
        found: lesions that are found, int64.
        components: components of the prediction, int64.
        true_components: components of the prediction that are no false positives, int64.
        sensitivity: found over lesions, float32 like all that follow.
        precision: true components over components.
        f1: harmonic mean of sensitivity and precision.
        false_positives: components that are none of the true ones.
        lesion_dice: mean over the lesions of the Dice score of each.
    """

    lesions: Tensor
    found: Tensor
    components: Tensor
    true_components: Tensor
    sensitivity: Tensor
    precision: Tensor
    f1: Tensor
    false_positives: Tensor
    lesion_dice: Tensor


def lesion_detection(
    prediction: Tensor,
    target: Tensor,
    *,
    iou_threshold: float | None = None,
    connectivity: int | None = None,
    num_classes: int | None = None,
    threshold: float = 0.5,
    from_probabilities: bool = False,
    ignore_index: int | None = None,
    valid: Tensor | None = None,
    empty: Empty = "exclude",
) -> LesionScores:
    r"""Lesions found, lesions missed and false positives of each image and class.

    Lesions are the connected components of the target. Without a threshold of the IoU a lesion is found if any
    predicted pixel lies on it, and a component of the prediction is a false positive if it lies on no lesion: one
    component may find several lesions, and several may find one. With a threshold lesions and components are matched
    one to one, the pair of highest IoU first, down to the threshold; what is matched is found, and a true component.
    Of pairs of equal IoU the one comes first whose first common pixel, row by row, does.

    .. math:: \mathrm{sensitivity} = \frac{\mathrm{found}}{\mathrm{lesions}}, \quad
        \mathrm{precision} = \frac{\mathrm{true\ components}}{\mathrm{components}}, \quad
        F_1 = \frac{2\ \mathrm{sensitivity} \cdot \mathrm{precision}}{\mathrm{sensitivity} + \mathrm{precision}}

    The Dice score of a lesion is that of its pixels and those of all components that lie on it, or of the one that is
    matched; that of a lesion not found is 0.

    Where only one of target and prediction is empty, sensitivity, precision, F1 and lesion Dice are 0. False positives
    are counted everywhere. Ignored pixels are background in both, so that they cut what lies across them in two; where
    every pixel is ignored there are no scores, NaN. The names are those of Metrics Reloaded, Maier-Hein et al. 2024,
    doi:10.1038/s41592-023-02151-z.

    Args:
        prediction: logits (B, K, H, W) or (B, K, D, H, W), masks of bool or integers, or class indices (B, H, W).
        target: masks of the prediction's shape, or class indices (B, H, W), see `brainseg.metrics.rules.to_masks`.
        iou_threshold: in (0, 1], the IoU that a match needs; None: one common pixel finds a lesion.
        connectivity: along how many axes at once neighbours may differ, from 1 (4 neighbours in two dimensions, 6 in
            three) to the number of axes; None is all axes (8 and 26 neighbours).
        num_classes: K; None takes it from the class axis, and 1 where there is none.
        threshold: a probability; foreground is above it.
        from_probabilities: floating predictions are probabilities, not logits.
        ignore_index: value of an integer target whose pixels are ignored, whatever is predicted there.
        valid: bool, False where pixels are ignored: (H, W), (B, H, W), or (B, K, H, W) if the target has masks; each
            side may be 1.
        empty: the scores where target and prediction are both empty: NaN ("exclude"), 1 ("one") or 0 ("zero").

    Raises:
        ValueError: shapes or values that are no masks of K classes, or arguments out of range.

    Example:
        >>> import torch
        >>> target = torch.tensor([[[[1, 1, 0, 1, 0, 0, 0]]]])
        >>> prediction = torch.tensor([[[[0, 1, 0, 0, 0, 1, 1]]]])
        >>> scores = lesion_detection(prediction, target)
        >>> scores.sensitivity, scores.false_positives
        (tensor([[0.5000]]), tensor([[1.]]))
    """
    check_iou_threshold(iou_threshold)
    check_choice("empty", empty, Empty)
    masks = to_masks(
        prediction,
        target,
        num_classes=num_classes,
        threshold=threshold,
        from_probabilities=from_probabilities,
        ignore_index=ignore_index,
        valid=valid,
    )
    counts = lesion_counts(masks.predicted, masks.true, iou_threshold, connectivity)
    scores = scores_of_lesions(counts, masks.sizes().cpu(), empty=empty)
    return LesionScores(*((x.float() if x.is_floating_point() else x).to(target.device) for x in scores))


def lesion_counts(
    predicted: Tensor, true: Tensor, iou_threshold: float | None = None, connectivity: int | None = None
) -> Tensor:
    """What all scores of lesions are made of, see `lesion_detection`.

    Args:
        predicted: (B, K, ...) bool.
        true: likewise.
        iou_threshold: that a match needs, or None.
        connectivity: of the components, or None.

    Returns:
        float64 (B, K, 5) on the CPU: lesions, found ones, components, true ones, and the sum of the lesions' Dice.
    """
    images = predicted.shape[0] * predicted.shape[1]
    masks = torch.stack([predicted, true]).flatten(0, 2).cpu().numpy()  # (2 images, ...), in one copy
    labels, count = _components(masks, connectivity)
    places = np.flatnonzero(labels > 0)
    pixels = labels.ravel()[places]
    sizes = np.bincount(pixels, minlength=count + 1)
    # The mask of each component, of the target from `images` on.
    owners = np.zeros(count + 1, dtype=np.int64)
    owners[pixels] = places // math.prod(masks.shape[1:])

    components, lesions, common = _meetings(labels[:images], labels[images:], sizes, iou_threshold)
    common_sizes, partner_sizes = (np.bincount(lesions, x, count + 1) for x in (common, sizes[components]))
    found, correct = np.unique(lesions), np.unique(components)
    dice = 2 * common_sizes[found] / (sizes + partner_sizes)[found]
    totals = np.bincount(owners[1:], minlength=2 * images)
    counts = [
        totals[images:],
        np.bincount(owners[found] - images, minlength=images),
        totals[:images],
        np.bincount(owners[correct], minlength=images),
        np.bincount(owners[found] - images, dice, images),
    ]
    return torch.from_numpy(np.stack(counts, -1).astype(np.float64)).view(*predicted.shape[:2], 5)


def scores_of_lesions(counts: Tensor, sizes: Tensor, *, empty: Empty = "exclude") -> LesionScores:
    """The scores (...) of `lesion_counts` (..., 5) in so many pixels that count (...), int64 and float64."""
    lesions, found, components, correct, dice = counts.unbind(-1)

    def filled(values: Tensor) -> Tensor:
        return fill_empty(values, components > 0, lesions > 0, empty=empty, worst=0.0, sizes=sizes)

    return LesionScores(
        lesions.long(),
        found.long(),
        components.long(),
        correct.long(),
        filled(found / lesions),
        filled(correct / components),
        # The harmonic mean in whole numbers, which is 0 where both are.
        filled(2 * found * correct / (found * components + correct * lesions).clamp(min=1)),
        left_out(components - correct, sizes),
        filled(dice / lesions),
    )


def check_iou_threshold(iou_threshold: float | None) -> None:
    """Raises ValueError unless None or 0 < iou_threshold <= 1."""
    if iou_threshold is None:
        return
    number = isinstance(iou_threshold, int | float) and not isinstance(iou_threshold, bool)
    if not number or not 0 < iou_threshold <= 1:
        raise ValueError(
            f"iou_threshold must lie above 0 and up to 1, got {iou_threshold!r}; None lets one common pixel find a"
            " lesion"
        )


def check_connectivity(connectivity: int | None, axes: int) -> int:
    """Along how many axes at once neighbours may differ; ValueError unless None or from 1 to the number of axes."""
    if connectivity is None:
        return axes
    if isinstance(connectivity, bool) or not isinstance(connectivity, int) or not 1 <= connectivity <= axes:
        raise ValueError(
            f"connectivity must be an integer from 1 to {axes}, the axes of an image, got {connectivity!r}; None takes"
            " all neighbours"
        )
    return connectivity


def _components(masks: NDArray[np.bool_], connectivity: int | None) -> tuple[NDArray[np.int32], int]:
    """The component of each pixel of masks (M, ...), numbered from 1 over all of them, and how many there are."""
    axes = masks.ndim - 1
    neighbours = np.zeros((3,) * masks.ndim, dtype=bool)  # none in another mask
    neighbours[1] = ndimage.generate_binary_structure(axes, check_connectivity(connectivity, axes))
    labels, count = ndimage.label(masks, neighbours)
    return labels, count


def _meetings(
    predicted: NDArray[np.int32], true: NDArray[np.int32], sizes: NDArray[np.int64], iou_threshold: float | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of a component and a lesion that meet, or are matched, and how many pixels they have in common."""
    both = (predicted > 0) & (true > 0)
    pairs = predicted[both].astype(np.int64) * len(sizes) + true[both]
    pairs, first, common = np.unique(pairs, return_index=True, return_counts=True)
    components, lesions = np.divmod(pairs, len(sizes))
    if iou_threshold is None:
        return components, lesions, common
    iou = common / (sizes[components] + sizes[lesions] - common)
    order = np.lexsort((first, -iou))
    matches = _one_to_one(components, lesions, order[iou[order] >= iou_threshold])
    return components[matches], lesions[matches], common[matches]


def _one_to_one(
    components: NDArray[np.int64], lesions: NDArray[np.int64], order: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Of the pairs in this order those neither side of which was taken before."""
    taken: set[int] = set()
    matches = []
    for pair in order.tolist():
        sides = {int(components[pair]), int(lesions[pair])}
        if not sides & taken:
            taken |= sides
            matches.append(pair)
    return np.array(matches, dtype=np.int64)
