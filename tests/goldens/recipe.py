"""How the goldens' weights, inputs and masks are made: from a salt or a seed, with numpy's PCG64 alone.

Section 4 of specs/unet_resunet_unext.md: all arithmetic in float64, rounded to float32 at the very end.
"""

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def uniform(seed: int, shape: Sequence[int]) -> NDArray[np.float64]:
    return np.random.Generator(np.random.PCG64(seed)).random(tuple(shape))


def standardize(u: NDArray[np.float64]) -> NDArray[np.float64]:
    return math.sqrt(3) * (2 * u - 1)


def make_weight(salt: str, key: str, shape: Sequence[int]) -> Tensor:
    part = key.rpartition(".")[2]
    if part == "num_batches_tracked":
        return torch.zeros(tuple(shape), dtype=torch.int64)
    u = uniform(zlib.crc32(f"{salt}/{key}".encode()), shape)
    z = standardize(u)
    if part == "running_var":
        value = 1 + 0.5 * u
    elif part in ("running_mean", "bias"):
        value = 0.1 * z
    elif len(shape) == 1:
        value = (1 + 0.1 * z) * np.where(u < 0.15, -1, 1)
    else:
        value = z * math.sqrt(2 / math.prod(shape[1:]))
    return torch.from_numpy(value.astype(np.float32))


def make_state_dict(salt: str, shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    return {key: make_weight(salt, key, shape) for key, shape in shapes.items()}


def make_input(seed: int, shape: tuple[int, int, int, int]) -> Tensor:
    batch, channels, height, width = shape
    generator = np.random.Generator(np.random.PCG64(seed))
    p = generator.random((4, batch, channels))[..., None, None]
    noise = standardize(generator.random(shape))
    i, j = np.arange(height)[:, None] / height, np.arange(width)[None, :] / width
    waves = np.sin(2 * np.pi * ((1 + 3 * p[0]) * i + p[1])) * np.cos(2 * np.pi * ((1 + 3 * p[2]) * j + p[3]))
    return torch.from_numpy((waves + 0.5 * noise).astype(np.float32))


def make_mask(seed: int, shape: tuple[int, int, int, int]) -> Tensor:
    *axes, height, width = shape
    p = uniform(seed, (4, *axes))[..., None, None]
    rows = (np.arange(height)[:, None] - height * (0.3 + 0.4 * p[0])) / (height * (0.1 + 0.2 * p[2]))
    columns = (np.arange(width)[None, :] - width * (0.3 + 0.4 * p[1])) / (width * (0.1 + 0.2 * p[3]))
    return torch.from_numpy((rows**2 + columns**2 <= 1).astype(np.float32))
