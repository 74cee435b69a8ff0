"""Distances between the surfaces of prediction and target, over slices or volumes."""

from typing import Any

import torch
from torch import Tensor

from brainseg.metrics.functional.surface import (
    Missing,
    Spacing,
    Surfaces,
    average_of,
    check_percentile,
    check_spacing,
    check_tolerance,
    distance_of_missing,
    hausdorff_of,
    image_diagonal,
    mean_average_of,
    share_within,
    surfaces_of,
)
from brainseg.metrics.rules import fill_empty
from brainseg.metrics.scans import ScanMetric


class SpacedMetric(ScanMetric):
    """Base class of the metrics that know the distance of pixels. See `HausdorffDistance` for arguments."""

    def __init__(
        self,
        num_classes: int = 1,
        *,
        measured: int,
        spacing: Spacing = 1.0,
        **arguments: Any,
    ) -> None:
        super().__init__(num_classes, measured=measured, **arguments)
        axes = len(spacing) if not isinstance(spacing, int | float) else 3
        steps = check_spacing(spacing, axes)
        if axes not in (2, 3) or (self.aggregation == "patient" and axes != 3):
            expected = "(slice, row, column)" if self.aggregation == "patient" else "(row, column), of volumes one more"
            raise ValueError(f"spacing must be one number of mm, or one for each axis: {expected}; got {spacing!r}")
        self.spacing = spacing if isinstance(spacing, int | float) else tuple(steps)
        self._mark("steps", axes, *steps)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, spacing={self.spacing!r}"


