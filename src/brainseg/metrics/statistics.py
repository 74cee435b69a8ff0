"""How sure a mean or a difference is: patients are drawn again, as slices of one patient are no independent cases."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import wilcoxon

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


class Comparison(NamedTuple):
    """What is between two models on the same patients.

    Attributes:
        difference: mean over the patients of the first model's value less that of the second.
        lower: lower end of the difference's confidence interval.
        upper: its upper end.
        p_value: of the Wilcoxon signed-rank test, two-sided.
        patients: how many pairs.
        excluded: how many patients were left out, both models having no value.
    """

    difference: float
    lower: float
    upper: float
    p_value: float
    patients: int
    excluded: int


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
        ValueError: fewer than two patients with a value, cases without a patient, infinite values, or a level outside
            (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level!r}; 0.95 is usual")
    if n_resamples < 1:
        raise ValueError(f"n_resamples must be a positive integer, got {n_resamples!r}")
    known = [table for table in _by_patient(values).values() if not np.isnan(table).all()]
    if len(known) < 2:
        raise ValueError(f"an interval needs at least 2 patients with a value, got {len(known)}")
    sums, counts = _totals(known)
    rng = np.random.default_rng(seed)
    means = np.concatenate([_resampled(sums, counts, size, rng) for size in _blocks(n_resamples, len(sums))])
    lower, upper = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(lower), float(upper))


def compare(
    a: Sequence[Case] | Mapping[str, ArrayLike],
    b: Sequence[Case] | Mapping[str, ArrayLike],
    level: float = 0.95,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Difference a - b of two models on the same patients, with its interval and Wilcoxon's p.

    A patient's value is the mean over its cases of each class, and of these the mean; patients are paired, not slices.
    The interval is that of `confidence_interval`, of the patients' differences.

    A patient without a value in both tables (nothing there, and neither model found anything) is left out and counted.
    Without a value in one of them it is an error: the other model raised a false alarm, or under
    ``distance_when_missing="nan"`` one missed a tumour, and left out it would not count against that model. Score both
    with a value for such cases.

    The test is that of Wilcoxon (1945) as `scipy.stats.wilcoxon` has it, without a correction for continuity.
    Differences of 0 are left out (``zero_method="wilcox"``); those that agree to twelve digits of the largest value are
    equal, as rounding makes no ranks. p is exact for up to 50 other differences without ties, and with ties for up to
    13; above that it is the normal approximation with the variance corrected for ties.
    An exact p of n differences is at least 2 / 2^n: with 5 or fewer it never falls below 0.05.

    Args:
        a: the first model's table of `per_case()`, or by patient one value or several.
        b: the second model's, likewise, of the same patients.
        level: the share of the resamples' mean differences inside the interval.
        n_resamples: how many.
        seed: of the draws; the order of the patients does not matter.

    Returns:
        the comparison; all differences 0 give a p of 1.

    Raises:
        ValueError: patients that only one table holds or in which only one has a value, fewer than two pairs, tables
            of different classes, cases without a patient, infinite values, or a level outside (0, 1).

    Example:
        >>> a = {"TCGA_CS_4941": 0.9, "TCGA_DU_5855": 0.7, "TCGA_HT_7694": 0.8}
        >>> b = {"TCGA_CS_4941": 0.6, "TCGA_DU_5855": 0.6, "TCGA_HT_7694": 0.6}
        >>> result = compare(a, b)
        >>> f"{result.difference:.2f}, from {result.lower:.2f} to {result.upper:.2f}, p = {result.p_value:.2f}"
        '0.20, from 0.10 to 0.30, p = 0.25'
    """
    first, second = _by_patient(a), _by_patient(b)
    if first.keys() != second.keys():
        raise ValueError(
            "both models must have been scored on the same patients; "
            f"only the first table has {_some(first.keys() - second.keys())}, "
            f"only the second {_some(second.keys() - first.keys())}"
        )
    places = _places(a), _places(b)
    if all(places) and places[0] != places[1]:
        raise ValueError(
            "both models must have been scored on the same slices, of the same numbers; the tables differ in "
            f"{_some({name for name, _ in places[0] ^ places[1]})}"
        )
    classes = {table.shape[1] for table in (*first.values(), *second.values())}
    if len(classes) > 1:
        raise ValueError(f"both tables must have the same classes, got cases of {sorted(classes)} values")
    values = np.array([(_value(first[name]), _value(second[name])) for name in first]).reshape(-1, 2)
    missing = np.isnan(values)
    if alone := [name for name, row in zip(first, missing, strict=True) if row.sum() == 1]:
        raise ValueError(
            f"only one of the two models has a value for {_some(alone)}, and leaving out a false alarm or a miss would "
            'favour the model that made it; score both with empty="one" (distances: "zero") and without '
            'distance_when_missing="nan", or take these patients out of both'
        )
    names = [name for name, row in zip(first, missing, strict=True) if not row.any()]
    pairs = values[~missing.any(axis=1)]  # (P, 2)
    differences = pairs[:, 0] - pairs[:, 1]
    interval = confidence_interval(dict(zip(names, differences, strict=True)), level, n_resamples, seed)
    difference = math.fsum(differences) / len(pairs)
    return Comparison(difference, *interval, _signed_rank(pairs), len(pairs), len(values) - len(pairs))


