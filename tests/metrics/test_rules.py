"""What counts as a mask, what is refused, and what empty masks are worth."""

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics import MetricCollection

from brainseg import metrics
from brainseg.losses import dice_loss
from brainseg.metrics import functional
from brainseg.metrics.cases import patient_names, slice_indices
from brainseg.metrics.rules import fill_empty, summarise, to_masks
from tests.metrics.scans import Slices, slices

LOGITS = torch.tensor([[[[-2.0, -1e-9, 0.0, 1e-9]]]])  # (1, 1, 1, 4)
NOTHING = torch.zeros(1, 1, 1, 4)


def predicted(prediction: torch.Tensor, target: torch.Tensor = NOTHING, **options: Any) -> list[Any]:
    return to_masks(prediction, target, **options).predicted.int().tolist()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_foreground_is_strictly_above_the_threshold_in_every_dtype(dtype: torch.dtype) -> None:
    assert predicted(LOGITS.to(dtype)) == [[[[0, 0, 0, 1]]]]


def test_half_precision_logits_are_compared_unrounded() -> None:
    half = torch.tensor([[[[-1.0, 0.0, 1.0, 2.0]]]], dtype=torch.float16)
    assert predicted(half, threshold=0.7310) == [[[[0, 0, 1, 1]]]]  # sigmoid(1) = 0.73106
    assert predicted(half, threshold=0.7311) == [[[[0, 0, 0, 1]]]]


@pytest.mark.parametrize(("threshold", "expected"), [(0.0, [0, 1, 1, 1]), (0.5, [0, 0, 1, 1]), (1.0, [0, 0, 0, 0])])
def test_thresholds_of_logits_are_probabilities(threshold: float, expected: list[int]) -> None:
    logits = torch.tensor([[[[-math.inf, -5.0, 5.0, 50.0]]]])
    assert predicted(logits, threshold=threshold) == [[[expected]]]


def test_probabilities_are_compared_as_they_are() -> None:
    probabilities = torch.tensor([[[[0.0, 0.3, 0.31, 1.0]]]])
    assert predicted(probabilities, threshold=0.3, from_probabilities=True) == [[[[0, 0, 1, 1]]]]


def test_nan_is_background() -> None:
    assert predicted(torch.tensor([[[[math.nan, 1.0]]]]), torch.zeros(1, 1, 1, 2)) == [[[[0, 1]]]]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.int64])
def test_bool_and_integer_predictions_are_masks(dtype: torch.dtype) -> None:
    assert predicted(torch.tensor([[[[1, 0, 0, 1]]]], dtype=dtype)) == [[[[1, 0, 0, 1]]]]


@pytest.mark.parametrize("target", [torch.float32, torch.float16, torch.bool, torch.uint8, torch.int64])
@pytest.mark.parametrize("shape", [(2, 1, 3, 5), (2, 3, 5)])
def test_the_class_axis_of_one_class_may_be_absent(target: torch.dtype, shape: tuple[int, ...]) -> None:
    mask = torch.arange(30).reshape(2, 1, 3, 5) % 2 == 0
    for prediction in (mask, mask[:, 0], mask * 2.0 - 1):
        masks = to_masks(prediction, mask.reshape(shape).to(target), num_classes=1)
        assert all(torch.equal(found, mask) for found in masks[:2])


def test_class_indices_are_compared_with_the_largest_logit() -> None:
    logits = torch.tensor([[5.0, -9.0], [4.0, -1.0], [-1.0, -8.0]]).reshape(1, 3, 1, 2)
    target = torch.tensor([[[2, 0]]])
    for prediction in (logits, torch.tensor([[[0, 1]]]), torch.tensor([[[0, 1]]], dtype=torch.uint8)):
        masks = to_masks(prediction, target, num_classes=3)
        by_class = [mask[0, :, 0].int().tolist() for mask in masks[:2]]
        assert by_class == [[[1, 0], [0, 1], [0, 0]], [[0, 1], [0, 0], [1, 0]]]


def test_classes_of_masks_are_independent_of_each_other() -> None:
    logits = torch.tensor([[5.0, -9.0], [4.0, 1.0]]).reshape(1, 2, 1, 2)
    assert predicted(logits, torch.zeros(1, 2, 1, 2), num_classes=2) == [[[[1, 0]], [[1, 1]]]]


