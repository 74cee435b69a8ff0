"""Counts and scores of single images against a pencil, brute force and torchmetrics."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torchmetrics.functional.classification import binary_stat_scores

from brainseg.metrics.functional import confusion_counts, dice_score, iou

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6))
PAIRS = SHAPES.flatmap(lambda shape: st.tuples(*[hnp.arrays(bool, shape)] * 2))

TARGET = torch.tensor([[[[1, 1, 0, 0]]], [[[1, 0, 0, 0]]], [[[0, 0, 0, 0]]], [[[0, 0, 0, 0]]]])
PREDICTION = torch.tensor([[[[0, 1, 1, 1]]], [[[0, 0, 0, 0]]], [[[0, 0, 0, 1]]], [[[0, 0, 0, 0]]]])


def pixels(mask: np.ndarray) -> set[tuple[int, ...]]:
    return {index for index in np.ndindex(mask.shape) if mask[index]}


def test_counts_by_hand() -> None:
    counts = confusion_counts(PREDICTION, TARGET)[:, 0]
    assert counts.tolist() == [[1, 2, 1, 0], [0, 0, 1, 3], [0, 1, 0, 3], [0, 0, 0, 4]]


def test_scores_by_hand() -> None:
    assert dice_score(PREDICTION, TARGET).flatten().tolist() == pytest.approx([2 / 5, 0, 0, math.nan], nan_ok=True)
    assert iou(PREDICTION, TARGET).flatten().tolist() == pytest.approx([1 / 4, 0, 0, math.nan], nan_ok=True)


def test_two_empty_masks_score_what_is_asked_for() -> None:
    assert [dice_score(PREDICTION, TARGET, empty=empty)[3].item() for empty in ("one", "zero")] == [1, 0]
    assert [iou(PREDICTION, TARGET, empty=empty)[3].item() for empty in ("one", "zero")] == [1, 0]


@given(PAIRS)
def test_scores_are_those_of_sets_of_pixels(pair: tuple[np.ndarray, np.ndarray]) -> None:
    found = [score(*map(torch.from_numpy, pair)).tolist() for score in (dice_score, iou)]
    for b, k in np.ndindex(pair[0].shape[:2]):
        predicted, true = (pixels(mask[b, k]) for mask in pair)
        both, either = len(predicted & true), len(predicted | true)
        expected = [2 * both / (len(predicted) + len(true)), both / either] if either else [math.nan] * 2
        assert [scores[b][k] for scores in found] == pytest.approx(expected, nan_ok=True)


@given(PAIRS)
def test_counts_are_those_of_torchmetrics(pair: tuple[np.ndarray, np.ndarray]) -> None:
    prediction, target = map(torch.from_numpy, pair)
    counts = confusion_counts(prediction, target)
    assert counts.dtype == torch.int64
    for b, k in np.ndindex(*prediction.shape[:2]):
        expected = binary_stat_scores(prediction[b, k].flatten().int(), target[b, k].flatten().int())
        assert torch.equal(counts[b, k], expected[[0, 1, 3, 2]])


@given(st.integers(2, 5), st.integers(0, 999))
def test_class_indices_score_as_their_masks(k: int, seed: int) -> None:
    prediction, target = torch.randint(k, (2, 2, 3, 4), generator=torch.Generator().manual_seed(seed))
    masks = [torch.stack([indices == c for c in range(k)], 1) for indices in (prediction, target)]
    expected = confusion_counts(*masks)
    logits = masks[0] * 3.0 - torch.rand(2, k, 3, 4)
    assert torch.equal(confusion_counts(prediction, target, num_classes=k), expected)
    assert torch.equal(confusion_counts(logits, target), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_of_the_logits_does_not_matter(dtype: torch.dtype) -> None:
    assert torch.equal(confusion_counts(PREDICTION.to(dtype) - 0.5, TARGET), confusion_counts(PREDICTION, TARGET))


def test_an_unknown_choice_for_empty_masks_is_refused() -> None:
    with pytest.raises(ValueError, match="empty must be one of 'exclude', 'one', 'zero', got 'skip'"):
        dice_score(PREDICTION, TARGET, empty="skip")  # type: ignore[arg-type]


@pytest.mark.parametrize("threshold", [-0.1, 1.5, "0.5", True])
def test_a_threshold_is_a_probability(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"threshold must be a probability in \[0, 1\]"):
        dice_score(PREDICTION, TARGET, threshold=threshold)
