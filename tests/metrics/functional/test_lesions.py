"""Lesions against the pencil and a flood fill that compares every pair of components."""

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from brainseg.metrics.functional.lesions import LesionScores, lesion_detection

Pixels = set[tuple[int, ...]]
Pair = tuple[NDArray[np.bool_], NDArray[np.bool_]]

THRESHOLDS = [None, 0.1, 1 / 3, 0.5, 0.75, 1.0]


def flooded(mask: NDArray[np.bool_], connectivity: int) -> list[Pixels]:
    """The components of a mask, grown pixel by pixel, in the order of their first pixels."""
    steps = [step for step in product((-1, 0, 1), repeat=mask.ndim) if 0 < sum(map(abs, step)) <= connectivity]
    left = {tuple(map(int, place)) for place in np.argwhere(mask)}
    components = []
    while left:
        edge = [min(left)]
        left.discard(edge[0])
        component = set(edge)
        while edge:
            place = edge.pop()
            near = {tuple(a + b for a, b in zip(place, step, strict=True)) for step in steps} & left
            left -= near
            component |= near
            edge += near
        components.append(component)
    return components


def iou(one: Pixels, other: Pixels) -> Fraction:
    return Fraction(len(one & other), len(one | other))


def matched(components: list[Pixels], targets: list[Pixels], threshold: float) -> list[tuple[int, int]]:
    """One to one: again and again the best of all pairs that are left."""
    pairs = [(i, j) for i, j in np.ndindex(len(components), len(targets)) if components[i] & targets[j]]
    pairs = [(i, j) for i, j in pairs if float(iou(components[i], targets[j])) >= threshold]
    matches = []
    while pairs:
        best = min(
            pairs,
            key=lambda pair: (-iou(components[pair[0]], targets[pair[1]]), min(components[pair[0]] & targets[pair[1]])),
        )
        matches.append(best)
        pairs = [pair for pair in pairs if pair[0] != best[0] and pair[1] != best[1]]
    return matches


def expected(pair: Pair, threshold: float | None = None, connectivity: int | None = None) -> list[float]:
    """What `lesion_detection` says, of sets of pixels."""
    components, targets = (flooded(mask, connectivity or mask.ndim) for mask in pair)
    if threshold is None:
        meetings = [(i, j) for i, j in np.ndindex(len(components), len(targets)) if components[i] & targets[j]]
    else:
        meetings = matched(components, targets, threshold)
    dice = []
    for j, lesion in enumerate(targets):
        partner = set().union(*(components[i] for i, other in meetings if other == j))
        dice.append(2 * len(partner & lesion) / (len(partner) + len(lesion)))
    found, correct = len({j for _, j in meetings}), len({i for i, _ in meetings})
    counts = [len(targets), found, len(components), correct]
    if not targets and not components:
        return [*counts, math.nan, math.nan, math.nan, 0, math.nan]
    sensitivity = found / len(targets) if targets else 0.0
    precision = correct / len(components) if components else 0.0
    f1 = 2 / (1 / sensitivity + 1 / precision) if found else 0.0
    return [*counts, sensitivity, precision, f1, len(components) - correct, math.fsum(dice) / max(1, len(targets))]


def image(*rows: str) -> Tensor:
    """(1, 1, H, W) of rows in which # is foreground."""
    return torch.tensor([[[[pixel == "#" for pixel in row] for row in rows]]])


def counts(scores: LesionScores) -> list[int]:
    return [int(x) for x in scores[:4]]


def values(scores: LesionScores) -> list[float]:
    """The counts, then sensitivity, precision, F1, false positives, lesion Dice."""
    return [x.item() for x in scores]


@st.composite
def masks(draw: st.DrawFn, axes: int = 2) -> Pair:
    """Two masks: noise, blobs, everything, nothing, one pixel."""
    sides = tuple(draw(st.integers(1, 12 if axes == 2 else 5)) for _ in range(axes))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def mask(form: str) -> NDArray[np.bool_]:
        if form in ("full", "empty"):
            return np.full(sides, form == "full")
        if form == "noise":
            return rng.random(sides) < 0.6 * rng.random()
        if form == "blob":
            smooth = ndimage.gaussian_filter(rng.random(sides), 0.7)
            return np.asarray(smooth > np.quantile(smooth, 0.6))
        found = np.zeros(sides, dtype=bool)
        found[tuple(rng.integers(0, side) for side in sides)] = True
        return found

    forms = st.sampled_from(["noise", "noise", "blob", "blob", "full", "empty", "pixel"])
    return mask(draw(forms)), mask(draw(forms))


def detected(pair: Pair, **arguments: Any) -> LesionScores:
    return lesion_detection(*(torch.from_numpy(mask)[None, None] for mask in pair), **arguments)


