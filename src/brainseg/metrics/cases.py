"""Cases: the slices that were seen, pooled to patients, batches or all, and the table of their values."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from brainseg.metrics.rules import Aggregation

NO_GROUP = 'aggregation="patient" needs the patient of every slice; give group=, names or an integer tensor (B,)'


class Case(NamedTuple):
    """A row of the table: one slice, one patient, one batch, or all.

    Attributes:
        patient: name, or None where it is not known or there are several.
        slice: index, likewise.
        values: one for each class that the metric averages, NaN where the case is left out.
    """

    patient: str | None
    slice: int | None
    values: tuple[float, ...]

    @property
    def value(self) -> float:
        """Mean over the classes in which the case is not left out; NaN if it is in all."""
        kept = [value for value in self.values if not math.isnan(value)]
        return math.fsum(kept) / len(kept) if kept else math.nan


@dataclass(frozen=True)
class Rows:
    """What was measured, a row a case.

    Attributes:
        patients: N names or None.
        slices: N indices or None.
        data: (N, K, ...).
        sizes: (N,) int64, how many slices a case has.
    """

    patients: list[str | None]
    slices: list[int | None]
    data: Tensor
    sizes: Tensor

    def order(self) -> list[int]:
        """The cases sorted by patient and slice; those of which neither is known come first, as they came."""
        return sorted(
            range(len(self.slices)), key=lambda i: (self.patients[i] or "", -1 if (n := self.slices[i]) is None else n)
        )

    def taken(self, order: Sequence[int]) -> "Rows":
        """The cases in this order."""
        patients, slices = [self.patients[i] for i in order], [self.slices[i] for i in order]
        return Rows(patients, slices, self.data[order], self.sizes[order])


def pool(slices: Rows, places: Tensor, aggregation: Aggregation) -> Rows:
    """The slices of each case added.

    Args:
        slices: one row a slice, in the order in which they came.
        places: (N,) place of each slice in its batch; a batch starts at 0.
        aggregation: what a case is.

    Returns:
        a row a case, sorted by patient and slice.

    Raises:
        ValueError: patients are asked for, and a slice has none.
    """
    if aggregation == "slice":
        return slices.taken(slices.order())
    if aggregation == "batch":
        return _added(slices, (places == 0).cumsum(0) - 1)
    if aggregation == "dataset":
        return _added(slices, torch.zeros_like(places))
    known = [name for name in slices.patients if name is not None]
    if len(known) < len(slices.patients):
        raise ValueError(NO_GROUP)
    patients = sorted(set(known))
    number = {name: i for i, name in enumerate(patients)}
    pooled = _added(slices, torch.tensor([number[name] for name in known], dtype=torch.int64))
    return replace(pooled, patients=list(patients))


def patient_names(group: Any, count: int) -> list[str]:
    """The patient of each slice; ValueError unless these are so many names or whole numbers."""
    names = _listed("group", group, count)
    if not all(isinstance(name, str | Integral) and not isinstance(name, bool) for name in names):
        raise ValueError(f"group must hold names or integers, got {names!r}; give the patient of each slice")
    return [str(name) for name in names]


def slice_indices(slice_index: Any, count: int) -> list[int]:
    """The place of each slice in its patient; ValueError unless these are so many whole numbers from 0."""
    indices = _listed("slice_index", slice_index, count)
    if not all(isinstance(n, Integral) and not isinstance(n, bool) and 0 <= int(n) < 2**63 for n in indices):
        raise ValueError(f"slice_index must hold integers from 0, got {indices!r}")
    return [int(index) for index in indices]


def _listed(name: str, values: Any, count: int) -> list[Any]:
    if isinstance(values, Tensor | np.ndarray):
        values = values.tolist()
    if isinstance(values, str | Mapping) or not isinstance(values, Iterable) or len(listed := list(values)) != count:
        raise ValueError(f"{name} must have one entry for each of the {count} slices of the batch, got {values!r}")
    return listed


def _added(rows: Rows, index: Tensor) -> Rows:
    """The rows of equal index added; the result's row i is that of index i."""
    count = int(index.max()) + 1 if len(index) else 0
    data = rows.data.new_zeros(count, *rows.data.shape[1:]).index_add_(0, index, rows.data)
    return Rows([None] * count, [None] * count, data, rows.sizes.new_zeros(count).index_add_(0, index, rows.sizes))
