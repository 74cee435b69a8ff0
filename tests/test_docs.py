"""Pages show what the code counts now."""

import csv
import math
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from statistics import fmean, median

import pytest
from docs.metrics import peers
from docs.model_tables import PAGES, with_tables

from brainseg.metrics import compare, confidence_interval

DOCS = Path(__file__).parents[1] / "docs"
PATHS = sorted(PAGES.glob("*.md"))


@pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])
def test_the_tables_of_the_models_are_those_of_the_code(path: Path) -> None:
    page = path.read_text()
    assert with_tables(page) == page, "run python docs/model_tables.py"


@pytest.mark.parametrize("table", peers.COLUMNS)
def test_our_columns_beside_those_of_other_libraries_are_what_the_code_answers(table: str) -> None:
    shown = peers.read_table((DOCS / "metrics" / f"{table}.md").read_text(), table)
    for title in peers.OURS[table]:
        assert shown[title] == peers.column(table, title), "run python docs/metrics/peers.py"


@pytest.mark.parametrize("table", peers.COLUMNS)
def test_other_libraries_answer_as_the_page_says(table: str) -> None:
    page = (DOCS / "metrics" / f"{table}.md").read_text()
    try:
        versions = peers.describe_versions()
    except PackageNotFoundError as error:
        pytest.skip(f"needs {error.name}")
    if versions not in page:
        pytest.skip(f"the page is not {versions}")
    peers.make_importable()
    assert f"<!-- {table} -->\n{peers.draw_table(table)}\n<!-- end -->" in page, "run python docs/metrics/peers.py"


def test_the_sentence_for_a_paper_says_what_the_runs_scored() -> None:
    page = " ".join((DOCS / "metrics" / "reporting.md").read_text().replace("\n> ", " ").split())
    first, second = (read_dice(DOCS / "runs" / run) for run in ("default", "course_fixed"))
    low, high = confidence_interval(first)
    difference = compare(first, second)
    values = list(first.values())
    assert not any(math.isnan(value) for value in values)
    assert f"Dice was {fmean(values):.3f} (95 % interval {low:.3f} to {high:.3f}, " in page
    assert f"median {median(values):.3f}, worst {min(values):.3f}." in page
    between = f"{difference.difference:.3f} ({difference.lower:.3f} to {difference.upper:.3f}; "
    assert f"{between}Wilcoxon signed-rank test, p = {difference.p_value:.2g};" in page


def read_dice(run: Path) -> dict[str, float]:
    with (run / "patients.csv").open(newline="") as file:
        return {row["patient"]: float(row["dice"]) for row in csv.DictReader(file)}
