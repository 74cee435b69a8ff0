"""Tables as CSV, values as JSON."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brainseg._whole import written_whole


def write_rows(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes a table as CSV, in one move; the first row names the columns."""
    with written_whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table that `write_rows` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_values(values: Mapping[str, float], path: Path) -> None:
    """Writes named numbers as JSON, which has no NaN: null, in one move."""
    plain = {name: None if value != value else value for name, value in values.items()}
    with written_whole(path) as partial:
        partial.write_text(json.dumps(plain, indent=2) + "\n")
