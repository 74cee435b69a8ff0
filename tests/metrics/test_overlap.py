"""Overlap of slices, patients and batches: by hand, as published, and never better for a false or missed tumour."""

import math
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection
from torchmetrics.functional.classification import binary_stat_scores

from brainseg.metrics import MetricResult
from brainseg.metrics.overlap import (
    ConfusionCounts,
    DiceScore,
    FBeta,
    IoU,
    OverlapMetric,
    Precision,
    Recall,
    Specificity,
    VolumeDifference,
)
from tests.metrics.scans import Slices, slices, update

Score = Callable[..., OverlapMetric]

SCORES: dict[str, Score] = {
    "Dice": DiceScore,
    "IoU": IoU,
    "F2": partial(FBeta, beta=2.0),
    "Precision": Precision,
    "Recall": Recall,
}
EVERY_CASE: dict[str, Score] = {
    "Specificity": Specificity,
    "VolumeDifference": partial(VolumeDifference, spacing=(5.0, 0.5, 2.0)),
    "relative": partial(VolumeDifference, relative=True),
}
OVERLAP = pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
ALL = pytest.mark.parametrize("score", [*SCORES.values(), *EVERY_CASE.values()], ids=[*SCORES, *EVERY_CASE])
CASES = ["slice", "patient", "dataset"]

# Pixels of four slices of two patients: overlapping, missed, false alarm, nothing.
TARGET = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]).reshape(4, 1, 1, 4)
PREDICTION = torch.tensor([[0, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]).reshape(4, 1, 1, 4)
GROUP = ["a", "b", "a", "c"]


def result(metric: OverlapMetric, prediction: Tensor = PREDICTION, target: Tensor = TARGET) -> MetricResult:
    metric.update(prediction, target, group=GROUP[: len(target)])
    return metric.result()


def published(prediction: Tensor, target: Tensor, batch_size: int) -> tuple[float, float]:
    """IoU and Dice of batches as lgg_experiments.md states them, averaged by batch size."""
    total_iou = total_dice = 0.0
    for start in range(0, len(target), batch_size):
        p, t = prediction[start : start + batch_size] > 0.5, target[start : start + batch_size] > 0.5
        batch_iou = ((p & t).sum().item() + 1e-5) / ((p | t).sum().item() + 1e-5)
        total_iou += batch_iou * len(t)
        total_dice += 2 * batch_iou / (batch_iou + 1) * len(t)
    return total_iou / len(target), total_dice / len(target)


@pytest.mark.parametrize(
    ("score", "slice_mean", "patient_mean", "pooled"),
    [
        ("Dice", (2 / 5 + 0 + 0) / 3, (2 / 6 + 0) / 2, 2 / 7),
        ("IoU", (1 / 4 + 0 + 0) / 3, (1 / 5 + 0) / 2, 1 / 6),
        ("F2", (5 / 11 + 0 + 0) / 3, (5 / 12 + 0) / 2, 5 / 16),
        ("Precision", (1 / 3 + 0 + 0) / 3, (1 / 4 + 0) / 2, 1 / 4),
        ("Recall", (1 / 2 + 0 + 0) / 3, (1 / 2 + 0) / 2, 1 / 3),
        ("Specificity", (0 + 1 + 3 / 4 + 1) / 4, (3 / 6 + 1 + 1) / 3, 10 / 13),
        ("VolumeDifference", 0.005 * (1 + 1 + 1 + 0) / 4, 0.005 * (2 + 1 + 0) / 3, 0.005 * 1),
        ("relative", (1 / 2 + 1) / 2, (2 / 2 + 1) / 2, 1 / 3),
    ],
)
def test_means_by_hand(score: str, slice_mean: float, patient_mean: float, pooled: float) -> None:
    for aggregation, expected in zip(CASES, (slice_mean, patient_mean, pooled), strict=True):
        value = result({**SCORES, **EVERY_CASE}[score](aggregation=aggregation)).value
        assert value.item() == pytest.approx(expected)
        assert value.dtype == torch.float32


@pytest.mark.parametrize(
    ("names", "by_slice", "by_patient"),
    [
        (SCORES, (3, 1, 1, 1), (2, 1, 1, 0)),
        (["Specificity", "VolumeDifference"], (4, 0, 1, 1), (3, 0, 1, 0)),
        (["relative"], (2, 2, 1, 1), (2, 1, 1, 0)),
    ],
)
def test_cases_are_counted_by_hand(names: list[str], by_slice: tuple[int, ...], by_patient: tuple[int, ...]) -> None:
    for name in names:
        counts = [result({**SCORES, **EVERY_CASE}[name](aggregation=aggregation))[1:] for aggregation in CASES]
        assert counts == [by_slice, by_patient, (1, 0, 0, 0)]


@OVERLAP
@pytest.mark.parametrize(("empty", "addend"), [("one", 1), ("zero", 0)])
def test_two_empty_masks_may_be_counted(score: Score, empty: Any, addend: int) -> None:
    without = result(score())
    value, *counts = result(score(empty=empty))
    assert value.item() == pytest.approx((without.value.item() * 3 + addend) / 4)
    assert counts == [4, 0, 1, 1]


@OVERLAP
@pytest.mark.parametrize("aggregation", CASES)
def test_a_model_that_predicts_nothing_scores_0(score: Score, aggregation: Any) -> None:
    assert result(score(aggregation=aggregation), torch.full(TARGET.shape, -9.0)).value == 0


@OVERLAP
@pytest.mark.parametrize("aggregation", CASES)
def test_perfect_masks_score_1(score: Score, aggregation: Any) -> None:
    assert result(score(aggregation=aggregation), TARGET).value == 1


@OVERLAP
@pytest.mark.parametrize("aggregation", CASES)
def test_nothing_at_all_is_nan_with_a_warning(score: Score, aggregation: Any) -> None:
    metric = score(aggregation=aggregation)
    metric.update(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4), group=["a", "b"])
    with pytest.warns(UserWarning, match="no case to average: all were left out"):
        value, cases, excluded, *_ = metric.result()
    assert value.isnan()
    assert (cases, excluded) == (0, 1 if aggregation == "dataset" else 2)


