"""Pixels as stored, and one clear error for each way in which a file can be wrong."""

import errno
import gzip
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from brainseg.data import read_image
from brainseg.data.decode import picture_pixels, read_mask

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (33, 40), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (33, 40, 3), dtype=np.uint8)
WIDE = RNG.integers(0, 65536, (33, 40), dtype=np.uint16)
MASK = RNG.integers(0, 2, (33, 40), dtype=np.uint8)


def save(path: Path, pixels: NDArray[Any] | Image.Image, **options: Any) -> Path:
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **options)
    return path


def write_png(path: Path, pixels: NDArray[np.uint16]) -> Path:
    """16 bits in any colour type, which Pillow does not write (PNG specification, section 11.2)."""
    height, width, channels = pixels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def write_tiff(path: Path, pixels: NDArray[Any], order: str = "<", **more: int) -> Path:
    """One uncompressed strip with the given tags, which need not be what Pillow would write (TIFF 6.0, section 2)."""
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()  # type: ignore[call-overload]
    names = {"photometric": 262, "extra": 338, "sample_format": 339, "orientation": 274}
    bits = 8 * pixels.dtype.itemsize
    tags: dict[int, list[int]] = {
        256: [width],
        257: [height],
        258: [bits] * channels,
        259: [1],
        262: [1 + (channels > 2)],
    }
    tags |= {273: [0], 277: [channels], 278: [height], 279: [len(data)]}
    tags |= {names[name]: [value] * (channels - 3 if name == "extra" else 1) for name, value in more.items()}
    after = 8 + 2 + 12 * len(tags) + 4
    tags[273] = [after + sum(2 * len(values) for values in tags.values() if len(values) > 2)]
    entries, long_values = b"", b""
    for tag, values in sorted(tags.items()):
        content = struct.pack(f"{order}{len(values)}H", *values)
        if len(content) > 4:
            place = struct.pack(f"{order}I", after + len(long_values))
            long_values += content
        else:
            place = content.ljust(4, b"\0")
        entries += struct.pack(f"{order}HHI", tag, 3, len(values)) + place
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(tags))
    path.write_bytes(head + entries + bytes(4) + long_values + data)
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


def test_an_image_whose_content_is_its_transparency_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.dstack([np.zeros_like(COLOUR), GRAY]))
    with pytest.raises(
        ValueError, match=r"a\.png has one colour everywhere and its content in the alpha channel; save"
    ):
        read_image(path)


@pytest.mark.parametrize("order", ["<", ">"])
def test_white_is_zero_is_turned_round(tmp_path: Path, order: str) -> None:
    path = write_tiff(tmp_path / "a.tif", GRAY, order, photometric=0)
    np.testing.assert_array_equal(read_image(path), 255 - GRAY[None])


def test_white_is_zero_is_turned_round_in_16_bits(tmp_path: Path) -> None:
    # Pillow leaves these as they are, and does not open them in the other order.
    path = write_tiff(tmp_path / "a.tif", WIDE, photometric=0)
    np.testing.assert_array_equal(read_image(path), 65535 - WIDE[None])
    path = write_tiff(tmp_path / "b.tif", WIDE, ">", photometric=0)
    with pytest.raises(ValueError, match=r"b\.tif is truncated or no image that Pillow reads"):
        read_image(path)


def test_scaled_gray_maps_keep_their_range(tmp_path: Path) -> None:
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 2 1 4095\n" + np.array([0, 4095], ">u2").tobytes())
    assert read_image(path).tolist() == [[[0, 65535]]]


ORIENTED = {2: GRAY[:, ::-1], 3: GRAY[::-1, ::-1], 4: GRAY[::-1], 5: GRAY.T, 6: np.rot90(GRAY, -1)}
ORIENTED |= {7: GRAY[::-1, ::-1].T, 8: np.rot90(GRAY)}


