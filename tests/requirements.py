"""What the package asks for, and what that asks for in turn."""

import re
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def canonical(name: str) -> str:
    """As PEP 503 writes a distribution's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def required(extra: str) -> set[str]:
    """Installed distributions that come with an extra, "" for none, by their canonical names; ours is not one."""
    seen: dict[str, set[str]] = {}
    waiting = [(PROJECT["name"], {extra})]
    while waiting:
        name, extras = waiting.pop()
        new = {"", *extras} - seen.setdefault(canonical(name), set())
        seen[canonical(name)] |= new
        for requirement in map(Requirement, _asked(name, new)):
            marker = requirement.marker
            if new and (marker is None or any(marker.evaluate({"extra": extra}) for extra in new)):
                waiting.append((requirement.name, requirement.extras))
    del seen[canonical(PROJECT["name"])]
    return {name for name in seen if _installed(name)}


def _asked(name: str, extras: Iterable[str]) -> list[str]:
    if name == PROJECT["name"]:  # of an editable installation the metadata may be old
        return [*PROJECT["dependencies"], *(line for extra in extras if extra for line in EXTRAS[extra])]
    return (metadata.requires(name) or []) if _installed(name) else []


def _installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True
