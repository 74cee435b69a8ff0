"""What counts as a mask, what is refused, and what empty masks are worth."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from brainseg.metrics.cases import patient_names, slice_indices
from brainseg.metrics.rules import fill_empty, summarise, to_masks

LOGITS = torch.tensor([[[[-2.0, -1e-9, 0.0, 1e-9]]]])  # (1, 1, 1, 4)
NOTHING = torch.zeros(1, 1, 1, 4)


def predicted(prediction: torch.Tensor, target: torch.Tensor = NOTHING, **options: Any) -> list[Any]:
    return to_masks(prediction, target, **options)[0].int().tolist()


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
        assert all(torch.equal(found, mask) for found in masks)


def test_class_indices_are_compared_with_the_largest_logit() -> None:
    logits = torch.tensor([[5.0, -9.0], [4.0, -1.0], [-1.0, -8.0]]).reshape(1, 3, 1, 2)
    target = torch.tensor([[[2, 0]]])
    for prediction in (logits, torch.tensor([[[0, 1]]]), torch.tensor([[[0, 1]]], dtype=torch.uint8)):
        masks = to_masks(prediction, target, num_classes=3)
        by_class = [mask[0, :, 0].int().tolist() for mask in masks]
        assert by_class == [[[1, 0], [0, 1], [0, 0]], [[0, 1], [0, 0], [1, 0]]]


def test_classes_of_masks_are_independent_of_each_other() -> None:
    logits = torch.tensor([[5.0, -9.0], [4.0, 1.0]]).reshape(1, 2, 1, 2)
    assert predicted(logits, torch.zeros(1, 2, 1, 2), num_classes=2) == [[[[1, 0]], [[1, 1]]]]


@pytest.mark.parametrize("shape", [(2, 1, 4, 5, 6), (2, 4, 5, 6)])
def test_volumes_have_one_more_axis(shape: tuple[int, ...]) -> None:
    mask = torch.arange(240).reshape(2, 1, 4, 5, 6) % 3 == 0
    _, true = to_masks(mask, mask.reshape(shape), num_classes=1)
    assert torch.equal(true, mask)


def test_a_volume_of_class_indices_fits_logits_of_volumes() -> None:
    logits, target = torch.rand(2, 3, 4, 5, 6), torch.randint(3, (2, 4, 5, 6))
    assert [mask.shape for mask in to_masks(logits, target, num_classes=3)] == [logits.shape] * 2


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
    with pytest.raises(ValueError, match=r"target holds class indices in \[.*\], expected \[0, 2\]"):
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
    filled = fill_empty(values, some, none, empty=empty, worst=torch.tensor([9.0, 8.0, 7.0, 6.0], dtype=torch.float64))
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
    prediction, _ = to_masks(logits, torch.zeros(1, 1, 3, dtype=torch.int64), num_classes=2)
    assert prediction[0, :, 0].tolist() == [[True, True, False], [False, False, True]]


def test_integers_of_numpy_are_patients_and_slices() -> None:
    assert patient_names([np.int64(3), "a"], 2) == ["3", "a"]
    assert slice_indices([np.int64(3), 0], 2) == [3, 0]
    with pytest.raises(ValueError, match="group must have one entry"):
        patient_names({"a": 1}, 1)
