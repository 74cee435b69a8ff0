"""Counts and scores of single images against a pencil, brute force and torchmetrics."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_f1_score,
    binary_fbeta_score,
    binary_precision,
    binary_recall,
    binary_specificity,
    binary_stat_scores,
)

from brainseg.metrics.functional.overlap import (
    confusion_counts,
    dice_score,
    f_beta,
    f_beta_of_counts,
    iou,
    precision,
    recall,
    specificity,
    volume_difference,
    volume_difference_of_counts,
)

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6))
PAIRS = SHAPES.flatmap(lambda shape: st.tuples(*[hnp.arrays(bool, shape)] * 2))

TARGET = torch.tensor([[[[1, 1, 0, 0]]], [[[1, 0, 0, 0]]], [[[0, 0, 0, 0]]], [[[0, 0, 0, 0]]]])
PREDICTION = torch.tensor([[[[0, 1, 1, 1]]], [[[0, 0, 0, 0]]], [[[0, 0, 0, 1]]], [[[0, 0, 0, 0]]]])


SCORES: dict[str, Callable[..., Tensor]] = {
    "dice": dice_score,
    "iou": iou,
    "f_2": partial(f_beta, beta=2.0),
    "precision": precision,
    "recall": recall,
}
EVERY_CASE: dict[str, Callable[..., Tensor]] = {
    "specificity": specificity,
    "volume_difference": partial(volume_difference, spacing=(5.0, 0.5, 2.0)),
    "relative": partial(volume_difference, spacing=1.0, relative=True),
}


def pixels(mask: np.ndarray) -> set[tuple[int, ...]]:
    return {index for index in np.ndindex(mask.shape) if mask[index]}


def test_counts_by_hand() -> None:
    counts = confusion_counts(PREDICTION, TARGET)[:, 0]
    assert counts.tolist() == [[1, 2, 1, 0], [0, 0, 1, 3], [0, 1, 0, 3], [0, 0, 0, 4]]


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        ("dice", [2 / 5, 0, 0, math.nan]),
        ("iou", [1 / 4, 0, 0, math.nan]),
        ("f_2", [5 / 11, 0, 0, math.nan]),
        ("precision", [1 / 3, 0, 0, math.nan]),
        ("recall", [1 / 2, 0, 0, math.nan]),
        ("specificity", [0, 1, 3 / 4, 1]),
        ("volume_difference", [0.005, 0.005, 0.005, 0]),
        ("relative", [1 / 2, 1, math.nan, math.nan]),
    ],
)
def test_scores_by_hand(score: str, expected: list[float]) -> None:
    values = {**SCORES, **EVERY_CASE}[score](PREDICTION, TARGET)
    assert values.flatten().tolist() == pytest.approx(expected, nan_ok=True)
    assert (values.dtype, values.shape) == (torch.float32, (4, 1))


@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
def test_two_empty_masks_score_what_is_asked_for(score: Callable[..., Tensor]) -> None:
    assert [score(PREDICTION, TARGET, empty=empty)[3].item() for empty in ("one", "zero")] == [1, 0]


@given(PAIRS)
def test_scores_are_those_of_sets_of_pixels(pair: tuple[np.ndarray, np.ndarray]) -> None:
    found = [score(*map(torch.from_numpy, pair)).tolist() for score in SCORES.values()]
    for b, k in np.ndindex(pair[0].shape[:2]):
        predicted, true = (pixels(mask[b, k]) for mask in pair)
        both, either = len(predicted & true), len(predicted | true)
        # 0 / 0 is the score of a missed target or a false alarm: 0.
        of_predicted, of_true = both / max(len(predicted), 1), both / max(len(true), 1)
        expected = [
            2 * both / max(len(predicted) + len(true), 1),
            both / max(either, 1),
            5 * of_predicted * of_true / (4 * of_predicted + of_true) if both else 0,
            of_predicted,
            of_true,
        ]
        assert [scores[b][k] for scores in found] == pytest.approx(expected if either else [math.nan] * 5, nan_ok=True)


@given(PAIRS)
def test_what_every_case_has_is_that_of_sets_of_pixels(pair: tuple[np.ndarray, np.ndarray]) -> None:
    found = [score(*map(torch.from_numpy, pair)).tolist() for score in EVERY_CASE.values()]
    for b, k in np.ndindex(pair[0].shape[:2]):
        predicted, true, background = (pixels(mask[b, k]) for mask in (*pair, ~pair[1]))
        difference = abs(len(predicted) - len(true))
        expected = [
            len(background - predicted) / len(background) if background else math.nan,
            difference * 5.0 * 0.5 * 2.0 / 1000,
            difference / len(true) if true else math.nan,
        ]
        assert [values[b][k] for values in found] == pytest.approx(expected, nan_ok=True)


@given(PAIRS, st.floats(0.1, 10))
def test_scores_are_those_of_torchmetrics_where_both_define_them(
    pair: tuple[np.ndarray, np.ndarray], beta: float
) -> None:
    prediction, target = map(torch.from_numpy, pair)
    peers: list[tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]] = [
        (dice_score(prediction, target), binary_f1_score),
        (f_beta(prediction, target, beta=beta), partial(binary_fbeta_score, beta=beta)),
        (precision(prediction, target), binary_precision),
        (recall(prediction, target), binary_recall),
        (specificity(prediction, target), binary_specificity),
    ]
    for values, peer in peers:
        for b, k in np.ndindex(*prediction.shape[:2]):
            # Where ours is NaN theirs is 0: two empty masks, and the specificity of a target without background.
            theirs = peer(prediction[b, k].flatten().int(), target[b, k].flatten().int())
            assert values[b, k].nan_to_num(0).item() == pytest.approx(theirs.item(), rel=1e-5)
            empty = not (prediction[b, k] | target[b, k]).any()
            assert values[b, k].isnan() == (target[b, k].all() if peer is binary_specificity else empty)


@given(PAIRS)
def test_f_1_is_dice(pair: tuple[np.ndarray, np.ndarray]) -> None:
    prediction, target = map(torch.from_numpy, pair)
    assert torch.equal(f_beta(prediction, target).nan_to_num(-1), dice_score(prediction, target).nan_to_num(-1))


@pytest.mark.parametrize(("beta", "limit"), [(1e-9, precision), (1e9, recall), (1e200, recall)])
def test_f_beta_goes_from_precision_to_recall(beta: float, limit: Callable[..., Tensor]) -> None:
    values = f_beta(PREDICTION, TARGET, beta=beta).flatten().tolist()
    assert values == pytest.approx(limit(PREDICTION, TARGET).flatten().tolist(), nan_ok=True)


def test_counts_added_over_images_score_as_one_image() -> None:
    counts = torch.stack([confusion_counts(p[None], t[None]) for p, t in zip(PREDICTION, TARGET, strict=True)]).sum(0)
    together = [x.reshape(1, 1, 4, 4) for x in (PREDICTION, TARGET)]
    assert torch.equal(f_beta_of_counts(counts, beta=2.0).float(), f_beta(*together, beta=2.0))
    assert torch.equal(
        volume_difference_of_counts(counts, spacing=2.0).float(), volume_difference(*together, spacing=2.0)
    )


@pytest.mark.parametrize(("spacing", "expected"), [((5.0, 0.5, 2.0), 0.005), (2.0, 0.008)])
def test_volumes_are_in_ml_of_images_and_of_volumes(spacing: float | tuple[float, ...], expected: float) -> None:
    image, volume = torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1, 1)
    for target in (image, volume):
        missed = torch.zeros_like(target) - 1
        assert volume_difference(missed, target, spacing=spacing).item() == pytest.approx(expected)


@pytest.mark.parametrize("spacing", [0.0, -1.0, math.inf, math.nan, (1.0, 1.0), (1.0, 1.0, 0.0)])
def test_a_volume_needs_three_lengths(spacing: float | tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="spacing must be a positive number of mm, or one for each of the 3 axes"):
        volume_difference(PREDICTION, TARGET, spacing=spacing)


@pytest.mark.parametrize("beta", [0, -1.0, math.inf, math.nan])
def test_beta_is_a_positive_number(beta: float) -> None:
    with pytest.raises(ValueError, match="the scores of 0 and infinity are precision and recall"):
        f_beta(PREDICTION, TARGET, beta=beta)


@pytest.mark.parametrize("score", [*SCORES.values(), *EVERY_CASE.values()], ids=[*SCORES, *EVERY_CASE])
def test_scores_read_predictions_as_they_are_told(score: Callable[..., Tensor]) -> None:
    probabilities = torch.tensor([[[0.2, 0.4], [0.6, 0.3]]])
    target = torch.tensor([[[0, 1], [1, 0]]])
    found = score(probabilities, target, num_classes=1, threshold=0.3, from_probabilities=True)
    assert torch.equal(found, score(torch.tensor([[[0, 1], [1, 0]]]), target))


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
