"""The head against scipy's own words for the same steps; what is no head; its inside; and what scipy's absence says."""

import sys

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from brainseg.transforms import head_mask
from brainseg.transforms.head import inside


def scan(height: int = 96, width: int = 80, seed: int = 0) -> Tensor:
    """Noise in the air, a bright rim, a darker inside with a black ventricle, and a small bright thing beside."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    radius = ((rows - 50).square() / 1.2 + (columns - 38).square()).sqrt()
    image = torch.where(radius < 30, 0.4, 0.0) + torch.where((radius >= 27) & (radius < 30), 0.5, 0.0)
    image = image * (radius > 6)
    image[3:9, 70:76] = 0.8
    return (image + 0.02 * torch.rand(3, height, width, generator=generator))[None]


@pytest.mark.parametrize("seed", range(3))
def test_the_head_is_that_of_scipy_step_by_step(seed: int) -> None:
    images = scan(seed=seed)
    smooth = ndimage.gaussian_filter(images.amax(1)[0].numpy().astype(float), 2)
    labels, count = ndimage.label(smooth > 0.15 * np.percentile(smooth, 99))
    largest = max(range(1, count + 1), key=lambda label: int((labels == label).sum()))
    expected = ndimage.binary_fill_holes(labels == largest)
    assert np.array_equal(head_mask(images)[0].numpy(), expected)
    assert count > 1
    assert expected.sum() > (labels == largest).sum()


def test_the_unit_of_the_image_does_not_matter() -> None:
    images = scan()
    assert torch.equal(head_mask(images), head_mask(images * 4095))


def test_a_channel_that_is_black_takes_nothing_away() -> None:
    images = scan()
    missing = torch.cat([images, torch.zeros_like(images)], 1)
    assert torch.equal(head_mask(images), head_mask(missing))


@pytest.mark.parametrize("value", [0.0, 0.7, float("nan")])
def test_an_image_of_one_value_has_a_head_everywhere_or_nowhere(value: float) -> None:
    head = head_mask(torch.full((1, 1, 20, 20), value))
    assert head.sum() == (400 if value > 0 else 0)


@pytest.mark.parametrize(("radius", "rim"), [(60, 14), (40, 14), (33, 8), (28, 4), (23, 0), (3, 0)])
def test_the_inside_is_eroded_as_far_as_enough_is_left(radius: int, rim: int) -> None:
    rows, columns = np.ogrid[:140, :150]
    head = (rows - 70) ** 2 + (columns - 74) ** 2 <= radius**2
    away = np.arange(-rim, rim + 1)
    disk = away[:, None] ** 2 + away**2 <= rim**2
    expected = ndimage.binary_erosion(head, disk, border_value=1)
    assert np.array_equal(inside(torch.from_numpy(head[None]))[0].numpy(), expected)


def test_the_border_of_the_image_is_no_rim() -> None:
    head = torch.ones(2, 64, 64, dtype=torch.bool)
    head[1, :, 50:] = False
    result = inside(head)
    assert result[0].all()
    assert torch.equal(result[1], head[1].roll(-14, 1) & head[1])


def test_without_scipy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match=r"finding the head needs scipy: pip install \"brainseg-torch\[data\]\""):
        head_mask(scan())
