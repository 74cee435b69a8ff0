"""Tables of cases on the disk: what is written, that it comes back exactly, and what is refused."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainseg.metrics import Case, DiceScore, HausdorffDistance
from brainseg.metrics.statistics import compare
from brainseg.metrics.tables import read_cases, write_cases
from tests.metrics.scans import slices, update

TABLE = [Case("a", 3, (0.1,)), Case("b", 0, (math.nan,))]


def text(path: Path) -> str:
    return path.read_bytes().decode()


def plain(tables: dict[str, list[Case]]) -> dict[str, list[Any]]:
    """With None for NaN, which does not equal itself."""
    return {
        metric: [
            (case.patient, case.slice, [None if math.isnan(value) else value for value in case.values])
            for case in table
        ]
        for metric, table in tables.items()
    }


patients = st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), min_size=1)
values = st.floats().map(float)


@st.composite
def written(draw: st.DrawFn) -> dict[str, list[Case]]:
    keys = draw(st.lists(st.tuples(patients, st.none() | st.integers(0, 10**9)), max_size=4))
    classes = draw(st.dictionaries(st.sampled_from(["dice", "hd95", "iou_patient"]), st.integers(1, 12), min_size=1))
    if not keys:  # the number of classes of a table without cases is not known
        return {metric: [] for metric in classes}
    return {
        metric: [Case(*key, tuple(draw(st.lists(values, min_size=number, max_size=number)))) for key in keys]
        for metric, number in classes.items()
    }


@given(written())
def test_what_was_written_comes_back_exactly(tmp_path_factory: pytest.TempPathFactory, tables: Any) -> None:
    path = tmp_path_factory.mktemp("tables") / "cases.csv"
    write_cases(path, tables)
    assert plain(read_cases(path)) == plain(tables)
    assert list(read_cases(path)) == list(tables)


@given(st.lists(patients, max_size=4))
def test_any_csv_reader_finds_the_patients(tmp_path_factory: pytest.TempPathFactory, names: list[str | None]) -> None:
    path = tmp_path_factory.mktemp("tables") / "cases.csv"
    write_cases(path, [Case(name, None, (0.5,)) for name in names])
    with path.open(newline="", encoding="utf-8") as file:
        assert [row["patient"] for row in csv.DictReader(file)] == [name or "" for name in names]


def test_one_table_has_the_column_value(tmp_path: Path) -> None:
    write_cases(tmp_path / "cases.csv", TABLE)
    assert text(tmp_path / "cases.csv") == "patient,slice,value\na,3,0.1\nb,0,\n"
    assert list(read_cases(tmp_path / "cases.csv")) == ["value"]


def test_each_metric_has_a_column(tmp_path: Path) -> None:
    distances = [Case("a", 3, (math.inf,)), Case("b", 0, (1.5,))]
    write_cases(tmp_path / "cases.csv", {"dice": TABLE, "hd95": distances})
    assert text(tmp_path / "cases.csv") == "patient,slice,dice,hd95\na,3,0.1,inf\nb,0,,1.5\n"


def test_each_class_has_a_column(tmp_path: Path) -> None:
    path, table = tmp_path / "cases.csv", [Case("a", None, (0.25, 1.0))]
    write_cases(path, {"dice": table, "volume": [Case("a", None, (3.0,))]})
    assert text(path) == "patient,slice,dice_0,dice_1,volume\na,,0.25,1.0,3.0\n"
    assert read_cases(path)["dice"] == table


def test_classes_may_have_names(tmp_path: Path) -> None:
    path, names = tmp_path / "cases.csv", ["core", "t2_edema"]
    table = [Case(None, 7, (0.25, 1.0))]
    write_cases(path, {"dice": table, "volume": [Case(None, 7, (3.0,))]}, names=names)
    assert text(path) == "patient,slice,dice_core,dice_t2_edema,volume\n,7,0.25,1.0,3.0\n"
    assert read_cases(path, names=names) == {"dice": table, "volume": [Case(None, 7, (3.0,))]}
    assert list(read_cases(path)) == ["dice_core", "dice_t2_edema", "volume"]


def test_two_files_are_compared_as_the_metrics_are(tmp_path: Path) -> None:
    tables = []
    for name, seed in (("a", 0), ("b", 1)):
        dice, hd95 = DiceScore(), HausdorffDistance(percentile=95)
        data = slices()._replace(prediction=slices(seed=seed).prediction)
        update(dice, data)
        update(hd95, data)
        tables.append({"dice": dice.per_case(), "hd95": hd95.per_case()})
        write_cases(tmp_path / f"{name}.csv", tables[-1])
    a, b = read_cases(tmp_path / "a.csv"), read_cases(str(tmp_path / "b.csv"))
    for metric in ("dice", "hd95"):
        assert compare(a[metric], b[metric]) == compare(tables[0][metric], tables[1][metric])


def test_a_file_saved_by_a_spreadsheet_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_bytes(b"\xef\xbb\xbfpatient,slice,value\r\nZo\xc3\xab,3,1\r\n")
    assert read_cases(path) == {"value": [Case("Zoë", 3, (1.0,))]}


def test_a_table_of_patients_is_read_without_slices_and_institutions(tmp_path: Path) -> None:
    path, names = tmp_path / "patients.csv", ["core", "oedema"]
    path.write_text("patient,institution,slices,dice_core,dice_oedema\na,CS,20,0.5,nan\nb,DU,8,,1.0\n")
    tables = read_cases(path, names=names)
    assert plain(tables) == {
        "slices": [("a", None, [20]), ("b", None, [8])],
        "dice": [("a", None, [0.5, None]), ("b", None, [None, 1.0])],
    }


def test_whole_numbers_are_written_as_such(tmp_path: Path) -> None:
    write_cases(tmp_path / "cases.csv", {"pixels": [Case("a", 1, (12,))], "dice": [Case("a", 1, (1.0,))]})
    assert text(tmp_path / "cases.csv") == "patient,slice,pixels,dice\na,1,12,1.0\n"


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    write_cases(path, TABLE)
    before = text(path)
    with pytest.raises(ValueError):
        write_cases(path, [Case("\ud800", 1, (0.5,))])
    assert text(path) == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ([TABLE[1], TABLE[0]], "from case 1 on: patient 'a', slice 3, and patient 'b', slice 0;"),
        ([TABLE[0], Case("b", None, (0.5,))], "from case 2 on: patient 'b', slice 0, and patient 'b', slice None;"),
        (TABLE[:1], "from case 2 on: patient 'b', slice 0, and no case;"),
        ([*TABLE, TABLE[0]], "from case 3 on: no case, and patient 'a', slice 3;"),
    ],
)
def test_tables_of_different_cases_are_refused(tmp_path: Path, other: list[Case], message: str) -> None:
    with pytest.raises(ValueError, match=rf'"dice" and "hd95" must have the same cases in the same order.*{message}'):
        write_cases(tmp_path / "cases.csv", {"dice": TABLE, "hd95": other})


@pytest.mark.parametrize(
    ("metrics", "names"),
    [
        ({"dice": 2, "dice_2": 1}, None),
        ({"dice_0": 1, "dice_1": 1}, None),
        ({"dice_0": 1, "dice": 2}, None),
        ({"slice": 1}, None),
        ({"institution": 1}, None),
        ({"dice_core": 1, "dice_edema": 1}, ["core", "edema"]),
        ({"dice": 2}, ["core", "core"]),
        ({"dice": 0}, None),
    ],
)
def test_columns_that_would_be_mistaken_are_refused(
    tmp_path: Path, metrics: dict[str, int], names: list[str] | None
) -> None:
    tables = {metric: [Case("a", 1, (0.5,) * number)] for metric, number in metrics.items()}
    with pytest.raises(ValueError, match=r"cannot be told apart again|has 0 classes"):
        write_cases(tmp_path / "cases.csv", tables, names=names)


@pytest.mark.parametrize("name", ["", "a\rb"])
def test_names_that_csv_loses_are_refused(tmp_path: Path, name: str) -> None:
    for tables in ({"dice": [Case(name, 1, (0.5,))]}, {name: TABLE}):
        with pytest.raises(ValueError, match=r"names must not be empty nor hold a carriage return"):
            write_cases(tmp_path / "cases.csv", tables)


def test_other_numbers_of_classes_are_refused(tmp_path: Path) -> None:
    path, two = tmp_path / "cases.csv", [Case("a", 1, (0.5, 0.5))]
    with pytest.raises(ValueError, match=r'"value" has 2 classes and names are \[\'x\', \'y\', \'z\'\]'):
        write_cases(path, two, names=["x", "y", "z"])
    with pytest.raises(ValueError, match=r'cases of "dice" have \[1, 2\] values, expected as many in each'):
        write_cases(path, {"dice": [*TABLE, *two]})
    with pytest.raises(ValueError, match=r"no table to write"):
        write_cases(path, {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"has the columns \[\], expected patient, slice and those of the metrics"),
        ("patient,slice\n", r"has the columns \['patient', 'slice'\]"),
        ("slice,patient,dice\n", r"has the columns \['slice', 'patient', 'dice'\]"),
        ("patient;slice;dice\n", r"has the columns \['patient;slice;dice'\]"),
        ("patient,slice,dice,dice\n", r"each once"),
        ("patient,slice,dice,dice_0,dice_1\n", r"each once"),
        ("patient,slice,dice\na,1,0.5\nb,2\n", r"cases.csv, row 3: got 2 cells, expected 3"),
        ("patient,slice,dice\na,1,high\n", r"cases.csv, row 2, column \"dice\": got 'high', expected a number"),
        ("patient,slice,dice\na,1.5,0.5\n", r"cases.csv, row 2: slice is '1.5', expected an integer"),
        ("patient,slice,dice\n\xff", r"cases.csv cannot be read, expected a CSV file"),
        ("patient,slice,dice\n" + "a" * 200_000, r"cases.csv cannot be read, expected a CSV file"),
    ],
)
def test_files_that_are_no_tables_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "cases.csv"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        read_cases(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.csv"):
        read_cases(tmp_path / "none.csv")
