"""The head against the same steps in numpy and scipy; what is no head; noise; its inside; and programs that hold it."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from brainseg.transforms import HeadZScore, RandomRicianNoise, head_mask
from brainseg.transforms.head import inside_head


def scan(height: int = 96, width: int = 80, seed: int = 0) -> Tensor:
    """Noise in the air, a bright rim, a darker inside with a black ventricle, and a small bright thing beside."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    radius = ((rows - 50).square() / 1.2 + (columns - 38).square()).sqrt()
    image = torch.where(radius < 30, 0.4, 0.0) + torch.where((radius >= 27) & (radius < 30), 0.5, 0.0)
    image = image * (radius > 6)
    image[3:9, 70:76] = 0.8
    return (image + 0.02 * torch.rand(3, height, width, generator=generator))[None]


def literal_head(image: NDArray[np.float32], fraction: float) -> NDArray[np.bool_]:
    """Of (H, W), sides even: (H / 2, W / 2)."""
    half = np.asarray(image.reshape(image.shape[0] // 2, 2, image.shape[1] // 2, 2).mean((1, 3)))
    smooth = half
    for axis in (0, 1):
        smooth = ndimage.convolve1d(smooth, [1 / 16, 1 / 4, 3 / 8, 1 / 4, 1 / 16], axis, mode="nearest")
    bright = np.sort(smooth.ravel())[-(smooth.size // 100 + 1)]
    values = np.sqrt(np.clip(smooth[::2, ::2] / (0.5 * bright), 0, 1)).ravel()
    scores = []
    for level in range(1, 64):
        above = values > level / 64
        between = 0.0 if above.all() or not above.any() else above.mean() * (~above).mean()
        scores.append(between and between * (values[above].mean() - values[~above].mean()) ** 2)
    threshold = 0.5 * ((1 + int(np.argmax(scores))) / 64) ** 2

    def enclosed(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        sides = [np.logical_or.accumulate(mask, axis) for axis in (0, 1)]
        sides += [np.flip(np.logical_or.accumulate(np.flip(mask, axis), axis), axis) for axis in (0, 1)]
        return np.logical_and.reduce(sides)

    found = np.pad(enclosed(smooth > max(threshold, fraction) * bright), 2, mode="edge")
    square = np.ones((5, 5), bool)
    eroded = ndimage.binary_erosion(found, square, border_value=1)[2:-2, 2:-2]
    return enclosed(ndimage.binary_dilation(eroded, square))


def doubled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return mask.repeat(2, 0).repeat(2, 1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fraction", [0.0, 0.15, 0.3])
def test_the_head_is_that_of_its_steps_in_numpy(seed: int, fraction: float) -> None:
    images = scan(seed=seed)
    expected = doubled(literal_head(images.amax(1)[0].numpy(), fraction))
    assert np.array_equal(head_mask(images, fraction=fraction)[0].numpy(), expected)
    assert not expected[3:9, 70:76].any()  # the small thing
    assert expected[50, 38]  # the ventricle


def test_noise_makes_no_head_of_the_air() -> None:
    clean = head_mask(scan())
    for std in (0.02, 0.05, 0.1):
        noisy = RandomRicianNoise((std, std), p=1)(scan(), generator=torch.Generator().manual_seed(1))
        found = head_mask(noisy)
        assert (clean & found).sum() / (clean | found).sum() > 0.93


def test_the_unit_of_the_image_does_not_matter() -> None:
    images = scan()
    assert torch.equal(head_mask(images), head_mask(images * 4096))
    assert torch.equal(head_mask(images), head_mask(images.double()))


def test_a_channel_that_is_black_takes_nothing_away() -> None:
    images = scan()
    missing = torch.cat([images, torch.zeros_like(images)], 1)
    assert torch.equal(head_mask(images), head_mask(missing))


@pytest.mark.parametrize("value", [0.0, 0.7, float("nan")])
def test_an_image_of_one_value_has_a_head_everywhere_or_nowhere(value: float) -> None:
    head = head_mask(torch.full((1, 1, 20, 20), value))
    assert head.sum() == (400 if value > 0 else 0)


@pytest.mark.parametrize("size", [(95, 79), (96, 79), (1, 1), (1, 40), (7, 3)])
def test_any_size_has_its_head_at_its_own_place(size: tuple[int, int]) -> None:
    found = head_mask(scan()[..., : size[0], : size[1]])
    assert found.shape == (1, *size)
    if min(size) > 70:
        whole = head_mask(scan())[:, : size[0], : size[1]]
        assert (whole & found).sum() / (whole | found).sum() > 0.98


@pytest.mark.parametrize(("radius", "rim"), [(60, 14), (40, 14), (33, 8), (28, 4), (23, 0)])
def test_the_inside_is_eroded_as_far_as_enough_is_left(radius: int, rim: int) -> None:
    rows, columns = torch.meshgrid(torch.arange(140), torch.arange(150), indexing="ij")
    image = ((rows - 70).square() + (columns - 74).square() <= radius**2).float()[None, None]
    head, found = head_mask(image)[0].numpy(), inside_head(image)[0].numpy()
    depth = ndimage.distance_transform_edt(head)
    assert found[depth > 1.1 * rim + 3].all()  # an octagon goes further than its disk at its corners
    assert not found[depth <= rim - 1].any()
    assert rim > 0 or np.array_equal(found, head)


def test_the_border_of_the_image_is_no_rim() -> None:
    images = torch.ones(2, 1, 64, 64)
    images[1, ..., 50:] = 0
    first, second = inside_head(images)
    assert first.all()
    assert head_mask(images)[1].sum(1).eq(52).all()  # by the smoothing two pixels more
    assert second[:, :38].all()
    assert not second[:, 38:].any()


def test_a_compiled_graph_holds_all_of_it() -> None:
    images = scan()
    torch._dynamo.reset()
    compiled = torch.compile(HeadZScore(), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(images), HeadZScore()(images))
