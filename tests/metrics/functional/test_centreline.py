"""clDice against the formula, pixel by pixel, lines that are their own centre lines, and the pencil."""

import math
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.morphology import skeletonize
from torch import Tensor

from brainseg.metrics.functional import cldice_score, dice_score
from tests.metrics.functional.test_surface import masks


def places(mask: NDArray[np.bool_]) -> set[tuple[int, ...]]:
    return {tuple(place) for place in np.argwhere(mask).tolist()}


def by_hand(predicted: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    line, other = (places(skeletonize(mask)) or places(mask) for mask in (predicted, true))
    precision, sensitivity = len(line & places(true)) / len(line), len(other & places(predicted)) / len(other)
    return 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0.0


@pytest.mark.parametrize("axes", [2, 3])
@given(data=st.data())
def test_scores_are_those_of_the_formula(axes: int, data: st.DataObject) -> None:
    pair = data.draw(masks(axes))
    predicted, true = (torch.from_numpy(mask)[None, None] for mask in pair)
    assert cldice_score(predicted, true).item() == pytest.approx(by_hand(*pair))


def image(*rows: str) -> Tensor:
    """(1, 1, H, W) of rows in which # is foreground."""
    return torch.tensor([[[[pixel == "#" for pixel in row] for row in rows]]])


def test_lines_of_one_pixel_are_their_own_centre_lines() -> None:
    # 6 of the prediction's 7 lie in the target, which has 10: 2 * 6/7 * 6/10 / (6/7 + 6/10).
    prediction = image("..........", "######....", "......#...")
    target = image("..........", "##########", "..........")
    assert cldice_score(prediction, target).item() == pytest.approx(12 / 17)


def test_width_counts_for_nothing() -> None:
    line = torch.zeros(1, 1, 11, 40, dtype=torch.bool)
    line[..., 5, 5:35] = True
    wide = torch.zeros_like(line)
    wide[..., 4:7, 4:36] = True
    assert dice_score(wide, line).item() < 0.5
    assert cldice_score(wide, line).item() > 0.95


def test_a_gap_in_a_line_is_seen() -> None:
    target = image("############")
    assert cldice_score(image("#####..#####"), target).item() == pytest.approx(2 * (10 / 12) / (1 + 10 / 12))


def test_masks_that_do_not_meet_are_0() -> None:
    assert cldice_score(image("##....", "......"), image("......", "...###")).item() == 0
    # They overlap, and neither centre line, of the middle rows, lies in the other mask.
    one, other = torch.zeros(2, 1, 1, 12, 30, dtype=torch.bool)
    one[..., 0:5, 5:25] = True
    other[..., 4:9, 5:25] = True
    assert cldice_score(one, other).item() == 0


def test_single_pixels_meet_or_do_not() -> None:
    one, other = image("...", ".#.", "..."), image("...", "..#", "...")
    assert cldice_score(one, one).item() == 1
    assert cldice_score(one, other).item() == 0


def test_a_block_that_is_thinned_away_is_its_own_centre_line() -> None:
    block = torch.zeros(1, 1, 4, 5, 6, dtype=torch.bool)
    block[..., 1:3, 1:3, 1:3] = True
    assert not skeletonize(block[0, 0].numpy()).any()
    assert cldice_score(block, block).item() == 1
    assert cldice_score(block.roll(1, -1), block).item() == 0.5


def test_a_missed_target_and_a_false_alarm_are_0() -> None:
    line, nothing = image("####"), image("....")
    assert cldice_score(nothing, line).item() == cldice_score(line, nothing).item() == 0


@pytest.mark.parametrize(("empty", "value"), [("exclude", math.nan), ("one", 1.0), ("zero", 0.0)])
def test_two_empty_masks_are_what_is_asked_for(empty: Any, value: float) -> None:
    nothing = image("....", "....")
    assert cldice_score(nothing, nothing, empty=empty).item() == pytest.approx(value, nan_ok=True)


def test_ignored_pixels_cut_a_line() -> None:
    target = image("##########")
    valid = (torch.arange(10) != 4)[None]
    assert cldice_score(image("####.#####"), target, valid=valid).item() == 1


def test_a_missing_scikit_image_is_named_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.morphology", None)
    with pytest.raises(ImportError, match=r'scikit-image: pip install "brainseg-torch\[metrics\]"'):
        cldice_score(image("##"), image("##"))
