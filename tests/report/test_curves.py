"""Charts: values where a pencil puts them."""

import math

import pytest

from brainseg.report import create_chart
from brainseg.report.curves import HEIGHT, WIDTH


def test_curves_run_from_the_first_to_the_last_epoch_on_a_scale_from_0() -> None:
    chart = create_chart("Loss", [1, 2, 3], {"a": [1.0, 0.5, 0.0]}, kept=2)
    assert chart.rows[0] == ("0", HEIGHT)
    assert chart.rows[-1] == ("1", 0)
    assert chart.curves[0].path == f"M0.0 0.0L{WIDTH / 2} {HEIGHT / 2}L{WIDTH}.0 {HEIGHT}.0"
    assert chart.columns == [("1", 0), ("2", WIDTH / 2), ("3", WIDTH)]
    assert chart.mark == WIDTH / 2


def test_what_is_no_number_interrupts_a_curve() -> None:
    chart = create_chart("", [1, 2, 3, 4, 5], {"a": [math.nan, 1.0, 1.0, math.inf, 1.0]})
    assert chart.curves[0].path == "M120.0 0.0L240.0 0.0M480.0 0.0"


@pytest.mark.parametrize("values", [[0.0], [math.nan], [-2.5], [1e6]])
def test_one_epoch_of_any_value_has_a_scale(values: list[float]) -> None:
    chart = create_chart("", [7], {"a": values})
    labels = [float(label) for label, _ in chart.rows]
    assert labels[0] <= min(0, *[v for v in values if v == v], 0) <= labels[-1]
    assert labels == sorted(set(labels))
    assert all(0 <= y <= HEIGHT for _, y in chart.rows)
