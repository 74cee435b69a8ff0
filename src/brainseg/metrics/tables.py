"""Tables of cases as CSV: what one model scored, for another program or for a comparison with another model."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import count, takewhile, zip_longest
from pathlib import Path

from brainseg._whole import written_whole
from brainseg.metrics.cases import Case

KEYS = ("patient", "slice")
NOTES = ("institution",)
"""Columns of text in the tables of an evaluation, which are no metrics."""


def write_cases(
    path: str | Path, cases: Sequence[Case] | Mapping[str, Sequence[Case]], *, names: Sequence[str] | None = None
) -> None:
    """Writes tables of cases as one CSV file, in one move; `read_cases` gives exactly the same back.

    The columns are patient, slice, and one for each metric ("dice"), of several classes one for each class ("dice_0",
    "dice_1"). A cell is empty where the patient or slice is not known, and where the case is left out (NaN).

    Args:
        path: of the file, UTF-8; one that exists is replaced.
        cases: a table of `per_case()`, whose column is "value", or tables by the name of the metric, which must have
            the same cases in the same order.
        names: of the classes, for "dice_core" in place of "dice_0"; `read_cases` needs the same.

    Raises:
        ValueError: tables of different cases, cases of different numbers of classes, another number of names, column
            names that could not be told apart again, or a patient's name that CSV cannot hold.

    Example:
        >>> import tempfile
        >>> table = [Case("TCGA_CS_4941", 9, (0.75,)), Case("TCGA_CS_4941", 10, (math.nan,))]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_cases(f"{folder}/unet.csv", {"dice": table})
        ...     print((Path(folder) / "unet.csv").read_text(), end="")
        ...     read_cases(f"{folder}/unet.csv")["dice"][0]
        patient,slice,dice
        TCGA_CS_4941,9,0.75
        TCGA_CS_4941,10,
        Case(patient='TCGA_CS_4941', slice=9, values=(0.75,))
    """
    tables = cases if isinstance(cases, Mapping) else {"value": cases}
    if not tables:
        raise ValueError("no table to write: cases is an empty mapping, expected one table for each metric")
    _check_same_cases(tables)
    classes = {metric: _num_classes(metric, table, names) for metric, table in tables.items()}
    columns = [column for metric, number in classes.items() for column in _columns(metric, number, names)]
    _check_header(columns, classes, names)
    keys = [(case.patient, case.slice) for case in next(iter(tables.values()))]
    _check_texts([*columns, *(patient for patient, _ in keys if patient is not None)])

    rows = zip(*tables.values(), strict=True)  # of each case its rows in all tables
    with written_whole(Path(path)) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*KEYS, *columns])
        for key, row in zip(keys, rows, strict=True):
            writer.writerow([*key, *(_cell(value) for case in row for value in case.values)])


def read_cases(path: str | Path, *, names: Sequence[str] | None = None) -> dict[str, list[Case]]:
    """Reads the tables of cases that `write_cases` or `brainseg evaluate` wrote, by the name of the metric.

    Columns "dice_0", "dice_1" and so on are the classes of one metric "dice". The tables are what
    `confidence_interval` takes, and those of two files what `compare` takes. The column slice may be absent, as in
    patients.csv, and institution is left out.

    Args:
        path: of the file.
        names: of the classes, if it was written with them; without them "dice_core" is a metric of its own.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no CSV, other columns, or a cell that is no number.
    """
    try:
        # A spreadsheet that saved the file may have put a mark before the first column.
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.reader(file))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read, expected a CSV file that write_cases wrote: {error}") from error
    header = lines[0] if lines else []
    columns = [name for name in header if name not in (*KEYS, *NOTES)]
    groups = _groups(columns, names)
    metrics = [metric for metric, _ in groups]
    if header[:1] != [KEYS[0]] or not columns or len({*header}) < len(header) or len({*metrics}) < len(metrics):
        raise ValueError(
            f"{path} has the columns {header}, expected {', '.join(KEYS)} and those of the metrics, each once; "
            "give a file that write_cases or brainseg evaluate wrote"
        )
    rows = [_parsed(line, header, f"{path}, row {number}") for number, line in enumerate(lines[1:], 2)]
    tables: dict[str, list[Case]] = {}
    start = 0
    for metric, number in groups:
        end = start + number
        tables[metric] = [Case(patient, index, values[start:end]) for patient, index, values in rows]
        start = end
    return tables


def _check_same_cases(tables: Mapping[str, Sequence[Case]]) -> None:
    (first, expected), *others = tables.items()
    for metric, table in others:
        for number, (one, other) in enumerate(zip_longest(expected, table), 1):
            if one is None or other is None or one[:2] != other[:2]:
                raise ValueError(
                    f'"{first}" and "{metric}" must have the same cases in the same order, and differ from case '
                    f"{number} on: {_shown(one)}, and {_shown(other)}; write them to two files"
                )


def _shown(case: Case | None) -> str:
    return "no case" if case is None else f"patient {case.patient!r}, slice {case.slice}"


def _num_classes(metric: str, table: Sequence[Case], names: Sequence[str] | None) -> int:
    """How many classes the cases of a table have; ValueError unless all have as many, and as there are names."""
    classes = sorted({len(case.values) for case in table}) or [1]
    if len(classes) > 1:
        raise ValueError(f'the cases of "{metric}" have {classes} values, expected as many in each: one for each class')
    if names is not None and classes[0] not in (1, len(names)):
        raise ValueError(f'"{metric}" has {classes[0]} classes and names are {list(names)}; give one for each class')
    return classes[0]


def _columns(metric: str, num_classes: int, names: Sequence[str] | None) -> list[str]:
    if num_classes == 1:
        return [metric]
    return [f"{metric}_{name}" for name in names or range(num_classes)]


def _groups(columns: Sequence[str], names: Sequence[str] | None) -> list[tuple[str, int]]:
    """The metrics that columns belong to, and how many each has: several where the names of the classes follow."""
    groups = []
    start = 0
    while start < len(columns):
        metric = columns[start].removesuffix(f"_{names[0] if names else 0}")
        expected = (f"{metric}_{name}" for name in names or count())
        number = sum(
            1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(columns[start:], expected, strict=False))
        )
        if number < 2 or (names and number < len(names)):
            metric, number = columns[start], 1
        groups.append((metric, number))
        start += number
    return groups


def _check_header(columns: Sequence[str], classes: Mapping[str, int], names: Sequence[str] | None) -> None:
    """ValueError unless the columns can be told apart again."""
    header = [*KEYS, *columns]
    if {*NOTES} & {*columns} or len(set(header)) < len(header) or _groups(columns, names) != list(classes.items()):
        raise ValueError(
            f"the columns would be {', '.join(header)}, from which the classes of {', '.join(classes)} cannot be told "
            "apart again; give the metrics or classes other names"
        )


def _check_texts(texts: Iterable[str]) -> None:
    """ValueError for what CSV gives back changed."""
    for text in texts:
        if not text or "\r" in text:
            raise ValueError(f"got the name {text!r}; names must not be empty nor hold a carriage return, rename it")


def _cell(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return "" if math.isnan(value) else repr(float(value))


def _parsed(line: list[str], header: list[str], place: str) -> tuple[str | None, int | None, tuple[float, ...]]:
    if len(line) != len(header):
        raise ValueError(f"{place}: got {len(line)} cells, expected {len(header)}, one for each column")
    cells = dict(zip(header, line, strict=True))
    patient, index = cells["patient"], cells.get("slice", "")
    values = (_number(cells[name], f'{place}, column "{name}"') for name in header if name not in (*KEYS, *NOTES))
    return patient or None, _index(index, place), tuple(values)


def _index(cell: str, place: str) -> int | None:
    try:
        return int(cell) if cell else None
    except ValueError as error:
        raise ValueError(f"{place}: slice is {cell!r}, expected an integer or nothing") from error


def _number(cell: str, place: str) -> float:
    try:
        return float(cell) if cell else math.nan
    except ValueError as error:
        raise ValueError(f"{place}: got {cell!r}, expected a number, or nothing where the case is left out") from error
