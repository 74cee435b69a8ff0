"""Crops are exact copies of the places that were drawn; what is padded is what was asked for."""

from typing import Any

import pytest
import torch

from brainseg.transforms import (
    CenterCrop,
    Compose,
    CropToHead,
    ForegroundCrop,
    PadToMultiple,
    RandomAffine,
    RandomCrop,
)
from brainseg.transforms.cropping import CropParameters, ForegroundCropParameters


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_crop_is_the_slice_at_the_place_that_was_drawn() -> None:
    images, masks = torch.rand(3, 2, 9, 11), torch.randint(0, 9, (3, 9, 11))
    places = torch.tensor([[0, 0], [2, 4], [4, 5]])
    cropped, moved = RandomCrop((5, 6)).apply(images, masks, CropParameters(places))
    assert moved is not None
    for i, (row, column) in enumerate(places.tolist()):
        assert torch.equal(cropped[i], images[i, :, row : row + 5, column : column + 6])
        assert torch.equal(moved[i], masks[i, row : row + 5, column : column + 6])


def test_all_places_are_equally_likely() -> None:
    drawn = RandomCrop((5, 6)).draw((20_000, 1, 7, 9), generator()).offsets
    for column, count in ((0, 3), (1, 4)):
        share = torch.bincount(drawn[:, column], minlength=count) / len(drawn)
        torch.testing.assert_close(share, torch.full((count,), 1 / count), atol=0.02, rtol=0)


@pytest.mark.parametrize(("side", "first"), [(4, 2), (5, 1), (8, 0)])
def test_the_centre_is_the_middle(side: int, first: int) -> None:
    images = torch.rand(2, 1, 8, 8)
    expected = images[..., first : first + side, first : first + side]
    assert torch.equal(CenterCrop(side)(images), expected)


@pytest.mark.parametrize("transform", [CenterCrop((9, 4)), RandomCrop((9, 4)), ForegroundCrop((9, 4))])
def test_a_part_larger_than_the_image_is_refused(transform: Any) -> None:
    with pytest.raises(ValueError, match="takes 9x4 pixels of images of 8x8; pad or resize them first"):
        transform(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8))


def foreground_crop(pixel: float, place: tuple[float, float], chosen: bool = True) -> ForegroundCropParameters:
    return ForegroundCropParameters(
        torch.tensor([chosen]), torch.tensor([pixel]), torch.tensor([place]), torch.tensor([[1, 0]])
    )


@pytest.mark.parametrize(
    ("pixel", "place", "first"),
    [
        (0.0, (0.0, 0.0), (2, 3)),  # the first of three, at the upper left corner of the crop
        (0.34, (0.5, 0.5), (4 - 2, 4 - 1)),  # the second, floor(0.34 * 3), in the middle of 4x3
        (0.99, (0.99, 0.99), (4 - 3, 6 - 2)),  # the third, at the lower right corner
        (0.99, (0.0, 0.0), (4, 5)),  # not beyond the image of 8x8
    ],
)
def test_the_pixel_of_the_drawn_number_is_where_it_was_drawn(
    pixel: float, place: tuple[float, float], first: tuple[int, int]
) -> None:
    images = torch.arange(64.0).view(1, 1, 8, 8)
    masks = torch.zeros(1, 2, 8, 8, dtype=torch.uint8)
    masks[0, 0, 2, 3] = masks[0, 1, 4, 4] = masks[0, 0, 4, 6] = 5
    cropped, _ = ForegroundCrop((4, 3)).apply(images, masks, foreground_crop(pixel, place))
    row, column = first
    assert torch.equal(cropped, images[..., row : row + 4, column : column + 3])


def test_without_foreground_or_unchosen_a_sample_gives_any_part() -> None:
    images, masks = torch.rand(1, 1, 8, 8), torch.zeros(1, 8, 8)
    crop = ForegroundCrop((4, 3))
    expected = images[..., 1:5, 0:3]
    assert torch.equal(crop.apply(images, masks, foreground_crop(0.5, (0.5, 0.5)))[0], expected)
    assert torch.equal(crop.apply(images, masks + 1, foreground_crop(0.5, (0.5, 0.5), chosen=False))[0], expected)


def test_tumours_are_seen() -> None:
    masks = torch.zeros(500, 1, 64, 64, dtype=torch.bool)
    masks[:, :, 50:53, 7:10] = True
    images = torch.zeros(500, 1, 64, 64)
    _, anywhere = RandomCrop(16)(images, masks, generator=generator())
    _, seen = ForegroundCrop(16, p=0.8)(images, masks, generator=generator())
    shares = [x.flatten(1).any(1).float().mean().item() for x in (anywhere, seen)]
    assert shares[0] < 0.2
    assert shares[1] == pytest.approx(0.8 + 0.2 * shares[0], abs=0.06)


def test_a_foreground_crop_needs_masks() -> None:
    with pytest.raises(ValueError, match="ForegroundCrop looks for the foreground of masks, and got none"):
        ForegroundCrop(4)(torch.rand(1, 1, 8, 8))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16])
