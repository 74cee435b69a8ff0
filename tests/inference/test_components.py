"""A patient's slices together: smoothed, and rid of what is no tumour."""

import pytest
import torch
from torch import Tensor

from brainseg.inference import postprocess
from brainseg.inference.components import label_components, voxel_volume
from brainseg.models import ModelSpec, Postprocessing

BINARY = ModelSpec()


def volume() -> Tensor:
    """Six slices of 8x8: a flat but large spot of 30 voxels, a likely one over three slices of 12, a single voxel."""
    probabilities = torch.zeros(6, 1, 8, 8)
    probabilities[5, 0, :5, :6] = 0.6
    probabilities[1:4, 0, 5:7, 5:7] = 0.9
    probabilities[0, 0, 0, 0] = 0.55
    return probabilities


def kept(steps: Postprocessing, spacing: tuple[float, float, float] | None = None) -> list[int]:
    return postprocess(volume(), BINARY, steps=steps, spacing=spacing).sum((1, 2, 3)).tolist()


def test_nothing_is_done_by_default() -> None:
    assert torch.equal(postprocess(volume(), BINARY), volume() > 0.5)


def test_the_largest_and_the_likeliest_component_are_told_apart() -> None:
    assert kept(Postprocessing(components="largest")) == [0, 0, 0, 0, 0, 30]
    assert kept(Postprocessing(components="likeliest")) == [0, 4, 4, 4, 0, 30]  # the single voxel is small and faint


def test_the_likeliest_are_those_that_none_exceeds_in_voxels_and_in_probability() -> None:
    torch.manual_seed(0)
    for _ in range(20):
        probabilities = torch.rand(4, 1, 12, 12) * (torch.rand(4, 1, 12, 12) > 0.8)
        labels, count = label_components((probabilities > 0.5)[:, 0].numpy())
        parts = [torch.from_numpy(labels == k) for k in range(1, count + 1)]
        about = [(int(part.sum()), float(probabilities[:, 0][part].double().mean())) for part in parts]
        expected = torch.zeros(4, 12, 12, dtype=torch.bool)
        for part, (size, mean) in zip(parts, about, strict=True):
            if not any(other[0] >= size and other[1] > mean for other in about):
                expected |= part
        found = postprocess(probabilities, BINARY, steps=Postprocessing(components="likeliest"))
        assert torch.equal(found[:, 0], expected)


def test_small_components_are_removed_by_their_volume_in_ml() -> None:
    # 12 voxels of 5 mm x 2 mm x 1 mm are 0.12 ml.
    assert kept(Postprocessing(min_volume=0.12), (5.0, 2.0, 1.0)) == [0, 4, 4, 4, 0, 30]
    assert kept(Postprocessing(min_volume=0.121), (5.0, 2.0, 1.0)) == [0, 0, 0, 0, 0, 30]
    with pytest.raises(ValueError, match=r"min_volume=0\.1 ml needs the spacing"):
        kept(Postprocessing(min_volume=0.1))


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (torch.tensor([-3.0, 0.2]), r"\[-3, 0\.2\]"),
        (torch.tensor([0.0, 255.0]), r"\[0, 255\]"),
        (torch.tensor([0.1, torch.nan]), r"\[nan, nan\]"),
    ],
)
def test_logits_are_no_probabilities(values: Tensor, found: str) -> None:
    with pytest.raises(ValueError, match=rf"probabilities lie in {found}, expected \[0, 1\]; of logits"):
        postprocess(values.reshape(1, 1, 1, 2), BINARY)


def test_probabilities_of_every_type_are_read() -> None:
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.bool, torch.uint8):
        certain = (volume() > 0.5).to(dtype)
        assert torch.equal(postprocess(certain, BINARY), volume() > 0.5), dtype


def test_neighbours_by_a_corner_are_one_component() -> None:
    probabilities = torch.zeros(2, 1, 4, 4)
    probabilities[0, 0, 0, 0] = probabilities[1, 0, 1, 1] = probabilities[1, 0, 3, 3] = 1
    result = postprocess(probabilities, BINARY, steps=Postprocessing(components="largest"))
    assert result.sum((1, 2, 3)).tolist() == [1, 1]


def test_slices_are_smoothed_by_hand_computed_weights() -> None:
    probabilities = torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0]).view(5, 1, 1, 1)
    # 0.2, 0.6, 0.2, 0.2, 0.8: the last slice stands in for the one after it.
    spec = ModelSpec(threshold=0.7)
    assert postprocess(probabilities, spec, steps=Postprocessing(smooth=True)).flatten().tolist() == [False] * 4 + [
        True
    ]


def test_what_is_taken_from_a_class_becomes_background() -> None:
    spec = ModelSpec(
        task="multiclass", class_names=("background", "a", "b"), postprocessing=Postprocessing(components="largest")
    )
    labels = torch.zeros(1, 4, 6, dtype=torch.long)
    labels[0, 0, :3], labels[0, 3, 5], labels[0, 2, :2] = 1, 1, 2
    probabilities = torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    result = postprocess(probabilities, spec)
    assert result.sum(1).eq(1).all()
    labels[0, 3, 5] = 0
    assert torch.equal(result.byte().argmax(1), labels)


def test_an_empty_volume_stays_empty() -> None:
    assert not postprocess(torch.zeros(3, 1, 4, 4), BINARY, steps=Postprocessing(components="largest")).any()


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.0, 1.0, 1.0), (1.0, float("nan"), 1.0)])
def test_a_spacing_that_cannot_be_is_refused(spacing: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="spacing must be three positive numbers in mm"):
        voxel_volume(spacing)


def test_probabilities_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(S, 1, H, W\)"):
        postprocess(torch.zeros(3, 4, 4), BINARY)
