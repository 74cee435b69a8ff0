"""Overlap scores of many slices: Dice and intersection over union."""

from typing import Any

from torch import Tensor

from brainseg.metrics.base import CaseMetric, Scores
from brainseg.metrics.cases import Rows
from brainseg.metrics.functional import confusion_counts, dice_of_counts, iou_of_counts, published_batch_iou
from brainseg.metrics.rules import Aggregation, Average, Empty


class OverlapMetric(CaseMetric):
    """Base class of the scores that follow from counts of pixels, which are kept for every slice.

    See `DiceScore` for arguments.
    """

    higher_is_better = True

    def __init__(
        self,
        num_classes: int = 1,
        *,
        aggregation: Aggregation = "slice",
        threshold: float = 0.5,
        from_probabilities: bool = False,
        empty: Empty = "exclude",
        average: Average = "macro",
        include_background: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(
            num_classes,
            aggregation=aggregation,
            threshold=threshold,
            from_probabilities=from_probabilities,
            empty=empty,
            average=average,
            include_background=include_background,
            row_shape=(4,),
            **options,
        )

    def update(self, prediction: Tensor, target: Tensor, *, group: Any = None, slice_index: Any = None) -> None:
        """Counts the pixels of a batch.

        Args:
            prediction: logits (B, K, H, W), masks, or class indices (B, H, W), see `brainseg.metrics.rules.to_masks`.
            target: masks (B, K, H, W) or class indices (B, H, W).
            group: the patient of each slice: B names, or an integer tensor (B,).
            slice_index: the place of each slice in its patient, integers (B,); for the table only.

        Raises:
            ValueError: shapes or values that are no masks of K classes, or ``aggregation="patient"`` without `group`.
        """
        counts = confusion_counts(
            prediction,
            target,
            num_classes=self.num_classes,
            threshold=self.threshold,
            from_probabilities=self.from_probabilities,
        )
        self._append(counts, group, slice_index)

    def _score(self, rows: Rows) -> Scores:
        both, excess, lacking, _ = rows.data.unbind(-1)
        batch = self.aggregation == "batch"
        values = self._published(rows.data) if batch else self._value(rows.data)
        return Scores(rows, values, both + excess > 0, both + lacking > 0, rows.sizes if batch else None)

    def _value(self, counts: Tensor) -> Tensor:
        """The score (N, K) of counts (N, K, 4)."""
        raise NotImplementedError

    def _published(self, counts: Tensor) -> Tensor:
        """The score (N, K) of whole batches, as it was published."""
        raise NotImplementedError


class DiceScore(OverlapMetric):
    """Mean Dice score over slices, patients, or all; the formula is that of `brainseg.metrics.functional.dice_score`.

    ``aggregation="batch"`` is the published score of UNeXt-pytorch, for comparison only: 2 IoU / (IoU + 1) of the
    batch's `IoU`, averaged over batches weighted by their size. It depends on the batch size, and the empty-mask rule
    does not apply: a batch without tumour in which nothing is predicted scores 1. Several classes are scored each by
    itself.

    Args:
        num_classes: K, 1 for a binary mask.
        aggregation: the case that the mean runs over: "slice", "patient" (the pixels of its slices are pooled; needs
            `group`), "dataset" (all pixels are pooled), or "batch".
        threshold: a probability; foreground is above it.
        from_probabilities: floating predictions are probabilities, not logits.
        empty: what a case of two empty masks is: left out ("exclude"), 1 ("one") or 0 ("zero").
        average: "macro": the mean over the classes that have a case, "none": one value for each class.
        include_background: False leaves class 0 out.
        options: of `torchmetrics.Metric`, such as sync_on_compute.

    Example:
        >>> import torch
        >>> dice = DiceScore(aggregation="patient")
        >>> target = torch.tensor([[[[1, 1, 0, 0]]], [[[0, 0, 0, 0]]]])
        >>> logits = torch.tensor([[[[9.0, -9.0, -9.0, -9.0]]], [[[9.0, -9.0, -9.0, -9.0]]]])
        >>> dice.update(logits, target, group=["TCGA_CS_4941", "TCGA_CS_4941"])
        >>> dice.compute()
        tensor(0.5000)
    """

    def _value(self, counts: Tensor) -> Tensor:
        return dice_of_counts(counts, empty=self.empty)

    def _published(self, counts: Tensor) -> Tensor:
        value = published_batch_iou(counts)
        return 2 * value / (value + 1)


class IoU(OverlapMetric):
    """Mean intersection over union; the formula is that of `brainseg.metrics.functional.iou`.

    ``aggregation="batch"`` is the published score of UNeXt-pytorch, for comparison only: of the pixels of a batch
    together (intersection + 1e-5) / (union + 1e-5), averaged over batches weighted by their size. It depends on the
    batch size, and the empty-mask rule does not apply. For arguments see `DiceScore`.
    """

    def _value(self, counts: Tensor) -> Tensor:
        return iou_of_counts(counts, empty=self.empty)

    def _published(self, counts: Tensor) -> Tensor:
        return published_batch_iou(counts)
