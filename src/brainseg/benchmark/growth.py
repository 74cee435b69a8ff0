"""How the cost of a network grows with pixels and with images."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

POINTS = 3
"""So few sizes or batches show no slope."""


@dataclass(frozen=True)
class Growth:
    """The times of one row over tables that differ in one thing alone.

    Attributes:
        name: the row.
        against: "pixels" of an image, or "images" of a batch.
        where: what the tables have in common, in words.
        counts: pixels or images, rising.
        milliseconds: median of a call, for each of them.
        slope: of the line of least squares through the logarithms: 1 is time in proportion, below it a fixed part.
        steepest: the largest slope between two neighbours.
    """

    name: str
    against: Literal["pixels", "images"]
    where: str
    counts: tuple[int, ...]
    milliseconds: tuple[float, ...]
    slope: float
    steepest: float


def find_growth(tables: Sequence[Mapping[str, Any]]) -> list[Growth]:
    """Every row of a report's tables that was measured at three sizes or batches, or more."""
    pixels: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    images: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for table in tables:
        labels = table["labels"]
        if not {"device", "mode", "size", "batch"} <= labels.keys():
            continue
        size, batch = int(labels["size"]), int(labels["batch"])
        place = f"{labels['mode']} on {labels['device']}"
        for row in table["rows"]:
            if row["median_ms"] is not None:
                pixels[row["name"], f"{place}, batch {batch}"][size * size] = row["median_ms"]
                images[row["name"], f"{place}, {size}x{size}"][batch] = row["median_ms"]
    return [
        _growth(name, against, where, times)
        for against, found in (("pixels", pixels), ("images", images))
        for (name, where), times in found.items()
        if len(times) >= POINTS
    ]


def _growth(name: str, against: Any, where: str, times: Mapping[int, float]) -> Growth:
    counts, milliseconds = zip(*sorted(times.items()), strict=True)
    x, y = np.log(counts), np.log(milliseconds)
    slope = float(np.polyfit(x, y, 1)[0])
    return Growth(name, against, where, counts, milliseconds, slope, float((np.diff(y) / np.diff(x)).max()))


def parts(growths: Sequence[Growth]) -> dict[str, list[Growth]]:
    """Growths that belong into one plot, by its title."""
    found: dict[str, list[Growth]] = defaultdict(list)
    for growth in growths:
        found[f"{growth.against}, {growth.where}"].append(growth)
    return dict(found)
