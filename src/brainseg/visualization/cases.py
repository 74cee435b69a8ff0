"""Cases side by side: each slice as it is, and with what is there and what was found."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from numpy.typing import ArrayLike

from brainseg.visualization.outlines import PREDICTED_COLOR, TRUE_COLOR, as_array, class_colors, draw_outlines

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ShownCase(NamedTuple):
    """A slice to show.

    Attributes:
        title: above it.
        image: (H, W), (1, H, W) or (3, H, W), in [0, 1].
        target: true mask, (H, W) or (1, H, W), or those of K classes, (K, H, W).
        prediction: predicted mask, likewise.
    """

    title: str
    image: ArrayLike
    target: ArrayLike
    prediction: ArrayLike


def draw_cases(cases: Sequence[ShownCase], class_names: Sequence[str] = ()) -> "Figure":
    """A column for each case: the slice, and below it the same with the true outline green and the predicted one red.

    Several classes have a colour each, and the true outlines are dashed.

    Args:
        cases: whose masks all have as many classes.
        class_names: of the K classes, for the legend; one class needs none.

    Raises:
        ValueError: no cases, shapes that do not fit, or masks of another number of classes than there are names.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    if not cases:
        raise ValueError("there is no case to draw; give at least one")
    numbers = {_num_classes(mask) for case in cases for mask in (case.target, case.prediction)}
    if numbers != {max(len(class_names), 1)}:
        raise ValueError(f"masks have {sorted(numbers)} classes, and names are {list(class_names)}; give one for each")
    figure = Figure(figsize=(3 * len(cases), 6.6), layout="constrained")
    rows = figure.subplots(2, len(cases), squeeze=False)
    for case, plain, outlined in zip(cases, *rows, strict=True):
        draw_outlines(plain, case.image)
        draw_outlines(outlined, case.image, case.target, case.prediction)
        plain.set_title(case.title, fontsize=9)
    legend = [Line2D([], [], color=color, label=name) for name, color in _colors(class_names)]
    if len(class_names) > 1:
        legend += [Line2D([], [], color="gray", linestyle="dashed", label="true")]
        legend += [Line2D([], [], color="gray", label="predicted")]
    figure.legend(handles=legend, loc="outside lower center", ncols=min(len(legend), 6), fontsize=9, frameon=False)
    return figure


def _colors(class_names: Sequence[str]) -> Sequence[tuple[str, Any]]:
    """What the lines of the legend mean, and their colours."""
    if len(class_names) < 2:
        return [("true", TRUE_COLOR), ("predicted", PREDICTED_COLOR)]
    return list(zip(class_names, class_colors(len(class_names)), strict=True))


def _num_classes(mask: ArrayLike) -> int:
    shape = as_array(mask).shape
    return shape[0] if len(shape) == 3 else 1
