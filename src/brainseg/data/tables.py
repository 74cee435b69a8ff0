"""Columns of tables about patients and their files."""

import csv
from pathlib import Path

from brainseg.data.files import one_spelling


def read_column(path: str | Path, column: str, *, key: str = "patient") -> dict[str, str]:
    """One column of a CSV file by another: the hospital of each patient, the patient of each file.

    Commas, semicolons and tabs separate, whichever the first line has; names come in one spelling of their accents.

    Args:
        path: a table whose first line names its columns.
        column: name of the column to read.
        key: name of the column whose values are looked up; several rows with one value must agree.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no table, a column that it does not have, an empty cell, or rows that contradict each other.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no table {path}")
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets begin a text with a mark
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error}); save it as CSV UTF-8") from error
    head = text.partition("\n")[0]
    rows = csv.DictReader(text.splitlines(), delimiter=max(",;\t", key=head.count))
    columns = [name.strip() for name in rows.fieldnames or []]
    rows.fieldnames = columns
    if missing := [name for name in (key, column) if name not in columns]:
        raise ValueError(f"{path} has no column {missing[0]!r}; it has {', '.join(columns) or 'none'}")
    values: dict[str, str] = {}
    for row in rows:
        name, value = (one_spelling((row[part] or "").strip()) for part in (key, column))
        if not name or not value:
            raise ValueError(f"{path}, line {rows.line_num}: the {key if not name else column} is empty; fill it in")
        if values.setdefault(name, value) != value:
            raise ValueError(f"{path} gives {name} two values of {column}: {values[name]} and {value}; keep one")
    return values
