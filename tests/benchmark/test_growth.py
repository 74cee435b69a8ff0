"""Slopes of time against pixels and images."""

import pytest

from brainseg.benchmark import find_growth
from tests.benchmark.test_report import table


def test_time_in_proportion_has_slope_one_and_a_square_two() -> None:
    tables = [table(1, side, {"line": 3.0 * side**2, "square": side**4 / 1e6}) for side in (128, 256, 1024)]
    line, square = find_growth(tables)
    assert (line.name, line.against, line.counts) == ("line", "pixels", (128**2, 256**2, 1024**2))
    assert line.slope == pytest.approx(1)
    assert (square.slope, square.steepest) == (pytest.approx(2), pytest.approx(2))


def test_a_fixed_part_makes_the_slope_small_and_the_steepest_step_is_the_last() -> None:
    (growth,) = find_growth([table(batch, 64, {"net": 10.0 + batch}) for batch in (1, 2, 4, 40)])
    assert (growth.against, growth.counts) == ("images", (1, 2, 4, 40))
    assert growth.slope < 0.5
    assert growth.steepest == pytest.approx(0.553, abs=0.001)  # log(50 / 14) / log(40 / 4)


def test_two_points_and_what_was_not_measured_show_no_slope() -> None:
    assert find_growth([table(1, side, {"net": 1.0}) for side in (64, 128)]) == []
    assert find_growth([table(1, side, {"net": None if side == 64 else 1.0}) for side in (64, 128, 256)]) == []
    assert find_growth([]) == []