def test_padding_is_below_and_to_the_right(dtype: torch.dtype) -> None:
    images, masks = torch.rand(2, 3, 5, 8), torch.ones(2, 5, 8, dtype=dtype)
    padded, moved = PadToMultiple(4, value=-1.0)(images, masks)
    assert padded.shape == (2, 3, 8, 8)
    assert torch.equal(padded[..., :5, :], images)
    assert (padded[..., 5:, :] == -1).all()
    assert moved.dtype == dtype
    assert moved[:, :5].all()
    assert not moved[:, 5:].any()


def test_the_border_may_be_repeated() -> None:
    images, masks = torch.rand(2, 3, 5, 7), torch.randint(0, 9, (2, 1, 5, 7))
    padded, moved = PadToMultiple(8, padding="border")(images, masks)
    for x, y in ((padded, images), (moved, masks)):
        assert torch.equal(x[..., :5, :7], y)
        assert torch.equal(x[..., 5:, :7], y[..., 4:5, :].expand(-1, -1, 3, -1))
        assert torch.equal(x[..., 7:], x[..., 6:7])


def test_sides_that_are_multiples_stay() -> None:
    images = torch.rand(1, 1, 8, 16)
    assert torch.equal(PadToMultiple(8)(images), images)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RandomCrop(0), "size must be a positive number of pixels"),
        (lambda: ForegroundCrop((4, 4), p=2), "p must be a probability"),
        (lambda: PadToMultiple(0), "multiple must be a positive number"),
        (lambda: PadToMultiple(8, padding="reflection"), "padding must be one of 'constant', 'border'"),
    ],
)
def test_arguments_out_of_range_are_named(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_a_fused_crop_refuses_images_that_are_too_small() -> None:
    chain = Compose([RandomCrop(8), RandomAffine(p=1)])
    parameters = chain.draw((1, 1, 16, 16), generator())
    with pytest.raises(ValueError, match="RandomCrop takes 8x8 pixels of images of 4x4"):
        chain.apply(torch.rand(1, 1, 4, 4), None, parameters)


def box(*places: tuple[int, int, int, int], size: tuple[int, int] = (90, 100)) -> torch.Tensor:
    """An image for each head, a bright rectangle of these rows and columns."""
    images = torch.zeros(len(places), 2, *size)
    for image, (top, bottom, left, right) in zip(images, places, strict=True):
        image[:, top:bottom, left:right] = 0.5
    return images


@pytest.mark.parametrize(
    ("head", "offset"),
    [
        ((30, 60, 40, 60), (45 - 24, 50 - 20)),  # the middle of the head in the middle of 48x40
        ((2, 22, 70, 98), (0, 60)),  # not beyond the image
        ((0, 0, 0, 0), (21, 30)),  # no head: the middle of the image
    ],
)
def test_the_head_is_in_the_middle_as_far_as_the_image_reaches(
    head: tuple[int, int, int, int], offset: tuple[int, int]
) -> None:
    assert CropToHead((48, 40)).locate(box(head)).offsets.tolist() == [list(offset)]


def test_each_head_gets_its_own_place_and_its_mask_comes_along() -> None:
    images = box((10, 40, 20, 50), (40, 80, 50, 90))
    masks = torch.randint(0, 9, (2, 90, 100))
    places = [(25 - 20, 35 - 20), (60 - 20, 70 - 20)]
    cropped, moved = CropToHead(40)(images, masks)
    for i, (row, column) in enumerate(places):
        assert torch.equal(cropped[i], images[i, :, row : row + 40, column : column + 40])
        assert torch.equal(moved[i], masks[i, row : row + 40, column : column + 40])


def test_an_image_smaller_than_the_part_stays_as_it_is() -> None:
    images = box((5, 20, 5, 20), size=(30, 64))
    crop = CropToHead(48)
    assert crop(images).shape == crop.output_shape(images.shape) == (1, 2, 30, 48)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_what_a_network_says_of_the_part_returns_to_its_place(dtype: torch.dtype) -> None:
    images = box((10, 40, 20, 50), (40, 80, 50, 90))
    crop = CropToHead((40, 44))
    place = crop.locate(images)
    logits = torch.rand(2, 3, 40, 44).to(dtype)
    full = crop.undo(logits, place, (90, 100), value=-9.0 if dtype.is_floating_point else 0)
    assert torch.equal(crop.take(full, place), logits)
    outside = crop.undo(torch.ones(2, 40, 44), place, (90, 100)) == 0
    assert full[:, 0][outside].unique().tolist() == [-9.0 if dtype.is_floating_point else False]


def test_the_slices_of_a_patient_may_have_one_place() -> None:
    images = box((10, 40, 20, 50), (40, 80, 50, 90))
    crop = CropToHead(40)
    place = crop.locate(images.amax(0, keepdim=True))
    row, column = place.offsets[0].tolist()
    assert (row, column) == (45 - 20, 55 - 20)
    assert torch.equal(crop.take(images, place), images[:, :, row : row + 40, column : column + 40])
