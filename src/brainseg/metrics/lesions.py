"""Lesions found, missed and invented, over slices or volumes."""

from typing import Any, Literal

import torch
from torch import Tensor

from brainseg.checks import check_choice
from brainseg.metrics.functional.lesions import (
    check_connectivity,
    check_iou_threshold,
    lesion_counts,
    scores_of_lesions,
)
from brainseg.metrics.scans import ScanMetric

Measure = Literal["sensitivity", "precision", "f1", "false_positives", "lesion_dice"]


class LesionDetection(ScanMetric):
    """Mean score of the detection of lesions; `brainseg.metrics.functional.lesion_detection` defines it.

    Lesions are connected components: of an image, or with ``aggregation="patient"`` of the volume of a patient's
    slices, where one lesion may be several in a slice. In a MetricCollection metrics that differ in `measure` only
    share their work.

    Args:
        num_classes: K, 1 for a binary mask.
        measure: "sensitivity", "precision", "f1", "false_positives" (per scan; those of all scans count, and less is
            better) or "lesion_dice".
        iou_threshold: in (0, 1], matches lesions and components one to one; None: one common pixel finds a lesion.
        connectivity: along how many axes at once neighbours may differ, from 1; None: all axes.
        aggregation: "slice": the mean over images, each by itself; "patient": over the volumes of patients, which
            needs `group` and `slice_index` and keeps their masks, eight pixels a byte.
        threshold: a probability; foreground is above it.
        from_probabilities: floating predictions are probabilities, not logits.
        ignore_index: value of an integer target whose pixels are ignored: they are background in prediction and target.
            A scan of which every pixel is ignored is left out.
        empty: what a scan of two empty masks is: left out ("exclude"), 1 ("one") or 0 ("zero"). Its false positives
            are 0 in any case.
        average: "macro": the mean over the classes that have a case, "none": one value for each class.
        include_background: False leaves class 0 out.
        options: of `torchmetrics.Metric`, such as sync_on_compute.

    Example:
        >>> import torch
        >>> invented = LesionDetection(measure="false_positives")
        >>> target = torch.tensor([[[[1, 1, 0, 1, 0, 0, 0]]]])
        >>> prediction = torch.tensor([[[[0, 1, 0, 0, 0, 1, 1]]]])
        >>> invented.update(prediction, target)
        >>> invented.update(torch.zeros_like(target), torch.zeros_like(target))
        >>> invented.compute()
        tensor(0.5000)
    """

    def __init__(
        self,
        num_classes: int = 1,
        *,
        measure: Measure = "f1",
        iou_threshold: float | None = None,
        connectivity: int | None = None,
        **arguments: Any,
    ) -> None:
        check_choice("measure", measure, Measure)
        check_iou_threshold(iou_threshold)
        check_connectivity(connectivity, 3)
        super().__init__(num_classes, measured=5, **arguments)  # as `lesion_counts`
        self.measure = measure
        self.iou_threshold = iou_threshold
        self.connectivity = connectivity
        self._mark("matching", iou_threshold, connectivity)

    @property
    def higher_is_better(self) -> bool:  # type: ignore[override]
        """Whether more is better: of all but false positives."""
        return self.measure != "false_positives"

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, measure={self.measure!r}, iou_threshold={self.iou_threshold}"

    def _measure(self, predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        return lesion_counts(predicted, true, self.iou_threshold, self.connectivity), torch.zeros(0)

    def _values(self, rows: Tensor, payload: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ARG002, no such numbers
        scores = scores_of_lesions(rows, sizes, empty=self.empty)
        values: Tensor = getattr(scores, self.measure)
        return values, scores.components > 0, scores.lesions > 0
