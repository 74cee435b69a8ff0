"""Objects on their slice: a box and an outline each, named with their scores."""

from types import SimpleNamespace

import pytest
import torch
from matplotlib.figure import Figure

from brainseg.visualization import draw_instances


def found() -> SimpleNamespace:
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 20:30, 40:50] = masks[1, :8, :16] = True
    return SimpleNamespace(
        scores=torch.tensor([0.914, 0.5]),
        classes=torch.tensor([1, 0]),
        boxes=torch.tensor([[40.0, 20, 50, 30], [0, 0, 16, 8]]),
        masks=masks,
    )


def test_each_object_has_its_box_and_its_score() -> None:
    axes = Figure().add_subplot()
    draw_instances(axes, torch.rand(64, 64), found(), ["oedema", "core"])
    assert [box.get_bbox().extents.tolist() for box in axes.patches] == [
        [39.5, 19.5, 49.5, 29.5],
        [-0.5, -0.5, 15.5, 7.5],
    ]
    assert [text.get_text() for text in axes.texts] == ["core 0.91", "oedema 0.50"]
    # There is no room above the second.
    assert [text.xy[1] for text in axes.texts] == [19.5, 7.5]
    assert len({tuple(box.get_edgecolor()) for box in axes.patches}) == 2
    assert axes.get_xlim() == (-0.5, 63.5)


def test_a_class_without_a_name_is_an_error() -> None:
    with pytest.raises(ValueError, match="class 1 has no name; got tumour"):
        draw_instances(Figure().add_subplot(), torch.rand(64, 64), found(), ["tumour"])