class SurfaceMetric(SpacedMetric):
    """Base class of the metrics of surfaces: of every scan it keeps the distances, which serve all of them.

    In a MetricCollection metrics of one spacing therefore search once, slice by slice; volumes are searched by each of
    them, when they are whole. See `HausdorffDistance` for arguments.
    """

    def __init__(self, num_classes: int = 1, **arguments: Any) -> None:
        # Boundary pixels of prediction and target, and the diagonal.
        super().__init__(num_classes, measured=3, **arguments)

    def _measure(self, predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        steps = check_spacing(self.spacing, predicted.dim() - 2)
        surfaces = surfaces_of(predicted, true, steps)
        pixels = surfaces.pixels.view(*predicted.shape[:2], 2)
        diagonal = pixels.new_full(
            (*predicted.shape[:2], 1), image_diagonal(predicted.shape[2:], steps), dtype=torch.float64
        )
        return torch.cat([pixels.double(), diagonal], -1), surfaces.distances

    def _values(self, rows: Tensor, payload: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pixels, shape = rows[..., :2].long(), rows.shape[:2]
        predicted, true = pixels.bool().unbind(-1)
        values = self._of(Surfaces(pixels.flatten(0, 1), payload)).view(shape)
        worst = self._worst(rows[..., 2])
        values = fill_empty(values, predicted, true, empty=self.empty, worst=worst, sizes=sizes)
        return values, predicted, true

    def _of(self, surfaces: Surfaces) -> Tensor:
        """The value of each pair of masks."""
        raise NotImplementedError

    def _worst(self, diagonal: Tensor) -> Tensor | float:
        """The value of a missed target and of a false alarm."""
        raise NotImplementedError


class DistanceMetric(SurfaceMetric):
    """A metric in mm."""

    higher_is_better = False

    def __init__(self, num_classes: int = 1, *, distance_when_missing: Missing = "diagonal", **arguments: Any) -> None:
        super().__init__(num_classes, **arguments)
        distance_of_missing(distance_when_missing, 0.0)
        self.distance_when_missing = distance_when_missing

    def _worst(self, diagonal: Tensor) -> Tensor | float:
        if self.distance_when_missing == "diagonal":
            return diagonal
        return distance_of_missing(self.distance_when_missing, 0.0)


class HausdorffDistance(DistanceMetric):
    """Mean Hausdorff distance, or a percentile of it, in mm; `brainseg.metrics.functional.surface_metrics` defines it.

    Where only one of prediction and target is empty the distance is the scan's diagonal, so that of scans of one size
    neither a missed tumour nor a false one on an empty scan improves the mean. A false pixel in a volume that has a
    tumour may: it may lie closer than what else is predicted.

    Args:
        num_classes: K, 1 for a binary mask.
        percentile: q in (0, 100]; 95 is usual, 100 the maximum.
        distance_when_missing: mm where only one mask is empty: "diagonal" of the scan, "nan" (left out of the mean, and
            counted), "inf", or a number.
        spacing: mm between neighbouring pixels, one number for all axes, or (row, column) of slices and (slice, row,
            column) of volumes.
        aggregation: "slice": the mean over images, each by itself; "patient": over the volumes of patients, which
            needs `group` and `slice_index` and keeps their masks, eight pixels a byte.
        threshold: a probability; foreground is above it.
        from_probabilities: floating predictions are probabilities, not logits.
        ignore_index: value of an integer target whose pixels are ignored: they are background in prediction and target.
            A scan of which every pixel is ignored is left out.
        empty: what a scan of two empty masks is: left out ("exclude"), 1 ("one") or 0 ("zero").
        average: "macro": the mean over the classes that have a case, "none": one value for each class.
        include_background: False leaves class 0 out.
        options: of `torchmetrics.Metric`, such as sync_on_compute.

    Example:
        >>> import torch
        >>> hd95 = HausdorffDistance(percentile=95, spacing=(1.0, 0.5))
        >>> target = torch.zeros(2, 1, 30, 80, dtype=torch.bool)
        >>> target[..., 3:9, 3:9] = True
        >>> prediction = target.roll(4, -1)
        >>> prediction[1] = False
        >>> hd95.update(prediction, target)
        >>> hd95.per_case()  # the second is missed, and gets the diagonal
        [Case(patient=None, slice=None, values=(2.0,)), Case(patient=None, slice=None, values=(50.0,))]
    """

    def __init__(self, num_classes: int = 1, *, percentile: float = 100.0, **arguments: Any) -> None:
        check_percentile(percentile)
        super().__init__(num_classes, **arguments)
        self.percentile = percentile

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, percentile={self.percentile:g}"

    def _of(self, surfaces: Surfaces) -> Tensor:
        return hausdorff_of(surfaces, self.percentile)


class AverageSurfaceDistance(DistanceMetric):
    """Mean average symmetric surface distance (ASSD), in mm; `functional.surface_metrics` defines it.

    For arguments see `HausdorffDistance`; this one has no percentile.
    """

    def _of(self, surfaces: Surfaces) -> Tensor:
        return average_of(surfaces)


class MeanAverageSurfaceDistance(DistanceMetric):
    """Mean of the mean average surface distance (MASD), in mm; `functional.surface_metrics` defines it.

    For arguments see `HausdorffDistance`; this one has no percentile.
    """

    def _of(self, surfaces: Surfaces) -> Tensor:
        return mean_average_of(surfaces)


class NormalizedSurfaceDice(SurfaceMetric):
    """Mean normalised surface Dice (NSD), in [0, 1]; `brainseg.metrics.functional.surface_metrics` defines it.

    For arguments see `HausdorffDistance`; this one has no percentile and no distance of what is missing, which is 0.

    Args:
        num_classes: K, 1 for a binary mask.
        tolerance: mm within which a boundary pixel is right.
        arguments: of `SurfaceMetric`.
    """

    higher_is_better = True

    def __init__(self, num_classes: int = 1, *, tolerance: float, **arguments: Any) -> None:
        check_tolerance(tolerance)
        super().__init__(num_classes, **arguments)
        self.tolerance = tolerance

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, tolerance={self.tolerance:g}"

    def _of(self, surfaces: Surfaces) -> Tensor:
        return share_within(surfaces, self.tolerance)

    def _worst(self, diagonal: Tensor) -> Tensor | float:  # noqa: ARG002
        return 0.0
