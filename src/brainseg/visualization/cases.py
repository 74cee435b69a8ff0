"""Cases side by side: each slice as it is, and with what is there and what was found."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from numpy.typing import ArrayLike

from brainseg.visualization.outlines import PREDICTED_COLOR, TRUE_COLOR, draw_outlines

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ShownCase(NamedTuple):
    """A slice to show.

    Attributes:
        title: above it.
        image: (H, W), (1, H, W) or (3, H, W), in [0, 1].
        target: true mask, (H, W) or (1, H, W).
        prediction: predicted mask, likewise.
    """

    title: str
    image: ArrayLike
    target: ArrayLike
    prediction: ArrayLike


def draw_cases(cases: Sequence[ShownCase]) -> "Figure":
    """A column for each case: the slice, and below it the same with the true outline green and the predicted one red.

    Raises:
        ValueError: no cases, or shapes that do not fit.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    if not cases:
        raise ValueError("there is no case to draw; give at least one")
    figure = Figure(figsize=(3 * len(cases), 6.6), layout="constrained")
    rows = figure.subplots(2, len(cases), squeeze=False)
    for case, plain, outlined in zip(cases, *rows, strict=True):
        draw_outlines(plain, case.image)
        draw_outlines(outlined, case.image, case.target, case.prediction)
        plain.set_title(case.title, fontsize=9)
    handles = [
        Line2D([], [], color=color, label=label)
        for color, label in ((TRUE_COLOR, "true"), (PREDICTED_COLOR, "predicted"))
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    return figure
