"""Means over patients and classes, where some have no value."""

import math
from collections.abc import Callable, Iterable
from statistics import fmean

Take = Callable[[list[float]], float]


def over_known(take: Take, values: Iterable[float]) -> float:
    """Mean, median or worst of the values that are numbers; NaN without any."""
    known = [value for value in values if not math.isnan(value)]
    return take(known) if known else math.nan


def over_classes(take: Take, columns: Iterable[Iterable[float]]) -> float:
    """The mean over the classes of what is taken over the patients of each; NaN without any."""
    return over_known(fmean, [over_known(take, column) for column in columns])
