"""Outlines lie where the mask ends; empty masks draw nothing; shapes that do not fit are refused."""

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure

from brainseg.visualization import draw_outlines
from brainseg.visualization.outlines import class_colors


@pytest.fixture
def axes() -> Axes:
    return Figure().subplots()


def square(size: int, first: int, last: int) -> torch.Tensor:
    mask = torch.zeros(1, size, size, dtype=torch.bool)
    mask[:, first:last, first:last] = True
    return mask


def contours(axes: Axes) -> list[ContourSet]:
    return [artist for artist in axes.get_children() if isinstance(artist, ContourSet | LineCollection)]


def test_true_is_green_and_predicted_is_red(axes: Axes) -> None:
    draw_outlines(axes, torch.rand(3, 16, 16), square(16, 4, 8), square(16, 5, 9))
    colors = [tuple(contour.get_edgecolor()[0][:3]) for contour in contours(axes)]
    assert colors == [to_rgb("lime"), to_rgb("red")]


def test_several_classes_have_a_colour_each_and_true_ones_are_dashed(axes: Axes) -> None:
    masks = torch.cat([square(32, 2, 6), square(32, 9, 13), square(32, 20, 24)])
    draw_outlines(axes, torch.rand(1, 32, 32), masks, masks.roll(1, -1))
    drawn = [(tuple(contour.get_edgecolor()[0][:3]), contour.get_linestyle()[0][1]) for contour in contours(axes)]
    true, predicted = drawn[:3], drawn[3:]
    assert len({color for color, _ in true}) == 3
    assert [color for color, _ in true] == [color for color, _ in predicted] == class_colors(3)
    assert all(dashes for _, dashes in true)
    assert not any(dashes for _, dashes in predicted)


@pytest.mark.parametrize("number", [2, 5, 12])
def test_colours_of_classes_differ_and_are_seen_on_black(number: int) -> None:
    colors = class_colors(number)
    assert len({*colors}) == number
    assert all(max(color) == 1 for color in colors)


def test_the_outline_runs_half_a_pixel_outside_the_mask_even_at_the_border(axes: Axes) -> None:
    draw_outlines(axes, torch.rand(16, 16), square(16, 0, 4))
    (contour,) = contours(axes)
    vertices = np.concatenate([path.vertices for path in contour.get_paths()])
    assert (vertices.min(), vertices.max()) == (-0.5, 3.5)


def test_empty_and_absent_masks_draw_nothing(axes: Axes) -> None:
    draw_outlines(axes, np.zeros((1, 16, 16)), torch.zeros(16, 16), None)
    assert contours(axes) == []


@pytest.mark.parametrize("shape", [(2, 16, 16), (16,), (1, 3, 16, 16), (16, 16, 3)])
def test_what_is_no_slice_is_refused(axes: Axes, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="is no slice"):
        draw_outlines(axes, torch.rand(shape))


def test_a_mask_of_another_size_is_refused(axes: Axes) -> None:
    with pytest.raises(ValueError, match=r"mask of shape \(8, 8\) does not fit an image of \(16, 16\)"):
        draw_outlines(axes, torch.rand(16, 16), torch.zeros(8, 8))


def test_an_image_of_integers_is_refused(axes: Axes) -> None:
    with pytest.raises(ValueError, match=r"an image of uint8 is not in \[0, 1\]; give image / 255"):
        draw_outlines(axes, torch.zeros(16, 16, dtype=torch.uint8))


def test_tensors_with_gradients_and_in_half_precision_are_drawn(axes: Axes) -> None:
    draw_outlines(axes, torch.rand(16, 16, requires_grad=True), torch.ones(16, 16, dtype=torch.bfloat16))
    assert len(contours(axes)) == 1
