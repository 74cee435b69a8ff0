"""How sure a mean is: patients are drawn again, since the slices of one patient are no independent cases."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainseg.metrics.cases import Case

DRAWS_AT_ONCE = 4_000_000
"""Numbers of draws in memory: 32 MB."""


class Interval(NamedTuple):
    """Confidence interval of a mean.

    Attributes:
        lower: its lower end.
        upper: its upper end.
    """

    lower: float
    upper: float


def confidence_interval(
    values: Sequence[Case] | Mapping[str, ArrayLike],
    level: float = 0.95,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Percentile interval of the mean by the cluster bootstrap over patients (Efron and Tibshirani 1993, chapter 13).

    Each resample draws as many patients as there are, with all their cases, and takes the mean over the cases drawn;
    of several classes the mean of each class, and of these the mean.

    Args:
        values: the table of `per_case()`, or by patient one value or several. NaN: left out.
        level: the share of the resamples' means inside the interval.
        n_resamples: how many.
        seed: of the draws; the order of the patients does not matter.

    Raises:
        ValueError: fewer than two patients with a value, cases without a patient, or a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level!r}; 0.95 is usual")
    if n_resamples < 1:
        raise ValueError(f"n_resamples must be a positive integer, got {n_resamples!r}")
    sums, counts = _totals(_by_patient(values))
    rng = np.random.default_rng(seed)
    means = np.concatenate([_resampled(sums, counts, size, rng) for size in _blocks(n_resamples, len(sums))])
    # A resample may hold no case at all, where many patients have none.
    lower, upper = np.nanquantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(lower), float(upper))


def _by_patient(values: Sequence[Case] | Mapping[str, ArrayLike]) -> list[NDArray[np.float64]]:
    """For each patient that has a value the values (cases, K), sorted by name."""
    if isinstance(values, Mapping):
        tables = {name: np.asarray(value, dtype=np.float64).reshape(-1, 1) for name, value in values.items()}
    else:
        listed: dict[str, list[tuple[float, ...]]] = {}
        for case in values:
            if case.patient is None:
                raise ValueError("a case has no patient, and patients are what is resampled; update with group=")
            listed.setdefault(case.patient, []).append(case.values)
        tables = {name: np.asarray(rows) for name, rows in listed.items()}
    known = [tables[name] for name in sorted(tables) if not np.isnan(tables[name]).all()]
    if len(known) < 2:
        raise ValueError(f"an interval needs at least 2 patients with a value, got {len(known)}")
    return known


def _totals(patients: list[NDArray[np.float64]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and number of the values of each patient and class, (P, K) both."""
    return (
        np.stack([np.nansum(table, axis=0) for table in patients]),
        np.stack([(~np.isnan(table)).sum(axis=0) for table in patients]).astype(np.float64),
    )


def _blocks(n_resamples: int, patients: int) -> list[int]:
    """How many resamples are drawn at once."""
    size = max(1, DRAWS_AT_ONCE // patients)
    return [min(size, n_resamples - start) for start in range(0, n_resamples, size)]


def _resampled(
    sums: NDArray[np.float64], counts: NDArray[np.float64], size: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """The means of so many resamples: over cases, then over the classes that have a case."""
    patients = len(sums)
    drawn = rng.multinomial(patients, np.full(patients, 1 / patients), size=size).astype(np.float64)  # (size, P)
    numbers = drawn @ counts  # (size, K)
    means = np.divide(drawn @ sums, numbers, out=np.zeros_like(numbers), where=numbers > 0)
    classes = (numbers > 0).sum(axis=1)
    mean: NDArray[np.float64] = np.divide(means.sum(axis=1), classes, out=np.full(size, np.nan), where=classes > 0)
    return mean
