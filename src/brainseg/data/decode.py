"""Image files to arrays, with one clear error for each way in which a file can be wrong."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def read_image(path: Path) -> NDArray[Any]:
    """A gray or colour image, (C, H, W), uint8 or uint16, channels as stored.

    Palettes are looked up and transparency is dropped. Pillow reads colour with 8 bits, whatever the file has.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unreadable or truncated file, several frames, or signed, 32-bit or floating-point pixels.
    """
    pixels = _decode(path)
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def read_mask(path: Path, shape: tuple[int, ...], image: Path) -> NDArray[np.uint8]:
    """A mask of this shape (H, W), 0 or 1; the file holds 0 and 255, or 0 and 1.

    Raises:
        ValueError: an unreadable file, a mask of another size than its image, or other values.
    """
    pixels = _decode(path)
    if pixels.ndim == 3:
        if (pixels != pixels[..., :1]).any():
            raise ValueError(f"{path} is a colour image, expected a gray mask of 0 and 255; convert it, a file a class")
        pixels = pixels[..., 0]
    if pixels.shape != shape:
        raise ValueError(
            f"{path} is {_size(pixels.shape)} pixels and its image {image.name} {_size(shape)}; export both at one size"
        )
    values = np.unique(pixels)
    if not (set(values) <= {0, 255} or set(values) <= {0, 1}):
        shown = ", ".join(map(str, values[:5])) + (", ..." if len(values) > 5 else "")
        raise ValueError(f"{path} holds the values {shown}, expected 0 and 255 (or 0 and 1); write it as a mask")
    return (pixels > 0).astype(np.uint8)


def to_unit_range(pixels: NDArray[Any]) -> Tensor:
    """float32 in [0, 1] of uint8 or uint16 pixels of any shape."""
    return torch.from_numpy(pixels.astype(np.float32)).div_(np.iinfo(pixels.dtype).max)


def _decode(path: Path) -> NDArray[Any]:
    """(H, W) or (H, W, 3), uint8 or uint16."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError('reading slices needs Pillow: pip install "brainseg-torch[data]"') from error
    try:
        with warnings.catch_warnings():
            # Pillow warns of a truncated directory before it raises; the error below says it once.
            warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
            with Image.open(path) as file:
                if (frames := getattr(file, "n_frames", 1)) > 1:
                    raise ValueError(f"{path} holds {frames} frames, expected one slice; save a file a slice")
                # Old versions of Pillow open a 16-bit PNG as "I", all of them a PGM; in other formats "I" is wider.
                if file.mode.startswith("I;16") or (file.mode == "I" and file.format in ("PNG", "PPM")):
                    return np.asarray(file).astype(np.uint16)
                if file.mode in ("I", "F"):
                    kind = "floating-point" if file.mode == "F" else "signed or 32-bit"
                    raise ValueError(f"{path} holds {kind} pixels, expected 8 or 16 bits; save it with one of these")
                file.info.pop("transparency", None)
                gray = file.mode in ("1", "L", "LA", "La")
                return np.asarray(file.convert("L" if gray else "RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow's words for a broken file
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path} is truncated or no image that Pillow reads ({error}); copy it again") from error


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
