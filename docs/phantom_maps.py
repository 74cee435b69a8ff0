"""Writes synthetic brain slices with label maps of three classes, in the layout that `--data.format folder` reads.

python docs/phantom_maps.py own
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from brainseg.data import phantom

CLASSES = ("background", "oedema", "core")
BRIGHTNESS = {"oedema": (0.36, 0.85, 0.42), "core": (0.42, 0.62, 0.92)}  # pre-contrast, FLAIR, post-contrast


def draw(seed: int, size: int, lesion: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An image (H, W, 3) and its label map (H, W): 0 background, 1 oedema, 2 the core that it surrounds."""
    rng = np.random.default_rng(seed)
    image = phantom(seed, size=size, lesion=False).image.permute(1, 2, 0).numpy()
    labels = np.zeros((size, size), np.uint8)
    if lesion:
        y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
        angle, distance = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.3)
        y, x = y - distance * math.sin(angle), x - distance * math.cos(angle)
        extent = np.hypot(y / rng.uniform(0.2, 0.36), x / rng.uniform(0.2, 0.36))
        labels[extent < 1] = CLASSES.index("oedema")
        labels[extent < rng.uniform(0.5, 0.65)] = CLASSES.index("core")
        for name, brightness in BRIGHTNESS.items():
            where = labels == CLASSES.index(name)
            image[where] = brightness + rng.normal(0, 0.03, (where.sum(), 3))
    return (image.clip(0, 1) * 255).round().astype(np.uint8), labels


def write_maps(root: Path, *, patients: int = 20, slices: int = 8, size: int = 64) -> None:
    """`images/<patient>/<slice>.png` with `masks/<patient>/<slice>.png`, and `classes.json`.

    Every fourth slice is healthy.
    """
    for patient in range(patients):
        for number in range(slices):
            pictures = draw(patient * slices + number, size, lesion=number % 4 > 0)
            for folder, pixels in zip(("images", "masks"), pictures, strict=True):
                path = root / folder / f"patient_{patient:02}" / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    (root / "classes.json").write_text(json.dumps(CLASSES))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    write_maps(parser.parse_args().output)
