"""The interval of a mean over patients, and the difference of two models: what they resample, and what they refuse."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from brainseg.metrics import Case, DiceScore, HausdorffDistance, confidence_interval
from brainseg.metrics.statistics import compare
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


@pytest.mark.parametrize("function", [confidence_interval, lambda values: compare(values, patients(4))])
def test_infinite_values_are_refused(function: Any) -> None:
    with pytest.raises(ValueError, match=r"infinite values, of which there is no mean: '1', '2', '3' and 1 more; .*"):
        function({"0": 1.0, "1": math.inf, "2": [0.0, -math.inf], "3": math.inf, "4": math.inf})


def signed_rank(differences: list[float]) -> float:
    """The exact two-sided p: the share of all choices of signs that part the ranks as unevenly, zeros left out."""
    kept = [difference for difference in differences if difference]
    ranks = stats.rankdata(np.abs(kept))
    uneven = abs(np.dot(np.sign(kept), ranks))
    signs = itertools.product([-1, 1], repeat=len(kept))
    return float(np.mean([abs(np.dot(choice, ranks)) >= uneven for choice in signs]))


values = st.integers(-8, 8).map(lambda number: number / 8)  # ties and zeros come, and eighths do not round
tables = st.dictionaries(st.text(max_size=3), st.tuples(values, values), min_size=2, max_size=10)


def two(table: dict[str, tuple[float, float]]) -> tuple[dict[str, float], dict[str, float]]:
    return {name: a for name, (a, _) in table.items()}, {name: b for name, (_, b) in table.items()}


def test_two_models_by_pencil() -> None:
    # Of 0.5, 0.25 and -0.125 the signed ranks are 3, 2 and -1; 4 of the 8 choices of signs part them by 4 or more.
    a, b = {"x": 0.75, "y": 0.5, "z": 0.5, "w": math.nan}, {"z": 0.625, "y": 0.25, "x": [0.5, 0.0], "w": math.nan}
    result = compare(a, b)
    assert result.difference == 0.625 / 3
    assert result.p_value == 0.5
    assert (result.patients, result.excluded) == (3, 1)
    # All three drawn alike happens in 1 of 27 resamples, more often than the 2.5 % of a tail.
    assert (result.lower, result.upper) == (-0.125, 0.5)


@given(tables)
def test_few_patients_have_the_exact_p_with_ties_and_zeros(table: dict[str, tuple[float, float]]) -> None:
    differences = [a - b for a, b in table.values()]
    assume(any(differences))
    assert compare(*two(table), n_resamples=1).p_value == pytest.approx(signed_rank(differences))


def test_many_patients_have_the_normal_approximation() -> None:
    rng = np.random.default_rng(5)
    differences = rng.integers(-3, 5, 80).astype(float)
    ranks = stats.rankdata(np.abs(differences[differences != 0]))
    variance = (ranks**2).sum()  # of the sum of signed ranks; equals the one that is corrected for ties
    z = np.dot(np.sign(differences[differences != 0]), ranks) / math.sqrt(variance)
    zero = dict.fromkeys(map(str, range(80)), 0.0)
    result = compare(dict(zip(zero, differences.tolist(), strict=True)), zero)
    assert result.p_value == pytest.approx(2 * stats.norm.sf(abs(z)))


@pytest.mark.parametrize("count", [2, 13, 34, 110])
def test_it_agrees_with_scipy(count: int) -> None:
    a, b = patients(count, seed=1), patients(count, seed=2)
    x, y = (np.array(list(model.values())) for model in (a, b))
    expected = stats.bootstrap((x - y,), np.mean, method="percentile", n_resamples=10_000, rng=1).confidence_interval
    result = compare(a, b)
    assert result.difference == pytest.approx((x - y).mean())
    assert result.p_value == pytest.approx(stats.wilcoxon(x, y).pvalue)
    assert result[1:3] == pytest.approx((expected.low, expected.high), abs=0.01)


@given(tables)
def test_the_models_may_change_places(table: dict[str, tuple[float, float]]) -> None:
    a, b = two(table)
    result, mirrored = compare(a, b, n_resamples=99), compare(b, a, n_resamples=99)
    assert result.difference == -mirrored.difference
    assert (result.lower, result.upper) == pytest.approx((-mirrored.upper, -mirrored.lower), abs=1e-12)
    assert result.p_value == pytest.approx(mirrored.p_value)


@given(tables, st.randoms(use_true_random=False))
def test_the_order_of_the_pairs_does_not_matter(table: dict[str, tuple[float, float]], random: Any) -> None:
    a, b = two(table)
    shuffled = dict(random.sample(list(b.items()), len(b)))
    expected = compare(a, b, n_resamples=99)
    assert compare(a, shuffled, n_resamples=99) == expected
    assert compare(dict(reversed(a.items())), shuffled, n_resamples=99) == expected


@given(tables)
def test_the_same_model_twice_differs_by_nothing(table: dict[str, tuple[float, float]]) -> None:
    a, _ = two(table)
    assert compare(a, a, n_resamples=99) == (0.0, 0.0, 0.0, 1.0, len(a), 0)


def test_its_interval_is_that_of_the_differences() -> None:
    a, b = patients(20, seed=1), patients(20, seed=2)
    differences = {name: a[name] - b[name] for name in a}
    options: dict[str, Any] = {"level": 0.5, "n_resamples": 999, "seed": 4}
    assert compare(a, b, **options)[1:3] == confidence_interval(differences, **options)


def test_rounding_makes_no_ranks() -> None:
    # Differences of four times 0.1, -0.1 and 0; as floating-point numbers of five sizes, none of them 0.
    a = {"p": 0.1, "q": 0.4, "r": 0.8, "s": 1.1, "t": 0.2, "u": 0.1 + 0.2}
    b = {"p": 0.0, "q": 0.3, "r": 0.7, "s": 1.0, "t": 0.3, "u": 0.3}
    assert len({abs(a[name] - b[name]) for name in a} - {0.0}) == 5
    assert compare(a, b).p_value == pytest.approx(signed_rank([1, 1, 1, 1, -1, 0]))


def test_a_patient_counts_once_with_the_mean_of_its_slices_and_classes() -> None:
    a = [
        Case("x", 0, (1.0, math.nan)),
        Case("x", 1, (0.5, 0.25)),  # the classes 0.75 and 0.25: 0.5
        Case("y", 0, (math.nan, 0.5)),
        Case("y", 1, (math.nan, math.nan)),  # 0.5
    ]
    b = [Case("y", None, (0.25, 0.25)), Case("x", None, (0.0, 0.0))]
    result = compare(a, b)
    assert (result.difference, result.patients) == (0.375, 2)


def test_a_false_alarm_on_an_empty_slice_counts_against_the_model() -> None:
    quiet = [Case("x", 0, (0.5,)), Case("x", 1, (math.nan,)), Case("y", 0, (0.5,))]
    alarmed = [Case("x", 0, (0.5,)), Case("x", 1, (0.0,)), Case("y", 0, (0.5,))]
    assert compare(quiet, alarmed).difference == 0.125


@pytest.mark.parametrize("swapped", [False, True])
def test_a_patient_with_a_value_in_one_model_alone_is_no_pair(swapped: bool) -> None:
    quiet = {"x": 0.5, "y": 0.5, "z": math.nan, "w": math.nan}
    alarmed = {"x": 0.5, "y": 0.5, "z": 0.0, "w": math.nan}
    with pytest.raises(ValueError, match=r"only one of the two models has a value for 'z', .*; score both with empty="):
        compare(*((alarmed, quiet) if swapped else (quiet, alarmed)))


@pytest.mark.parametrize(("metric", "empty", "sign"), [(DiceScore, "one", 1), (HausdorffDistance, "zero", -1)])
def test_the_advice_for_a_patient_without_tumour_counts_its_false_alarm(metric: Any, empty: str, sign: int) -> None:
    target = torch.zeros(3, 1, 8, 8, dtype=torch.bool)
    target[:2, :, 2:4, 2:4] = True
    alarmed = target.clone()
    alarmed[2, :, 0, 0] = True
    quiet_cases, alarmed_cases = [], []
    for prediction, cases in ((target, quiet_cases), (alarmed, alarmed_cases)):
        scores = metric(empty=empty)
        scores.update(prediction, target, group=["x", "y", "z"])
        cases += scores.per_case()
    assert compare(quiet_cases, alarmed_cases).difference * sign > 0


def test_patients_of_one_model_alone_are_refused() -> None:
    a, b = dict.fromkeys("abcdefg", 0.5), dict.fromkeys("ag", 0.5)
    with pytest.raises(ValueError, match=r"only the first table has 'b', 'c', 'd' and 2 more, only the second none"):
        compare(a, b)
    with pytest.raises(ValueError, match=r"only the first table has none, only the second 'b', 'c', 'd' and 2 more"):
        compare(b, a)


def test_tables_of_other_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"same classes, got cases of \[1, 2\] values"):
        compare([Case("a", 1, (0.5,)), Case("b", 1, (0.5,))], [Case("a", 1, (0.5, 0.5)), Case("b", 1, (0.5, 0.5))])


@pytest.mark.parametrize("values", [{}, {"a": 0.5}, {"a": [0.5, 0.6], "b": math.nan}])
def test_fewer_than_two_pairs_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"needs at least 2 patients with a value, got [01]"):
        compare(values, values)


def test_slices_of_unknown_patients_are_no_pairs() -> None:
    with pytest.raises(ValueError, match=r"a case has no patient, .* update with group="):
        compare({"a": 0.5, "b": 0.5}, [Case(None, 3, (0.5,)), Case("a", 1, (0.5,))])


def test_tables_of_other_slices_are_not_compared() -> None:
    a = [Case("p", 0, (0.5,)), Case("p", 1, (0.6,)), Case("q", 0, (0.1,))]
    b = [Case("p", 0, (0.5,)), Case("p", 7, (0.6,)), Case("q", 0, (0.1,))]
    with pytest.raises(ValueError, match=r"scored on the same slices, .* differ in 'p'"):
        compare(a, b)


def test_what_is_no_table_is_named() -> None:
    with pytest.raises(TypeError, match=r"got the metric DiceScore itself; give its table, per_case\(\)"):
        confidence_interval(DiceScore())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="got several tables, dice, iou; give one of them"):
        compare({"dice": [Case("p", 0, (0.5,))], "iou": []}, {"dice": [], "iou": []})  # type: ignore[dict-item]
