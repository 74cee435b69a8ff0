"""The comparison of every network with one recipe: its page is what its tables say."""

import json
from pathlib import Path
from statistics import fmean

import pytest
from docs import networks_tables

from brainseg.models import list_models
from brainseg.report import read_rows


def test_the_tables_of_the_page_are_those_of_the_runs() -> None:
    page = networks_tables.PAGE.read_text()
    assert networks_tables.with_tables(page) == page, "run python docs/networks_tables.py"


def test_every_network_was_scored_on_the_patients_that_none_has_seen() -> None:
    unseen = json.loads((networks_tables.HERE / "recipe" / "folds.json").read_text())["folds"][0]
    rows = read_rows(networks_tables.TABLES / "patients.csv")
    for name in {row["network"] for row in rows}:
        assert sorted(row["patient"] for row in rows if row["network"] == name) == sorted(unseen)


def test_every_network_had_the_same_steps() -> None:
    assert {row["step"] for row in read_rows(networks_tables.TABLES / "trained.csv")} == {"1200"}


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of two networks; the second is 0.1 better on each patient."""
    (tmp_path / "runs.csv").write_text(
        "network,model,options\nunext,unext,\nMONAI UNet,monai/UNet,\nsmp Unet,smp/Unet,\n"
    )
    lines = ["network,patient,institution,slices,tumour,whole,part"]
    for network, more in (("unext", 0), ("MONAI UNet", 0.1)):
        lines += [
            f"{network},a,CS,3,100,{0.5 + more},0.5",
            f"{network},b,CS,3,900,{0.7 + more},0.5",
            f"{network},c,DU,3,300,{0.2 + more:.1f},0.5",
        ]
    (tmp_path / "patients.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "trained.csv").write_text("network,step,seconds,loss\nunext,100,25,0.5\n")
    row = {"status": "measured", "median_ms": 20.0, "images_per_second": 50.0, "peak_mib": 12.34}
    facts = {"parameters": 1234567, "GMACs": 0.5}
    report = {"tables": [{"rows": [{"name": "monai/UNet", "facts": facts, **row}]}]}
    (tmp_path / "benchmark.json").write_text(json.dumps(report))
    monkeypatch.setattr(networks_tables, "TABLES", tmp_path)
    return tmp_path


def lines_of(table: str) -> dict[str, list[str]]:
    """By the first cell."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {row[0]: row[1:] for row in rows}


@pytest.mark.usefixtures("tables")
def test_differences_are_of_the_same_patients() -> None:
    rows = lines_of(networks_tables.scores())
    assert rows["MONAI UNet"][1].startswith(f"{fmean([0.6, 0.8, 0.3]):.3f} (")
    assert rows["MONAI UNet"][2:4] == ["+0.100 (+0.100 to +0.100)", "0.600"]
    assert rows["`unext`"][0] == "not measured"


@pytest.mark.usefixtures("tables")
def test_what_was_not_run_says_so() -> None:
    rows = lines_of(networks_tables.scores())
    assert set(rows) == {"MONAI UNet", "smp Unet", *(f"`{name}`" for name in list_models())}
    assert rows["smp Unet"] == rows["`unet`"] == ["not measured", *["not run"] * 4]
    costs = lines_of(networks_tables.costs())
    assert costs["MONAI UNet"] == ["1,234,567", "0.5000", "20.0", "50.0", "12.3", *["not measured"] * 3, "not run"]
    assert costs["`unext`"] == [*["not measured"] * 8, "0.25"]


@pytest.mark.usefixtures("tables")
def test_groups_are_those_of_the_patients() -> None:
    assert networks_tables.institutions() == {"CS": {"a", "b"}, "DU": {"c"}}
    assert networks_tables.sizes() == {"up to 100 pixels": {"a"}, "300 pixels and more": {"b", "c"}}
    assert lines_of(networks_tables.by_institution())["`unext`"] == ["0.600", "0.200"]


def test_the_picture_has_the_networks_that_were_trained_and_timed(tables: Path) -> None:
    (point,) = networks_tables.points()
    assert (point.network.name, point.rate, point.optimized) == ("MONAI UNet", 50.0, None)
    assert point.dice == pytest.approx(fmean([0.6, 0.8, 0.3]))
    networks_tables.draw(tables / "networks.png")
    assert (tables / "networks.png").stat().st_size > 1000