@pytest.mark.parametrize("shape", [(2, 1, 4, 5, 6), (2, 4, 5, 6)])
def test_volumes_have_one_more_axis(shape: tuple[int, ...]) -> None:
    mask = torch.arange(240).reshape(2, 1, 4, 5, 6) % 3 == 0
    assert torch.equal(to_masks(mask, mask.reshape(shape), num_classes=1).true, mask)


def test_a_volume_of_class_indices_fits_logits_of_volumes() -> None:
    logits, target = torch.randn(2, 3, 4, 5, 6), torch.randint(3, (2, 4, 5, 6))
    assert [mask.shape for mask in to_masks(logits, target, num_classes=3)[:2]] == [logits.shape] * 2


@pytest.mark.parametrize(
    ("prediction", "target", "num_classes"),
    [
        ((2, 1, 4, 4), (2, 1, 4, 5), 1),
        ((2, 1, 4, 4), (3, 1, 4, 4), 1),
        ((2, 3, 4, 4), (2, 3, 4, 4), 1),
        ((2, 2, 4, 4), (2, 3, 4, 4), 3),
        ((4, 4), (4, 4), 1),
        ((2, 1, 4, 4), (2, 4, 4, 1, 1), 1),
    ],
)
def test_shapes_that_do_not_fit_are_refused(prediction: tuple[int], target: tuple[int], num_classes: int) -> None:
    with pytest.raises(ValueError, match=r"do not fit num_classes=\d; expected \(B, \d, H, W\)"):
        to_masks(torch.zeros(prediction), torch.zeros(target), num_classes=num_classes)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int64, torch.float16, torch.float32])
def test_a_target_of_0_and_255_is_refused(dtype: torch.dtype) -> None:
    target = torch.tensor([[[[0, 255, 0, 0]]]], dtype=dtype)
    with pytest.raises(ValueError, match=r"target values lie in \[0, 255\], expected only 0 and 1; .* mask > 127"):
        to_masks(LOGITS, target)


@pytest.mark.parametrize("value", [0.5, -1.0, 2.0, math.nan])
def test_soft_targets_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="target values lie in"):
        to_masks(LOGITS, torch.full((1, 1, 1, 4), value))


def test_integer_predictions_that_are_no_masks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"prediction values lie in \[0, 2\]"):
        to_masks(torch.tensor([[[[0, 1, 2, 0]]]]), NOTHING)


@pytest.mark.parametrize("wrong", [3, -1])
def test_class_indices_out_of_range_are_refused(wrong: int) -> None:
    with pytest.raises(ValueError, match=r"target holds class indices in \[.*\], expected \[0, 2\]; .* ignore_index"):
        to_masks(torch.zeros(1, 3, 1, 2), torch.tensor([[[0, wrong]]]), num_classes=3)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_class_indices_are_integers(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match="it must hold class indices: give integers"):
        to_masks(torch.zeros(1, 3, 1, 2), torch.zeros(1, 1, 2, dtype=dtype), num_classes=3)


def test_floating_class_indices_are_no_prediction() -> None:
    with pytest.raises(ValueError, match=r"has no class axis; give logits \(B, 3, H, W\)"):
        to_masks(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2, dtype=torch.int64), num_classes=3)


@pytest.mark.parametrize("value", [-0.1, 3.0, math.nan])
def test_logits_given_as_probabilities_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"expected probabilities in .*; for logits leave out from_probabilities"):
        to_masks(torch.full((1, 1, 1, 4), value), NOTHING, from_probabilities=True)


def test_what_is_no_tensor_is_refused() -> None:
    with pytest.raises(TypeError, match=r"target must be a tensor, got list; use torch.as_tensor"):
        to_masks(LOGITS, [[[[0, 1]]]])  # type: ignore[arg-type]


def test_a_batch_of_nothing_has_masks_of_nothing() -> None:
    assert to_masks(torch.zeros(0, 3, 4, 4), torch.zeros(0, 4, 4).long(), num_classes=3)[0].shape == (0, 3, 4, 4)


@pytest.mark.parametrize(("empty", "both"), [("exclude", math.nan), ("one", 1.0), ("zero", 0.0)])
def test_one_empty_mask_is_the_worst_and_two_are_a_choice(empty: Any, both: float) -> None:
    values = torch.tensor([0.5, 0.5, 0.5, 0.5], dtype=torch.float64)
    some, none = torch.tensor([True, True, False, False]), torch.tensor([True, False, True, False])
    worst = torch.tensor([9.0, 8.0, 7.0, 6.0], dtype=torch.float64)
    filled = fill_empty(values, some, none, empty=empty, worst=worst, sizes=torch.ones(4))
    assert filled.tolist() == pytest.approx([0.5, 8.0, 7.0, both], nan_ok=True)


