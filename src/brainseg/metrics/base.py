"""Metrics that remember every slice: their states, and what is told of them."""

from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from brainseg.checks import check_choice
from brainseg.losses.rules import check_ignore_index
from brainseg.metrics.cases import NO_GROUP, Case, Rows, patient_names, pool, slice_indices
from brainseg.metrics.gathering import GatheredMetric
from brainseg.metrics.rules import (
    Aggregation,
    Average,
    Empty,
    Masks,
    MetricResult,
    check_threshold,
    summarise,
    to_masks,
)
from brainseg.metrics.statistics import Interval, confidence_interval


@dataclass(frozen=True)
class Scores:
    """The values of cases.

    Attributes:
        rows: the cases.
        values: (N, K) float64, NaN where a case is left out.
        predicted: (N, K) bool, whether anything is predicted.
        true: (N, K) bool, whether the target holds anything.
        weights: (N,) of the cases in the mean; None: all equal.
    """

    rows: Rows
    values: Tensor
    predicted: Tensor
    true: Tensor
    weights: Tensor | None = None


class CaseMetric(GatheredMetric):
    """Base class of the metrics: keeps a row of small numbers for every slice; its subclass makes values of them.

    All metrics that read predictions alike have the same states, so that a MetricCollection updates them once.

    Args:
        num_classes: K.
        aggregation: the case that the mean runs over.
        threshold: a probability; foreground is above it.
        from_probabilities: floating predictions are probabilities, not logits.
        ignore_index: value of an integer target whose pixels are ignored.
        empty: what a case of two empty masks is: left out ("exclude"), 1 ("one") or 0 ("zero").
        average: "macro": one mean over the classes, "none": one value for each class.
        include_background: False leaves class 0 out of the result.
        row_shape: of the numbers that are kept for a slice and class.
        row_dtype: of these numbers.
        options: of torchmetrics' Metric, such as sync_on_compute.
    """

    rows: list[Tensor]
    tags: list[Tensor]
    names: list[Tensor]

    def __init__(
        self,
        num_classes: int,
        *,
        aggregation: Aggregation = "slice",
        threshold: float = 0.5,
        from_probabilities: bool = False,
        ignore_index: int | None = None,
        empty: Empty = "exclude",
        average: Average = "macro",
        include_background: bool = True,
        row_shape: tuple[int, ...],
        row_dtype: torch.dtype = torch.int64,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_choice("aggregation", aggregation, Aggregation)
        check_choice("empty", empty, Empty)
        check_choice("average", average, Average)
        if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
            raise ValueError(f"num_classes must be a positive integer, got {num_classes!r}")
        if num_classes == 1 and not include_background:
            raise ValueError(
                "include_background=False leaves nothing of num_classes=1, whose one class is the foreground"
            )
        self.num_classes = num_classes
        self.aggregation = aggregation
        self.threshold = check_threshold(threshold)
        self.from_probabilities = from_probabilities
        check_ignore_index(ignore_index)
        self.ignore_index = ignore_index
        self._first = True
        self.empty = empty
        self.average = average
        self.include_background = include_background
        self._row_shape, self._row_dtype = row_shape, row_dtype
        self.add_state("rows", [], dist_reduce_fx="cat")  # (B, K, ...)
        self.add_state("tags", [], dist_reduce_fx="cat")  # (B, 3): slice, place in its batch, length of the name
        self.add_state("names", [], dist_reduce_fx="cat")  # bytes of the patients' names, one behind the other
        self._mark("reading", self.threshold, from_probabilities, ignore_index)

    def extra_repr(self) -> str:
        note = " (depends on the batch size)" if self.aggregation == "batch" else ""
        return f"num_classes={self.num_classes}, aggregation={self.aggregation!r}{note}, empty={self.empty!r}"

    def per_case(self) -> list[Case]:
        """The table of cases, sorted by patient and slice; in distributed runs every process must call it."""
        with self._gathered():
            scores = self._scores()
        rows = zip(scores.rows.patients, scores.rows.slices, scores.values.tolist(), strict=True)
        return [Case(patient, index, tuple(values)) for patient, index, values in rows]

    def confidence_interval(self, level: float = 0.95, n_resamples: int = 10_000, seed: int = 0) -> Interval:
        """Interval of the mean over slices or patients (and of this over classes), by resampling patients.

        In distributed runs every process must call it. See `brainseg.metrics.confidence_interval`.

        Raises:
            ValueError: another aggregation, fewer than two patients, or slices of no patient.
        """
        if self.aggregation not in ("slice", "patient"):
            raise ValueError(
                f'aggregation="{self.aggregation}" has no cases of a patient to resample; use "patient" or "slice"'
            )
        return confidence_interval(self.per_case(), level=level, n_resamples=n_resamples, seed=seed)

    def _score(self, rows: Rows) -> Scores:
        """The values of the cases: what a subclass adds."""
        raise NotImplementedError

    def _masks(self, prediction: Tensor, target: Tensor, valid: Tensor | None) -> Masks:
        """The masks of a batch."""
        masks = to_masks(
            prediction,
            target,
            num_classes=self.num_classes,
            threshold=self.threshold,
            from_probabilities=self.from_probabilities,
            ignore_index=self.ignore_index,
            valid=valid,
            suspect_probabilities=self._first,
        )
        self._first = False
        return masks

    def _append(self, rows: Tensor, group: Any, slice_index: Any) -> None:
        """Keeps the rows (B, K, ...) of a batch."""
        if group is None and self.aggregation == "patient":
            raise ValueError(NO_GROUP)
        codes = [None] * len(rows) if group is None else [name.encode() for name in patient_names(group, len(rows))]
        indices = [-1] * len(rows) if slice_index is None else slice_indices(slice_index, len(rows))
        lengths = [-1 if code is None else len(code) for code in codes]
        tags = torch.tensor([indices, range(len(rows)), lengths], dtype=torch.int64).T
        names = torch.tensor(list(b"".join(code for code in codes if code)), dtype=torch.uint8)
        self.rows.append(rows.to(self.device))
        self.tags.append(tags.to(self.device))
        self.names.append(names.to(self.device))

    def _blanks(self) -> dict[str, Tensor]:
        return {
            "rows": torch.zeros(0, self.num_classes, *self._row_shape, dtype=self._row_dtype, device=self.device),
            "tags": torch.zeros(0, 3, dtype=torch.int64, device=self.device),
            "names": torch.zeros(0, dtype=torch.uint8, device=self.device),
        }

    def _summarise(self) -> MetricResult:
        scores = self._scores()
        result = summarise(scores.values, scores.predicted, scores.true, weights=scores.weights, average=self.average)
        return result._replace(value=result.value.to(self.device))

    def _scores(self) -> Scores:
        rows = pool(*self._slices(), self.aggregation)
        return self._score(rows if self.include_background else replace(rows, data=rows.data[:, 1:]))

    def _slices(self) -> tuple[Rows, Tensor]:
        """A row for each slice in the order in which they came, and its place in its batch."""
        data, tags, names = (self._joined(state) for state in ("rows", "tags", "names"))
        indices, places, lengths = tags.unbind(1)
        slices = Rows(
            _decoded(names, lengths.tolist()),
            [None if index < 0 else index for index in indices.tolist()],
            data,
            torch.ones_like(places),
        )
        return slices, places


def _decoded(names: Tensor, lengths: list[int]) -> list[str | None]:
    text = bytes(names.tolist())
    ends = accumulate(max(length, 0) for length in lengths)
    return [None if n < 0 else text[end - n : end].decode() for n, end in zip(lengths, ends, strict=True)]
