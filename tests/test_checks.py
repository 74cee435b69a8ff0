"""One wording for each check, whichever layer calls it."""

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest

from brainseg.checks import (
    check_between,
    check_choice,
    check_count,
    check_counts,
    check_finite,
    check_range,
    check_rate,
)

Word = Literal["mean", "sum"]


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: check_count("depth", 0), "depth must be a positive integer, got 0"),
        (lambda: check_count("depth", True), "depth must be a positive integer, got True"),
        (lambda: check_count("depth", 2.0), "depth must be a positive integer, got 2.0"),
        (lambda: check_counts("size", (3,), 2), r"size must be 2 positive integers, got \(3,\)"),
        (lambda: check_counts("widths", "34"), "widths must be two or more positive integers, got '34'"),
        (lambda: check_choice("word", "max", Word), "word must be one of 'mean', 'sum', got 'max'"),
        (lambda: check_choice("word", None, ["a", "b"]), "word must be one of 'a', 'b', got None"),
        (lambda: check_finite("value", math.inf), "value must be a finite number, got inf"),
        (lambda: check_between("share", 1.5, 0, 1), r"share must lie in \[0, 1\], got 1.5"),
        (lambda: check_between("share", math.nan, 0, 1), r"share must lie in \[0, 1\], got nan"),
        (lambda: check_between("share", "0.5", 0, 1), r"share must lie in \[0, 1\], got '0.5'"),
        (lambda: check_between("share", False, 0, 1), r"share must lie in \[0, 1\], got False"),
        (lambda: check_rate("drop", 1.0), r"drop must lie in \[0, 1\), got 1.0"),
        (
            lambda: check_range("gamma", (2, 1), above=0),
            r"gamma must be a lowest and a highest number, above 0, got \(2",
        ),
    ],
)
def test_what_cannot_be_is_named(check: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check()


def test_numbers_of_numpy_come_back_as_plain_ones() -> None:
    values = (
        check_count("n", np.int64(3)),
        check_between("x", np.float32(0.5), 0, 1),
        check_rate("r", np.float64(0.25)),
    )
    assert values == (3, 0.5, 0.25)
    assert [type(value) for value in values] == [int, float, float]
