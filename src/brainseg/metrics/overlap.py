"""Overlap of many slices: the scores that follow from counts of pixels, and the counts."""

from typing import Any, ClassVar, NoReturn

from torch import Tensor

from brainseg.metrics.base import CaseMetric, Scores
from brainseg.metrics.cases import Rows
from brainseg.metrics.functional.overlap import (
    check_beta,
    counts_of_masks,
    dice_of_counts,
    f_beta_of_counts,
    iou_of_counts,
    precision_of_counts,
    published_batch_iou,
    recall_of_counts,
    specificity_of_counts,
    volume_difference_of_counts,
)
from brainseg.metrics.functional.surface import Spacing, check_spacing
from brainseg.metrics.rules import Aggregation, Average, Empty, MetricResult


class OverlapMetric(CaseMetric):
    """Base class of what follows from counts of pixels, which are kept for every slice.

    Since all keep the same, a MetricCollection counts once for all that read predictions alike. Patients and the
    dataset add the counts of their slices before the formula is applied. See `DiceScore` for arguments.
    """

    higher_is_better: bool | None = True
    published: ClassVar[bool] = False
    """Whether there is a published score of batches."""

    def __init__(
        self,
        num_classes: int = 1,
        *,
        aggregation: Aggregation = "slice",
        threshold: float = 0.5,
        from_probabilities: bool = False,
        ignore_index: int | None = None,
        empty: Empty = "exclude",
        average: Average = "macro",
        include_background: bool = True,
        **options: Any,
    ) -> None:
        if aggregation == "batch" and not self.published:
            raise ValueError(
                f'aggregation="batch" is a published formula of DiceScore and IoU, and {type(self).__name__} has none; '
                'use "slice", "patient" or "dataset"'
            )
        super().__init__(
            num_classes,
            aggregation=aggregation,
            threshold=threshold,
            from_probabilities=from_probabilities,
            ignore_index=ignore_index,
            empty=empty,
            average=average,
            include_background=include_background,
            row_shape=(4,),
            **options,
        )

    def update(
        self,
        prediction: Tensor,
        target: Tensor,
        *,
        group: Any = None,
        slice_index: Any = None,
        valid: Tensor | None = None,
    ) -> None:
        """Counts the pixels of a batch.

        Args:
            prediction: logits (B, K, H, W), masks, or class indices (B, H, W), see `brainseg.metrics.rules.to_masks`.
            target: masks (B, K, H, W) or class indices (B, H, W).
            group: the patient of each slice: B names, or an integer tensor (B,).
            slice_index: the place of each slice in its patient, integers (B,); for the table only.
            valid: bool, False where pixels are ignored: (H, W), (B, H, W), or (B, K, H, W) if the target has masks;
                each side may be 1.

        Raises:
            ValueError: shapes or values that are no masks of K classes, or ``aggregation="patient"`` without `group`.
        """
        self._append(counts_of_masks(self._masks(prediction, target, valid)), group, slice_index)

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

    False tumour on an empty slice and tumour pixels that are no longer found never improve the score. Where pixels are
    pooled, a slice of which little is right may: left empty it loses its false pixels together with its tumour.

    Args:
        num_classes: K, 1 for a binary mask.
        aggregation: the case that the mean runs over: "slice", "patient" (the pixels of its slices are pooled; needs
            `group`), "dataset" (all pixels are pooled), or "batch".
        threshold: a probability; foreground is above it.
        from_probabilities: floating predictions are probabilities, not logits.
        ignore_index: value of an integer target whose pixels are ignored: they are counted nowhere, whatever is
            predicted there. A case of which every pixel is ignored is left out.
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

    published = True

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

    published = True

    def _value(self, counts: Tensor) -> Tensor:
        return iou_of_counts(counts, empty=self.empty)

    def _published(self, counts: Tensor) -> Tensor:
        return published_batch_iou(counts)


class FBeta(OverlapMetric):
    """Mean F-beta score; the formula is that of `brainseg.metrics.functional.f_beta`, with beta = 1 that of Dice.

    Args:
        num_classes: K, 1 for a binary mask.
        beta: how many times recall weighs as much as precision.
        arguments: those of `DiceScore`, but ``aggregation="batch"``.
    """

    def __init__(self, num_classes: int = 1, *, beta: float = 1.0, **arguments: Any) -> None:
        super().__init__(num_classes, **arguments)
        self.beta = check_beta(beta)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, beta={self.beta:g}"

    def _value(self, counts: Tensor) -> Tensor:
        return f_beta_of_counts(counts, beta=self.beta, empty=self.empty)


class Precision(OverlapMetric):
    """Mean precision (positive predictive value); the formula is that of `brainseg.metrics.functional.precision`.

    A case whose target is missed scores 0, though nothing that is predicted is wrong. For arguments see `DiceScore`;
    there is no ``aggregation="batch"``.
    """

    def _value(self, counts: Tensor) -> Tensor:
        return precision_of_counts(counts, empty=self.empty)


