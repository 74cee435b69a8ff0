"""Slices with the objects that were found on them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from numpy.typing import ArrayLike
from torch import Tensor

from brainseg.visualization.outlines import class_colors, draw_outline, draw_outlines

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class BoxedInstances(Protocol):
    """Objects of an image, such as `brainseg.models.mask_dino.Instances`."""

    @property
    def scores(self) -> Tensor:
        """(r,)."""

    @property
    def classes(self) -> Tensor:
        """(r,) integers."""

    @property
    def boxes(self) -> Tensor:
        """(r, 4) corners x0, y0, x1, y1 in pixels."""

    @property
    def masks(self) -> Tensor:
        """(r, H, W) bool."""


def draw_instances(axes: "Axes", image: ArrayLike, instances: BoxedInstances, class_names: Sequence[str]) -> None:
    """Draws a slice, and of each object the outline, the box, and its class and score, all in a colour of its own.

    Args:
        axes: matplotlib axes; their ticks are taken off.
        image: (H, W), (1, H, W) or (3, H, W), in [0, 1]; a tensor on the CPU or an array.
        instances: on the CPU.
        class_names: of all classes, such as `ModelSpec.class_names`.

    Raises:
        ValueError: shapes that do not fit, or a class without a name.
    """
    from matplotlib.patches import Rectangle

    classes = instances.classes.tolist()
    if classes and max(classes) >= len(class_names):
        raise ValueError(f"class {max(classes)} has no name; got {', '.join(class_names)}")
    draw_outlines(axes, image)
    colors = class_colors(len(classes))
    found = zip(classes, instances.scores.tolist(), instances.boxes.tolist(), instances.masks, colors, strict=True)
    for k, score, (left, top, right, bottom), mask, color in found:
        draw_outline(axes, mask.numpy(), color)
        # A pixel reaches half a pixel to each side of its place.
        axes.add_patch(
            Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, edgecolor=color, linewidth=0.8)
        )
        above = top > mask.shape[0] / 16
        axes.annotate(
            f"{class_names[k]} {score:.2f}",
            (max(left, 0) - 0.5, (top if above else bottom) - 0.5),
            xytext=(0, 2 if above else -2),
            textcoords="offset points",
            verticalalignment="bottom" if above else "top",
            color=color,
            fontsize=8,
        )
