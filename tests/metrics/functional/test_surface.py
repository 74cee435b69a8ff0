"""Surface distances against brute force, scipy's distance transform, and the pencil."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from brainseg.metrics.functional import (
    average_surface_distance,
    hausdorff_distance,
    mean_average_surface_distance,
    normalized_surface_dice,
    surface_metrics,
)

SPACINGS = [(1.0, 1.0), (0.5, 3.0), (2.5, 0.1)]


def border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    cross = ndimage.generate_binary_structure(mask.ndim, 1)
    eroded: NDArray[np.bool_] = ndimage.binary_erosion(mask, cross, border_value=0)
    return mask & ~eroded


def by_transform(
    predicted: NDArray[np.bool_], true: NDArray[np.bool_], spacing: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Directed distances, by scipy's distance transform of everything that is no boundary."""
    a, b = border(predicted), border(true)
    to_a, to_b = (ndimage.distance_transform_edt(~x, sampling=spacing) for x in (a, b))
    return to_b[a], to_a[b]


def by_pairs(
    predicted: NDArray[np.bool_], true: NDArray[np.bool_], spacing: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Directed distances, of every pixel to every pixel."""
    a, b = (np.argwhere(border(x)) * np.array(spacing) for x in (predicted, true))
    pairs = np.array([[math.dist(p, q) for q in b] for p in a])
    return pairs.min(1), pairs.min(0)


def expected(one: NDArray[np.float64], other: NDArray[np.float64], percentile: float, tolerance: float) -> list[float]:
    both = np.concatenate([one, other])
    slack = tolerance * (1 + 1e-6)
    worst = max(np.percentile(one, percentile), np.percentile(other, percentile))
    return [worst, both.mean(), (both <= slack).mean(), (one.mean() + other.mean()) / 2]


@st.composite
def masks(draw: st.DrawFn, axes: int = 2) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Two masks that are not empty: noise, blobs, one pixel, everything, nothing but the border."""
    sides = tuple(draw(st.integers(1, 14 if axes == 2 else 6)) for _ in range(axes))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def mask(form: str) -> NDArray[np.bool_]:
        if form == "full":
            return np.ones(sides, dtype=bool)
        found = np.zeros(sides, dtype=bool)
        if form == "noise":
            found = rng.random(sides) < rng.random()
        elif form == "blob":
            found = ndimage.gaussian_filter(rng.random(sides), 1.5) > 0.5
        elif form == "edge":
            found[..., -1] = True
        if not found.any():
            found[tuple(rng.integers(0, side) for side in sides)] = True
        return found

    forms = st.sampled_from(["full", "noise", "blob", "edge", "pixel"])
    return mask(draw(forms)), mask(draw(forms))


def assert_exact(found: Any, wanted: list[float]) -> None:
    assert [x.item() for x in found] == pytest.approx(wanted, rel=1e-5, abs=1e-6)


def measured(predicted: NDArray[np.bool_], true: NDArray[np.bool_], **arguments: Any) -> Any:
    return surface_metrics(torch.from_numpy(predicted)[None, None], torch.from_numpy(true)[None, None], **arguments)


@given(masks(), st.sampled_from(SPACINGS), st.sampled_from([100.0, 95.0, 50.0, 0.5]), st.sampled_from([0.0, 1.0, 2.5]))
def test_slices_are_those_of_brute_force(
    pair: Any, spacing: tuple[float, float], percentile: float, tolerance: float
) -> None:
    wanted = expected(*by_pairs(*pair, spacing), percentile, tolerance)
    assert_exact(measured(*pair, spacing=spacing, percentile=percentile, tolerance=tolerance), wanted)


@pytest.mark.parametrize(("pairs", "dense"), [(2**18, 0), (0, 0), (0, 10**6)], ids=["pairs", "tree", "transform"])
@given(masks(3), st.sampled_from([(1.0, 1.0, 1.0), (3.0, 0.5, 0.75)]), st.sampled_from([100.0, 95.0]))
def test_volumes_are_those_of_the_distance_transform_however_they_are_searched(
    pairs: int, dense: int, pair: Any, spacing: tuple[float, ...], percentile: float
) -> None:
    wanted = expected(*by_transform(*pair, spacing), percentile, 1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("brainseg.metrics.functional.surface.MATRIX", pairs)
        patch.setattr("brainseg.metrics.functional.surface.DENSE", dense)
        assert_exact(measured(*pair, spacing=spacing, percentile=percentile), wanted)


@given(masks(), st.integers(1, 50))
def test_pairs_may_be_looked_at_in_parts(pair: Any, pairs: int) -> None:
    wanted = expected(*by_pairs(*pair, (1.0, 1.0)), 95.0, 1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("brainseg.metrics.functional.surface.PAIRS", pairs)
        assert_exact(measured(*pair), wanted)


@given(masks(), masks())
@example((np.ones((10, 20), bool), np.ones((10, 20), bool)), (np.ones((20, 10), bool), np.eye(20, 10, dtype=bool)))
def test_images_and_classes_of_a_batch_do_not_meet(one: Any, other: Any) -> None:
    sides = [max(mask.shape[axis] for mask in (*one, *other)) for axis in range(2)]
    grown = [
        np.pad(mask, [(0, side - n) for side, n in zip(sides, mask.shape, strict=True)]) for mask in (*one, *other)
    ]
    predicted, true = (torch.from_numpy(np.stack(x)) for x in (grown[::2], grown[1::2]))
    wanted = [expected(*by_transform(*pair, (1.0, 1.0)), 95.0, 1.0) for pair in (grown[:2], grown[2:])]
    for layout in ((2, 1), (1, 2)):
        shape = (*layout, *sides)
        found = surface_metrics(predicted.view(shape), true.view(shape))
        torch.testing.assert_close(
            torch.stack(found, -1).view(2, 4), torch.tensor(wanted, dtype=torch.float32), rtol=1e-5, atol=1e-6
        )


def squares(shift: int, side: int = 32) -> tuple[Tensor, Tensor]:
    """A square of 5x5 pixels and the same some columns further."""
    target = torch.zeros(1, 1, side, side, dtype=torch.bool)
    target[..., 10:15, 10:15] = True
    return target.roll(shift, -1), target


def test_a_square_moved_by_3_columns_is_that_of_the_pencil() -> None:
    # Of the 16 boundary pixels of either, 5 are 3 away, 2 are 2, 2 + 3 are 1 (these 3 lie inside the other), 4 are 0.
    prediction, target = squares(3)
    assert hausdorff_distance(prediction, target).item() == 3
    assert hausdorff_distance(prediction, target, spacing=(9.0, 0.5)).item() == 1.5
    assert average_surface_distance(prediction, target).item() == 24 / 16
    assert mean_average_surface_distance(prediction, target).item() == 24 / 16  # as many on either side
    assert [normalized_surface_dice(prediction, target, tolerance=t).item() for t in (0, 1, 2, 3)] == [
        4 / 16,
        9 / 16,
        11 / 16,
        1,
    ]


def test_equal_masks_are_0_away_and_1() -> None:
    mask = squares(0)[0]
    assert_exact(surface_metrics(mask, mask, tolerance=0.0), [0, 0, 1, 0])


def test_a_distance_that_equals_the_tolerance_is_within_it_whatever_its_rounding() -> None:
    prediction, target = squares(3)
    for step in (0.1, 0.3, 0.7, 1 / 3):
        assert normalized_surface_dice(prediction, target, spacing=(1.0, step), tolerance=3 * step).item() == 1


def test_a_missed_target_and_a_false_alarm_get_the_diagonal_and_0() -> None:
    target = torch.zeros(1, 1, 30, 80, dtype=torch.bool)
    target[..., 3, 3] = True
    nothing = torch.zeros_like(target)
    for pair in ((nothing, target), (target, nothing)):
        assert_exact(surface_metrics(*pair, spacing=(1.0, 0.5)), [50, 50, 0, 50])
        assert_exact(surface_metrics(*pair, distance_when_missing=7), [7, 7, 0, 7])
        assert hausdorff_distance(*pair, distance_when_missing="inf").item() == math.inf
        assert hausdorff_distance(*pair, distance_when_missing="nan").isnan()


@pytest.mark.parametrize(("empty", "value"), [("exclude", math.nan), ("one", 1.0), ("zero", 0.0)])
def test_two_empty_masks_are_what_is_asked_for(empty: Any, value: float) -> None:
    nothing = torch.zeros(1, 1, 8, 8)
    found = surface_metrics(nothing - 1, nothing, empty=empty)
    torch.testing.assert_close(torch.stack(found), torch.full((4, 1, 1), value), equal_nan=True)


def test_no_distance_exceeds_the_diagonal() -> None:
    prediction, target = torch.zeros(2, 1, 1, 7, 5, dtype=torch.bool)
    prediction[..., 0, 0] = target[..., 6, 4] = True
    apart = hausdorff_distance(prediction, target).item()
    assert apart == pytest.approx(math.hypot(6, 4))
    assert apart < hausdorff_distance(torch.zeros_like(target), target).item() == pytest.approx(math.hypot(7, 5))


def test_logits_and_class_indices_are_masks_too() -> None:
    prediction, target = squares(3)
    logits = torch.where(prediction, 4.0, -4.0)
    assert_exact(surface_metrics(logits, target[:, 0].long()), [3, 1.5, 9 / 16, 1.5])
    found = surface_metrics(prediction[:, 0].long(), target[:, 0].long(), num_classes=2)
    assert found.hausdorff.shape == (1, 2)
    assert found.hausdorff[0, 1] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"percentile": 0}, "percentile must lie above 0"),
        ({"percentile": 101}, "percentile must lie above 0"),
        ({"tolerance": -1.0}, "tolerance must be a number of mm from 0"),
        ({"tolerance": math.nan}, "tolerance must be a number of mm from 0"),
        ({"spacing": (1.0, 1.0, 1.0)}, "one for each of the 2 axes"),
        ({"spacing": (1.0, 0.0)}, "positive"),
        ({"distance_when_missing": "diagnol"}, "distance_when_missing must be"),
        ({"distance_when_missing": -1}, "distance_when_missing must be"),
        ({"empty": "skip"}, "empty must be one of"),
    ],
)
def test_arguments_out_of_range_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        surface_metrics(*squares(0), **arguments)
