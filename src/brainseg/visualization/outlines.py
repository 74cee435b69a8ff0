"""Slices with the outlines of true and predicted masks."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Color = str | tuple[float, float, float]
TRUE_COLOR, PREDICTED_COLOR = "lime", "red"


def class_colors(number: int) -> list[tuple[float, float, float]]:
    """A colour for each of so many classes, light enough for dark slices: hues as far apart as they can be."""
    from matplotlib.colors import hsv_to_rgb

    return [tuple(hsv_to_rgb((k / number, 0.7, 1.0)).tolist()) for k in range(number)]


def outline_colors(number: int) -> list[tuple[Color, Color]]:
    """For each of so many classes the colours of its true and of its predicted outline.

    Of several classes both are that of `class_colors`, and the true outline is dashed.
    """
    if number == 1:
        return [(TRUE_COLOR, PREDICTED_COLOR)]
    return [(color, color) for color in class_colors(number)]


def draw_outlines(
    axes: "Axes", image: ArrayLike, target: ArrayLike | None = None, prediction: ArrayLike | None = None
) -> None:
    """Draws a slice in gray or colour, the true mask's outline in green and the predicted one's in red.

    Masks of several classes have a colour each, that of `class_colors`; the true outlines are dashed then.

    Args:
        axes: matplotlib axes; their ticks are taken off.
        image: (H, W), (1, H, W) or (3, H, W), in [0, 1]; tensors on the CPU or arrays.
        target: true mask, (H, W) or (1, H, W), or those of K classes, (K, H, W); None or empty draws nothing.
        prediction: predicted mask, likewise.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> figure, axes = plt.subplots()  # doctest: +SKIP
        >>> draw_outlines(axes, image, target, logits > 0)  # doctest: +SKIP
    """
    picture = as_array(image)
    if picture.ndim == 3 and len(picture) in (1, 3):
        picture = picture[0] if len(picture) == 1 else np.moveaxis(picture, 0, -1)
    elif picture.ndim != 2:
        raise ValueError(f"an image of shape {picture.shape} is no slice; give (H, W), (1, H, W) or (3, H, W)")
    if picture.dtype.kind != "f":
        raise ValueError(f"an image of {picture.dtype} is not in [0, 1]; give image / 255")
    axes.imshow(np.clip(picture, 0, 1), cmap="gray", vmin=0, vmax=1)
    axes.autoscale(False)  # outlines at the border would widen the view
    for kind, (given, style) in enumerate(((target, "dashed"), (prediction, "solid"))):
        masks = _as_masks(given, picture.shape[:2]) if given is not None else ()
        for mask, colors in zip(masks, outline_colors(len(masks)), strict=True):
            draw_outline(axes, mask, colors[kind], style if len(masks) > 1 else "solid")
    axes.set_axis_off()


def draw_outline(axes: "Axes", mask: NDArray[np.bool_], color: Any, style: str = "solid") -> None:
    """Draws the outline of a mask (H, W), or nothing if it is empty."""
    if mask.any():
        axes.contour(*_framed(mask), levels=[0.5], colors=[color], linewidths=1, linestyles=style)


def _framed(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int_], NDArray[np.int_], NDArray[np.float32]]:
    """Columns, rows and values of a mask in a frame of background, which closes outlines that touch the border."""
    height, width = mask.shape
    return np.arange(-1, width + 1), np.arange(-1, height + 1), np.pad(mask, 1).astype(np.float32)


def outline_path(mask: NDArray[np.bool_]) -> str:
    """The outline that `draw_outlines` draws, as the data of an SVG path in half pixels; empty of an empty mask.

    The picture's upper left corner is the origin, so that the centre of the first pixel lies at (1, 1).

    Args:
        mask: (H, W) bool.

    >>> outline_path(np.array([[True]]))
    'M0 1l1-1 1 1-1 1z'
    """
    from contourpy import contour_generator

    if not mask.any():
        return ""
    columns, rows, values = _framed(mask)
    parts = []
    for line in contour_generator(columns, rows, values).lines(0.5):
        points = (2 * np.asarray(line) + 1).round().astype(int)
        steps = np.diff(points, axis=0)
        # Neighbours of one direction are one step; the last one is what closing draws.
        turns = np.flatnonzero((np.diff(steps, axis=0) != 0).any(1)) + 1
        x, y = points[0]
        joined = np.add.reduceat(steps, [0, *turns], axis=0)[:-1].ravel()
        parts.append(f"M{x} {y}l{' '.join(map(str, joined)).replace(' -', '-')}z")
    return "".join(parts)


def as_array(values: ArrayLike) -> NDArray[Any]:
    """Of a tensor without its gradient, half precision widened: numpy knows neither."""
    if isinstance(values, Tensor):
        values = values.detach().float() if values.is_floating_point() else values.detach()
    return np.asarray(values)


def _as_masks(masks: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """(K, H, W)."""
    array = as_array(masks)
    if array.ndim not in (2, 3) or array.shape[-2:] != shape:
        raise ValueError(
            f"a mask of shape {array.shape} does not fit an image of {shape}; give (H, W), or (K, H, W) of K classes"
        )
    return array.reshape(-1, *shape) > 0.5
