"""Cases side by side: a column each, plain above and outlined below."""

import numpy as np
import pytest

from brainseg.visualization import ShownCase, draw_cases
from brainseg.visualization.outlines import class_colors


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


def test_the_legend_names_the_classes_in_their_colours() -> None:
    masks = np.zeros((2, 32, 40))
    masks[0, 4:9, 4:9] = masks[1, 15:20, 15:20] = 1
    figure = draw_cases([ShownCase("best", np.full((32, 40), 0.5), masks, masks)], ["core", "oedema"])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["core", "oedema", "true", "predicted"]
    assert [line.get_color() for line in legend.get_lines()][:2] == class_colors(2)


def test_classes_without_names_are_refused() -> None:
    masks = np.zeros((2, 32, 40))
    with pytest.raises(ValueError, match=r"masks have \[2\] classes, and names are \[\]; give one for each"):
        draw_cases([ShownCase("best", np.zeros((32, 40)), masks, masks)])
