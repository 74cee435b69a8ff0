"""How the golden steps of Mask DINO are made: weights, features, objects and draws from a salt and names.

Section 16 of specs/mask_dino.md; all in float64 and rounded to float32 at the end.
"""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def generator(salt: str, name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(f"{salt}{name}".encode())))


def make_state(case: Mapping[str, Any]) -> dict[str, Array]:
    heads = case["config"]["encoder_heads"]
    return {
        key: make_weight(case["salt"], key, shape, heads if key.startswith("pixel_decoder") else 8)
        for key, shape in case["state"]
    }


def make_weight(salt: str, key: str, shape: Sequence[int], heads: int) -> Array:
    z = generator(salt, key).standard_normal(tuple(shape))
    if key.endswith("sampling_offsets.bias"):  # head by head a ray, of four points for each level
        angle = 2 * np.pi * np.arange(heads) / heads
        ray = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        ray /= np.abs(ray).max(axis=-1, keepdims=True)
        rays = ray[:, None, None] * np.arange(1, 5)[:, None]
        return np.broadcast_to(rays, (heads, shape[0] // (heads * 8), 4, 2)).reshape(-1).astype(np.float32)
    fan = math.prod(shape[1:])
    for ends, value in (
        (("sampling_offsets.weight",), 0.5 * z / math.sqrt(fan)),
        (("level_embed", "label_enc.weight", "query_feat.weight", "query_embed.weight"), z),
        (("class_embed.bias",), -1 + 0.3 * z),
        (("mask_embed.layers.2.weight",), 0.6 * z / math.sqrt(fan)),
        (("mask_embed.layers.2.bias",), 0.08 + 0.02 * z),
        (("mask_features.bias",), -0.06 + 0.02 * z),
        (("_bbox_embed.layers.2.weight",), 0.7 * z / math.sqrt(fan)),
    ):
        if key.endswith(ends):
            return value.astype(np.float32)
    if len(shape) > 1:
        return (z / math.sqrt(fan)).astype(np.float32)
    return (key.endswith("weight") + 0.1 * z).astype(np.float32)


def make_feature(salt: str, name: str, shape: Sequence[int]) -> Array:
    """Four plane waves a channel."""
    batch, channels, height, width = shape
    draw = generator(salt, f"input/{name}")
    amplitude = 0.7 * draw.standard_normal((batch, channels, 4, 1, 1))
    fy, fx = (draw.uniform(-1.5, 1.5, (batch, channels, 4, 1, 1)) for _ in range(2))
    phase = draw.uniform(0, 2 * np.pi, (batch, channels, 4, 1, 1))
    y, x = (np.arange(height)[:, None] + 0.5) / height, (np.arange(width) + 0.5) / width
    return (amplitude * np.cos(2 * np.pi * (fy * y + fx * x) + phase)).sum(axis=2).astype(np.float32)


def make_targets(objects: Sequence[Sequence[Sequence[float]]], height: int, width: int) -> list[dict[str, Any]]:
    """Ellipses (label, centre x and y, radius x and y), in units of the image."""
    y, x = (np.arange(height)[:, None] + 0.5) / height, (np.arange(width) + 0.5) / width
    return [
        {
            "labels": np.array([label for label, *_ in image], dtype=np.int64),
            "boxes": np.array([(cx, cy, 2 * rx, 2 * ry) for _, cx, cy, rx, ry in image], dtype=np.float32),
            "masks": np.array(
                [((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1 for _, cx, cy, rx, ry in image], dtype=np.float32
            ),
        }
        for image in objects
    ]


def make_draw(salt: str) -> Callable[[str, Sequence[int]], Array]:
    return lambda name, shape: generator(salt, f"rand/{name}").random(tuple(shape)).astype(np.float32)
