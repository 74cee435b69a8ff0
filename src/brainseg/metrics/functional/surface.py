"""Distances between the surfaces of two masks, computed once for all metrics that are made of them."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from scipy.spatial import cKDTree
from torch import Tensor

from brainseg.checks import check_choice
from brainseg.metrics.rules import Empty, fill_empty, to_masks

Missing = float | Literal["diagonal", "nan", "inf"]
Spacing = float | Sequence[float]

MATRIX = 2**18
"""So many pairs of pixels are looked at one by one; of more, on the CPU, each pixel finds its nearest in a tree."""
DENSE = 4
"""Unless the box around them has fewer pixels than this for each of theirs: then the distance transform is faster."""
PAIRS = 2**26
"""Pairs in memory at a time: 512 MB."""


class SurfaceMetrics(NamedTuple):
    """What `surface_metrics` gives, float32 (B, K) each.

    Attributes:
        hausdorff: Hausdorff distance, or the percentile of it, in mm.
        average_distance: average symmetric surface distance in mm.
        surface_dice: normalised surface Dice, in [0, 1].
        mean_average_distance: mean average surface distance in mm.
    """

    hausdorff: Tensor
    average_distance: Tensor
    surface_dice: Tensor
    mean_average_distance: Tensor


class Surfaces(NamedTuple):
    """Directed distances of R pairs of masks.

    Attributes:
        pixels: (R, 2) int64, boundary pixels of the prediction and of the target.
        distances: (N,) float32, mm: for each pair in which both have a boundary those of the prediction's pixels, then
            those of the target's.
    """

    pixels: Tensor
    distances: Tensor


def surface_metrics(
    prediction: Tensor,
    target: Tensor,
    *,
    spacing: Spacing = 1.0,
    percentile: float = 95.0,
    tolerance: float = 1.0,
    num_classes: int | None = None,
    threshold: float = 0.5,
    from_probabilities: bool = False,
    ignore_index: int | None = None,
    valid: Tensor | None = None,
    empty: Empty = "exclude",
    distance_when_missing: Missing = "diagonal",
) -> SurfaceMetrics:
    r"""Hausdorff distance, average distances and normalised surface Dice of each image and class, of one search.

    The boundary of a mask are its pixels with a neighbour (4 in two dimensions, 6 in three) in the background; beyond
    the image is background, and so are ignored pixels, in both masks. The directed distance d of a boundary pixel is
    that of its centre to the nearest centre of a boundary pixel of the other mask. With the distances d_P from the
    prediction's boundary and d_T from the target's:

    .. math:: HD_q = \max(\mathrm{percentile}_q(d_P), \mathrm{percentile}_q(d_T))
    .. math:: ASSD = \frac{\sum d_P + \sum d_T}{|d_P| + |d_T|}
    .. math:: NSD_\tau = \frac{|d_P \leq \tau| + |d_T \leq \tau|}{|d_P| + |d_T|}
    .. math:: MASD = \frac{1}{2} \left( \frac{\sum d_P}{|d_P|} + \frac{\sum d_T}{|d_T|} \right)

    Sources: Huttenlocher et al. 1993, doi:10.1109/34.232073 (HD); Heimann et al. 2009, doi:10.1109/TMI.2009.2013851
    (ASSD); Nikolov et al. 2021, doi:10.2196/26151 (NSD, here of pixels, there of surface elements); Beneš and Zitová
    2015, doi:10.1111/jmi.12186 (MASD); the names are those of Metrics Reloaded, Maier-Hein et al. 2024,
    doi:10.1038/s41592-023-02151-z.

    Args:
        prediction: logits (B, K, H, W) or (B, K, D, H, W), masks of bool or integers, or class indices (B, H, W).
        target: masks of the prediction's shape, or class indices (B, H, W), see `brainseg.metrics.rules.to_masks`.
        spacing: mm between neighbouring pixels along each axis of the image, (row, column) or (slice, row, column); one
            number for all. With 1 distances are in pixels.
        percentile: q in (0, 100], interpolated linearly; 100 is the maximum.
        tolerance: tau >= 0, mm. A distance that equals it is within it, up to a millionth of it for rounding.
        num_classes: K; None takes it from the class axis, and 1 where there is none.
        threshold: a probability; foreground is above it.
        from_probabilities: floating predictions are probabilities, not logits.
        ignore_index: value of an integer target whose pixels are ignored, whatever is predicted there.
        valid: bool, False where pixels are ignored: (H, W), (B, H, W), or (B, K, H, W) if the target has masks; each
            side may be 1.
        empty: the value where target and prediction are both empty: NaN ("exclude"), 1 ("one") or 0 ("zero").
        distance_when_missing: the distance where only one of the two is empty: "diagonal" of the image in mm, which no
            distance exceeds, "nan", "inf", or a number of mm. Surface Dice is 0 there.

    Raises:
        ValueError: shapes or values that are no masks of K classes, or arguments out of range.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 1, 9, 9, dtype=torch.bool)
        >>> target[..., 3:6, 3:6] = True
        >>> surface_metrics(target.roll(2, -1), target, spacing=(1.0, 0.5), percentile=100).hausdorff
        tensor([[1.]])
    """
    check_percentile(percentile)
    check_tolerance(tolerance)
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
    worst = distance_of_missing(distance_when_missing, image_diagonal(masks.true.shape[2:], steps))
    surfaces = surfaces_of(masks.predicted, masks.true, steps)
    found, actual = surfaces.pixels.view(*masks.true.shape[:2], 2).bool().unbind(-1)
    sizes = masks.sizes()

    def filled(values: Tensor, worst: float) -> Tensor:
        return fill_empty(values.view(found.shape), found, actual, empty=empty, worst=worst, sizes=sizes).float()

    return SurfaceMetrics(
        filled(hausdorff_of(surfaces, percentile), worst),
        filled(average_of(surfaces), worst),
        filled(share_within(surfaces, tolerance), 0.0),
        filled(mean_average_of(surfaces), worst),
    )


def hausdorff_distance(
    prediction: Tensor,
    target: Tensor,
    *,
    spacing: Spacing = 1.0,
    percentile: float = 100.0,
    num_classes: int | None = None,
    threshold: float = 0.5,
    from_probabilities: bool = False,
    ignore_index: int | None = None,
    valid: Tensor | None = None,
    empty: Empty = "exclude",
    distance_when_missing: Missing = "diagonal",
) -> Tensor:
    """Hausdorff distance of each image and class, mm: float32 (B, K); see `surface_metrics`.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 1, 30, 40, dtype=torch.bool)
        >>> target[..., 5, 5] = True
        >>> hausdorff_distance(torch.zeros_like(target), target)  # missed: the diagonal
        tensor([[50.]])
    """
    return surface_metrics(
        prediction,
        target,
        spacing=spacing,
        percentile=percentile,
        num_classes=num_classes,
        threshold=threshold,
        from_probabilities=from_probabilities,
        ignore_index=ignore_index,
        valid=valid,
        empty=empty,
        distance_when_missing=distance_when_missing,
    ).hausdorff


def average_surface_distance(
    prediction: Tensor,
    target: Tensor,
    *,
    spacing: Spacing = 1.0,
    num_classes: int | None = None,
    threshold: float = 0.5,
    from_probabilities: bool = False,
    ignore_index: int | None = None,
    valid: Tensor | None = None,
    empty: Empty = "exclude",
    distance_when_missing: Missing = "diagonal",
) -> Tensor:
    """Average symmetric surface distance of each image and class, mm: float32 (B, K); see `surface_metrics`."""
    return surface_metrics(
        prediction,
        target,
        spacing=spacing,
        num_classes=num_classes,
        threshold=threshold,
        from_probabilities=from_probabilities,
        ignore_index=ignore_index,
        valid=valid,
        empty=empty,
        distance_when_missing=distance_when_missing,
    ).average_distance


def mean_average_surface_distance(
    prediction: Tensor,
    target: Tensor,
    *,
    spacing: Spacing = 1.0,
    num_classes: int | None = None,
    threshold: float = 0.5,
    from_probabilities: bool = False,
    ignore_index: int | None = None,
    valid: Tensor | None = None,
    empty: Empty = "exclude",
    distance_when_missing: Missing = "diagonal",
) -> Tensor:
    """Mean average surface distance (MASD) of each image and class, mm: float32 (B, K); see `surface_metrics`.

    The mean of the two directed averages, so that prediction and target weigh the same however long their boundaries
    are; in `average_surface_distance` each boundary pixel does.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 1, 3, 20, dtype=torch.bool)
        >>> target[..., 1, 3] = True
        >>> prediction = target.clone()
        >>> prediction[..., 1, 11:14] = True  # 8, 9 and 10 pixels away
        >>> mean_average_surface_distance(prediction, target), average_surface_distance(prediction, target)
        (tensor([[3.3750]]), tensor([[5.4000]]))
    """
    return surface_metrics(
        prediction,
        target,
        spacing=spacing,
        num_classes=num_classes,
        threshold=threshold,
        from_probabilities=from_probabilities,
        ignore_index=ignore_index,
        valid=valid,
        empty=empty,
        distance_when_missing=distance_when_missing,
    ).mean_average_distance


def normalized_surface_dice(
    prediction: Tensor,
    target: Tensor,
    *,
    tolerance: float,
    spacing: Spacing = 1.0,
    num_classes: int | None = None,
    threshold: float = 0.5,
    from_probabilities: bool = False,
    ignore_index: int | None = None,
    valid: Tensor | None = None,
    empty: Empty = "exclude",
) -> Tensor:
    """Normalised surface Dice of each image and class: float32 (B, K); see `surface_metrics`."""
    return surface_metrics(
        prediction,
        target,
        spacing=spacing,
        tolerance=tolerance,
        num_classes=num_classes,
        threshold=threshold,
        from_probabilities=from_probabilities,
        ignore_index=ignore_index,
        valid=valid,
        empty=empty,
    ).surface_dice


def surfaces_of(predicted: Tensor, true: Tensor, spacing: Sequence[float]) -> Surfaces:
    """Directed distances of the masks of each image and class, in this order.

    Args:
        predicted: (B, K, ...) bool.
        true: likewise.
        spacing: mm, one number an axis.
    """
    masks = torch.stack([predicted.flatten(0, 1), true.flatten(0, 1)], 1)  # (R, 2, ...)
    places = boundary(masks).nonzero()
    pixels = torch.bincount(places[:, 0] * 2 + places[:, 1], minlength=2 * len(masks)).view(-1, 2)
    sets = torch.split(places[:, 2:], pixels.flatten().tolist())
    distances = [torch.zeros(0, dtype=torch.float64, device=places.device)]
    for one, other in zip(sets[::2], sets[1::2], strict=True):
        if len(one) and len(other):
            distances += directed_distances(one, other, spacing)
    return Surfaces(pixels, torch.cat(distances).float())


def boundary(masks: Tensor) -> Tensor:
    """The pixels of bool masks (R, 2, ...) that have a neighbour along an axis outside the mask or the image."""
    inner = masks.clone()
    for axis in range(2, masks.dim()):
        length = masks.shape[axis]
        inner.narrow(axis, 0, length - 1).logical_and_(masks.narrow(axis, 1, length - 1))
        inner.narrow(axis, 1, length - 1).logical_and_(masks.narrow(axis, 0, length - 1))
        inner.select(axis, 0).fill_(False)
        inner.select(axis, -1).fill_(False)
    return masks ^ inner


def directed_distances(one: Tensor, other: Tensor, spacing: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Distance in mm of each pixel (N, D) to the nearest of the others (M, D), and of each of these: (N,) and (M,)."""
    steps = torch.tensor(spacing, dtype=torch.float64, device=one.device)
    if len(one) * len(other) <= MATRIX or one.device.type != "cpu":
        return _by_pairs(one * steps, other * steps)
    low = torch.minimum(one.amin(0), other.amin(0))
    one, other = one - low, other - low
    box = (torch.maximum(one.amax(0), other.amax(0)) + 1).tolist()
    if math.prod(box) < DENSE * (len(one) + len(other)):
        return _by_transform(one, other, box, spacing), _by_transform(other, one, box, spacing)
    one, other = one * steps, other * steps
    return _by_tree(one, other), _by_tree(other, one)