def test_the_mean_does_not_depend_on_the_order_of_the_cases() -> None:
    values = torch.rand(1000, 2, dtype=torch.float64) * 10.0 ** torch.randint(-9, 9, (1000, 1))
    some = torch.ones(1000, 2, dtype=torch.bool)
    order = torch.randperm(1000)
    one, other = (summarise(x, some, some, average="none").value for x in (values, values[order]))
    assert torch.equal(one, other)


def test_a_class_without_a_case_is_left_out_of_the_mean_over_classes() -> None:
    values = torch.tensor([[0.5, math.nan], [0.25, math.nan]], dtype=torch.float64)
    some = torch.tensor([[True, False]] * 2)
    assert summarise(values, some, some)._asdict() == {
        "value": torch.tensor(0.375),
        "cases": 2,
        "excluded": 2,
        "missed": 0,
        "false_alarms": 0,
    }


def test_a_class_without_a_case_is_nan_and_says_so() -> None:
    values = torch.tensor([[0.5, math.nan], [0.25, math.nan]], dtype=torch.float64)
    some = torch.tensor([[True, False]] * 2)
    with pytest.warns(UserWarning, match="no case to average"):
        result = summarise(values, some, some, average="none")
    assert result.value.tolist() == pytest.approx([0.375, math.nan], nan_ok=True)
    assert result[1:] == ((2, 0), (0, 2), (0, 0), (0, 0))


def test_nan_is_never_the_largest_logit() -> None:
    logits = torch.tensor([[0.5, math.nan, 1.0], [math.nan, math.nan, 2.0]])[None, :, None]
    prediction = to_masks(logits, torch.zeros(1, 1, 3, dtype=torch.int64), num_classes=2).predicted
    assert prediction[0, :, 0].tolist() == [[True, True, False], [False, False, True]]


def test_integers_of_numpy_are_patients_and_slices() -> None:
    assert patient_names([np.int64(3), "a"], 2) == ["3", "a"]
    assert slice_indices([np.int64(3), 0], 2) == [3, 0]
    with pytest.raises(ValueError, match="group must have one entry"):
        patient_names({"a": 1}, 1)


# --- what is ignored ---

Score = Callable[..., Any]
FUNCTIONS: dict[str, Score] = {
    "confusion_counts": functional.confusion_counts,
    "dice_score": functional.dice_score,
    "iou": functional.iou,
    "f_beta": functional.f_beta,
    "precision": functional.precision,
    "recall": functional.recall,
    "specificity": functional.specificity,
    "volume_difference": partial(functional.volume_difference, spacing=1.0),
    "surface_metrics": partial(functional.surface_metrics, distance_when_missing=40.0),
    "hausdorff_distance": partial(functional.hausdorff_distance, distance_when_missing=40.0),
    "average_surface_distance": partial(functional.average_surface_distance, distance_when_missing=40.0),
    "mean_average_surface_distance": partial(functional.mean_average_surface_distance, distance_when_missing=40.0),
    "normalized_surface_dice": partial(functional.normalized_surface_dice, tolerance=1.0),
    "boundary_iou": partial(functional.boundary_iou, width=1.5),
    "cldice_score": functional.cldice_score,
    "lesion_detection": partial(functional.lesion_detection, iou_threshold=0.1),
}
BACKGROUND_COUNTS = ("confusion_counts", "specificity")
CLASSES: dict[str, Score] = {
    **{
        name: getattr(metrics, name)
        for name in ("DiceScore", "IoU", "FBeta", "Precision", "Recall", "Specificity", "VolumeDifference")
    },
    "ConfusionCounts": metrics.ConfusionCounts,
    "HausdorffDistance": partial(metrics.HausdorffDistance, distance_when_missing=40.0),
    "AverageSurfaceDistance": partial(metrics.AverageSurfaceDistance, distance_when_missing=40.0),
    "MeanAverageSurfaceDistance": partial(metrics.MeanAverageSurfaceDistance, distance_when_missing=40.0),
    "NormalizedSurfaceDice": partial(metrics.NormalizedSurfaceDice, tolerance=1.0),
    "BoundaryIoU": partial(metrics.BoundaryIoU, width=1.5),
    "ClDiceScore": metrics.ClDiceScore,
    "LesionDetection": metrics.LesionDetection,
    "false positives": partial(metrics.LesionDetection, measure="false_positives"),
}
EVERY_FUNCTION = pytest.mark.parametrize("score", FUNCTIONS.values(), ids=FUNCTIONS)
EVERY_CLASS = pytest.mark.parametrize("score", CLASSES.values(), ids=CLASSES)