@given(masks(), st.sampled_from(THRESHOLDS), st.sampled_from([None, 1, 2]))
def test_images_are_those_of_brute_force(pair: Pair, threshold: float | None, connectivity: int | None) -> None:
    found = detected(pair, iou_threshold=threshold, connectivity=connectivity)
    assert values(found) == pytest.approx(expected(pair, threshold, connectivity), nan_ok=True)


@given(masks(3), st.sampled_from(THRESHOLDS), st.sampled_from([None, 1, 2, 3]))
def test_volumes_are_those_of_brute_force(pair: Pair, threshold: float | None, connectivity: int | None) -> None:
    found = detected(pair, iou_threshold=threshold, connectivity=connectivity)
    assert values(found) == pytest.approx(expected(pair, threshold, connectivity), nan_ok=True)


@pytest.mark.parametrize("threshold", [None, 0.25, 1 / 3, 0.5])
def test_all_pairs_of_rows_of_6_pixels_are_those_of_brute_force(threshold: float | None) -> None:
    rows = np.array(list(product([False, True], repeat=6)))[:, None]  # (64, 1, 6)
    pairs = list(product(rows, rows))
    batch = [torch.from_numpy(np.stack(side))[:, None] for side in zip(*pairs, strict=True)]
    found = torch.stack([x[:, 0].double() for x in lesion_detection(*batch, iou_threshold=threshold)], 1)
    wanted = torch.tensor([expected(pair, threshold) for pair in pairs], dtype=torch.float64)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0, equal_nan=True)


@given(masks(), st.sampled_from([0.51, 0.6, 0.9]))
def test_above_one_half_every_pair_that_reaches_the_threshold_is_a_match(pair: Pair, threshold: float) -> None:
    components, targets = (flooded(mask, 2) for mask in pair)
    enough = sum(iou(one, other) >= threshold for one, other in product(components, targets))
    assert counts(detected(pair, iou_threshold=threshold)) == [len(targets), enough, len(components), enough]


@given(masks(), masks(), st.sampled_from([None, 0.2]))
def test_images_and_classes_of_a_batch_do_not_meet(one: Pair, other: Pair, threshold: float | None) -> None:
    sides = [max(mask.shape[axis] for mask in (*one, *other)) for axis in range(2)]
    grown = [
        np.pad(mask, [(0, side - n) for side, n in zip(sides, mask.shape, strict=True)]) for mask in (*one, *other)
    ]
    predicted, true = (torch.from_numpy(np.stack(x)) for x in (grown[::2], grown[1::2]))
    wanted = torch.tensor([expected((p, t), threshold) for p, t in (grown[:2], grown[2:])])
    for layout in ((2, 1), (1, 2)):
        shape = (*layout, *sides)
        found = torch.stack(
            [x.float() for x in lesion_detection(predicted.view(shape), true.view(shape), iou_threshold=threshold)], -1
        )
        torch.testing.assert_close(found.view(2, -1), wanted, equal_nan=True)


@pytest.mark.parametrize(("connectivity", "number"), [(None, 1), (2, 1), (1, 2)])
def test_diagonals_touch_unless_only_4_neighbours_do(connectivity: int | None, number: int) -> None:
    mask = image("#..", ".#.", "...")
    assert counts(lesion_detection(mask, mask, connectivity=connectivity)) == [number] * 4


@pytest.mark.parametrize(("connectivity", "number"), [(None, 1), (3, 1), (2, 2), (1, 3)])
def test_in_a_volume_edges_and_corners_touch_as_asked_for(connectivity: int | None, number: int) -> None:
    mask = torch.zeros(1, 1, 3, 3, 3, dtype=torch.bool)
    mask[0, 0, 0, 0, 0] = True
    mask[0, 0, 1, 1, 1] = True  # over a corner
    mask[0, 0, 1, 2, 2] = True  # over an edge
    assert counts(lesion_detection(mask, mask, connectivity=connectivity)) == [number] * 4


def test_one_component_may_find_two_lesions_unless_they_are_matched() -> None:
    target = image("##.#")
    prediction = image("####")
    # Dice 2 * 2 / (2 + 4) and 2 * 1 / (1 + 4); the larger lesion is the match.
    assert values(lesion_detection(prediction, target)) == pytest.approx([2, 2, 1, 1, 1, 1, 1, 0, (2 / 3 + 2 / 5) / 2])
    matches = lesion_detection(prediction, target, iou_threshold=0.1)
    assert values(matches) == pytest.approx([2, 1, 1, 1, 1 / 2, 1, 2 / 3, 0, 1 / 3])


