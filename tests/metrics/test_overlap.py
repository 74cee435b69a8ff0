"""Dice and IoU of slices, patients and batches: by hand, as published, and never better for a false tumour."""

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader

from brainseg.metrics import DiceScore, IoU, MetricResult
from tests.metrics.scans import slices, update

OVERLAP = pytest.mark.parametrize("score", [DiceScore, IoU])
CASES = ["slice", "patient", "dataset"]

# Pixels of four slices of two patients: overlapping, missed, false alarm, nothing.
TARGET = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]).reshape(4, 1, 1, 4)
PREDICTION = torch.tensor([[0, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]).reshape(4, 1, 1, 4)
GROUP = ["a", "b", "a", "c"]


def result(metric: DiceScore | IoU, prediction: Tensor = PREDICTION, target: Tensor = TARGET) -> MetricResult:
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
    ("aggregation", "dice", "iou", "counts"),
    [
        ("slice", (2 / 5 + 0 + 0) / 3, (1 / 4 + 0 + 0) / 3, (3, 1, 1, 1)),
        ("patient", (2 / 6 + 0) / 2, (1 / 5 + 0) / 2, (2, 1, 1, 0)),
        ("dataset", 2 / 7, 1 / 6, (1, 0, 0, 0)),
    ],
)
def test_means_by_hand(aggregation: Any, dice: float, iou: float, counts: tuple[int, ...]) -> None:
    for score, expected in ((DiceScore, dice), (IoU, iou)):
        value, *found = result(score(aggregation=aggregation))
        assert value.item() == pytest.approx(expected)
        assert value.dtype == torch.float32
        assert tuple(found) == counts


@OVERLAP
@pytest.mark.parametrize(("empty", "addend"), [("one", 1), ("zero", 0)])
def test_two_empty_masks_may_be_counted(score: type[DiceScore], empty: Any, addend: int) -> None:
    without = result(score())
    value, *counts = result(score(empty=empty))
    assert value.item() == pytest.approx((without.value.item() * 3 + addend) / 4)
    assert counts == [4, 0, 1, 1]


@OVERLAP
@pytest.mark.parametrize("aggregation", CASES)
def test_a_model_that_predicts_nothing_scores_0(score: type[DiceScore], aggregation: Any) -> None:
    assert result(score(aggregation=aggregation), torch.full(TARGET.shape, -9.0)).value == 0


@OVERLAP
@pytest.mark.parametrize("aggregation", CASES)
def test_perfect_masks_score_1(score: type[DiceScore], aggregation: Any) -> None:
    assert result(score(aggregation=aggregation), TARGET).value == 1


@OVERLAP
@pytest.mark.parametrize("aggregation", CASES)
def test_nothing_at_all_is_nan_with_a_warning(score: type[DiceScore], aggregation: Any) -> None:
    metric = score(aggregation=aggregation)
    metric.update(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4), group=["a", "b"])
    with pytest.warns(UserWarning, match="no case to average: every target and prediction is empty"):
        value, cases, excluded, *_ = metric.result()
    assert value.isnan()
    assert (cases, excluded) == (0, 1 if aggregation == "dataset" else 2)


@given(seed=st.integers(0, 999), painted=st.integers(1, 64), row=st.integers(0, 5))
def test_painting_a_false_tumour_on_an_empty_slice_never_improves_a_number(seed: int, painted: int, row: int) -> None:
    data = slices(seed=seed)
    worse = data._replace(prediction=data.prediction.clone())
    worse.prediction[4 * row].view(-1)[:painted] = True  # every fourth target is empty
    for score, aggregation, empty in product((DiceScore, IoU), CASES, ("exclude", "one", "zero")):
        before, after = (score(aggregation=aggregation, empty=empty) for _ in range(2))  # type: ignore[arg-type]
        update(before, data)
        update(after, worse)
        assert after.compute() <= before.compute()


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
    single.update(prediction[:1] - 0.5, target[:1])
    single.update(prediction[1:] - 0.5, target[1:])
    both.update(prediction - 0.5, target)
    assert [single.compute().item(), both.compute().item()] == pytest.approx([1 / 2, 64 / 65], abs=1e-4)


def test_only_the_published_score_says_that_it_depends_on_the_batch_size() -> None:
    assert repr(IoU(aggregation="batch")) == (
        "IoU(num_classes=1, aggregation='batch' (depends on the batch size), empty='exclude')"
    )
    assert repr(DiceScore(2)) == "DiceScore(num_classes=2, aggregation='slice', empty='exclude')"


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
