"""Image files to arrays, with one clear error for each way in which a file can be wrong."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_image(path: Path) -> NDArray[Any]:
    """A gray or colour image, (C, H, W), uint8 or uint16, channels as stored.

    Palettes are looked up and transparency is dropped.

    Raises:
        ValueError: an unreadable or truncated file, several frames, or pixels that are neither 8 nor 16 bits wide.
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


def _decode(path: Path) -> NDArray[Any]:
    """(H, W) or (H, W, 3), uint8 or uint16."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError('reading slices needs Pillow: pip install "brainseg-torch[data]"') from error
    try:
        with Image.open(path) as file:
            if (frames := getattr(file, "n_frames", 1)) > 1:
                raise ValueError(f"{path} holds {frames} frames, expected one slice; save a file a slice")
            if file.mode.startswith("I"):
                pixels = np.asarray(file)
                if pixels.min() < 0 or pixels.max() > 65535:
                    raise ValueError(f"{path} holds {file.mode} pixels beyond 16 bits; save it with 8 or 16 bits")
                return pixels.astype(np.uint16)
            if file.mode == "F":
                raise ValueError(f"{path} holds floating-point pixels; save it with 8 or 16 bits")
            gray = file.mode in ("1", "L", "LA", "La")
            return np.asarray(file.convert("L" if gray else "RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow's words for a broken file
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path} is truncated or no image that Pillow reads ({error}); copy it again") from error


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