@pytest.mark.parametrize("orientation", ORIENTED)
@pytest.mark.parametrize("extension", ["png", "webp", "tif"])
def test_images_are_turned_as_their_orientation_says(tmp_path: Path, extension: str, orientation: int) -> None:
    # What each number means: EXIF 2.32, tag 274.
    exif = Image.Exif()
    exif[274] = orientation
    if extension == "tif":
        path = write_tiff(tmp_path / "a.tif", GRAY, orientation=orientation)
    else:
        path = save(tmp_path / f"a.{extension}", GRAY, exif=exif, **({"lossless": True} if extension == "webp" else {}))
    np.testing.assert_array_equal(read_image(path)[0], ORIENTED[orientation])
    mask = save(tmp_path / "m.png", 255 * MASK, exif=exif)
    shape = ORIENTED[orientation].shape
    assert read_mask(mask, shape, path).sum() == MASK.sum()


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colour_of_16_bits_is_refused_not_cut(tmp_path: Path, channels: int) -> None:
    pixels = RNG.integers(0, 65536, (8, 9, channels), dtype=np.uint16)
    paths = [write_png(tmp_path / "a.png", pixels)]
    if channels > 2:
        paths += [write_tiff(tmp_path / f"{order == '<'}.tif", pixels, order, extra=2) for order in "<>"]
    if channels == 3:
        (tmp_path / "a.ppm").write_bytes(b"P6 9 8 65535\n" + pixels.astype(">u2").tobytes())
        paths.append(tmp_path / "a.ppm")
    for path in paths:
        with pytest.raises(ValueError, match=rf"{path.name} holds colour or transparency of more than the 8 bits .*16"):
            read_image(path)


@pytest.mark.parametrize("extension", ["jp2", "j2k"])
def test_jpeg_2000_of_8_and_16_bits_is_read_and_wide_colour_refused(tmp_path: Path, extension: str) -> None:
    for pixels in (GRAY[None], WIDE[None], COLOUR.transpose(2, 0, 1)):
        path = save(tmp_path / f"a.{extension}", np.squeeze(pixels.transpose(1, 2, 0)))
        np.testing.assert_array_equal(read_image(path), pixels)
    # The depth of each channel, less one, stands after their number (ISO 15444-1, A.5.1 and I.5.3.1).
    content = bytearray(path.read_bytes())
    for place in [content.find(b"ihdr") + 14] if extension == "jp2" else [42, 45, 48]:
        assert content[place] == 7
        content[place] = 11
    path.write_bytes(content)
    with pytest.raises(ValueError, match="holds colour or transparency of more than the 8 bits"):
        read_image(path)


@pytest.mark.parametrize("channels", [4, 5])
def test_channels_beyond_three_are_refused_not_dropped(tmp_path: Path, channels: int) -> None:
    path = write_tiff(tmp_path / "a.tif", np.dstack([COLOUR, *[GRAY] * (channels - 3)]), extra=0)
    with pytest.raises(ValueError, match=rf"a\.tif holds {channels} channels, expected one or three; save a file for"):
        read_image(path)


@pytest.mark.parametrize("extension", ["jpg", "tif"])
def test_colours_for_print_are_refused(tmp_path: Path, extension: str) -> None:
    path = save(tmp_path / f"a.{extension}", Image.new("CMYK", (9, 8)))
    with pytest.raises(ValueError, match=rf"a\.{extension} holds CMYK colours, expected gray or RGB; convert it"):
        read_image(path)


def test_twelve_bits_are_refused_since_16_would_darken_them(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.zeros((8, 9), np.uint8))
    content = path.read_bytes().replace(struct.pack("<HHII", 258, 3, 1, 8), struct.pack("<HHII", 258, 3, 1, 12))
    path.write_bytes(content.replace(struct.pack("<HHII", 256, 3, 1, 9), struct.pack("<HHII", 256, 3, 1, 6)))
    with pytest.raises(ValueError, match=r"a\.tif holds 12-bit pixels, expected 8 or 16 bits"):
        read_image(path)


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


@pytest.mark.parametrize("loaded", [False, True])
def test_pictures_of_pillow_are_read_like_files(tmp_path: Path, loaded: bool) -> None:
    paths = [write_tiff(tmp_path / "a.tif", WIDE, photometric=0), save(tmp_path / "a.png", COLOUR)]
    for path in paths:
        with Image.open(path) as picture:
            if loaded:
                picture.load()
            np.testing.assert_array_equal(picture_pixels(picture), read_image(path))


def test_pictures_of_pillow_are_refused_like_files(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", RNG.integers(0, 65536, (8, 9, 3), dtype=np.uint16))
    with (
        Image.open(path) as picture,
        pytest.raises(ValueError, match="the PIL image holds colour or transparency of more"),
    ):
        picture_pixels(picture)
    with pytest.raises(ValueError, match="the PIL image holds floating-point pixels"):
        picture_pixels(Image.new("F", (9, 8)))


def test_an_absent_file_stays_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.tif"):
        read_image(tmp_path / "nowhere.tif")


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", GRAY)

    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Image, "open", denied)  # the tests may run as root, whom no mode stops
    with pytest.raises(PermissionError, match=r"a\.png may not be read \(permission denied\); ask its owner"):
        read_image(path)


