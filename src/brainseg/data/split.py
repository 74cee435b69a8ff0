"""Splits by patient, as JSON files: {"train": [...], "validation": [...], "test": [...]}."""

import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import numpy as np

Split = dict[str, list[str]]

PARTS = ("train", "validation", "test")


def institution(patient: str) -> str:
    """The two letters of a TCGA barcode that name the hospital; "other" for other names.

    >>> institution("TCGA_DU_5851_19950428")
    'DU'
    """
    match = re.match(r"TCGA_(\w\w)_", patient)
    return match[1] if match else "other"


@overload
def split_patients(
    patients: Iterable[str], *, validation: float = ..., test: float = ..., seed: int, folds: None = None
) -> Split: ...


@overload
def split_patients(
    patients: Iterable[str], *, validation: float = ..., test: float = ..., seed: int, folds: int
) -> list[Split]: ...


def split_patients(
    patients: Iterable[str], *, validation: float = 0.2, test: float = 0.0, seed: int, folds: int | None = None
) -> Split | list[Split]:
    """Splits by patient, each institution in proportion.

    In every part the number of patients of an institution is its share, rounded up or down.

    Args:
        patients: their names, each once.
        validation: share of the patients to validate on; with `folds` each fold has one in `folds` of those left.
        test: share of the patients to keep for the end.
        seed: of the draw.
        folds: None for one split; k for k splits in which each patient outside the test part validates once.

    Returns:
        {"train": [...], "validation": [...], "test": [...]}, names sorted; a list of them with `folds`.

    Raises:
        ValueError: shares that leave nobody to train on, fewer patients than folds, or a patient given twice.
    """
    names = sorted(patients)
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"patient {twice!r} is given twice; give each once")
    if not (0 <= validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise ValueError(f"validation={validation} and test={test} must be shares whose sum is below 1")
    rng = np.random.default_rng(seed)
    # By institution, in random order within each, so that every k-th name takes each institution in proportion.
    order = sorted(rng.permutation(names).tolist(), key=institution)
    chosen = _every(order, round(test * len(order)), rng)
    rest = [name for name in order if name not in chosen]
    if folds is None:
        parts = [_every(rest, round(validation * len(order)), rng)]
    elif 2 <= folds <= len(rest):
        parts = [set(rest[first::folds]) for first in range(folds)]
    else:
        raise ValueError(f"folds={folds} must lie between 2 and the {len(rest)} patients to train on")
    splits = [{"train": sorted(set(rest) - part), "validation": sorted(part), "test": sorted(chosen)} for part in parts]
    if not all(split["train"] for split in splits):
        raise ValueError(f"{len(names)} patients leave nobody to train on; give more or smaller shares")
    return splits[0] if folds is None else splits


def _every(names: Sequence[str], count: int, rng: np.random.Generator) -> set[str]:
    """So many names at equal distances, from a random start."""
    start = rng.random()
    return {names[math.floor((i + start) * len(names) / count)] for i in range(count)}


def split_slices_leaking(slices: int, *, validation: float = 0.2, seed: int) -> tuple[list[int], list[int]]:
    """Splits slices regardless of patients, as the published course experiments did: scores on it are memory.

    Slices of one patient resemble each other and fall on both sides. For comparison with such results only.

    Args:
        slices: how many there are.
        validation: share of the slices to validate on, rounded up.
        seed: of the draw.

    Returns:
        indices to train and to validate on, sorted, for `torch.utils.data.Subset`.
    """
    order = np.random.default_rng(seed).permutation(slices).tolist()
    count = math.ceil(validation * slices)
    return sorted(order[count:]), sorted(order[:count])


def read_split(path: str | Path) -> Split:
    """Reads a split; parts that it does not name are empty.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a split, or a patient in two parts.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no split {path}; split_patients makes one")
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f'{path} is no JSON ({error}); expected {{"train": [...], "validation": [...]}}') from error
    sound = isinstance(content, dict) and content.keys() <= set(PARTS) and content.get("train")
    if not sound or not all(isinstance(names, list) for names in content.values()):
        raise ValueError(f'{path} is no split; expected {{"train": [...], "validation": [...], "test": [...]}}')
    every = [name for names in content.values() for name in names]
    if not all(isinstance(name, str) for name in every):
        raise ValueError(f"{path} holds names that are no strings; expected the names of the patients' folders")
    if twice := sorted(name for name in set(every) if every.count(name) > 1):
        raise ValueError(f"{path} names {twice[0]} {every.count(twice[0])} times; a patient belongs to one part")
    return {part: content.get(part, []) for part in PARTS}


def write_split(split: Split, path: str | Path) -> None:
    """Writes a split for `read_split`, in one move."""
    path = Path(path)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(split, indent=1) + "\n")
    partial.replace(path)
