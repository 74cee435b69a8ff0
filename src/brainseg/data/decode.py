"""Image files to arrays, with one clear error for each way in which a file can be wrong."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainseg.data.files import NO_SLICES, what_is

if TYPE_CHECKING:
    from PIL.Image import Image

GRAY, COLOUR, ALPHA = (
    ("1", "L", "LA", "La"),
    ("P", "PA", "RGB", "RGBA", "RGBa", "YCbCr"),
    ("LA", "La", "PA", "RGBA", "RGBa"),
)
# Tags of TIFF.
PHOTOMETRIC, SAMPLE_FORMAT = 262, 339


def read_image(path: Path) -> NDArray[Any]:
    """A gray or colour image, (C, H, W), uint8 or uint16, channels as stored, turned as its orientation tag says.

    Palettes are looked up and transparency is dropped.

    Raises:
        FileNotFoundError: no such file.
        OSError: a file that may not or cannot be read.
        ValueError: no image, or a truncated one; several frames; too many pixels; or an image of which Pillow would
            read a part: colour of more than 8 bits, more than three channels, all content in the transparency; signed,
            32-bit or floating-point pixels; colours other than RGB.
    """
    return _image(*_decode(path), str(path))


def picture_pixels(picture: "Image") -> NDArray[Any]:
    """The pixels of a picture of Pillow's, as `read_image` gives those of a file, and with its errors."""
    if problem := _problem(picture):
        raise ValueError(f"the PIL image {problem}")
    return _image(*_pixels(picture), "the PIL image")


def read_mask(path: Path, shape: tuple[int, ...], image: Path) -> NDArray[np.uint8]:
    """A mask of this shape (H, W), 0 or 1; the file holds 0 and 255 (65535 in 16 bits), or 0 and 1.

    Raises:
        OSError: a file that may not or cannot be read.
        ValueError: an unreadable file, a mask of another size than its image, other values, or transparency that says
            something else than the values.
    """
    pixels, alpha = _decode(path)
    if pixels.ndim == 3:
        if (pixels != pixels[..., :1]).any():
            raise ValueError(
                f"{path} is a colour image, expected a gray mask of 0 and 255; convert it, a file a class (masks/0, "
                "masks/1, ...), or name the classes of label maps with a palette in classes.json"
            )
        pixels = pixels[..., 0]
    _check_size(path, pixels.shape, image, shape)
    full = np.iinfo(pixels.dtype).max
    values = np.unique(pixels)
    if not any(set(values.tolist()) <= {0, high} for high in (1, 255, full)):
        shown = ", ".join(map(str, values[:5])) + (", ..." if len(values) > 5 else "")
        raise ValueError(
            f"{path} holds the values {shown}, expected 0 and 255 (or 0 and 1); write it as a mask, several classes as "
            "a file each, in masks/0, masks/1, ..., or name the classes of label maps in classes.json"
        )
    mask = (pixels > 0).astype(np.uint8)
    if alpha is not None and (alpha != 255 * mask).any():
        raise ValueError(f"{path} says one thing by its values and another by its alpha channel; save it without alpha")
    return mask


def read_label_map(path: Path, shape: tuple[int, ...], image: Path) -> NDArray[Any]:
    """A label map of this shape (H, W), uint8 or uint16: values of a gray image, or indices of a palette.

    Raises:
        OSError: a file that may not or cannot be read.
        ValueError: an unreadable file, a map of another size than its image, or a colour image without a palette.
    """
    pixels, _ = _decode(path, look_up=False)
    if pixels.ndim == 3:
        if (pixels != pixels[..., :1]).any():
            raise ValueError(f"{path} is a colour image, expected a label map; save it as gray or with a palette")
        pixels = pixels[..., 0]
    _check_size(path, pixels.shape, image, shape)
    return pixels


def to_unit_range(pixels: NDArray[Any]) -> Tensor:
    """float32 in [0, 1] of uint8 or uint16 pixels of any shape."""
    return torch.from_numpy(pixels.astype(np.float32)).div_(np.iinfo(pixels.dtype).max)


