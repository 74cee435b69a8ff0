"""Synthetic brain slices with lesions, for demos and tests where no real ones are at hand."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from brainseg.data.split import split_patients, write_split

# Brightness of what a slice shows, in the order of the LGG data's channels: pre-contrast, FLAIR, post-contrast.
SCALP = (0.75, 0.45, 0.80)
SKULL = (0.06, 0.05, 0.07)
WHITE_MATTER = (0.55, 0.38, 0.58)
GRAY_MATTER = (0.42, 0.48, 0.46)
VENTRICLES = (0.14, 0.08, 0.15)
LESION = (0.36, 0.82, 0.40)
LESION_RIM = (0.40, 0.74, 0.78)


class Phantom(NamedTuple):
    """A slice and its lesions.

    Attributes:
        image: (3, H, W) float32 in [0, 1]: pre-contrast, FLAIR, post-contrast.
        mask: (1, H, W) float32, 1 inside the lesions.
    """

    image: Tensor
    mask: Tensor


def phantom(seed: int, *, size: int = 256, lesion: int | None = None) -> Phantom:
    """A synthetic axial slice: scalp, skull, tissue, ventricles, maybe lesions, bias field and Rician noise.

    The magnitude of a complex signal with Gaussian noise of equal deviation in both parts is Rician (Gudbjartsson and
    Patz 1995).

    Args:
        seed: the same seed draws the same slice.
        size: height and width in pixels, at least 32.
        lesion: how many there are, or whether there is one; several are smaller, and few touch. None draws whether,
            with a probability of one third as in the LGG data.

    Raises:
        ValueError: a size below 32, or fewer lesions than none.
    """
    if size < 32:
        raise ValueError(f"a phantom needs a size of at least 32 pixels, got {size}")
    if lesion is not None and lesion < 0:
        raise ValueError(f"lesion must be how many there are, from 0, or None, got {lesion}")
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=generator).item()

    def waves(cells: int) -> Tensor:
        """Smooth noise of deviation about 1 with this many hills along a side, (size, size)."""
        coarse = torch.randn(1, 1, cells + 3, cells + 3, generator=generator)
        return F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True)[0, 0]

    axis = torch.linspace(-1, 1, size)
    y, x = torch.meshgrid(axis, axis, indexing="ij")

    def radius(center: tuple[float, float], axes: tuple[float, float], degrees: float = 0.0) -> Tensor:
        """Distance from a centre (y, x), 1 on the ellipse of these half axes."""
        turn = math.radians(degrees)
        dy, dx = y - center[0], x - center[1]
        along, across = dy * math.cos(turn) + dx * math.sin(turn), dx * math.cos(turn) - dy * math.sin(turn)
        return torch.hypot(along / axes[0], across / axes[1])

    middle = (uniform(-0.05, 0.05), uniform(-0.05, 0.05))
    axes = (uniform(0.72, 0.86), uniform(0.58, 0.70))
    tilt = uniform(-8, 8)
    head = radius(middle, axes, tilt) + 0.01 * waves(6)
    brain = head < 0.84
    image = torch.zeros(3, size, size)

    def paint(where: Tensor, brightness: tuple[float, float, float]) -> None:
        image[:, where] = torch.tensor(brightness)[:, None]

    paint(head < 1.0, SCALP)
    paint(head < 0.93, SKULL)
    paint(brain, GRAY_MATTER)
    # White matter reaches into the folds of the cortex, which grow thinner towards the middle.
    paint(brain & (head + 0.10 * waves(14) < 0.72), WHITE_MATTER)

    opening = uniform(0.6, 1.2)
    for side in (-1, 1):
        center = (middle[0] + 0.03 * side, middle[1] + side * 0.10)
        horn = radius(center, (0.24 * opening, 0.06 * opening), tilt + side * 18) + 0.06 * waves(8)
        paint(brain & (horn < 1), VENTRICLES)

    mask = torch.zeros(size, size, dtype=torch.bool)
    drawn = uniform(0, 1) < 1 / 3
    lesions = int(drawn) if lesion is None else int(lesion)
    low, high = (bound / max(lesions, 1) ** 0.5 for bound in (0.10, 0.26))
    for k in range(lesions):  # each in a sector of its own
        angle, distance = 2 * math.pi * (k + uniform(0, 1)) / lesions, uniform(0.25, 0.55)
        center = (middle[0] + distance * axes[0] * math.sin(angle), middle[1] + distance * axes[1] * math.cos(angle))
        extent = radius(center, (uniform(low, high), uniform(low, high)), uniform(0, 180)) + 0.14 * waves(7)
        own = brain & (extent < 1)
        paint(own, LESION)
        paint(own & (extent < 0.55) & (extent > 0.35), LESION_RIM)
        mask |= own

    image = _blur(image) * (1 + 0.04 * waves(20))
    image = image * torch.exp(0.12 * waves(2))
    noise = uniform(0.01, 0.03) * torch.randn(2, 3, size, size, generator=generator)
    image = torch.hypot(image + noise[0], noise[1])
    return Phantom(image.clamp(0, 1), mask[None].float())


def _blur(image: Tensor) -> Tensor:
    """Partial volume: 3x3 binomial filter."""
    row = torch.tensor([0.25, 0.5, 0.25])
    kernel = torch.outer(row, row).expand(3, 1, 3, 3)
    return F.conv2d(F.pad(image[None], (1, 1, 1, 1), mode="replicate"), kernel, groups=3)[0]


def write_phantoms(root: str | Path, *, patients: int, slices: int, size: int = 256, seed: int = 0) -> None:
    """Writes phantoms as patients in Kaggle's layout, with a split.json: a quarter validates.

    Args:
        root: folder of the data, made if absent.
        patients: how many, at least 2; their institutions take turns.
        slices: how many each has; the middle third has a lesion, at least one or two slices.
        size: height and width in pixels.
        seed: of all of them.

    Raises:
        ValueError: fewer than 2 patients, or a size below 32.
    """
    try:
        from PIL import Image
        from rich.console import Console
        from rich.progress import track
    except ImportError as error:
        raise ImportError(f'writing phantoms needs {error.name}: pip install "brainseg-torch[data]"') from error
    if patients < 2:
        raise ValueError(f"one patient trains and another validates; expected at least 2 patients, got {patients}")
    root = Path(root).expanduser()
    institutions = ("CS", "DU", "FG", "HT")
    names = [f"TCGA_{institutions[i % 4]}_{i + 1:04}_20000101" for i in range(patients)]
    console = Console(stderr=True)
    for i, name in enumerate(track(names, "Drawing phantoms", console=console, transient=True)):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(1, slices + 1):
            lesion = abs(number - (slices + 1) / 2) <= max(slices / 6, 0.5)
            image, mask = phantom((seed * patients + i) * slices + number, size=size, lesion=lesion)
            for pixels, suffix in ((image.permute(1, 2, 0), ""), (mask[0], "_mask")):
                array = (pixels * 255).round().numpy().astype(np.uint8)
                Image.fromarray(array).save(root / name / f"{name}_{number}{suffix}.tif")
    write_split(split_patients(names, validation=0.25, seed=seed), root / "split.json")
