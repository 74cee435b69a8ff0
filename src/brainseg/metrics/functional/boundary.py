"""Boundary IoU: overlap of the rims of two masks."""

import math
from collections.abc import Sequence

import torch
from scipy import ndimage
from torch import Tensor

from brainseg.checks import check_choice
from brainseg.metrics.functional.surface import Spacing, boundary, check_spacing
from brainseg.metrics.rules import Empty, fill_empty, to_masks


def boundary_iou(
    prediction: Tensor,
    target: Tensor,
    *,
    width: float = 1.0,
    spacing: Spacing = 1.0,
    num_classes: int | None = None,
    threshold: float = 0.5,
    from_probabilities: bool = False,
    ignore_index: int | None = None,
    valid: Tensor | None = None,
    empty: Empty = "exclude",
) -> Tensor:
    r"""Boundary IoU (Cheng et al. 2021, arXiv:2103.16562) of each image and class, as Metrics Reloaded defines it.

    .. math:: \frac{|P_w \cap T_w|}{|P_w \cup T_w|}

    The rim P_w of a mask are its pixels whose centre lies less than `width` from the centre of one of its boundary
    pixels, which `brainseg.metrics.functional.surface_metrics` defines. So a rim of w pixels is w pixels wide, and with
    spacing and width of 1 it is the boundary itself.

    Metrics Reloaded's package counts the width in pixels, whatever the spacing of the scan; here it is in mm, and with
    spacing 1 the two are equal. Cheng et al. take 2 % of the image's diagonal, and what so many erosions by a square of
    3x3 remove: along an edge the same rim, at corners one that is wider. For their width give
    ``width=round(0.02 * math.hypot(H, W))`` and leave the spacing.

    Args:
        prediction: logits (B, K, H, W) or (B, K, D, H, W), masks of bool or integers, or class indices (B, H, W).
        target: masks of the prediction's shape, or class indices (B, H, W), see `brainseg.metrics.rules.to_masks`.
        width: w > 0, mm. A distance that equals it is beyond it, from a millionth below on, for rounding.
        spacing: mm between neighbouring pixels along each axis of the image, (row, column) or (slice, row, column); one
            number for all. With 1 the width is in pixels.
        num_classes: K; None takes it from the class axis, and 1 where there is none.
        threshold: a probability; foreground is above it.
        from_probabilities: floating predictions are probabilities, not logits.
        ignore_index: value of an integer target whose pixels are ignored, whatever is predicted there: they are
            background in both masks, as is what lies beyond the image.
        valid: bool, False where pixels are ignored: (H, W), (B, H, W), or (B, K, H, W) if the target has masks; each
            side may be 1.
        empty: the value where target and prediction are both empty: NaN ("exclude"), 1 ("one") or 0 ("zero"). Where
            only one is, it is 0.

    Returns:
        float32 (B, K); NaN where every pixel is ignored.

    Raises:
        ValueError: shapes or values that are no masks of K classes, or arguments out of range.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 1, 9, 9, dtype=torch.bool)
        >>> target[..., 2:7, 2:7] = True
        >>> prediction = target.clone()
        >>> prediction[..., 6] = False  # a column of its five is missing
        >>> boundary_iou(prediction, target), boundary_iou(prediction, target, width=2)
        (tensor([[0.5789]]), tensor([[0.7600]]))
    """
    check_width(width)
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
    steps = check_spacing(spacing, masks.true.dim() - 2)
    counts = rim_counts(masks.predicted, masks.true, width, steps)
    return iou_of_rims(counts, masks.sizes(), empty=empty).float()


def rim_counts(predicted: Tensor, true: Tensor, width: float, spacing: Sequence[float]) -> Tensor:
    """Pixels of the rim of the prediction, of that of the target, and of both.

    Args:
        predicted: (B, K, ...) bool.
        true: likewise.
        width: mm.
        spacing: mm, one number an axis.

    Returns:
        float64 (B, K, 3).
    """
    masks = torch.stack([predicted.flatten(0, 1), true.flatten(0, 1)], 1)  # (R, 2, ...)
    rims = _rims(masks, width, spacing).flatten(2)
    counts = torch.cat([rims.sum(-1), rims.all(1).sum(-1, keepdim=True)], 1)
    return counts.double().view(*predicted.shape[:2], 3)


def iou_of_rims(counts: Tensor, sizes: Tensor, *, empty: Empty = "exclude") -> Tensor:
    """The IoU (...) of `rim_counts` (..., 3) in so many pixels that count (...): float64."""
    found, actual, both = counts.unbind(-1)
    values = both / (found + actual - both)
    return fill_empty(values, found > 0, actual > 0, empty=empty, worst=0.0, sizes=sizes)


def check_width(width: float) -> None:
    """Raises ValueError unless 0 < width < inf."""
    if not 0 < width < math.inf:
        raise ValueError(f"width must be a positive number of mm, got {width!r}; with spacing 1 it is in pixels")


def _rims(masks: Tensor, width: float, spacing: Sequence[float]) -> Tensor:
    """Which pixels of bool masks (R, 2, ...) are nearer than the width to the boundary of their mask."""
    width *= 1 - 1e-6
    edges = boundary(masks)
    if width <= min(spacing):
        return edges
    rims = edges.clone()
    for mask, edge, rim in zip(masks.flatten(0, 1), edges.flatten(0, 1), rims.flatten(0, 1), strict=True):
        # The box around the mask holds its boundary, too; an empty mask has none.
        for box in ndimage.find_objects(mask.byte().cpu().numpy()):
            distances = ndimage.distance_transform_edt(~edge[box].cpu().numpy(), sampling=spacing)
            rim[box] = mask[box] & torch.from_numpy(distances < width).to(mask.device)
    return rims