def improved(score: Score, before: Slices, after: Slices, **options: Any) -> bool:
    """Whether the metric tells the second prediction from the first as a better one."""
    first, second = (score(before.target.shape[1], **options) for _ in range(2))
    update(first, before)
    update(second, after)
    gain = (second.compute() - first.compute()).item()
    assert not math.isnan(gain)
    return gain > 0 if first.higher_is_better else gain < 0


def painted(data: Slices, slot: int, count: int) -> Slices:
    """The same with so many false pixels on one of the empty slices, of which every fourth is one."""
    worse = data._replace(prediction=data.prediction.clone())
    worse.prediction[4 * slot].view(-1)[:count] = True
    return worse


PAINTED = given(
    num_classes=st.integers(1, 2), seed=st.integers(0, 999), slot=st.integers(0, 5), count=st.integers(1, 128)
)


@OVERLAP
@PAINTED
def test_painting_a_false_tumour_on_an_empty_slice_never_improves_a_number(
    score: Score, num_classes: int, seed: int, slot: int, count: int
) -> None:
    data = slices(num_classes=num_classes, seed=seed)
    for aggregation, empty in product(CASES, ("exclude", "one", "zero")):
        assert not improved(score, data, painted(data, slot, count), aggregation=aggregation, empty=empty)


@pytest.mark.parametrize(
    ("name", "aggregations"), [("Specificity", CASES), ("VolumeDifference", ["slice"]), ("relative", ["slice"])]
)
@PAINTED
def test_painting_a_false_tumour_never_improves_what_counts_every_case(
    name: str, aggregations: list[str], num_classes: int, seed: int, slot: int, count: int
) -> None:
    data = slices(num_classes=num_classes, seed=seed)
    for aggregation in aggregations:
        assert not improved(EVERY_CASE[name], data, painted(data, slot, count), aggregation=aggregation)


