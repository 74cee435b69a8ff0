"""Which patient, and which of its slices, an image is."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Literal

from brainseg.data.files import name_of, one_spelling
from brainseg.data.tables import read_column


def places_of(
    root: Path, names: list[str], pattern: str | None
) -> tuple[Literal["patient", "image"], dict[str, tuple[str, int]]]:
    """Patient and slice of each image of `ImageMaskFolder`, whose docstring says how they are found.

    Args:
        root: the folder that holds `images`, and maybe `patients.csv`.
        names: of the images, with their folders and without suffix.
        pattern: regular expression of the names, or None.

    Returns:
        "patient", or "image" where each image counts as one; and patient and number of the slice by name.

    Raises:
        ValueError: an image without a patient, by name.
    """
    if pattern is not None:
        return "patient", _by_pattern(root, names, pattern)
    if (root / "patients.csv").is_file():
        return "patient", _numbered(_by_table(root, names))
    loose = [name for name in names if "/" not in name]
    if not loose:
        return "patient", _numbered({name: name.partition("/")[0] for name in names})
    if len(loose) < len(names):
        raise ValueError(
            f"{root / 'images' / loose[0]}.* lies beside folders, which are those of patients; move it into one"
        )
    return "image", {name: (name, 0) for name in names}


def _by_pattern(root: Path, names: list[str], pattern: str) -> dict[str, tuple[str, int]]:
    try:
        expression = re.compile(one_spelling(pattern))
    except re.error as error:
        raise ValueError(f"patient_pattern {pattern!r} is no regular expression: {error}") from error
    if "patient" not in expression.groupindex:
        raise ValueError(rf"patient_pattern {pattern!r} has no group patient; write (?P<patient>.+)_\d+ for a_1, a_2")
    patients, slices = {}, {}
    for name in names:
        match = expression.fullmatch(name)
        if match is None or not match["patient"]:
            raise ValueError(f"{root / 'images' / name}.* does not fit patient_pattern {pattern!r}; change one of them")
        patients[name] = match["patient"]
        if "slice" in expression.groupindex:
            if not (match["slice"] or "").isdecimal():
                raise ValueError(f"{root / 'images' / name}.* has the slice {match['slice']!r}, expected a number")
            slices[name] = int(match["slice"])
    return {name: (patients[name], slices[name]) for name in names} if slices else _numbered(patients)


def _by_table(root: Path, names: list[str]) -> dict[str, str]:
    known, table = set(names), dict[str, str]()
    for file, patient in read_column(root / "patients.csv", "patient", key="file").items():
        path = Path(file)
        name = (path.parent / name_of(path)).as_posix().removeprefix("images/")
        if name not in known:
            raise ValueError(f"{root / 'patients.csv'} names {file}, which {root / 'images'} does not hold")
        if table.setdefault(name, patient) != patient:
            raise ValueError(f"{root / 'patients.csv'} gives {file} to two patients")
    if missing := [name for name in names if name not in table]:
        raise ValueError(
            f"{root / 'patients.csv'} does not name {missing[0]} ({len(missing)} are missing); add its row"
        )
    return table


def _numbered(patients: dict[str, str]) -> dict[str, tuple[str, int]]:
    """The patient of each image, and the number that its name ends with, or its place."""
    groups = defaultdict(list)
    for name in sorted(patients, key=natural_order):
        groups[patients[name]].append(name)
    places = {}
    for patient, names in groups.items():
        ends = [re.search(r"\d+$", name) for name in names]
        numbers = [int(end[0]) for end in ends if end]
        if len(set(numbers)) < len(names):
            numbers = list(range(len(names)))
        places.update({name: (patient, number) for name, number in zip(names, numbers, strict=True)})
    return places


def natural_order(name: str) -> list[tuple[int, str]]:
    """A key that puts a_2 before a_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