def _by_patient(values: Sequence[Case] | Mapping[str, ArrayLike]) -> dict[str, NDArray[np.float64]]:
    """For each patient the values (cases, K), sorted by name."""
    if hasattr(values, "per_case"):
        raise TypeError(f"got the metric {type(values).__name__} itself; give its table, per_case()")
    if isinstance(values, Mapping) and any(
        isinstance(case, Case) for table in values.values() for case in _first(table)
    ):
        raise TypeError(f"got several tables, {', '.join(values)}; give one of them")
    if isinstance(values, Mapping):
        tables = {name: np.asarray(value, dtype=np.float64).reshape(-1, 1) for name, value in values.items()}
    else:
        listed: dict[str, list[tuple[float, ...]]] = {}
        for case in values:
            if case.patient is None:
                raise ValueError("a case has no patient, and patients are what is resampled; update with group=")
            listed.setdefault(case.patient, []).append(case.values)
        tables = {name: np.asarray(rows) for name, rows in listed.items()}
    if infinite := [name for name, table in tables.items() if np.isinf(table).any()]:
        raise ValueError(
            f"patients have infinite values, of which there is no mean: {_some(infinite)}; score them with "
            'distance_when_missing="diagonal"'
        )
    return {name: tables[name] for name in sorted(tables)}


def _first(table: Any) -> list[Any]:
    return list(table[:1]) if isinstance(table, list) else []


def _places(values: Sequence[Case] | Mapping[str, ArrayLike]) -> set[tuple[str, int]]:
    """Patient and number of the slices of a table that knows them."""
    cases = () if isinstance(values, Mapping) else values
    return {(str(case.patient), case.slice) for case in cases if case.slice is not None}


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
    """The means of so many resamples."""
    patients = len(sums)
    drawn = rng.multinomial(patients, np.full(patients, 1 / patients), size=size).astype(np.float64)  # (size, P)
    return _means(drawn @ sums, drawn @ counts)


def _means(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means (N,) of sums and numbers (N, K): over cases, then over the classes that have a case; NaN without any."""
    known = counts > 0
    means = np.divide(sums, counts, out=np.zeros_like(counts), where=known)
    classes = known.sum(axis=1)
    mean: NDArray[np.float64] = np.divide(means.sum(axis=1), classes, out=np.full(len(sums), np.nan), where=classes > 0)
    return mean


def _value(table: NDArray[np.float64]) -> float:
    """A patient's value, of its cases (cases, K)."""
    return float(_means(*_totals([table]))[0])


def _signed_rank(pairs: NDArray[np.float64]) -> float:
    """Wilcoxon's p of pairs (P, 2)."""
    scale = np.abs(pairs).max() or 1.0
    differences = np.round((pairs[:, 0] - pairs[:, 1]) / scale, 12)
    # scipy leaves zeros out itself, but for them gives up the exact p, and its older versions warn.
    changed = differences[differences != 0]
    return float(wilcoxon(changed).pvalue) if len(changed) else 1.0


def _some(names: Iterable[str]) -> str:
    """The first three names, and how many more there are."""
    ordered = sorted(names)
    listed = ", ".join(map(repr, ordered[:3])) or "none"
    return f"{listed} and {len(ordered) - 3} more" if len(ordered) > 3 else listed
