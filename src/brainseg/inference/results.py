"""What is written of a prediction, of slices and of volumes alike."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from brainseg._whole import written_whole
from brainseg.models import ModelSpec

LABELS = "labels"
RESULT = re.compile(r"_(mask(_\d+)?|labels|instances|overlay)$")
"""The end of the name of what is written, without suffix."""


def by_kind(masks: Tensor, spec: ModelSpec) -> dict[str, NDArray[Any]]:
    """Masks (..., K, H, W) as the arrays (..., H, W) of the files that they become, by the end of their names.

    Of classes that exclude each other one map of the spec's `label_values`, "labels", uint8 if these allow, or
    uint16; else 0 and 1, "mask", or "mask_0" and so on.
    """
    if spec.task == "multiclass":
        return {LABELS: _label_values(spec)[masks.byte().argmax(-3).numpy()]}
    each = masks.byte().numpy()
    return {name: each[..., k, :, :] for k, name in enumerate(kinds(spec))}


def read_foreground(read: Callable[[str], NDArray[Any]], spec: ModelSpec) -> NDArray[np.bool_]:
    """The masks (..., K, H, W) that files hold, all classes but the background.

    Args:
        read: what the file of a kind, as in `by_kind`, holds: (..., H, W), positive where something is.
        spec: of the network that found it.
    """
    if spec.task == "multiclass":
        labels = read(LABELS)
        return np.stack([labels == value for value in _label_values(spec)[1:]], axis=-3)
    return np.stack([read(kind) > 0 for kind in kinds(spec)], axis=-3)


def _label_values(spec: ModelSpec) -> NDArray[Any]:
    values = spec.label_values or range(spec.num_classes)
    return np.array(values, np.min_scalar_type(max(values)))


def kinds(spec: ModelSpec) -> list[str]:
    """What is written of each image or volume, by the end of its name."""
    if spec.task == "multiclass":
        return [LABELS]
    return ["mask"] if spec.num_classes == 1 else [f"mask_{k}" for k in range(spec.num_classes)]


def result_path(place: Path, kind: str) -> Path:
    """The picture of a kind that is written of an image: `<name>_<kind>.png`."""
    return place.with_name(f"{place.name}_{kind}.png")


def blank_overlay(height: int, width: int, pixels: int = 512) -> tuple[Figure, Axes]:
    """A figure for a slice of these sides alone, its longer side this many pixels wide."""
    unit = pixels / max(height, width) / 100
    figure = Figure(figsize=(width * unit, height * unit), dpi=100)
    return figure, figure.add_axes((0, 0, 1, 1))


def probabilities_path(place: Path) -> Path:
    """`<name>_probabilities.npy`."""
    return place.with_name(f"{place.name}_probabilities.npy")


def write_probabilities(probabilities: Tensor, place: Path) -> None:
    """Writes them to their path, in one move."""
    with written_whole(probabilities_path(place)) as partial, partial.open("wb") as stream:
        np.save(stream, probabilities.numpy())