def test_a_failing_disk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", GRAY)

    def failing(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")  # a read names no file

    monkeypatch.setattr(Image, "open", failing)
    with pytest.raises(OSError, match=r"Input/output error: .*a\.png"):
        read_image(path)


def test_too_many_pixels_are_no_broken_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", GRAY)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", GRAY.size - 1)
    np.testing.assert_array_equal(read_image(path), GRAY[None])  # Pillow only warns up to twice as many
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", GRAY.size // 2 - 1)
    with pytest.raises(ValueError, match=r"a\.png has too many pixels for one slice \(.*\); crop it, or raise PIL"):
        read_image(path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.nii", struct.pack("<i", 348) + bytes(340) + b"n+1\0", "a NIfTI volume"),
        ("a.png", struct.pack(">i", 540) + b"n+2\0" + bytes(400), "a NIfTI volume"),
        ("a.nii.gz", b"", "a NIfTI volume"),
        ("a.png", bytes(128) + b"DICM" + bytes(9), "a DICOM file"),
        ("a.dcm", b"cut", "a DICOM file"),
        ("a.tif", b"\x89HDF\r\n\x1a\n" + bytes(9), "an HDF5 file"),
        ("a.png", b"%PDF-1.7", "a PDF document"),
        ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "an EPS drawing"),
        ("a.mpg", b"\0\0\1\xba" + bytes(9), "an MPEG video"),
        ("a.png", b"\0\5\x16\7" + bytes(9), "what a Mac keeps beside a file"),
    ],
)
def test_a_file_of_another_kind_is_called_what_it_is(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=f"{name} is {words}, no image that Pillow reads; export slices as PNG or TIFF"
    ):
        read_image(path)


def test_a_packed_nifti_volume_is_called_what_it_is_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(gzip.compress(struct.pack("<i", 348) + bytes(340) + b"n+1\0" + RNG.bytes(5000)))
    with pytest.raises(ValueError, match=r"a\.png is a NIfTI volume"):
        read_image(path)


@pytest.mark.parametrize("error", [IndexError, ValueError, MemoryError, struct.error])
def test_whatever_pillow_raises_the_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    path = save(tmp_path / "a.png", GRAY)

    def failing(*_: Any) -> None:
        raise error("out of range")

    monkeypatch.setattr(PngImageFile, "load", failing)
    with pytest.raises(ValueError, match=r"a\.png is truncated or no image that Pillow reads \(out of range\)"):
        read_image(path)


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


@pytest.mark.parametrize("pixels", [WIDE, GRAY])
def test_signed_pixels_are_refused(tmp_path: Path, pixels: NDArray[Any]) -> None:
    path = write_tiff(tmp_path / "a.tif", pixels, sample_format=2)  # 1 unsigned, 2 signed
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
        MASK.astype(np.uint16) * 65535,
        Image.fromarray(255 * MASK).convert("P"),
        Image.fromarray(255 * MASK).convert("RGBA"),
    ],
    ids=["one bit", "gray stored as colour", "16 bits", "white of 16 bits", "palette", "RGBA"],
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


def test_classes_in_one_mask_are_told_where_they_go(tmp_path: Path) -> None:
    for pixels in (2 * MASK, np.dstack([255 * MASK, *[np.zeros_like(MASK)] * 2])):
        path = save(tmp_path / "m.png", pixels)
        with pytest.raises(ValueError, match=r"m\.png .*masks/0, masks/1, \.\.\."):
            read_mask(path, MASK.shape, tmp_path / "a.png")


def test_a_mask_that_its_transparency_repeats_is_read(tmp_path: Path) -> None:
    white_where_opaque = np.repeat(255 * MASK[..., None], 4, axis=-1)
    path = save(tmp_path / "m.png", white_where_opaque)
    np.testing.assert_array_equal(read_mask(path, MASK.shape, tmp_path / "a.png"), MASK)


@pytest.mark.parametrize("colour", [0, 255])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_mask_in_the_transparency_is_refused(tmp_path: Path, mode: str, colour: int) -> None:
    if mode == "P":
        image = Image.fromarray(MASK).convert("P")
        image.putpalette([colour] * 6)
        path = save(tmp_path / "m.png", image, transparency=b"\0\xff")
    else:
        channels = Image.fromarray(np.full_like(MASK, colour)), Image.fromarray(255 * MASK)
        path = save(tmp_path / "m.png", Image.merge("LA", channels).convert(mode))
    with pytest.raises(ValueError, match=r"m\.png says one thing by its values and another by its alpha channel; save"):
        read_mask(path, MASK.shape, tmp_path / "a.png")


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