def test_no_metric_is_missing_here() -> None:
    assert {*FUNCTIONS} == {name for name in functional.__all__ if name.islower()}
    of_objects = {"MeanAveragePrecision", "PanopticQuality"}  # which take lists of objects, not masks
    assert {*CLASSES} - {"false positives"} | of_objects == {
        name for name in metrics.__all__ if hasattr(getattr(metrics, name), "update")
    }


def values(found: Any) -> list[Any]:
    """Of a function or of the table of a class, NaN as a word."""
    tensors = found if isinstance(found, tuple) else (found,)
    return [str(value) for tensor in tensors for value in tensor.flatten().tolist()]


def scored(
    score: Score, prediction: Tensor, target: Tensor, valid: Tensor | None = None, **arguments: Any
) -> list[Any]:
    metric = score(3, **arguments)
    metric.update(prediction, target, valid=valid)
    return [[str(value) for value in case.values] for case in metric.per_case()]


def batch() -> Slices:
    """Eight slices of three classes; the last three rows are as random as the others."""
    return slices(8, num_classes=3, seed=1)


@EVERY_FUNCTION
@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (8, 1, 8, 1), (8, 3, 8, 8)])
def test_pixels_that_are_not_valid_might_as_well_be_cut_off(score: Score, shape: tuple[int, ...]) -> None:
    prediction, target = batch()[:2]
    valid = torch.ones(shape, dtype=torch.bool)
    valid[..., 5:, :] = False
    assert values(score(prediction, target, valid=valid)) == values(score(prediction[:, :, :5], target[:, :, :5]))


@EVERY_CLASS
def test_classes_leave_out_what_their_functions_leave_out(score: Score) -> None:
    prediction, target = batch()[:2]
    valid = (torch.arange(8) < 5)[:, None]
    assert scored(score, prediction, target, valid) == scored(score, prediction[:, :, :5], target[:, :, :5])


@EVERY_FUNCTION
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_pixels_of_the_ignored_index_might_as_well_be_cut_off(score: Score, dtype: torch.dtype) -> None:
    logits, target = torch.randn(4, 3, 8, 8), torch.randint(3, (4, 8, 8)).to(dtype)
    expected = values(score(logits[:, :, :5], target[:, :5], num_classes=3))
    target[:, 5:] = 255
    assert values(score(logits, target, num_classes=3, ignore_index=255)) == expected


@EVERY_CLASS
def test_classes_keep_the_ignored_index(score: Score) -> None:
    logits, target = torch.randn(4, 3, 8, 8), torch.randint(3, (4, 8, 8))
    expected = scored(score, logits[:, :, :5], target[:, :5])
    target[:, 5:] = -1
    assert scored(score, logits, target, ignore_index=-1) == expected


def test_an_ignored_index_of_masks_holds_for_their_class() -> None:
    prediction = torch.tensor([[[[1, 1, 0]], [[1, 1, 0]]]])
    target = torch.tensor([[[[1, 0, 0]], [[1, 255, 0]]]])
    counts = functional.confusion_counts(prediction, target, ignore_index=255)
    assert counts.tolist() == [[[1, 1, 0, 1], [1, 0, 0, 1]]]


@EVERY_FUNCTION
@pytest.mark.parametrize("from_probabilities", [False, True])
def test_ignored_pixels_may_hold_anything(score: Score, from_probabilities: bool) -> None:
    target = batch().target.float()
    logits = torch.randn(target.shape)
    logits = logits.sigmoid() if from_probabilities else logits
    valid = torch.rand(target.shape) < 0.7
    clean = values(score(logits, target, valid=valid, from_probabilities=from_probabilities))
    for anything in (math.nan, math.inf, 255.0):
        logits[~valid], target[~valid] = anything, anything
        assert values(score(logits, target, valid=valid, from_probabilities=from_probabilities)) == clean