def _decode(path: Path, *, look_up: bool = True) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    """Pixels and the alpha channel (H, W), the latter where it is not opaque everywhere.

    Pixels are (H, W) or (H, W, 3), uint8 or uint16; colours of a palette, or its indices if none are looked up.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ImportError('reading slices needs Pillow: pip install "brainseg-torch[data]"') from error
    Image.init()
    formats = [name for name in Image.ID if name not in NO_SLICES]
    try:
        with warnings.catch_warnings():
            # Pillow warns of a truncated directory before it raises; the error below says it once. It warns of many
            # pixels below the number that it refuses.
            warnings.filterwarnings("ignore", module="PIL")
            # Opened here: Pillow 13 maps a TIFF that it opens by name at the sides that it has before it is turned.
            with path.open("rb") as stream, Image.open(stream, formats=formats) as file:
                problem = _problem(file)
                if problem is None:
                    return _pixels(file, look_up=look_up)
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{path} has too many pixels for one slice ({error}); crop it, or raise PIL.Image.MAX_IMAGE_PIXELS"
        ) from error
    except PermissionError as error:
        raise PermissionError(
            f"{path} may not be read (permission denied); ask its owner, or change its mode"
        ) from error
    except Exception as error:  # Pillow has many for a broken file, some of them OSError without a number
        if isinstance(error, OSError) and error.errno is not None:
            raise type(error)(error.errno, error.strerror, str(path)) from error
        if words := what_is(path):
            raise ValueError(f"{path} is {words}, no image that Pillow reads; export slices as PNG or TIFF") from error
        reason = "no format that it knows" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"{path} is truncated or no image that Pillow reads ({reason}); copy it again") from error
    raise ValueError(f"{path} {problem}")


def _image(pixels: NDArray[Any], alpha: NDArray[np.uint8] | None, name: str) -> NDArray[Any]:
    if alpha is not None and _varies(alpha) and not _varies(pixels):
        raise ValueError(
            f"{name} has one colour everywhere and its content in the alpha channel; save it as gray, without alpha"
        )
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def _problem(file: "Image") -> str | None:
    """Why an opened file, or a picture in memory, cannot be read as it is."""
    if (frames := getattr(file, "n_frames", 1)) > 1:
        return f"holds {frames} frames, expected one slice; save a file a slice"
    if _is_signed(file) or (file.mode == "I" and file.format not in ("PNG", "PPM")):
        return "holds signed or 32-bit pixels, expected 8 or 16 bits; save it with one of these"
    if file.mode == "F":
        return "holds floating-point pixels, expected 8 or 16 bits; save it with one of these"
    if not (file.mode in GRAY + COLOUR or file.mode.startswith("I")):
        return f"holds {file.mode} colours, expected gray or RGB; convert it"
    packing = _packing(file)
    if file.format == "TIFF" and "X" in packing:
        return f"holds {len(packing)} channels, expected one or three; save a file for each"
    if packing == "I;12":
        return "holds 12-bit pixels, expected 8 or 16 bits; save it with one of these"
    if not file.mode.startswith("I") and _is_wide(file, packing):
        return (
            "holds colour or transparency of more than the 8 bits that Pillow reads; save it with 8, or as gray with 16"
        )
    return None


def _packing(file: "Image") -> str:
    """How pixels lie in a file that is not loaded yet, in Pillow's words: RGB;16B."""
    tile = getattr(file, "tile", None)
    arguments = tile[0][3] if tile else None
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _is_signed(file: "Image") -> bool:
    sample = _tag(file, SAMPLE_FORMAT, 1)
    return 2 in (sample if isinstance(sample, tuple) else (sample,))


def _is_wide(file: "Image", packing: str) -> bool:
    """Whether a file that is not loaded yet has more than the 8 bits that Pillow reads."""
    tile = getattr(file, "tile", None)
    if not tile:
        return False
    if file.format == "PPM":
        arguments = tile[0][3]
        return isinstance(arguments, tuple) and arguments[-1] > 255
    if file.format == "JPEG2000":
        head = _head(file)
        # The image header box (ISO 15444-1, I.5.3.1), or the size segment of a bare stream (A.5.1).
        place = head.find(b"ihdr") + 14 if b"ihdr" in head else 42
        return (head[place] & 0x7F) + 1 > 8
    if file.format == "AVIF":
        head = _head(file)
        return b"av1C" in head and bool(head[head.find(b"av1C") + 6] & 0x40)  # high_bitdepth of av1C
    return ";16" in packing or any(part[0] == "SGI16" for part in tile)


def _head(file: Any) -> bytes:
    place = file.fp.tell()
    file.fp.seek(0)
    head: bytes = file.fp.read(4096)
    file.fp.seek(place)
    return head


def _pixels(file: "Image", *, look_up: bool = True) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    from PIL import ImageOps

    white_is_zero = _tag(file, PHOTOMETRIC, 1) == 0
    has_alpha = file.mode in ALPHA or "transparency" in file.info
    image = ImageOps.exif_transpose(file)
    if image.mode.startswith("I"):
        # Old versions of Pillow open a 16-bit PNG as "I", all of them a PGM; in other formats "I" is wider.
        pixels = np.asarray(image).astype(np.uint16)
        # Pillow turns white-is-zero round for 8 bits and fewer only.
        return (65535 - pixels if white_is_zero else pixels), None
    if not look_up and image.mode in ("1", "P"):
        return np.asarray(image).astype(np.uint8), None
    gray = image.mode in GRAY
    alpha = np.asarray(image.convert("RGBA"))[..., 3] if has_alpha else None
    image.info.pop("transparency", None)
    pixels = np.asarray(image.convert("L" if gray else "RGB"))
    return pixels, None if alpha is None or (alpha == 255).all() else alpha


def _tag(file: "Image", number: int, default: int) -> Any:
    return file.tag_v2.get(number, default) if hasattr(file, "tag_v2") else default


def _check_size(path: Path, sides: tuple[int, ...], image: Path, expected: tuple[int, ...]) -> None:
    if sides != expected:
        raise ValueError(
            f"{path} is {_size(sides)} pixels and its image {image.name} {_size(expected)}; export both at one size"
        )


def _varies(pixels: NDArray[Any]) -> bool:
    return bool((pixels != pixels[:1, :1]).any())


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
