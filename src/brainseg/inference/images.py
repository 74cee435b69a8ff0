"""What people have, as a batch of images in [0, 1]: paths, pictures, arrays, tensors."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainseg.data import read_image, to_unit_range
from brainseg.data.decode import picture_pixels

if TYPE_CHECKING:
    from PIL.Image import Image

ImageLike: TypeAlias = "str | Path | Image | NDArray[Any] | Tensor"

EXPECTED = (
    "give a path, a PIL image, an array (H, W, C) or (H, W) of uint8, uint16 or floats in [0, 1], or a tensor "
    "(C, H, W) or (B, C, H, W) in [0, 1]"
)


def to_images(image: ImageLike) -> Tensor:
    """Images (B, C, H, W) floating point, whose range is still to check; B is 1 but for a tensor (B, C, H, W).

    Raises:
        FileNotFoundError: no such file.
        TypeError: none of what is expected.
        ValueError: another rank or dtype.
    """
    if isinstance(image, str | Path):
        return to_unit_range(read_image(Path(image)))[None]
    if isinstance(image, Tensor):
        return _from_tensor(image)
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if type(image).__module__.startswith("PIL."):
        return to_unit_range(picture_pixels(image))[None]
    raise TypeError(f"{type(image).__name__} is no image; {EXPECTED}")


def check_unit_range(images: Tensor) -> None:
    """ValueError for images without pixels, and unless all values lie in [0, 1], up to rounding."""
    if 0 in images.shape[-2:]:
        height, width = images.shape[-2:]
        raise ValueError(f"images of {height}x{width} pixels show nothing; look for where they were cut")
    low, high = (float(value) for value in images.aminmax()) if images.numel() else (0.0, 0.0)
    if math.isnan(low):
        raise ValueError("image values hold NaN, expected [0, 1]; find out where it comes from")
    if not -1e-3 <= low <= high <= 1 + 1e-3:
        hint = "divide by 255" if low >= 0 and high > 1 else "give them as stored, the predictor normalizes them"
        raise ValueError(f"image values lie in [{low:g}, {high:g}], expected [0, 1]; {hint}")


def _from_tensor(image: Tensor) -> Tensor:
    if image.dim() not in (3, 4):
        raise ValueError(f"a tensor of shape {tuple(image.shape)} is no image (C, H, W) or (B, C, H, W); {EXPECTED}")
    if image.dtype in (torch.uint8, torch.uint16):
        image = image.float() / torch.iinfo(image.dtype).max
    elif not image.is_floating_point():
        raise ValueError(f"a tensor of {image.dtype} is no image; {EXPECTED}")
    return image if image.dim() == 4 else image[None]


def _from_array(image: NDArray[Any]) -> Tensor:
    known = image.dtype.name in ("uint8", "uint16") or image.dtype.kind == "f"
    if image.ndim not in (2, 3) or not known:
        raise ValueError(f"an array of {image.dtype} and shape {image.shape} is no image; {EXPECTED}")
    tensor = torch.from_numpy(image.astype(np.float64)) if image.dtype.kind == "f" else to_unit_range(image)
    return tensor[None, None] if tensor.dim() == 2 else tensor.permute(2, 0, 1)[None]