@EVERY_FUNCTION
def test_ignored_pixels_may_hold_unknown_classes(score: Score) -> None:
    prediction, target = torch.randint(3, (2, 4, 8, 8))
    valid = torch.rand(4, 8, 8) < 0.7
    clean = values(score(prediction, target, num_classes=3, valid=valid))
    prediction[~valid], target[~valid] = 255, -7
    assert values(score(prediction, target, num_classes=3, valid=valid)) == clean


@pytest.mark.parametrize("score", [FUNCTIONS[name] for name in FUNCTIONS if name not in BACKGROUND_COUNTS])
def test_ignored_pixels_are_background_in_both_masks(score: Score) -> None:
    prediction, target = batch()[:2]
    valid = torch.rand(8, 1, 8, 8) < 0.8
    assert values(score(prediction, target, valid=valid)) == values(score(prediction & valid, target & valid))


def test_ignored_pixels_cut_a_lesion_in_two_and_have_a_surface() -> None:
    target = torch.ones(1, 1, 1, 5, dtype=torch.bool)
    valid = torch.tensor([[True, True, False, True, True]])
    scores = functional.lesion_detection(target, target, valid=valid)
    assert (scores.lesions.item(), scores.components.item()) == (2, 2)
    prediction = torch.tensor([[[[1, 0, 1, 1, 1]]]])
    assert functional.hausdorff_distance(prediction, target, valid=valid).item() == 1


@EVERY_CLASS
@pytest.mark.parametrize("empty", ["exclude", "one", "zero"])
def test_a_slice_that_is_ignored_as_a_whole_is_left_out_of_the_mean(score: Score, empty: str) -> None:
    data = batch()
    valid = (torch.arange(8) != 3)[:, None, None]
    others = [row for row in range(8) if row != 3]
    takes = score in (CLASSES["Specificity"], CLASSES["VolumeDifference"], CLASSES["ConfusionCounts"])
    arguments = {} if takes else {"empty": empty}
    one, other = score(3, **arguments), score(3, **arguments)
    one.update(data.prediction, data.target, valid=valid)
    other.update(data.prediction[others], data.target[others])
    assert torch.equal(one.compute(), other.compute())


@pytest.mark.parametrize("score", [metrics.DiceScore, metrics.IoU])
def test_a_published_batch_that_is_ignored_as_a_whole_is_left_out(score: Score) -> None:
    metric = score(aggregation="batch")
    metric.update(torch.tensor([[[[1, 0]]]]), torch.tensor([[[[1, 1]]]]))
    expected = metric.compute()
    metric.update(torch.tensor([[[[1, 0]]]]), torch.tensor([[[[1, 1]]]]), valid=torch.tensor([[False, False]]))
    assert metric.compute() == expected


@pytest.mark.parametrize(
    "score",
    [
        partial(metrics.HausdorffDistance, spacing=(2.0, 1.0, 1.0)),
        partial(metrics.LesionDetection, measure="false_positives"),
        metrics.DiceScore,
    ],
)
def test_patients_ignore_pixels_too_and_one_that_is_ignored_as_a_whole_is_left_out(score: Score) -> None:
    data = slices(22, num_classes=2)
    valid = torch.rand(22, 1, 8, 8) < 0.8
    valid[2::3] = False  # of the third patient
    metric, expected = (score(2, aggregation="patient", average="none") for _ in range(2))
    metric.update(data.prediction, data.target, group=data.group, slice_index=data.index, valid=valid)
    kept = data.batch([row for row in range(22) if row % 3 != 2])
    seen = valid[[row for row in range(22) if row % 3 != 2]]
    expected.update(kept.prediction & seen, kept.target & seen, group=kept.group, slice_index=kept.index)
    assert torch.equal(metric.compute(), expected.compute())
    assert metric.result().excluded == (1, 1)


def test_metrics_that_ignore_other_values_share_nothing() -> None:
    both = MetricCollection({f"not {index}": metrics.DiceScore(ignore_index=index) for index in (0, 255)})
    both.update(torch.tensor([[[[1, 0, 1, 0]]]]), torch.tensor([[[[1, 1, 0, 0]]]]))
    assert {name: value.item() for name, value in both.compute().items()} == {
        "not 0": pytest.approx(2 / 3),
        "not 255": 0.5,
    }