def test_two_components_may_find_one_lesion_unless_they_are_matched() -> None:
    target = image("#####.")
    prediction = image("##.#.#")
    # All that lies on the lesion are 3 pixels; matched are 2.
    assert values(lesion_detection(prediction, target)) == pytest.approx([1, 1, 3, 2, 1, 2 / 3, 4 / 5, 1, 6 / 8])
    matches = lesion_detection(prediction, target, iou_threshold=0.1)
    assert values(matches) == pytest.approx([1, 1, 3, 1, 1, 1 / 3, 1 / 2, 2, 4 / 7])


def test_the_dice_of_a_lesion_counts_what_its_component_has_outside_and_not_what_others_have() -> None:
    scores = lesion_detection(image("###....", "......."), image("##...#.", "......."))
    assert values(scores) == pytest.approx([2, 1, 1, 1, 1 / 2, 1, 2 / 3, 0, (4 / 5 + 0) / 2])


def test_the_highest_iou_is_matched_first_even_where_others_would_be_more() -> None:
    target = image("######.#..")
    prediction = image("##.#####..")
    # 3 of 8 pixels beside 2 of 6 and 1 of 5: the second component takes the first lesion, and none is left.
    assert counts(lesion_detection(prediction, target, iou_threshold=0.1)) == [2, 1, 2, 1]


def test_an_iou_that_equals_the_threshold_is_enough() -> None:
    for size in range(1, 30):
        prediction, target = torch.zeros(2, 1, 1, 1, 30, dtype=torch.bool)
        prediction[..., :size] = target[..., :30] = True
        assert counts(lesion_detection(prediction, target, iou_threshold=size / 30)) == [1, 1, 1, 1]
        above = math.nextafter(size / 30, 1)
        assert counts(lesion_detection(prediction, target, iou_threshold=above)) == [1, 0, 1, 0]


def test_of_equal_ious_the_first_common_pixel_comes_first() -> None:
    # The middle component has 1 of 5 pixels in common with either lesion, the other component 1 of 6 with its own.
    assert counts(lesion_detection(image("..###.####"), image("###.###..."), iou_threshold=0.1)) == [2, 2, 2, 2]
    assert counts(lesion_detection(image("####.###.."), image("...###.###"), iou_threshold=0.1)) == [2, 1, 2, 1]


@pytest.mark.parametrize("threshold", [None, 1.0])
@pytest.mark.parametrize("mask", [image("#"), image("###", "###"), image("#.#", "...", "#.#"), image("...", "..#")])
def test_equal_masks_are_perfect_up_to_the_border(mask: Tensor, threshold: float | None) -> None:
    number = 4 if mask.sum() == 4 else 1
    assert values(lesion_detection(mask, mask, iou_threshold=threshold)) == [number] * 4 + [1, 1, 1, 0, 1]


def test_the_opposite_borders_do_not_touch() -> None:
    assert counts(lesion_detection(image("#.#", "..."), image("...", "#.#"))) == [2, 0, 2, 0]


def test_beside_a_lesion_is_not_on_it() -> None:
    assert values(lesion_detection(image("..##"), image("##.."))) == [1, 0, 1, 0, 0, 0, 0, 1, 0]


def test_a_missed_and_an_invented_lesion_score_0_and_false_positives_are_counted() -> None:
    nothing, something = image("....."), image("##.#.")
    assert values(lesion_detection(nothing, something)) == [2, 0, 0, 0, 0, 0, 0, 0, 0]
    assert values(lesion_detection(something, nothing)) == [0, 0, 2, 0, 0, 0, 0, 2, 0]


@pytest.mark.parametrize(("empty", "value"), [("exclude", math.nan), ("one", 1.0), ("zero", 0.0)])
def test_two_empty_masks_are_what_is_asked_for_and_have_no_false_positive(empty: Any, value: float) -> None:
    scores = lesion_detection(image("..."), image("..."), empty=empty)
    assert values(scores) == pytest.approx([0, 0, 0, 0, value, value, value, 0, value], nan_ok=True)


@given(masks(), st.sampled_from([None, 0.1, 0.5]), st.data())
def test_a_false_component_more_improves_no_score(pair: Pair, threshold: float | None, data: st.DataObject) -> None:
    """Far from everything else, that is; a bridge between two components may make one of them."""
    predicted, true = (np.pad(mask, (0, 2)) for mask in pair)
    lonely = ~ndimage.binary_dilation(predicted | true, np.ones((3, 3)))
    painted = predicted.copy()
    painted[tuple(data.draw(st.sampled_from(np.argwhere(lonely).tolist())))] = True
    before, after = (detected((mask, true), iou_threshold=threshold, empty="one") for mask in (predicted, painted))
    assert after.false_positives == before.false_positives + 1
    for name in ("sensitivity", "precision", "f1", "lesion_dice"):
        assert getattr(after, name) <= getattr(before, name)


