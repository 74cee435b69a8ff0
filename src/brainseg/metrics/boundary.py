"""Boundary IoU of many slices or volumes."""

from typing import Any

import torch
from torch import Tensor

from brainseg.metrics.functional.boundary import check_width, iou_of_rims, rim_counts
from brainseg.metrics.functional.surface import check_spacing
from brainseg.metrics.surface import SpacedMetric


class BoundaryIoU(SpacedMetric):
    """Mean boundary IoU, in [0, 1]; `brainseg.metrics.functional.boundary_iou` defines it.

    For other arguments see `HausdorffDistance`; this one has no percentile and no distance of what is missing, which
    is 0.

    Args:
        num_classes: K, 1 for a binary mask.
        width: of the rim, mm; a rim of w pixels is w pixels wide.
        arguments: of `HausdorffDistance`: `spacing`, with 1 the width is in pixels, `aggregation`, ...

    Example:
        >>> import torch
        >>> rim = BoundaryIoU(width=2)
        >>> target = torch.zeros(2, 1, 9, 9, dtype=torch.bool)
        >>> target[..., 2:7, 2:7] = True
        >>> prediction = target.clone()
        >>> prediction[1] = False
        >>> rim.update(prediction, target)
        >>> rim.compute()
        tensor(0.5000)
    """

    higher_is_better = True

    def __init__(self, num_classes: int = 1, *, width: float = 1.0, **arguments: Any) -> None:
        check_width(width)
        super().__init__(num_classes, measured=3, **arguments)  # as `rim_counts`
        self.width = width
        self._mark("rim", float(width))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, width={self.width:g}"

    def _measure(self, predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        steps = check_spacing(self.spacing, predicted.dim() - 2)
        return rim_counts(predicted, true, self.width, steps), torch.zeros(0)

    def _values(self, rows: Tensor, payload: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ARG002, no such numbers
        return iou_of_rims(rows, sizes, empty=self.empty), rows[..., 0] > 0, rows[..., 1] > 0
