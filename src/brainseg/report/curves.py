"""Curves of a training, as paths of a drawing."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 480, 200
"""Units of the drawing."""


class Curve(NamedTuple):
    """A line of a chart.

    Attributes:
        name: of what it shows.
        path: data of an SVG path, in units of the drawing, interrupted where there is no finite number.
        last: its last value.
    """

    name: str
    path: str
    last: float


class Chart(NamedTuple):
    """Curves over epochs, on one scale.

    Attributes:
        title: above it.
        curves: in the order of their colours.
        rows: of the grid: what stands at it, and its height.
        columns: likewise, epochs.
        mark: place of the epoch that was kept; None if it is not known.
    """

    title: str
    curves: list[Curve]
    rows: list[tuple[str, float]]
    columns: list[tuple[str, float]]
    mark: float | None


def create_chart(
    title: str, epochs: Sequence[int], values: Mapping[str, Sequence[float]], *, kept: int | None = None
) -> Chart:
    """Scales curves to the drawing, from the smallest to the largest value and 0 in any case.

    Args:
        title: above it.
        epochs: at least one, rising.
        values: of each curve as many, by its name; NaN where there is none.
        kept: the epoch to mark.
    """
    from matplotlib.ticker import MaxNLocator

    known = [0.0, *(value for curve in values.values() for value in curve if math.isfinite(value))]
    ends = (min(known), max(known)) if any(known) else (0.0, 1.0)
    ticks = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(*ends)
    low, high = float(ticks[0]), float(ticks[-1])
    first, span = epochs[0], max(epochs[-1] - epochs[0], 1)

    def across(epoch: float) -> float:
        return round(WIDTH * (epoch - first) / span, 1)

    def up(value: float) -> float:
        return round(HEIGHT * (high - value) / (high - low), 1)

    def path(curve: Sequence[float]) -> str:
        parts, pen = [], "M"
        for epoch, value in zip(epochs, curve, strict=True):
            if math.isfinite(value):
                parts.append(f"{pen}{across(epoch)} {up(value)}")
            pen = "L" if math.isfinite(value) else "M"
        return "".join(parts)

    at = MaxNLocator(6, steps=[1, 2, 5, 10], integer=True).tick_values(first, epochs[-1])
    return Chart(
        title,
        [Curve(name, path(curve), curve[-1]) for name, curve in values.items()],
        [(f"{tick:g}", up(tick)) for tick in ticks],
        [(f"{tick:g}", across(tick)) for tick in at if first <= tick <= epochs[-1]],
        None if kept is None else across(kept),
    )
