"""Unknown names are answered with near ones, or with what there is."""

from collections.abc import Iterable
from difflib import get_close_matches

SHOWN = 20


def no_such(kind: str, name: str, known: Iterable[str], *, most: int = 3) -> str:
    """What was asked for, and what may have been meant; where nothing is near, what there is.

    >>> no_such("model", "unex", ["unext", "unet", "resunet"], most=1)
    "there is no model 'unex'; did you mean unext?"
    >>> no_such("model", "segformer", ["unext", "unet", "resunet"])
    "there is no model 'segformer'; there are unext, unet, resunet."
    """
    known = list(known)
    by_lower = {other.lower(): other for other in known}
    if near := get_close_matches(name.lower(), by_lower, n=most):
        return f"there is no {kind} {name!r}; did you mean {' or '.join(by_lower[other] for other in near)}?"
    # Of very many the first say nothing.
    there_are = ", ".join(known) if len(known) <= SHOWN else f"{len(known)} others"
    return f"there is no {kind} {name!r}; there are {there_are}."