def test_hard_logits_lose_what_they_do_not_score_when_pixels_are_ignored() -> None:
    """Losses and metrics ignore the same pixels."""
    target, prediction = torch.randint(3, (2, 4, 8, 8))
    logits = 1e4 * torch.nn.functional.one_hot(prediction, 3).movedim(-1, 1).float()
    target[torch.rand(4, 8, 8) < 0.3] = -100
    valid = torch.rand(4, 1, 8) < 0.8
    loss = dice_loss(logits, target, ignore_index=-100, valid=valid, smooth=1e-9, reduction="none")
    score = functional.dice_score(logits, target, num_classes=3, ignore_index=-100, valid=valid)
    torch.testing.assert_close(1 - loss, score)


@EVERY_CLASS
@pytest.mark.parametrize(
    ("valid", "message"),
    [
        (
            torch.ones(7, 8, dtype=torch.bool),
            r"valid of shape \(7, 8\) .* does not fit a batch of shape \(8, 3, 8, 8\)",
        ),
        (torch.ones(8, 8), "expected bool, True where pixels count"),
    ],
)
def test_valid_that_does_not_fit_is_refused(score: Score, valid: Tensor, message: str) -> None:
    data = batch()
    with pytest.raises(ValueError, match=message):
        score(3).update(data.prediction, data.target, valid=valid)


@EVERY_CLASS
def test_an_ignored_index_that_is_no_integer_is_refused(score: Score) -> None:
    with pytest.raises(ValueError, match=r"ignore_index must be an integer, got 255\.0"):
        score(3, ignore_index=255.0)


@EVERY_CLASS
def test_an_ignored_index_is_refused_where_the_target_holds_none(score: Score) -> None:
    data = batch()
    with pytest.raises(ValueError, match=r"ignore_index needs an integer target, got torch.bool; mark"):
        score(3, ignore_index=255).update(data.prediction, data.target)


@pytest.mark.parametrize("shape", [(1, 2, 2), (1, 3, 2, 2)])
def test_the_way_out_of_unknown_values_is_to_ignore_them(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"pixels to leave out (need )?ignore_index") as error:
        to_masks(torch.zeros(1, 3, 2, 2), torch.full(shape, 255), num_classes=3)
    assert "256" not in str(error.value)


# --- probabilities given as logits ---


@EVERY_CLASS
def test_probabilities_given_as_logits_are_suspected_once(score: Score) -> None:
    target = batch().target
    metric = score(3)
    with pytest.warns(UserWarning, match="give from_probabilities=True"):
        metric.update(torch.rand(target.shape), target)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric.update(torch.rand(target.shape), target)
        metric.reset()
        metric.update(torch.rand(target.shape), target)


@EVERY_FUNCTION
def test_functions_suspect_probabilities_too(score: Score) -> None:
    target = batch().target
    with pytest.warns(UserWarning, match="give from_probabilities=True"):
        score(torch.rand(target.shape), target)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score(torch.rand(target.shape), target, from_probabilities=True)


@pytest.mark.parametrize(
    "prediction",
    [
        torch.tensor([0.0, 1.0, 1.0, 0.0]),  # a mask
        torch.tensor([0.5, -1e-3, 1.0, 0.0]),
        torch.tensor([0.5, 1.001, 1.0, 0.0]),
        torch.tensor([0.5, math.nan, 1.0, 0.0]),
        torch.tensor([True, False, True, False]),
        torch.zeros(0),
    ],
)
def test_what_may_be_logits_is_not_suspected(prediction: Tensor) -> None:
    metric = metrics.DiceScore()
    shape = (-1, 1, 1, 4) if prediction.numel() else (0, 1, 1, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric.update(prediction.reshape(shape), torch.zeros(prediction.reshape(shape).shape))
        metric.update(torch.full((1, 1, 1, 4), 0.3), NOTHING)  # of a later batch nothing is suspected


def test_what_is_ignored_is_not_suspected() -> None:
    prediction = torch.tensor([[[[0.2, 0.9, 7.0, math.nan]]]])
    valid = torch.tensor([[True, True, False, False]])
    with pytest.warns(UserWarning, match="all predictions lie in"):
        metrics.DiceScore().update(prediction, NOTHING, valid=valid)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics.DiceScore().update(prediction, NOTHING, valid=~valid | torch.tensor([[True, True, True, False]]))