@pytest.mark.parametrize("score", [*SCORES.values(), Specificity], ids=[*SCORES, "Specificity"])
@pytest.mark.parametrize("aggregation", CASES)
@given(num_classes=st.integers(1, 2), seed=st.integers(0, 999), row=st.integers(0, 21), lost=st.integers(1, 128))
def test_tumour_that_is_no_longer_found_never_improves_a_number(
    score: Score, aggregation: Any, num_classes: int, seed: int, row: int, lost: int
) -> None:
    data = slices(num_classes=num_classes, seed=seed)
    worse = data._replace(prediction=data.prediction.clone())
    worse.prediction[row].view(-1)[:lost] &= ~data.target[row].view(-1)[:lost]
    assert not improved(score, data, worse, aggregation=aggregation)


@OVERLAP
@given(seed=st.integers(0, 999), row=st.integers(0, 21))
def test_a_slice_with_tumour_left_empty_never_improves_the_mean_over_slices(score: Score, seed: int, row: int) -> None:
    data = slices(seed=seed)
    row += row % 4 == 0  # every fourth target is empty
    worse = data._replace(prediction=data.prediction.clone())
    worse.prediction[row] = False
    assert not improved(score, data, worse)


def one_patient(target: list[list[int]], prediction: list[list[int]]) -> Slices:
    """Slices of a few pixels, of one patient."""
    found, true = (torch.tensor(rows)[:, None, None] for rows in (prediction, target))
    return Slices(found, true, ["a"] * len(target), list(range(len(target))))


@pytest.mark.parametrize("name", ["Dice", "IoU", "F2", "Precision"])
@pytest.mark.parametrize("aggregation", ["patient", "dataset"])
def test_a_pooled_score_may_rise_when_a_slice_that_is_mostly_false_is_left_empty(name: str, aggregation: Any) -> None:
    target = [[1, 1, 1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0, 0, 0]]
    found = one_patient(target, [target[0], [1] * 8])
    missed = one_patient(target, [target[0], [0] * 8])
    assert improved(SCORES[name], found, missed, aggregation=aggregation)  # Dice 18 / 25 and 16 / 17
    assert not improved(Recall, found, missed, aggregation=aggregation)


@pytest.mark.parametrize("name", ["VolumeDifference", "relative"])
def test_a_volume_difference_takes_a_false_tumour_for_a_missed_one(name: str) -> None:
    missed = one_patient([[1, 1], [0, 0]], [[0, 0], [0, 0]])
    painted = one_patient([[1, 1], [0, 0]], [[0, 0], [1, 1]])
    metrics = [EVERY_CASE[name](aggregation="patient") for _ in range(2)]
    for metric, data in zip(metrics, (missed, painted), strict=True):
        update(metric, data)
    assert [metric.compute().item() for metric in metrics] == pytest.approx([0.01 if name != "relative" else 1, 0])


@pytest.mark.parametrize("name", ["VolumeDifference", "relative"])
@pytest.mark.parametrize("aggregation", CASES)
def test_a_volume_difference_may_improve_when_a_tumour_is_missed_where_too_much_was_predicted(
    name: str, aggregation: Any
) -> None:
    found, missed = (one_patient([[1, 0, 0, 0]], [[pixel] * 4]) for pixel in (1, 0))  # 3 too many, 1 too few
    assert improved(EVERY_CASE[name], found, missed, aggregation=aggregation)


def test_a_relative_volume_difference_leaves_false_alarms_out_and_counts_them() -> None:
    metric = VolumeDifference(relative=True)
    quiet, painted = (one_patient([[1, 1], [0, 0]], [[1, 0], [pixel, 0]]) for pixel in (0, 1))
    results = []
    for data in (quiet, painted):
        metric.reset()
        update(metric, data)
        results.append(metric.result())
    assert [value.item() for value, *_ in results] == [0.5, 0.5]
    assert [counts for _, *counts in results] == [[1, 1, 0, 0], [1, 1, 0, 1]]


@pytest.mark.parametrize(
    ("score", "expected"), [("Specificity", 1), ("VolumeDifference", 0.005 * (2 + 1 + 0 + 0) / 4), ("relative", 1)]
)
def test_what_a_model_that_predicts_nothing_gets_where_every_case_counts(score: str, expected: float) -> None:
    assert result(EVERY_CASE[score](), torch.zeros_like(TARGET)).value.item() == pytest.approx(expected)


