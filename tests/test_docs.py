"""Pages show what the code counts now."""

import csv
import json
import math
import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from statistics import fmean, median

import pytest
from docs import recipe_tables, speed_tables
from docs.metrics import peers
from docs.model_tables import PAGES, count, with_tables

from benchmarks import speed
from brainseg.cli import main
from brainseg.metrics import compare, confidence_interval, read_cases
from brainseg.models import list_models

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PATHS = sorted(PAGES.glob("*.md"))


@pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])
def test_the_tables_of_the_models_are_those_of_the_code(path: Path) -> None:
    page = path.read_text()
    assert with_tables(page) == page, "run python docs/model_tables.py"


def columns(page: str) -> Iterator[tuple[str, str, str]]:
    """Row, header and cell of what is called GMACs in the tables of a page."""
    header: list[str] = []
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not header or not cells:
            header = cells
        elif not set(line) <= set("|-: "):
            yield from ((cells[0], title, cell) for title, cell in zip(header, cells, strict=True) if "GMACs" in title)


def test_operations_are_the_same_number_wherever_they_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """README, pages, results and the command show what `summary` counts, to the last digit."""
    seen = set()
    results = ROOT / "benchmarks" / "results"
    for path in (ROOT / "README.md", *PATHS, results / "models.md"):
        for row, title, cell in columns(path.read_text()):
            assert re.fullmatch(r"[\d,]+\.\d{4}", cell), f"{path.name}: {row} has {title} {cell}"
            name, side = re.split(r"[ ,]", row.strip("`"))[0].strip("`"), 128 if "128" in title else 256
            if name in list_models():
                assert cell == f"{count(name, side).macs / 1e9:.4f}", f"{path.name}: {row}"
                seen.add(name)
    assert seen == {*list_models()}
    for table in json.loads((results / "models.json").read_text())["tables"]:
        for row in table["rows"]:
            if (name := row["name"].split(",")[0]) in list_models():
                assert row["facts"]["GMACs"] == count(name).macs / 1e9, row["name"]
    monkeypatch.setattr(sys, "argv", ["brainseg", "models", "u*"])
    main()
    printed = capsys.readouterr().out
    for name in list_models("u*"):
        assert re.search(rf"\b{name}\b.*│ *{count(name).macs / 1e9:.4f} │", printed), name


def test_the_tables_of_speed_are_those_of_the_results() -> None:
    page = speed_tables.PAGE.read_text()
    assert speed_tables.with_tables(page) == page, "run python docs/speed_tables.py"


@pytest.mark.parametrize("path", recipe_tables.PAGES, ids=["README", "recipe", "unext", "unext_small"])
def test_the_tables_of_the_recipe_are_those_of_its_scores(path: Path) -> None:
    page = path.read_text()
    assert recipe_tables.with_tables(page) == page, "run python docs/recipe_tables.py"


def test_a_step_shows_what_its_row_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"name": "as it is", "ratio": 0.5, "ratio_quartiles": [0.45, 0.55], "peak_mib": 12.4}
    report = {"tables": [{"title": "Training step, batch 8, 256x256, unext", "rows": [row]}]}
    (tmp_path / "speed.json").write_text(json.dumps(report))
    monkeypatch.setattr(speed_tables, "RESULTS", tmp_path)
    first, second, *_ = speed_tables.draw("training").splitlines()[2:]
    assert first.endswith("| 0.50 (0.45 to 0.55) | 12 |")
    assert second.endswith("| not measured | not measured |")


def test_every_step_is_a_row_of_the_benchmark() -> None:
    rows = {case.title: [candidate.name for candidate in case.candidates] for case in speed.cases()}
    for title, shown in speed_tables.STEPS.values():
        ((_, names),) = [item for item in rows.items() if item[0].startswith(title)]
        assert {name for name, _ in shown} <= set(names)


@pytest.mark.parametrize("name", ["course", "thresholds", "components", "points"])
def test_every_row_of_the_page_is_one_of_the_results(name: str) -> None:
    with (DOCS / "runs" / "mask_dino_phantoms" / f"{name}.csv").open() as file:
        lines = [f"| {' | '.join(row)} |" for row in list(csv.reader(file))[1:]]
    shown = (DOCS / "models" / "instances.md").read_text().splitlines()
    assert sum(line in shown for line in lines) >= 4


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
    first, second = (read_cases(DOCS / "runs" / run / "patients.csv")["dice"] for run in ("default", "course-fixed"))
    low, high = confidence_interval(first)
    difference = compare(first, second)
    values = [case.value for case in first]
    assert not any(math.isnan(value) for value in values)
    assert f"Dice was {fmean(values):.3f} (95 % interval {low:.3f} to {high:.3f}, " in page
    assert f"median {median(values):.3f}, worst {min(values):.3f}." in page
    between = f"{difference.difference:.3f} ({difference.lower:.3f} to {difference.upper:.3f}; "
    assert f"{between}Wilcoxon signed-rank test, p = {difference.p_value:.2g};" in page
