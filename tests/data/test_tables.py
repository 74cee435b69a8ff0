"""Columns of tables, whatever wrote them."""

from pathlib import Path

import pytest

from brainseg.data import read_column


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_column_is_read_by_another(tmp_path: Path, separator: str, start: str, end: str) -> None:
    rows = (
        ("patient", " hospital", "age"),
        ("a", "Zu\u0308rich ", "3"),
        ("b", '"Bern, Insel"', ""),
        ("a", "Zürich", "4"),
    )
    text = start + "".join(separator.join(row) + end for row in rows)
    (tmp_path / "t.csv").write_bytes(text.encode())
    assert read_column(tmp_path / "t.csv", "hospital") == {"a": "Zürich", "b": "Bern, Insel"}
    assert read_column(tmp_path / "t.csv", "patient", key="hospital") == {"Zürich": "a", "Bern, Insel": "b"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column 'patient'; it has none"),
        ("patient,age\na,1\n", "has no column 'hospital'; it has patient, age"),
        ("patient,hospital\na,\n", "line 2: the hospital is empty; fill it in"),
        ("patient,hospital\n,x\n", "line 2: the patient is empty; fill it in"),
        ("patient,hospital\na\n", "line 2: the hospital is empty; fill it in"),
        ("patient,hospital\na,x\na,y\n", "gives a two values of hospital: x and y; keep one"),
    ],
)
def test_what_is_wrong_with_a_table_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"t\.csv.*{message}"):
        read_column(tmp_path / "t.csv", "hospital")


def test_a_table_that_is_no_text_or_absent_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"patient,hospital\na,Z\xfcrich\n")
    with pytest.raises(ValueError, match=r"t\.csv is no text in UTF-8 .*; save it as CSV UTF-8"):
        read_column(tmp_path / "t.csv", "hospital")
    with pytest.raises(FileNotFoundError, match=r"there is no table .*none\.csv"):
        read_column(tmp_path / "none.csv", "hospital")