def test_a_case_without_background_has_no_specificity_and_is_counted() -> None:
    metric = Specificity()
    full = torch.ones(2, 1, 1, 4, dtype=torch.bool)
    full[1, ..., 1:] = False
    value, *counts = result(metric, ~full, full)
    assert value.item() == 0  # of the second: its three background pixels are predicted
    assert counts == [1, 1, 1, 0]


@given(seed=st.integers(0, 999), batch_size=st.integers(1, 22))
def test_the_published_batch_score(seed: int, batch_size: int) -> None:
    data = slices(seed=seed)
    iou, dice = IoU(aggregation="batch"), DiceScore(aggregation="batch")
    for start in range(0, 22, batch_size):
        rows = range(start, min(start + batch_size, 22))
        update(iou, data.batch(rows))
        update(dice, data.batch(rows))
    assert [iou.compute().item(), dice.compute().item()] == pytest.approx(
        published(data.prediction.float(), data.target.float(), batch_size)
    )


def test_the_published_0_0204_is_the_score_of_a_model_that_predicts_nothing() -> None:
    """786 validation slices in batches of 8, two of the 99 batches without tumour: 16 / 786."""
    iou = IoU(aggregation="batch")
    by_slice = IoU()
    for number in range(99):
        size = 8 if number < 98 else 2
        target = torch.zeros(size, 1, 8, 8)
        if number not in (10, 50):
            target[0] = 1
        for metric in (iou, by_slice):
            metric.update(torch.full_like(target, -50.0), target)
    assert iou.result().cases == 99
    assert iou.compute().item() == pytest.approx(16 / 786, abs=1e-6)
    assert f"{iou.compute():.4f}" == "0.0204"
    assert by_slice.compute() == 0


def test_the_published_score_rises_with_the_batch_where_a_small_tumour_is_missed_beside_a_large_one() -> None:
    target = torch.zeros(2, 1, 8, 8)
    target[0], target[1, 0, 0, 0] = 1, 1
    prediction = target.clone()
    prediction[1] = 0
    single, both = IoU(aggregation="batch"), IoU(aggregation="batch")
    single.update(prediction[:1] * 2 - 1, target[:1])
    single.update(prediction[1:] * 2 - 1, target[1:])
    both.update(prediction * 2 - 1, target)
    assert [single.compute().item(), both.compute().item()] == pytest.approx([1 / 2, 64 / 65], abs=1e-4)


def test_only_the_published_score_says_that_it_depends_on_the_batch_size() -> None:
    assert repr(IoU(aggregation="batch")) == (
        "IoU(num_classes=1, aggregation='batch' (depends on the batch size), empty='exclude')"
    )
    assert repr(DiceScore(2)) == "DiceScore(num_classes=2, aggregation='slice', empty='exclude')"


@pytest.mark.parametrize("score", [FBeta, Precision, Recall, Specificity, VolumeDifference, ConfusionCounts])
def test_what_was_never_published_for_batches_is_refused_for_them(score: type[OverlapMetric]) -> None:
    with pytest.raises(ValueError, match=f'"batch" is a published formula of DiceScore and IoU, and {score.__name__}'):
        score(aggregation="batch")


@pytest.mark.parametrize(
    ("score", "name"),
    [
        (Specificity, "empty"),
        (VolumeDifference, "empty"),
        (ConfusionCounts, "empty"),
        (ConfusionCounts, "average"),
    ],
)
def test_arguments_that_mean_nothing_to_a_metric_are_refused(score: type[Any], name: str) -> None:
    with pytest.raises(TypeError, match=f"{score.__name__} has no argument {name}, got 'none'; leave it out"):
        score(**{name: "none"})


def test_arguments_out_of_range_are_refused_when_the_metric_is_made() -> None:
    with pytest.raises(ValueError, match="beta must be a positive number, got 0"):
        FBeta(beta=0)
    with pytest.raises(ValueError, match="spacing must be a positive number of mm"):
        VolumeDifference(spacing=(1.0, 0.0, 1.0))


