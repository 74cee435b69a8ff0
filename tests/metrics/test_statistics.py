"""The interval of a mean over patients: its width, what it resamples, and what it refuses."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from brainseg.metrics import Case, DiceScore, confidence_interval
from tests.metrics.scans import slices, update


def patients(count: int, seed: int = 0) -> dict[str, float]:
    return dict(zip(map(str, range(count)), np.random.default_rng(seed).uniform(0, 1, count).tolist(), strict=True))


def test_it_agrees_with_the_bootstrap_of_scipy() -> None:
    values = patients(34)
    sample = (np.array(list(values.values())),)
    expected = stats.bootstrap(sample, np.mean, method="percentile", n_resamples=10_000, rng=1).confidence_interval
    assert confidence_interval(values) == pytest.approx((expected.low, expected.high), abs=0.005)


def test_it_agrees_with_a_loop_over_drawn_patients() -> None:
    rng = np.random.default_rng(3)
    values = {str(i): rng.uniform(0, 1, rng.integers(1, 9)) for i in range(20)}
    names = list(values)
    means = [np.concatenate([values[name] for name in rng.choice(names, 20)]).mean() for _ in range(4000)]
    expected = np.quantile(means, [0.05, 0.95])
    assert confidence_interval(values, level=0.9) == pytest.approx(expected, abs=0.005)


def test_the_seed_decides_and_the_order_of_the_patients_does_not() -> None:
    values = patients(10)
    backwards = dict(reversed(values.items()))
    assert confidence_interval(values) == confidence_interval(backwards)
    assert confidence_interval(values, seed=1) != confidence_interval(values)


def test_equal_patients_leave_no_doubt() -> None:
    assert confidence_interval({"a": [0.5, 0.5], "b": 0.5}) == (0.5, 0.5)


def test_many_slices_of_few_patients_do_not_narrow_it() -> None:
    few = {"a": [0.0], "b": [1.0], "c": [0.5]}
    many = {name: value * 1000 for name, value in few.items()}
    assert confidence_interval(many) == pytest.approx(confidence_interval(few))


def test_a_higher_level_is_wider() -> None:
    narrow, wide = (confidence_interval(patients(20), level=level) for level in (0.5, 0.99))
    assert wide.lower < narrow.lower < narrow.upper < wide.upper


def test_what_is_left_out_has_no_part() -> None:
    values = patients(10)
    expected = confidence_interval(values)
    assert confidence_interval({**values, "x": math.nan}) == expected
    assert confidence_interval({name: [value, math.nan] for name, value in values.items()}) == expected


def test_classes_are_averaged_after_their_cases() -> None:
    table = [Case("a", None, (0.0, 1.0)), Case("b", None, (0.5, 0.5)), Case("c", None, (1.0, math.nan))]
    generator = np.random.default_rng(0)
    draws = generator.integers(0, 3, (4000, 3))
    values = np.array([case.values for case in table])[draws]
    with np.errstate(all="ignore"):
        classes = np.nansum(values, 1) / (~np.isnan(values)).sum(1)
    expected = np.quantile(np.nanmean(classes, 1), [0.1, 0.9])
    assert confidence_interval(table, level=0.8) == pytest.approx(expected, abs=0.05)


def test_blocks_of_resamples_make_one_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = confidence_interval(patients(20), n_resamples=1000)
    monkeypatch.setattr("brainseg.metrics.statistics.DRAWS_AT_ONCE", 7 * 20)
    assert confidence_interval(patients(20), n_resamples=1000) == expected


@pytest.mark.parametrize("aggregation", ["slice", "patient"])
def test_the_metric_resamples_its_patients(aggregation: Any) -> None:
    metric = DiceScore(aggregation=aggregation)
    update(metric, slices())
    lower, upper = metric.confidence_interval(level=0.8, n_resamples=99, seed=3)
    assert lower < metric.compute() < upper
    assert (lower, upper) == confidence_interval(metric.per_case(), level=0.8, n_resamples=99, seed=3)


@pytest.mark.parametrize("aggregation", ["dataset", "batch"])
def test_pooled_pixels_have_no_patients(aggregation: Any) -> None:
    with pytest.raises(ValueError, match=f'aggregation="{aggregation}" has no cases of a patient to resample'):
        DiceScore(aggregation=aggregation).confidence_interval()


def test_slices_of_unknown_patients_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a case has no patient, .* update with group="):
        confidence_interval([Case(None, 3, (0.5,)), Case("a", 1, (0.5,))])


@pytest.mark.parametrize("values", [{}, {"a": 0.5}, {"a": [0.5, 0.6], "b": math.nan}])
def test_fewer_than_two_patients_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"an interval needs at least 2 patients with a value, got [01]"):
        confidence_interval(values)


@pytest.mark.parametrize("options", [{"level": 95}, {"level": 0}, {"level": 1}, {"n_resamples": 0}])
def test_levels_and_numbers_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must"):
        confidence_interval(patients(3), **options)
