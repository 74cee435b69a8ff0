"""Pixels as stored, and one clear error for each way in which a file can be wrong."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from brainseg.data import read_image
from brainseg.data.decode import read_mask

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (33, 40), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (33, 40, 3), dtype=np.uint8)
WIDE = RNG.integers(0, 65536, (33, 40), dtype=np.uint16)
MASK = RNG.integers(0, 2, (33, 40), dtype=np.uint8)


def save(path: Path, pixels: NDArray[Any] | Image.Image, **options: Any) -> Path:
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **options)
    return path


@pytest.mark.parametrize("extension", ["tif", "png", "bmp", "webp"])
def test_colour_comes_channels_first_as_stored(tmp_path: Path, extension: str) -> None:
    image = read_image(save(tmp_path / f"a.{extension}", COLOUR, **({"lossless": True} if extension == "webp" else {})))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, COLOUR.transpose(2, 0, 1))


def test_gray_has_one_channel(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", GRAY)), GRAY[None])


@pytest.mark.parametrize("extension", ["png", "tif", "pgm"])
def test_sixteen_bits_stay_sixteen(tmp_path: Path, extension: str) -> None:
    image = read_image(save(tmp_path / f"a.{extension}", WIDE))
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image, WIDE[None])


def test_big_endian_pixels_are_read_in_their_order(tmp_path: Path) -> None:
    image = Image.frombytes("I;16B", WIDE.shape[::-1], WIDE.astype(">u2").tobytes())
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.tif", image)), WIDE[None])


def test_one_bit_becomes_black_and_white(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", MASK.astype(bool))), 255 * MASK[None])


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(256))])
def test_palettes_are_looked_up(tmp_path: Path, transparency: int | bytes | None) -> None:
    image = Image.fromarray(GRAY).convert("P")
    colours = RNG.integers(0, 256, (256, 3), dtype=np.uint8)
    image.putpalette(colours.tobytes())
    path = save(tmp_path / "a.png", image, **({} if transparency is None else {"transparency": transparency}))
    np.testing.assert_array_equal(read_image(path), colours[GRAY].transpose(2, 0, 1))


def test_transparency_is_dropped(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.concatenate([COLOUR, GRAY[..., None]], axis=-1))
    np.testing.assert_array_equal(read_image(path), COLOUR.transpose(2, 0, 1))
    gray = Image.merge("LA", (Image.fromarray(GRAY), Image.fromarray(GRAY[::-1].copy())))
    np.testing.assert_array_equal(read_image(save(tmp_path / "b.png", gray)), GRAY[None])


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
@given(share=st.floats(0, 0.99))
def test_a_file_cut_anywhere_is_named_without_a_warning(
    tmp_path_factory: pytest.TempPathFactory, compression: str | None, share: float
) -> None:
    path = save(tmp_path_factory.mktemp("cut") / "cut.tif", COLOUR, compression=compression)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    # Warnings are errors in these tests: one of Pillow's would come in the error's place.
    with pytest.raises(ValueError, match=r"cut\.tif is truncated or no image"):
        read_image(path)


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.tif"
    path.write_text("patient moved")
    with pytest.raises(ValueError, match=r"notes\.tif is truncated or no image that Pillow reads .*; copy it again"):
        read_image(path)


def test_an_absent_file_stays_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.tif"):
        read_image(tmp_path / "nowhere.tif")


@pytest.mark.parametrize("extension", ["tif", "gif"])
def test_several_frames_are_refused(tmp_path: Path, extension: str) -> None:
    more = [Image.fromarray(GRAY[::-1].copy()), Image.fromarray(GRAY[:, ::-1].copy())]
    path = save(tmp_path / f"a.{extension}", GRAY, save_all=True, append_images=more)
    with pytest.raises(ValueError, match=rf"a\.{extension} holds 3 frames, expected one slice; save a file a slice"):
        read_image(path)


@pytest.mark.parametrize(
    "pixels",
    [WIDE.astype(np.float32), WIDE.astype(np.int32), WIDE.astype(np.int32) - 70000, GRAY.astype(np.int32)],
    ids=["float", "int32", "negative", "int32 within 8 bits"],
)
def test_wider_pixels_are_refused_since_their_range_is_unknown(tmp_path: Path, pixels: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=r"a\.tif holds .* pixels, expected 8 or 16 bits; save it with one of these"):
        read_image(save(tmp_path / "a.tif", pixels))


def test_signed_pixels_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", WIDE, tiffinfo={339: 2})  # SampleFormat: 1 unsigned, 2 signed
    with pytest.raises(ValueError, match=r"a\.tif holds .* pixels, expected 8 or 16 bits"):
        read_image(path)


@pytest.mark.parametrize("high", [1, 255])
@pytest.mark.parametrize("extension", ["tif", "png"])
def test_masks_of_both_conventions_are_0_and_1(tmp_path: Path, high: int, extension: str) -> None:
    mask = read_mask(save(tmp_path / f"m.{extension}", MASK * np.uint8(high)), MASK.shape, tmp_path / "a.tif")
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, MASK)


@pytest.mark.parametrize(
    "pixels",
    [
        MASK.astype(bool),
        (255 * MASK)[..., None].repeat(3, axis=-1),
        (255 * MASK).astype(np.uint16),
        Image.fromarray(255 * MASK).convert("P"),
        Image.fromarray(255 * MASK).convert("RGBA"),
    ],
    ids=["one bit", "gray stored as colour", "16 bits", "palette", "RGBA"],
)
def test_masks_of_every_storage_are_0_and_1(tmp_path: Path, pixels: NDArray[Any] | Image.Image) -> None:
    np.testing.assert_array_equal(read_mask(save(tmp_path / "m.png", pixels), MASK.shape, tmp_path / "a.png"), MASK)


def test_a_mask_may_be_empty_or_full(tmp_path: Path) -> None:
    for value, expected in ((0, 0), (1, 1), (255, 1)):
        path = save(tmp_path / "m.png", np.full((5, 4), value, np.uint8))
        assert (read_mask(path, (5, 4), path) == expected).all()


@pytest.mark.parametrize(
    ("values", "shown"),
    [((0, 1, 255), "0, 1, 255"), ((0, 128), "0, 128"), (tuple(range(9)), r"0, 1, 2, 3, 4, \.\.\.")],
)
def test_other_mask_values_are_named(tmp_path: Path, values: tuple[int, ...], shown: str) -> None:
    path = save(tmp_path / "m.png", np.resize(np.array(values, np.uint8), (8, 8)))
    with pytest.raises(ValueError, match=rf"m\.png holds the values {shown}, expected 0 and 255 \(or 0 and 1\); write"):
        read_mask(path, (8, 8), tmp_path / "a.png")


def test_a_mask_of_another_size_is_named_with_its_image(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", MASK)
    with pytest.raises(ValueError, match=r"m\.png is 33x40 pixels and its image a\.png 32x32; export both at one size"):
        read_mask(path, (32, 32), tmp_path / "a.png")


def test_a_colour_mask_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"m\.png is a colour image, expected a gray mask of 0 and 255; convert it"):
        read_mask(save(tmp_path / "m.png", COLOUR), COLOUR.shape[:2], tmp_path / "a.png")


def test_without_pillow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r'needs Pillow: pip install "brainseg-torch\[data\]"'):
        read_image(tmp_path / "a.png")
