"""Flips, turns and transpositions are exact copies with the stated odds; resizing is Pillow's."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from brainseg.transforms import RandomFlip, RandomRotate90, RandomTranspose, Resize
from brainseg.transforms.base import SymmetryTransform
from brainseg.transforms.geometry import FlipParameters, Rotate90Parameters, TransposeParameters

SYMMETRIES = [RandomFlip(), RandomRotate90(), RandomTranspose()]
MANY = (20_000, 1, 1, 1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_each_sample_is_turned_as_rot90_turns() -> None:
    images = torch.rand(4, 3, 6, 6)
    turned, _ = RandomRotate90().apply(images, None, Rotate90Parameters(torch.arange(4)))
    for turns in range(4):
        assert torch.equal(turned[turns], torch.rot90(images[turns], turns, dims=(-2, -1)))


def test_each_sample_is_flipped_as_it_was_drawn() -> None:
    images = torch.rand(4, 3, 6, 9)
    parameters = FlipParameters(
        horizontal=torch.tensor([False, True, False, True]), vertical=torch.tensor([False, False, True, True])
    )
    flipped, _ = RandomFlip().apply(images, None, parameters)
    for sample, dims in enumerate([(), (-1,), (-2,), (-2, -1)]):
        assert torch.equal(flipped[sample], images[sample].flip(dims))


def test_each_sample_is_transposed_or_not() -> None:
    images = torch.rand(2, 3, 6, 6)
    transposed, _ = RandomTranspose().apply(images, None, TransposeParameters(torch.tensor([False, True])))
    assert torch.equal(transposed, torch.stack([images[0], images[1].mT]))


def test_four_quarter_turns_are_none() -> None:
    images = turned = torch.rand(2, 1, 5, 5)
    for _ in range(4):
        turned, _ = RandomRotate90().apply(turned, None, Rotate90Parameters(torch.ones(2, dtype=torch.int64)))
    assert torch.equal(turned, images)


@pytest.mark.parametrize("transform", [RandomFlip(p=1), RandomTranspose(p=1)], ids=repr)
def test_a_flip_and_a_transposition_undo_themselves(transform: SymmetryTransform) -> None:
    images = torch.rand(16, 1, 5, 5)
    parameters = transform.draw(images.shape, generator())
    once, _ = transform.apply(images, None, parameters)
    assert not torch.equal(once, images)
    assert torch.equal(transform.apply(once, None, parameters)[0], images)


@pytest.mark.parametrize("transform", SYMMETRIES, ids=repr)
@pytest.mark.parametrize("width", [5, 8])
def test_the_inverse_undoes_images_and_masks(transform: SymmetryTransform, width: int) -> None:
    images, masks = torch.rand(16, 1, 5, width), torch.randint(0, 9, (16, 5, width))
    parameters = transform.draw(images.shape, generator())
    back = transform.apply(*transform.apply(images, masks, parameters), transform.inverse(parameters))
    assert torch.equal(back[0], images)
    assert torch.equal(back[1], masks)


def test_an_image_that_is_not_square_is_turned_by_a_half_instead_of_a_quarter() -> None:
    images = torch.rand(4, 1, 4, 6)
    turned, _ = RandomRotate90().apply(images, None, Rotate90Parameters(torch.arange(4)))
    assert torch.equal(turned, torch.cat([images[:1], images[1:].flip(-2, -1)]))


def test_an_image_that_is_not_square_is_not_transposed() -> None:
    images = torch.rand(4, 1, 4, 6)
    assert torch.equal(RandomTranspose(p=1)(images), images)


def assert_shares(drawn: torch.Tensor, expected: list[float]) -> None:
    """Shares of the values 0, 1, ... within four standard errors."""
    shares = torch.bincount(drawn, minlength=len(expected)) / len(drawn)
    for share, p in zip(shares.tolist(), expected, strict=True):
        assert abs(share - p) <= 4 * (p * (1 - p) / len(drawn)) ** 0.5


def test_half_of_the_samples_are_turned_by_0_to_3_quarters_alike() -> None:
    drawn = RandomRotate90(p=0.5).draw(MANY, generator())
    assert_shares(drawn.turns, [5 / 8, 1 / 8, 1 / 8, 1 / 8])


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        (("horizontal", "vertical", "both"), [1 / 2, 1 / 6, 1 / 6, 1 / 6]),
        (("horizontal",), [1 / 2, 1 / 2, 0, 0]),
        (("vertical", "both"), [1 / 2, 0, 1 / 4, 1 / 4]),
    ],
)
def test_half_of_the_samples_get_one_of_the_flips_alike(axes: tuple[str, ...], expected: list[float]) -> None:
    drawn = RandomFlip(axes, p=0.5).draw(MANY, generator())
    assert_shares(drawn.horizontal + 2 * drawn.vertical.long(), expected)


def test_a_transposition_has_its_probability() -> None:
    assert_shares(RandomTranspose(p=0.2).draw(MANY, generator()).transposed.long(), [0.8, 0.2])


@pytest.mark.parametrize("transform", [RandomFlip(p=0), RandomRotate90(p=0), RandomTranspose(p=0)], ids=repr)
def test_probability_0_changes_nothing(transform: SymmetryTransform) -> None:
    images = torch.rand(64, 1, 3, 3)
    assert torch.equal(transform(images), images)


@pytest.mark.parametrize("p", [-0.1, 1.5, "half", None, True, float("nan")])
@pytest.mark.parametrize("transform", [RandomFlip, RandomRotate90, RandomTranspose])
def test_p_must_be_a_probability(transform: type[SymmetryTransform], p: object) -> None:
    with pytest.raises(ValueError, match=r"p must be a probability in \[0, 1\], got"):
        transform(p=p)


@pytest.mark.parametrize("axes", ["horizontal", (), ("diagonal",), (0, 1), None, 3, ([],)])
def test_axes_must_name_flips(axes: object) -> None:
    with pytest.raises(ValueError, match="axes must be a list of one or more of horizontal, vertical, both, got"):
        RandomFlip(axes)


# torch's own antialiased resizing is wrong for images that are one pixel wide.
sides = st.integers(2, 24)


@given(sides, sides, sides, sides)
def test_images_are_resized_as_pillow_does(height: int, width: int, new_height: int, new_width: int) -> None:
    image = np.random.default_rng(0).random((height, width), dtype=np.float32)
    expected = np.asarray(Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR))
    resized = Resize((new_height, new_width))(torch.from_numpy(image)[None, None])
    np.testing.assert_allclose(resized[0, 0], expected, atol=1e-5)


@given(sides, sides, sides, sides)
def test_labels_are_resized_to_the_nearest_pixel_as_interpolate_does(
    height: int, width: int, new_height: int, new_width: int
) -> None:
    labels = torch.arange(height * width).view(1, height, width)
    expected = F.interpolate(labels[None].double(), (new_height, new_width), mode="nearest-exact")[0]
    _, resized = Resize((new_height, new_width))(torch.zeros(1, 1, height, width), labels)
    assert torch.equal(resized, expected.long())


@given(sides, sides, sides, sides)
def test_what_keeps_its_aspect_ratio_is_as_large_as_pillow_makes_it(
    height: int, width: int, new_height: int, new_width: int
) -> None:
    image = np.random.default_rng(0).random((height, width), dtype=np.float32)
    resize = Resize((new_height, new_width), keep_aspect_ratio=True)
    rows, columns = resize.content_size(height, width)
    assume(min(rows, columns) > 1)
    scaled = ImageOps.contain(Image.fromarray(image), (new_width, new_height), Image.Resampling.BILINEAR)
    # Pillow rounds half a pixel to the even number.
    assert abs(scaled.height - rows) <= 1
    assert abs(scaled.width - columns) <= 1
    expected = np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BILINEAR))
    resized, labels = resize(torch.from_numpy(image)[None, None], torch.ones(1, height, width, dtype=torch.int64))
    assert resized.shape[2:] == labels.shape[1:] == (new_height, new_width)
    np.testing.assert_allclose(resized[0, 0, :rows, :columns], expected, atol=1e-5)
    assert resized[..., rows:, :].eq(0).all()
    assert resized[..., columns:].eq(0).all()
    assert labels[:, :rows, :columns].eq(1).all()
    assert labels.sum() == rows * columns


@pytest.mark.parametrize(
    ("size", "expected"),
    [((240, 155), (256, 165)), ((155, 240), (165, 256)), ((512, 512), (256, 256)), ((2000, 1), (256, 1))],
)
def test_the_longer_side_fits(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert Resize(256, keep_aspect_ratio=True).content_size(*size) == expected
    assert Resize(256).content_size(*size) == (256, 256)


@pytest.mark.parametrize(
    ("size", "stretch", "expected"),
    [
        ((64, 256), 4.0, (256, 256)),
        ((256, 256), 2.0, (256, 128)),
        ((256, 64), 0.25, (256, 256)),
        ((51, 256), 5, (255, 256)),
    ],
)
def test_pixels_that_are_no_squares_keep_the_shape_of_the_anatomy(
    size: tuple[int, int], stretch: float, expected: tuple[int, int]
) -> None:
    resize = Resize(256, keep_aspect_ratio=True, stretch=stretch)
    assert resize.content_size(*size) == expected
    assert Resize(256, stretch=stretch).content_size(*size) == (256, 256)
    y, x = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    y, x = y * stretch, x * 1.0
    disc = (torch.hypot(y - y.mean(), x - x.mean()) < 0.3 * min(y.max(), x.max())).float()[None, None]
    seen = resize(disc)[0, 0] > 0.5
    rows, columns = (seen.any(axis).sum().item() for axis in (1, 0))
    assert rows == pytest.approx(columns, abs=2 * max(stretch, 1 / stretch))
    back = resize.undo(resize(disc), size)
    assert ((back > 0.5) != (disc > 0.5)).float().mean() < 0.02


@pytest.mark.parametrize("stretch", [0, -1.0, float("nan"), float("inf"), "2"])
def test_a_stretch_that_cannot_be_is_an_error(stretch: object) -> None:
    with pytest.raises(ValueError, match="stretch must lie in"):
        Resize(32, keep_aspect_ratio=True, stretch=stretch)  # type: ignore[arg-type]


@pytest.mark.parametrize("keep_aspect_ratio", [False, True])
def test_a_resized_image_comes_back(keep_aspect_ratio: bool) -> None:
    rows, columns = torch.arange(60.0)[:, None] / 60, torch.arange(40.0) / 40
    image = (rows + columns)[None, None]
    resize = Resize((96, 90), keep_aspect_ratio=keep_aspect_ratio)
    back = resize.undo(resize(image), (60, 40))
    # To a tenth of a pixel, but at the border.
    torch.testing.assert_close(back[..., 2:-2, 2:-2], image[..., 2:-2, 2:-2], atol=0.1 / 60, rtol=0)


@pytest.mark.parametrize("side", [16, 32, 50])
def test_what_has_the_shape_of_the_size_is_resized_as_ever(side: int) -> None:
    images, masks = torch.rand(2, 3, side, side), torch.randint(0, 3, (2, side, side))
    for ours, theirs in zip(Resize(32, keep_aspect_ratio=True)(images, masks), Resize(32)(images, masks), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("size", [(40, 56), (100, 90)])
def test_a_mask_painted_into_a_resized_image_stays_under_itself_to_one_pixel(size: tuple[int, int]) -> None:
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    disk = ((y - 30).hypot(x - 35) < 15)[None]
    images, masks = Resize(size)(disk[:, None].float(), disk)
    painted, mask = images > 0.5, masks[:, None].float()
    grown = F.max_pool2d(mask, 3, stride=1, padding=1) > 0
    shrunk = F.max_pool2d(1 - mask, 3, stride=1, padding=1) == 0
    assert not (painted & ~grown).any()
    assert not (shrunk & ~painted).any()


def test_one_number_is_both_sides() -> None:
    images, masks = Resize(8)(torch.rand(2, 3, 16, 12), torch.zeros(2, 16, 12))
    assert images.shape == (2, 3, 8, 8)
    assert masks.shape == (2, 8, 8)


def test_what_has_the_size_is_not_copied() -> None:
    images, masks = torch.rand(2, 3, 8, 8), torch.zeros(2, 8, 8)
    assert all(ours is theirs for ours, theirs in zip(Resize(8)(images, masks), (images, masks), strict=True))


@pytest.mark.parametrize("shape", [(2, 16, 16), (2, 3, 16, 16)])
def test_soft_masks_are_resized_as_images_are(shape: tuple[int, ...]) -> None:
    masks = torch.rand(shape)
    resize = Resize(10, soft_masks=True)
    _, resized = resize(torch.zeros(2, 1, 16, 16), masks)
    assert torch.equal(resized, resize(masks.reshape(2, -1, 16, 16)).reshape(resized.shape))


def test_a_label_map_is_no_soft_mask() -> None:
    with pytest.raises(ValueError, match=r"soft masks are floating point, got torch.int64; build Resize with"):
        Resize(8, soft_masks=True)(torch.rand(1, 1, 16, 16), torch.zeros(1, 16, 16, dtype=torch.int64))


@pytest.mark.parametrize("size", [0, (8,), (8, 8, 8), (8, -1), 8.5, "88", None])
def test_size_must_be_pixels(size: object) -> None:
    with pytest.raises(ValueError, match="size must be a positive number of pixels, or height and width, got"):
        Resize(size)