@given(masks(), st.sampled_from([None, 0.1, 0.5]))
def test_a_lesion_more_that_is_missed_improves_no_score(pair: Pair, threshold: float | None) -> None:
    predicted, true = (np.pad(mask, (0, 2)) for mask in pair)
    missed = true.copy()
    missed[-1, -1] = True
    before, after = (detected((predicted, mask), iou_threshold=threshold, empty="one") for mask in (true, missed))
    assert after.false_positives == before.false_positives
    for name in ("sensitivity", "precision", "f1", "lesion_dice"):
        assert getattr(after, name) <= getattr(before, name)


@given(masks())
def test_to_predict_no_longer_what_finds_lesions_improves_no_count(pair: Pair) -> None:
    predicted, true = pair
    components = flooded(predicted, 2)
    targets = {tuple(map(int, place)) for place in np.argwhere(true)}
    without = predicted.copy()
    for place in set().union(*(component for component in components if component & targets)):
        without[place] = False
    before, after = (detected((mask, true), empty="one") for mask in (predicted, without))
    assert after.false_positives == before.false_positives
    for name in ("sensitivity", "precision", "f1", "lesion_dice"):
        assert getattr(after, name) <= getattr(before, name)


def test_two_lesions_of_a_slice_are_one_where_the_volume_joins_them() -> None:
    volume = torch.stack([image("#####")[0, 0], image("#...#")[0, 0]])[None, None]  # (1, 1, 2, 1, 5)
    slices = volume[0, 0][:, None]  # (2, 1, 1, 5)
    assert lesion_detection(slices, slices).lesions.tolist() == [[1], [2]]
    assert lesion_detection(volume, volume).lesions.tolist() == [[1]]


def test_logits_probabilities_and_class_indices_are_masks_too() -> None:
    target, prediction = image("##.#."), image("#...#")
    wanted = values(lesion_detection(prediction, target))
    assert values(lesion_detection(torch.where(prediction, 4.0, -4.0), target[:, 0].long())) == wanted
    sure = torch.where(prediction, 0.9, 0.8)
    assert values(lesion_detection(sure, target, threshold=0.85, from_probabilities=True)) == wanted
    classes = lesion_detection(prediction[:, 0].long(), target[:, 0].long(), num_classes=2)
    assert [x[0, 1].item() for x in classes] == wanted


def test_counts_are_int64_and_scores_float32_a_number_for_each_image_and_class() -> None:
    scores = lesion_detection(torch.ones(2, 3, 4, 5, dtype=torch.bool), torch.ones(2, 3, 4, 5))
    assert [x.dtype for x in scores] == [torch.int64] * 4 + [torch.float32] * 5
    assert {x.shape for x in scores} == {(2, 3)}


@pytest.mark.parametrize("shape", [(0, 2, 4, 4), (0, 1, 3, 4, 4), (2, 1, 0, 4)])
def test_without_an_image_or_a_pixel_there_is_no_lesion(shape: Sequence[int]) -> None:
    scores = lesion_detection(torch.zeros(*shape), torch.zeros(*shape))
    assert scores.lesions.tolist() == torch.zeros(shape[:2]).tolist()


def test_all_masks_of_a_batch_are_labelled_at_once() -> None:
    with mock.patch.object(ndimage, "label", wraps=ndimage.label) as label:
        lesion_detection(torch.ones(8, 2, 4, 4, dtype=torch.bool), torch.ones(8, 2, 4, 4))
    assert [call.args[0].shape for call in label.call_args_list] == [(32, 4, 4)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"iou_threshold": 0}, "iou_threshold must lie above 0 and up to 1, got 0; None lets"),
        ({"iou_threshold": 1.5}, "iou_threshold must lie above 0"),
        ({"iou_threshold": math.nan}, "iou_threshold must lie above 0"),
        ({"iou_threshold": True}, "iou_threshold must lie above 0"),
        ({"iou_threshold": "0.5"}, "iou_threshold must lie above 0"),
        ({"connectivity": 0}, "connectivity must be an integer from 1 to 2"),
        ({"connectivity": 3}, "connectivity must be an integer from 1 to 2, the axes of an image, got 3"),
        ({"connectivity": 1.0}, "connectivity must be an integer"),
        ({"connectivity": True}, "connectivity must be an integer"),
        ({"empty": "skip"}, "empty must be one of"),
        ({"threshold": 2}, "threshold must be a probability"),
        ({"num_classes": 2}, "do not fit num_classes=2"),
    ],
)
def test_arguments_out_of_range_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lesion_detection(image("#"), image("#"), **arguments)
