"""Weights that come with the package, by name."""

import hashlib
import json
import logging
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import brainseg

SHIPPED = Path(brainseg.__file__).parent / "weights"
CHECKSUMS = "SHA256.json"
LICENCE = "CC BY-NC-SA 4.0"

EXAMPLE = SHIPPED / "unext" / "lgg" / "example.png"
"""A slice to try `unext/lgg` on, 256x256, which has been trained on it; where it is from says the model card."""

logger = logging.getLogger(__name__)


def list_weights(pattern: str = "*") -> list[str]:
    """Names of the weights that come with the package, "network/tag", that match a shell pattern.

    Each is a folder of `brainseg/weights` with its model card, README.md: data, scores, limits. They are licensed under
    CC BY-NC-SA 4.0, as the data is that they were trained on.

    >>> list_weights()
    ['unext/lgg', 'unext_small/lgg']
    """
    return [name for name in _checksums() if fnmatchcase(name, pattern)]


def shipped_folder(name: str) -> Path:
    """The folder of one of `list_weights()`, its files verified, its licence logged once.

    Raises:
        ValueError: its files are not those that were released.
    """
    folder = SHIPPED / name
    for file, expected in _checksums()[name].items():
        path = folder / file
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise ValueError(f"{path} is missing or not the file that was released; install brainseg-torch again")
    _log_licence(name)
    return folder


def _checksums() -> dict[str, dict[str, str]]:
    """Of each file of each name."""
    checksums: dict[str, dict[str, str]] = json.loads((SHIPPED / CHECKSUMS).read_text())
    return checksums


@cache
def _log_licence(name: str) -> None:
    logger.warning(
        "the weights %s are licensed under %s, for non-commercial use, and are no medical device: %s",
        name,
        LICENCE,
        SHIPPED / name / "README.md",
    )