class Recall(OverlapMetric):
    """Mean recall (sensitivity); the formula is that of `brainseg.metrics.functional.recall`.

    A case without tumour in which something is predicted scores 0. In a patient or dataset with tumour false pixels
    leave it as it is: report it beside `Precision`. For arguments see `DiceScore`; there is no ``aggregation="batch"``.
    """

    def _value(self, counts: Tensor) -> Tensor:
        return recall_of_counts(counts, empty=self.empty)


class CompleteMetric(OverlapMetric):
    """Base class of what cases of two empty masks have too, so that `empty` is no argument."""

    lacking: ClassVar[tuple[str, ...]] = ("empty",)
    """Arguments of `DiceScore` that mean nothing here."""

    def __init__(self, num_classes: int = 1, **arguments: Any) -> None:
        for name in self.lacking:
            if name in arguments:
                raise TypeError(f"{type(self).__name__} has no argument {name}, got {arguments[name]!r}; leave it out")
        super().__init__(num_classes, **arguments)

    def extra_repr(self) -> str:
        return f"num_classes={self.num_classes}, aggregation={self.aggregation!r}"


class Specificity(CompleteMetric):
    """Mean specificity; the formula is that of `brainseg.metrics.functional.specificity`.

    Every case counts, and two empty masks score 1; only a case without background is left out, and counted as excluded.
    A model that predicts nothing scores 1, and predicting less never lowers it: report it beside `Recall`. For
    arguments see `DiceScore`; there is no `empty`, and no ``aggregation="batch"``.
    """

    def _value(self, counts: Tensor) -> Tensor:
        return specificity_of_counts(counts)


class VolumeDifference(CompleteMetric):
    """Mean difference of the volumes, in ml or relative; `brainseg.metrics.functional.volume_difference` defines it.

    Every case counts, and two empty masks differ by 0. A volume has no place, so that this is no measure of overlap:
    false tumour in one slice makes up for missed tumour in another one of the patient, and where too much is predicted
    a tumour that is not found brings the volume nearer. Only slice by slice false tumour on an empty slice never
    improves it.

    Args:
        num_classes: K, 1 for a binary mask.
        spacing: mm between neighbouring pixels along (slice, row, column), or one number for all three.
        relative: the difference as a fraction of the true volume. Cases with an empty target are left out and counted
            as excluded, whatever is predicted there.
        arguments: those of `DiceScore`, but `empty` and ``aggregation="batch"``.

    Example:
        >>> import torch
        >>> difference = VolumeDifference(spacing=(5.0, 1.0, 1.0), aggregation="patient")
        >>> target = torch.zeros(2, 1, 20, 20, dtype=torch.bool)
        >>> target[:, :, 5:15, 5:15] = True
        >>> difference.update(torch.zeros_like(target), target, group=["TCGA_CS_4941", "TCGA_CS_4941"])
        >>> difference.compute()
        tensor(1.)
    """

    higher_is_better = False

    def __init__(
        self,
        num_classes: int = 1,
        *,
        spacing: Spacing = (1.0, 1.0, 1.0),
        relative: bool = False,
        **arguments: Any,
    ) -> None:
        check_spacing(spacing, 3)
        super().__init__(num_classes, **arguments)
        self.spacing = spacing
        self.relative = relative

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, spacing={self.spacing!r}, relative={self.relative}"

    def _value(self, counts: Tensor) -> Tensor:
        return volume_difference_of_counts(counts, spacing=self.spacing, relative=self.relative)


class ConfusionCounts(CompleteMetric):
    """True positive, false positive, false negative and true negative pixels of each class, of all slices together.

    `compute()` gives int64 (K, 4), exact and with every slice in it, and `result()` beside it the counts of cases, one
    for each class. The values of a row of `per_case()` are the four counts of each class, class by class. Totals have
    no confidence interval. For arguments see `DiceScore`; there is no `empty`, no `average`, and no
    ``aggregation="batch"``.

    Example:
        >>> import torch
        >>> counts = ConfusionCounts()
        >>> counts.update(torch.tensor([[[0, 1, 1, 1]]]), torch.tensor([[[1, 1, 0, 0]]]))
        >>> counts.compute()
        tensor([[1, 2, 1, 0]])
    """

    higher_is_better = None
    lacking = ("empty", "average")

    def confidence_interval(self, *_arguments: Any, **_options: Any) -> NoReturn:
        """Raises ValueError: counts are totals."""
        raise ValueError(
            "ConfusionCounts are totals, and an interval is that of a mean; take that of a score, such as Recall"
        )

    def _value(self, counts: Tensor) -> Tensor:
        return counts.flatten(1)

    def _summarise(self) -> MetricResult:
        scores = self._scores()
        cases, classes = scores.true.shape
        missed, false_alarms = scores.true & ~scores.predicted, scores.predicted & ~scores.true
        return MetricResult(
            scores.values.sum(0).view(classes, 4).to(self.device),
            (cases,) * classes,
            (0,) * classes,
            tuple(missed.sum(0).tolist()),
            tuple(false_alarms.sum(0).tolist()),
        )
