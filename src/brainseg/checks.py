"""Checks of arguments that every layer shares: the value comes back as a plain one, or a ValueError names it."""

import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any, SupportsFloat, get_args


def check_count(name: str, value: Any) -> int:
    """The value as a plain integer (numpy's are welcome); ValueError unless it is a positive one."""
    try:
        count = operator.index(value)
    except TypeError:
        count = 0
    if isinstance(value, bool) or count < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
    return count


def check_counts(name: str, values: Any, number: int | None = None) -> list[int]:
    """So many plain positive integers, or two and more; ValueError for anything else."""
    counts = [] if isinstance(values, str) or not isinstance(values, Iterable) else list(values)
    if len(counts) != number if number else len(counts) < 2:
        raise ValueError(f"{name} must be {number or 'two or more'} positive integers, got {values!r}")
    return [check_count(f"each of {name}", count) for count in counts]


def check_choice(name: str, value: Any, choices: Any) -> None:
    """ValueError unless the value is one of the choices, which are those of a Literal or a sequence of words."""
    words: Sequence[Any] = get_args(choices) or choices
    if value not in words:
        raise ValueError(f"{name} must be one of {', '.join([repr(word) for word in words])}, got {value!r}")


def check_finite(name: str, value: Any) -> float:
    """The value as a plain number; ValueError unless it is finite."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    return float(value)


def check_between(name: str, value: Any, low: float, high: float) -> float:
    """The value as a plain number; ValueError unless it lies within low and high, ends included."""
    # A plain `or` of types: torch 2.9 cannot compile a union here.
    number = not isinstance(value, (bool, str)) and isinstance(value, (int, float, SupportsFloat))
    if not number or not low <= float(value) <= high:
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {value!r}")
    return float(value)


def check_rate(name: str, value: Any) -> float:
    """The value as a plain number; ValueError unless it lies in [0, 1)."""
    if isinstance(value, bool | str) or not isinstance(value, SupportsFloat) or not 0 <= float(value) < 1:
        raise ValueError(f"{name} must lie in [0, 1), got {value!r}")
    return float(value)


def check_range(
    name: str,
    values: Any,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> tuple[float, float]:
    """Lowest and highest value as plain numbers; ValueError unless these are two, in order and within the bounds."""
    try:
        low, high = (float(value) for value in values)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    bounds = {"above": above, "from": least, "up to": most, "below": below}
    fits = (
        not isinstance(values, str)
        and -math.inf < low <= high < math.inf
        and (above is None or low > above)
        and (least is None or low >= least)
        and (most is None or high <= most)
        and (below is None or high < below)
    )
    if not fits:
        limits = " ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)
        raise ValueError(f"{name} must be a lowest and a highest number{', ' * bool(limits)}{limits}, got {values!r}")
    return low, high
