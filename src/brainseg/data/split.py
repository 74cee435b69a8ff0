"""Splits by patient, as JSON files: {"train": [...], "validation": [...], "test": [...]}."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np

from brainseg._whole import written_whole
from brainseg.data.files import one_spelling

Split = dict[str, list[str]]

LeakingSplit = dict[str, list[tuple[str, int]]]
"""Slices of each part, by patient and number: patients are in several parts, and scores are memory."""

Stratify = Callable[[str], str] | Mapping[str, str]

PARTS = ("train", "validation", "test")
LEAK = "slices of one patient train and validate: scores on this split are memory"


def institution(patient: str) -> str:
    """The two letters of a TCGA barcode that name the hospital; "other" for other names.

    >>> institution("TCGA_DU_5851_19950428")
    'DU'
    """
    match = re.match(r"TCGA_(\w\w)_", patient)
    return match[1] if match else "other"


@overload
def split_patients(
    patients: Iterable[str],
    *,
    validation: float = ...,
    test: float = ...,
    seed: int,
    folds: None = None,
    stratify: Stratify = ...,
) -> Split: ...


@overload
def split_patients(
    patients: Iterable[str],
    *,
    validation: float = ...,
    test: float = ...,
    seed: int,
    folds: int,
    stratify: Stratify = ...,
) -> list[Split]: ...


def split_patients(
    patients: Iterable[str],
    *,
    validation: float = 0.2,
    test: float = 0.0,
    seed: int,
    folds: int | None = None,
    stratify: Stratify = institution,
) -> Split | list[Split]:
    """Splits by patient, each institution, or any other group, in proportion.

    In every part (with folds: in the test part and in each fold) the number of patients of a group is its share,
    rounded up or down.

    Args:
        patients: their names, each once.
        validation: share of the patients to validate on, at least one if above 0; not used with `folds`, where it is
            one in `folds` of those outside the test part.
        test: share of the patients to keep for the end, at least one if above 0.
        seed: of the draw.
        folds: None for one split; k for k splits in which each patient outside the test part validates once.
        stratify: the group of each patient: a function of the name, or the values of a table (`read_column`).

    Returns:
        {"train": [...], "validation": [...], "test": [...]}, names sorted; a list of them with `folds`.

    Raises:
        ValueError: shares that leave nobody to train on, fewer patients than folds, a patient given twice, or one
            without a group.
    """
    names = sorted(map(one_spelling, patients))
    if twice := [name for name, following in pairwise(names) if name == following]:
        raise ValueError(f"patient {twice[0]!r} is given twice; give each once")
    if not (0 <= validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise ValueError(f"validation={validation} and test={test} must be shares whose sum is below 1")
    group_of = _group_of(stratify, names)
    rng = np.random.default_rng(seed)
    held = _count(test, names)
    left = len(names) - held
    if folds is not None:
        if not 2 <= folds <= left:
            raise ValueError(f"folds={folds} must lie between 2 and the {left} patients outside the test part")
        tested, *parts = _deal(names, [held, *((left + i) // folds for i in range(folds))], group_of, rng)
        return [_split(names, part, tested) for part in parts]
    validating = _count(validation, names)
    if validating >= left:
        raise ValueError(f"of {len(names)} patients none is left to train on; give more of them or smaller shares")
    tested, part, _ = _deal(names, [held, validating, left - validating], group_of, rng)
    return _split(names, part, tested)


def _count(share: float, names: Sequence[str]) -> int:
    return max(1, round(share * len(names))) if share > 0 else 0


def _split(names: Sequence[str], validation: set[str], test: set[str]) -> Split:
    return {"train": sorted(set(names) - validation - test), "validation": sorted(validation), "test": sorted(test)}


def _group_of(stratify: Stratify, names: Sequence[str]) -> Callable[[str], str]:
    if not isinstance(stratify, Mapping):
        return stratify
    groups = {one_spelling(name): group for name, group in stratify.items()}
    if unknown := [name for name in names if name not in groups]:
        raise ValueError(
            f"patient {unknown[0]!r} has no group to stratify by ({len(unknown)} of {len(names)} have none)"
        )
    return groups.__getitem__


def _deal(
    names: Sequence[str], counts: Sequence[int], group_of: Callable[[str], str], rng: np.random.Generator
) -> list[set[str]]:
    """Deals names into parts of these sizes, each group in proportion."""
    groups: dict[str, list[str]] = {}
    for name in rng.permutation(names).tolist():
        groups.setdefault(group_of(name), []).append(name)
    parts: list[set[str]] = [set() for _ in counts]
    for group, quota in zip(
        groups.values(), _quotas([len(group) for group in groups.values()], counts, rng), strict=True
    ):
        for part, end, number in zip(parts, accumulate(quota), quota, strict=True):
            part.update(group[end - number : end])
    return parts


def _quotas(sizes: Sequence[int], counts: Sequence[int], rng: np.random.Generator) -> list[list[int]]:
    """How many of each group go to each part: the share rounded up or down, so that rows and columns add up.

    Such a rounding exists (the shares themselves are a flow from groups to parts); augmenting paths find it.
    """
    shares = [[divmod(size * count, sum(counts)) for count in counts] for size in sizes]
    quotas = [[share[0] for share in row] for row in shares]
    spare = [count - sum(column) for count, column in zip(counts, zip(*quotas, strict=True), strict=True)]
    # The parts where a group may round up, in an order that lets it do so about as often as its remainder says.
    wishes = [
        sorted((p for p, (_, rest) in enumerate(row) if rest), key=lambda p: rng.exponential() / row[p][1])
        for row in shares
    ]
    up: list[list[int]] = [[] for _ in counts]  # the groups that round up in each part

    def round_up(group: int, tried: set[int]) -> bool:
        for part in wishes[group]:
            if part in tried or group in up[part]:
                continue
            tried.add(part)
            if len(up[part]) < spare[part]:
                up[part].append(group)
                return True
            for other in up[part]:
                if round_up(other, tried):
                    up[part][up[part].index(other)] = group
                    return True
        return False

    for group in rng.permutation(len(sizes)).tolist():
        for _ in range(sizes[group] - sum(quotas[group])):
            round_up(group, set())
    return [[low + up[part].count(group) for part, low in enumerate(row)] for group, row in enumerate(quotas)]


def split_slices_leaking(slices: int, *, validation: float = 0.2, seed: int) -> tuple[list[int], list[int]]:
    """Splits slices regardless of patients, as the published course experiments did: scores on it are memory.

    Slices of one patient resemble each other and fall on both sides. For comparison with such results only: the draw is
    that of scikit-learn's `train_test_split(range(slices), test_size=validation, random_state=seed)`.

    Args:
        slices: how many there are.
        validation: share of the slices to validate on, rounded up.
        seed: of the draw.

    Returns:
        indices to train and to validate on, as drawn: published scores by batch depend on this order.

    Raises:
        ValueError: a share outside [0, 1], or a seed outside [0, 2^32).
    """
    if not 0 <= validation <= 1:
        raise ValueError(f"validation={validation} must be a share between 0 and 1")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed} of a split by slice must lie between 0 and 2^32 - 1")
    order = np.random.RandomState(seed).permutation(slices).tolist()
    count = math.ceil(validation * slices)
    return order[count:], order[:count]


def read_split(path: str | Path) -> Split:
    """Reads a split; parts that it does not name are empty. Names come in one spelling, whatever that of their accents.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a split, one by slice, or a patient in two parts.
    """
    content = _read(path)
    if _leaks(content):
        raise ValueError(f"{path} splits slices: {content['leaks']}; to use it all the same give data.split_by=slice")
    if _holds_folds(content):
        raise ValueError(f"{path} holds {len(content['folds'])} folds, expected one split; name one with data.fold")
    return _to_split(content, path)


def read_folds(path: str | Path) -> list[Split]:
    """Reads the splits that `write_folds` wrote, checked as `read_split` does.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no folds, fewer than two, or a patient who validates in two of them.
    """
    content = _read(path)
    if not _holds_folds(content) or len(content["folds"]) < 2:
        raise ValueError(f'{path} holds no folds; expected {{"folds": [{{"train": [...], "validation": [...]}}, ...]}}')
    folds = [_to_split(split, f"{path}, fold {number},") for number, split in enumerate(content["folds"])]
    seen: dict[str, int] = {}
    for number, fold in enumerate(folds):
        for patient in fold["validation"]:
            if seen.setdefault(patient, number) != number:
                raise ValueError(f"{path} has {patient} validate in the folds {seen[patient]} and {number}; keep one")
    return folds


def read_slices_leaking(path: str | Path) -> LeakingSplit:
    """Reads the split by slice that `write_split` wrote, in its order.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a split by slice, or a slice in it twice.
    """
    content = _read(path)
    if not _leaks(content):
        raise ValueError(f"{path} does not split slices; for a split by patient leave out data.split_by=slice")
    named = {part: content.get(part, []) for part in PARTS}
    every = [name for names in named.values() for name in names]
    if wrong := [name for name in every if not (isinstance(name, str) and re.fullmatch(r".+ \d+", name, re.DOTALL))]:
        raise ValueError(f"{path} holds {wrong[0]!r}, expected a patient and the number of a slice: 'TCGA_CS_4941 12'")
    if len(every) > len(set(every)):
        raise ValueError(f"{path} names {Counter(every).most_common(1)[0][0]!r} twice; a slice belongs to one part")
    return {
        part: [(one_spelling(patient), int(number)) for patient, _, number in (name.rpartition(" ") for name in names)]
        for part, names in named.items()
    }


def leaks(path: str | Path) -> bool:
    """Whether the file splits slices, and not patients."""
    return _leaks(_read(path))


def _leaks(content: Any) -> bool:
    return isinstance(content, dict) and "leaks" in content and content.keys() <= {"leaks", *PARTS}


def _holds_folds(content: Any) -> bool:
    return isinstance(content, dict) and content.keys() == {"folds"} and isinstance(content["folds"], list)


def _read(path: str | Path) -> Any:
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no split {path}; split_patients, or brainseg split, makes one")
    try:
        # Windows begins a text with a mark.
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_each_part_once)
    except ValueError as error:
        raise ValueError(f'{path} is no JSON ({error}); expected {{"train": [...], "validation": [...]}}') from error


def _to_split(content: Any, source: str | Path) -> Split:
    sound = isinstance(content, dict) and content.keys() <= set(PARTS) and any(content.values())
    if not sound or not all(isinstance(names, list) for names in content.values()):
        raise ValueError(f'{source} is no split; expected {{"train": [...], "validation": [...], "test": [...]}}')
    if not all(isinstance(name, str) for names in content.values() for name in names):
        raise ValueError(f"{source} holds names that are no strings; expected the names of the patients' folders")
    content = {part: list(map(one_spelling, names)) for part, names in content.items()}
    every = [name for names in content.values() for name in names]
    if twice := sorted(name for name in set(every) if every.count(name) > 1):
        raise ValueError(f"{source} names {twice[0]} {every.count(twice[0])} times; a patient belongs to one part")
    return {part: content.get(part, []) for part in PARTS}


def _each_part_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in pairs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"it names {twice[0]!r} twice")
    return dict(pairs)


def write_split(split: Split | LeakingSplit, path: str | Path) -> None:
    """Writes a split for `read_split`, in one move; its folder is made if absent.

    One by slice is for `read_slices_leaking`, and says what its scores are worth.
    """
    slices = {part: [f"{patient} {number}" for patient, number in _slices(names)] for part, names in split.items()}
    _write({"leaks": LEAK, **slices} if any(slices.values()) else split, path)


def _slices(names: Sequence[str] | Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Those of the names that are slices."""
    return [name for name in names if not isinstance(name, str)]


def write_folds(folds: Sequence[Split], path: str | Path) -> None:
    """Writes the splits of a cross-validation for `read_folds`, {"folds": [...]}, in one move."""
    _write({"folds": list(folds)}, path)


def _write(content: Any, path: str | Path) -> None:
    path = Path(path).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