def test_a_metric_tells_its_own_arguments_only() -> None:
    found = [FBeta(beta=2), Specificity(3), VolumeDifference(spacing=2.0, relative=True), ConfusionCounts()]
    assert [metric.extra_repr() for metric in found] == [
        "num_classes=1, aggregation='slice', empty='exclude', beta=2",
        "num_classes=3, aggregation='slice'",
        "num_classes=1, aggregation='slice', spacing=2.0, relative=True",
        "num_classes=1, aggregation='slice'",
    ]


def test_whether_higher_is_better_is_told() -> None:
    assert all(score().higher_is_better is True for score in (*SCORES.values(), Specificity))
    assert VolumeDifference().higher_is_better is False
    assert ConfusionCounts().higher_is_better is None


def test_a_collection_counts_once_for_all_metrics_of_overlap() -> None:
    every = {**SCORES, **EVERY_CASE, "ConfusionCounts": ConfusionCounts}
    collection = MetricCollection({name: score(2, aggregation="patient") for name, score in every.items()})
    data = slices(num_classes=2)
    for rows in (range(9), range(9, 22)):
        batch = data.batch(rows)
        collection.update(batch.prediction, batch.target, group=batch.group, slice_index=batch.index)
    assert list(map(sorted, collection.compute_groups.values())) == [sorted(every)]
    for name, value in collection.compute().items():
        alone = every[name](2, aggregation="patient")
        update(alone, data)
        assert torch.equal(value, alone.compute())


@pytest.mark.parametrize("aggregation", CASES)
def test_confusion_counts_are_totals_of_every_slice(aggregation: Any) -> None:
    counts = ConfusionCounts(aggregation=aggregation)
    totals, *cases = result(counts)
    assert totals.dtype == torch.int64
    assert totals.tolist() == [[1, 3, 2, 10]]
    expected = {"slice": (4, 0, 1, 1), "patient": (3, 0, 1, 0), "dataset": (1, 0, 0, 0)}[aggregation]
    assert cases == [(count,) for count in expected]
    assert torch.equal(counts.compute(), totals)


def test_confusion_counts_of_several_classes_are_those_of_torchmetrics() -> None:
    data = slices(num_classes=3)
    found = []
    for include_background in (True, False):
        counts = ConfusionCounts(3, include_background=include_background)
        update(counts, data)
        found.append(counts.compute())
    flat = [masks.movedim(1, 0).reshape(3, -1).int() for masks in (data.prediction, data.target)]
    expected = torch.stack([binary_stat_scores(*pair)[[0, 1, 3, 2]] for pair in zip(*flat, strict=True)])
    assert torch.equal(found[0], expected)
    assert torch.equal(found[1], expected[1:])


def test_a_row_of_confusion_counts_is_one_class_behind_the_other() -> None:
    counts = ConfusionCounts(2, aggregation="patient")
    prediction, target = torch.cat([PREDICTION, TARGET], 1), torch.cat([TARGET, TARGET], 1)
    counts.update(prediction, target, group=GROUP)
    assert counts.per_case() == [
        ("a", None, (1, 3, 1, 3, 2, 0, 0, 6)),
        ("b", None, (0, 0, 1, 3, 1, 0, 0, 3)),
        ("c", None, (0, 0, 0, 4, 0, 0, 0, 4)),
    ]


def test_confusion_counts_of_nothing_are_0() -> None:
    with pytest.warns(UserWarning, match="called before the ``update`` method"):
        assert ConfusionCounts(2).compute().tolist() == [[0] * 4] * 2


def test_confusion_counts_have_no_interval() -> None:
    counts = ConfusionCounts(aggregation="patient")
    result(counts)
    with pytest.raises(ValueError, match="take that of a score, such as Recall"):
        counts.confidence_interval(level=0.9)


@ALL
def test_an_interval_of_patients_holds_the_mean(score: Score) -> None:
    metric = score(aggregation="patient")
    value = result(metric).value.item()
    interval = metric.confidence_interval(n_resamples=200)
    assert interval.lower - 1e-6 <= value <= interval.upper + 1e-6


