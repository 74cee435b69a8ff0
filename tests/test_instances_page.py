"""The tables of docs/models/instances.md are rows of the committed results."""

import csv
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("name", ["course", "thresholds", "components_of_lgg"])
def test_every_row_of_the_page_is_one_of_the_results(name: str) -> None:
    with (DOCS / "runs" / "mask_dino_phantoms" / f"{name}.csv").open() as file:
        lines = [f"| {' | '.join(row)} |" for row in list(csv.reader(file))[1:]]
    shown = (DOCS / "models" / "instances.md").read_text().splitlines()
    assert sum(line in shown for line in lines) >= 4
