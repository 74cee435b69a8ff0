"""Unknown names are answered with the closest ones."""

from collections.abc import Iterable
from difflib import get_close_matches


def no_such(kind: str, name: str, known: Iterable[str], *, most: int = 3) -> str:
    """What was asked for, and what may have been meant; the first ten of `known` if nothing is close.

    >>> no_such("model", "unex", ["unext", "unet", "resunet"], most=1)
    "there is no model 'unex'; did you mean unext?"
    """
    known = list(known)
    closest = get_close_matches(name, known, n=most) or known[:10]
    return f"there is no {kind} {name!r}; did you mean {' or '.join(closest)}?"
