"""Sizes of what was found, against a pencil and brute force."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist

from brainseg.inference import measure
from brainseg.inference.components import label_components
from brainseg.models import ModelSpec


def test_a_box_is_measured_by_hand() -> None:
    masks = torch.zeros(5, 1, 20, 30, dtype=torch.bool)
    masks[1:4, 0, 2:6, 10:20] = True
    masks[4, 0, 19, 29] = True
    (row,) = measure(masks, ModelSpec(class_names=("tumour",)), patient="p1", spacing=(5.0, 1.0, 0.5))
    assert (row.patient, row.label, row.voxels, row.components, row.slices) == ("p1", "tumour", 121, 2, 4)
    assert row.ml == pytest.approx(121 * 2.5 / 1000)
    assert row.diameter_mm == pytest.approx(math.hypot(2 * 5.0, 3 * 1.0, 9 * 0.5))


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_the_diameter_is_that_of_brute_force(share: float) -> None:
    mask = np.random.default_rng(0).random((9, 24, 24)) < share
    mask[:, 8:16, 8:16] = True
    mask[4] = True  # so that all is one component
    spacing = (3.0, 1.1, 0.9)
    (row,) = measure(torch.from_numpy(mask[:, None]), ModelSpec(), spacing=spacing)

    labels, count = label_components(mask)
    expected = max(
        pdist(np.argwhere(labels == k) * spacing).max() for k in range(1, count + 1) if (labels == k).sum() > 1
    )
    assert row.diameter_mm == pytest.approx(expected)


def test_the_background_is_not_measured_and_nothing_has_no_size() -> None:
    spec = ModelSpec(task="multiclass", class_names=("background", "a", "b"))
    masks = torch.zeros(2, 3, 4, 4, dtype=torch.bool)
    masks[:, 0] = True
    rows = measure(masks, spec, spacing=(1, 1, 1))
    assert [(row.label, row.voxels, row.ml, row.diameter_mm, row.components) for row in rows] == [
        ("a", 0, 0.0, 0.0, 0),
        ("b", 0, 0.0, 0.0, 0),
    ]


def test_without_spacing_there_are_no_millimetres() -> None:
    (row,) = measure(torch.ones(1, 1, 3, 3, dtype=torch.bool), ModelSpec())
    assert row.voxels == 9
    assert math.isnan(row.ml)
    assert math.isnan(row.diameter_mm)


def test_masks_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(S, 1, H, W\)"):
        measure(torch.ones(1, 3, 3, dtype=torch.bool), ModelSpec())


def test_probabilities_and_logits_are_no_masks() -> None:
    for values in (0.3, -2.0, 255, math.nan):
        with pytest.raises(ValueError, match=r"masks hold other values than 0 and 1; of probabilities"):
            measure(torch.full((1, 1, 3, 3), values), ModelSpec())
    (row,) = measure(torch.ones(1, 1, 3, 3), ModelSpec())
    assert row.voxels == 9