@pytest.mark.parametrize("include_background", [True, False])
def test_classes_are_averaged_or_given_apart(include_background: bool) -> None:
    target = torch.tensor([[[0, 1, 1, 2]], [[0, 0, 1, 1]]])
    prediction = torch.tensor([[[0, 1, 2, 2]], [[0, 1, 1, 1]]])
    # Dice of classes 0, 1, 2: (1, 2/3, 2/3) and (2/3, 4/5, nothing).
    expected = [(1 + 2 / 3) / 2, (2 / 3 + 4 / 5) / 2, 2 / 3][0 if include_background else 1 :]
    apart = DiceScore(3, average="none", include_background=include_background)
    mean = DiceScore(3, include_background=include_background)
    for metric in (apart, mean):
        metric.update(prediction, target)
    assert apart.compute().tolist() == pytest.approx(expected)
    assert mean.compute().item() == pytest.approx(sum(expected) / len(expected))
    assert mean.result()[1:] == ((5, 1, 0, 0) if include_background else (3, 1, 0, 0))
    assert apart.result().cases == (2, 2, 1)[0 if include_background else 1 :]


def test_logits_of_classes_are_compared_by_their_largest() -> None:
    target = torch.tensor([[[0, 1]]])
    logits = torch.tensor([[[[-1.0, -3.0]], [[-2.0, -2.0]]]])  # all sigmoids are below one half
    metric = DiceScore(2)
    metric.update(logits, target)
    assert metric.compute() == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_dtype_of_the_logits_does_not_matter(dtype: torch.dtype) -> None:
    logits = PREDICTION * 2.0 - 1
    assert torch.equal(result(DiceScore(), logits.to(dtype)).value, result(DiceScore(), logits).value)


def test_probabilities_and_thresholds_are_arguments() -> None:
    probabilities = torch.tensor([[[[0.2, 0.4, 0.6, 0.3]]]])
    target = torch.tensor([[[[0, 1, 1, 0]]]])
    values = [
        result(DiceScore(threshold=threshold, from_probabilities=True), probabilities, target).value.item()
        for threshold in (0.5, 0.3, 0.1)
    ]
    assert values == pytest.approx([2 / 3, 1, 4 / 6])


def test_counts_of_a_large_volume_are_exact() -> None:
    metric = DiceScore(aggregation="dataset")
    metric.update(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4))
    (rows,) = metric.rows
    rows[..., 0] = 2**50
    rows[..., 1] = 1
    assert metric.per_case()[0].values[0] == pytest.approx(1 - 2**-51, abs=0)


def test_masks_that_do_not_fit_are_refused_and_leave_the_metric_as_it_was() -> None:
    metric = DiceScore()
    with pytest.raises(ValueError, match="do not fit num_classes=1"):
        metric.update(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 5))
    with pytest.raises(ValueError, match=r"target values lie in \[0, 255\]"):
        metric.update(torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 255.0).tril())
    assert metric.per_case() == []


def test_gradients_and_inference_mode_are_welcome() -> None:
    metric = DiceScore()
    metric.update(torch.ones(1, 1, 4, 4, requires_grad=True), torch.ones(1, 1, 4, 4))
    with torch.inference_mode():
        metric.update(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4))
    assert metric(torch.ones(1, 1, 4, 4, requires_grad=True), torch.ones(1, 1, 4, 4)) == 1
    assert not metric.compute().requires_grad


# Lightning's own warnings.
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning", "ignore:.*does not have many workers")
def test_lightning_logs_the_metric_of_an_epoch() -> None:
    from lightning import LightningModule, Trainer

    class Task(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.dice = DiceScore(aggregation="patient")

        def validation_step(self, batch: list[Any]) -> None:
            prediction, target, group = batch
            self.dice.update(prediction, target, group=group)
            self.log("dice", self.dice, on_epoch=True)

    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    batches = DataLoader(list(zip(PREDICTION, TARGET, GROUP, strict=True)), batch_size=3)
    task = Task()
    logged = [trainer.validate(task, batches, verbose=False)[0]["dice"] for _ in range(2)]
    assert logged == pytest.approx([(2 / 6 + 0) / 2] * 2)
