"""Cases side by side: a column each, plain above and outlined below."""

import numpy as np
import pytest

from brainseg.visualization import ShownCase, draw_cases


def test_each_case_has_a_plain_and_an_outlined_slice() -> None:
    image, target = np.full((3, 32, 40), 0.5), np.zeros((1, 32, 40))
    target[0, 10:20, 10:20] = 1
    cases = [ShownCase("best", image, target, target), ShownCase("worst", image, target, np.zeros((32, 40)))]
    figure = draw_cases(cases)
    plain_best, plain_worst, best, worst = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["best", "worst", "", ""]
    outlines = [len(axes.collections) for axes in (plain_best, plain_worst, best, worst)]
    assert outlines == [0, 0, 2, 1]


def test_no_case_is_an_error() -> None:
    with pytest.raises(ValueError, match="no case to draw"):
        draw_cases([])