def _by_pairs(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    nearest = []
    nearest_of_other = other.new_full((len(other),), math.inf)
    for part in torch.split(one, max(1, PAIRS // len(other))):
        squares = torch.zeros((), dtype=one.dtype, device=one.device)
        for x, y in zip(part.unbind(1), other.unbind(1), strict=True):
            squares = squares + (x[:, None] - y).square_()
        nearest.append(squares.amin(1))
        nearest_of_other = torch.minimum(nearest_of_other, squares.amin(0))
    return torch.cat(nearest).sqrt(), nearest_of_other.sqrt()


def _by_transform(one: Tensor, other: Tensor, box: Sequence[int], spacing: Sequence[float]) -> Tensor:
    outside = np.ones(box, dtype=bool)
    outside[tuple(other.numpy().T)] = False
    distances = ndimage.distance_transform_edt(outside, sampling=spacing)
    return torch.from_numpy(distances[tuple(one.numpy().T)])


def _by_tree(one: Tensor, other: Tensor) -> Tensor:
    return torch.from_numpy(cKDTree(other.numpy()).query(one.numpy(), workers=torch.get_num_threads())[0])


def hausdorff_of(surfaces: Surfaces, percentile: float) -> Tensor:
    """(R,) float64, the larger of both percentiles; anything where a mask is empty."""
    lengths, rows = _sets(surfaces)
    order = surfaces.distances.argsort()
    order = order[rows[order].argsort(stable=True)]
    # One number more, for sets without any.
    ordered = F.pad(surfaces.distances[order].double(), (0, 1))
    starts = lengths.cumsum(0) - lengths
    rank = (lengths - 1).clamp(min=0).double() * (percentile / 100)
    low, high = ordered[starts + rank.floor().long()], ordered[starts + rank.ceil().long()]
    return low.lerp(high, rank - rank.floor()).view(-1, 2).amax(1)


def average_of(surfaces: Surfaces) -> Tensor:
    """(R,) float64, the mean of all directed distances; anything where a mask is empty."""
    return _sum(surfaces, surfaces.distances.double()) / surfaces.pixels.sum(1)


def mean_average_of(surfaces: Surfaces) -> Tensor:
    """(R,) float64, the mean of the means of both sides; anything where a mask is empty."""
    lengths, sets = _sets(surfaces)
    sums = torch.zeros(len(lengths), dtype=torch.float64, device=lengths.device)
    return (sums.index_add_(0, sets, surfaces.distances.double()) / lengths).view(-1, 2).mean(1)


def share_within(surfaces: Surfaces, tolerance: float) -> Tensor:
    """(R,) float64, the share of boundary pixels within the tolerance; anything where a mask is empty."""
    within = surfaces.distances.double() <= tolerance * (1 + 1e-6)
    return _sum(surfaces, within.double()) / surfaces.pixels.sum(1)


def image_diagonal(sides: Sequence[int], spacing: Sequence[float]) -> float:
    """Mm from corner to corner, of pixels and not of the gaps between them: more than any distance of centres."""
    return math.hypot(*(side * step for side, step in zip(sides, spacing, strict=True)))


def distance_of_missing(when_missing: Missing, diagonal: float) -> float:
    """Mm that a missed target or a false alarm costs.

    Raises:
        ValueError: neither a number from 0 nor one of the words.
    """
    if when_missing == "diagonal":
        return diagonal
    if isinstance(when_missing, bool) or not isinstance(when_missing, int | float | str):
        distance = None
    else:
        distance = (
            {"nan": math.nan, "inf": math.inf}.get(when_missing) if isinstance(when_missing, str) else when_missing
        )
    if distance is None or distance < 0:
        raise ValueError(f'distance_when_missing must be "diagonal", "nan", "inf" or mm from 0, got {when_missing!r}')
    return float(distance)


def check_spacing(spacing: Spacing, axes: int) -> list[float]:
    """One number of mm for each axis of an image; ValueError unless these are positive and as many as the axes."""
    steps = [spacing] * axes if isinstance(spacing, int | float) else list(spacing)
    if len(steps) != axes or not all(0 < step < math.inf for step in steps):
        raise ValueError(
            f"spacing must be a positive number of mm, or one for each of the {axes} axes of an image, got {spacing!r}"
        )
    return [float(step) for step in steps]


def check_percentile(percentile: float) -> None:
    """Raises ValueError unless 0 < percentile <= 100."""
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile must lie above 0 and up to 100, got {percentile!r}; 95 is usual, 100 the maximum")


def check_tolerance(tolerance: float) -> None:
    """Raises ValueError unless 0 <= tolerance < inf."""
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"tolerance must be a number of mm from 0, got {tolerance!r}")


def _sets(surfaces: Surfaces) -> tuple[Tensor, Tensor]:
    """How many distances each of the 2 R sets has, none where the other mask is empty, and the set of each distance."""
    lengths = (surfaces.pixels * (surfaces.pixels > 0).all(1, keepdim=True)).flatten()
    sets = torch.arange(len(lengths), device=lengths.device)
    return lengths, sets.repeat_interleave(lengths, output_size=len(surfaces.distances))


def _sum(surfaces: Surfaces, values: Tensor) -> Tensor:
    """(R,) of one value a distance (N,)."""
    rows = _sets(surfaces)[1] // 2
    return values.new_zeros(len(surfaces.pixels)).index_add_(0, rows, values)
