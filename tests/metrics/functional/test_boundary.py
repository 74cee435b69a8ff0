"""Boundary IoU against brute force, erosion by a cross, and the pencil."""

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from brainseg.metrics.functional import boundary_iou
from tests.metrics.functional.test_surface import border, masks

WIDTHS = [0.5, 1.0, 2.0, 3.7]


def rim(mask: NDArray[np.bool_], width: float, spacing: Sequence[float]) -> set[tuple[int, ...]]:
    """Pixels of the mask that are nearer than the width to one of its border, one by one."""
    edge = [np.multiply(place, spacing) for place in np.argwhere(border(mask))]
    return {
        tuple(place)
        for place in np.argwhere(mask).tolist()
        if min(math.dist(np.multiply(place, spacing), other) for other in edge) < width * (1 - 1e-6)
    }


def measured(predicted: NDArray[np.bool_], true: NDArray[np.bool_], **arguments: Any) -> float:
    return boundary_iou(torch.from_numpy(predicted)[None, None], torch.from_numpy(true)[None, None], **arguments).item()


@pytest.mark.parametrize(("axes", "spacings"), [(2, [(1, 1), (0.5, 3), (2.5, 0.1)]), (3, [(1, 1, 1), (3, 0.5, 0.75)])])
@given(data=st.data())
def test_rims_are_those_of_brute_force(axes: int, spacings: list[tuple[float, ...]], data: st.DataObject) -> None:
    pair, spacing, width = (
        data.draw(masks(axes)),
        data.draw(st.sampled_from(spacings)),
        data.draw(st.sampled_from(WIDTHS)),
    )
    predicted, true = (rim(mask, width, spacing) for mask in pair)
    expected = len(predicted & true) / len(predicted | true)
    assert measured(*pair, width=width, spacing=spacing) == pytest.approx(expected)


def square(side: int, shift: int = 0) -> Tensor:
    """(1, 1, 16, 16) with a square of so many pixels."""
    mask = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    mask[..., 2 : 2 + side, 2 + shift : 2 + shift + side] = True
    return mask


def test_a_square_moved_by_a_column_is_that_of_the_pencil() -> None:
    # Of width 1: 20 pixels each; the upper and the lower row share 5 each, the columns meet none of their kind.
    assert boundary_iou(square(6, 1), square(6)).item() == pytest.approx(10 / 30)
    # Of width 2: 32 each; upper two and lower two rows share 5 each, and columns 1 of 2 on either side, 2 rows high.
    assert boundary_iou(square(6, 1), square(6), width=2).item() == pytest.approx(24 / 40)
    # So wide that no hole is left: IoU.
    assert boundary_iou(square(6, 1), square(6), width=3).item() == pytest.approx(30 / 42)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_a_rim_of_so_many_pixels_is_what_as_many_erosions_by_a_square_remove_from_a_rectangle(width: int) -> None:
    mask = np.ones((12, 30), dtype=bool)
    rest = ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=width)
    hollow = mask & ~rest
    # All of a hollow rectangle twice as thin as the width is rim.
    assert measured(mask, hollow, width=width) == 1


def test_single_pixels_meet_or_do_not() -> None:
    one, other = torch.zeros(2, 1, 1, 5, 5, dtype=torch.bool)
    one[..., 2, 2] = other[..., 2, 3] = True
    assert boundary_iou(one, one, width=4.0).item() == 1
    assert boundary_iou(one, other, width=4.0).item() == 0


def test_a_width_that_equals_a_distance_leaves_it_out_whatever_its_rounding() -> None:
    for step, pixels in product((0.1, 0.3, 0.7, 1 / 3), (1, 2, 3)):
        found = boundary_iou(square(5), square(7), width=pixels * step, spacing=step)
        assert found == boundary_iou(square(5), square(7), width=pixels)


def test_the_width_is_in_mm() -> None:
    one, other = square(8), square(8, 2)
    assert boundary_iou(one, other, width=1.0, spacing=0.5) == boundary_iou(one, other, width=2.0)
    assert boundary_iou(one, other, width=1.0, spacing=(0.5, 1)) != boundary_iou(one, other, width=2.0)


def test_a_missed_target_and_a_false_alarm_are_0() -> None:
    nothing = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    assert boundary_iou(nothing, square(6), width=2).item() == boundary_iou(square(6), nothing, width=2).item() == 0


@pytest.mark.parametrize(("empty", "value"), [("exclude", math.nan), ("one", 1.0), ("zero", 0.0)])
def test_two_empty_masks_are_what_is_asked_for(empty: Any, value: float) -> None:
    nothing = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    assert boundary_iou(nothing, nothing, empty=empty, width=2).item() == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "width must be a positive number of mm, got 0"),
        ({"width": math.inf}, "width must be a positive number"),
        ({"width": math.nan}, "width must be a positive number"),
        ({"spacing": (1.0, 1.0, 1.0)}, "one for each of the 2 axes"),
        ({"empty": "skip"}, "empty must be one of"),
    ],
)
def test_arguments_out_of_range_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        boundary_iou(square(3), square(3), **arguments)
