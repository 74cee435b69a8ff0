"""Reports: their files, what is left out of a quick look, and what a table says of what was not measured."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from brainseg.benchmark import Candidate, Case, Run, create_report, failures, markdown, report, write_report
from brainseg.benchmark.plots import plot


def ones() -> Run:
    return Run(lambda: torch.ones(2), {"parameters": 3})


def absent() -> Run:
    raise ImportError("no such package", name="peer")


def broken() -> Run:
    raise ValueError("a | b")


def cases() -> list[Case]:
    return [
        Case("a", [Candidate("ours", ones), Candidate("peer", absent)]),
        Case("b", [Candidate("long", ones)], False),
    ]


def test_a_report_has_figures_tables_and_a_plot(tmp_path: Path) -> None:
    heard: list[str] = []
    path = write_report(create_report("subject", cases, quick=True, announce=heard.append), tmp_path / "new")
    figures = json.loads((tmp_path / "new" / "subject.json").read_text())
    assert heard == [table["title"] for table in figures["tables"]] == ["a"]
    table = path.read_text()
    assert "| peer |  | not installed (peer) |" in table
    assert "| ours | 3 | " in table
    assert "not measured |" in table
    assert (tmp_path / "new" / "subject.svg").read_text().startswith("<?xml")
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["subject.json", "subject.md", "subject.svg"]


def test_memory_is_measured_beside_the_times_and_who_is_ended_is_out_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bool] = []

    def keep() -> bool:
        kept.append(True)
        return True

    def peak(_: Any, case: str, candidate: str, *, keep_freed_memory: bool) -> float:
        assert case in ("a", "b")
        assert keep_freed_memory
        if candidate == "long":
            raise MemoryError
        return 5.5

    monkeypatch.setattr(report, "peak_mib", peak)
    monkeypatch.setattr("brainseg.memory.keep_freed_memory", keep)
    full = create_report("subject", cases, seconds=0, keep_freed_memory=True)
    assert kept == [True]
    assert "freed memory kept," in markdown(full)
    rows = {row["name"]: row for table in full["tables"] for row in table["rows"]}
    assert rows["ours"]["peak_mib"] == 5.5
    assert rows["peer"]["peak_mib"] is None
    assert rows["long"]["status"] == "out of memory"
    assert "| 5.5 |" in markdown(full)


def test_what_failed_is_told_apart_from_what_is_not_there() -> None:
    told = create_report("s", lambda: [Case("c", [Candidate("x", broken), Candidate("y", absent)])], quick=True)
    assert failures(told) == ["c: x failed (ValueError: a | b)"]
    assert "| x | failed (ValueError: a \\| b) |" in markdown(told)


def table(batch: int, size: int, rows: dict[str, float | None]) -> dict[str, Any]:
    """A table of a report as a grid makes it, with times in ms."""
    made = [
        {
            "name": name,
            "status": "out of memory" if time is None else "measured",
            "facts": {"parameters": 1000},
            "median_ms": time,
            "p95_ms": time,
            "images_per_second": None if time is None else 1e3 * batch / time,
            "ratio": None if time is None else 1.0,
            "ratio_quartiles": None if time is None else [1.0, 1.0],
            "peak_mib": None,
        }
        for name, time in rows.items()
    ]
    labels = {"device": "cpu", "mode": "inference", "size": size, "batch": batch}
    return {"title": f"batch {batch}, {size}", "labels": labels, "clocks": None, "rows": made}


def test_growth_is_told_and_drawn_where_there_are_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = [table(1, side, {"net": side**2 / 1e3, "other": None}) for side in (128, 256, 512)]
    made = {**create_report("growth", lambda: [], quick=True), "tables": tables}
    assert "| net | pixels, inference on cpu, batch 1 | 16,384 | 262,144 | 1.000 | 1.000 |" in markdown(made)
    drawn: list[Any] = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, *_, **__: drawn.append(figure))
    plot(made, tmp_path / "growth.svg")
    panels = {ax.get_title(): ax for ax in drawn[0].axes if ax.get_title()}
    (line,) = panels["pixels, inference on cpu, batch 1"].lines
    assert list(line.get_xdata()) == [128**2, 256**2, 512**2]


def test_the_plot_of_networks_has_throughput_against_batch_and_latency_against_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = [table(batch, 64, {"net": 2.0 * batch, "gone": None}) for batch in (1, 8)]
    drawn: list[Any] = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, *_, **__: drawn.append(figure))
    plot({"subject": "s", "tables": tables}, tmp_path / "s.svg")
    throughput, latency = drawn[0].axes
    assert (throughput.get_xlabel(), throughput.get_ylabel()) == ("images a batch", "images a second")
    (line,) = throughput.lines
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([1, 8], [500, 500])
    assert (latency.get_xlabel(), latency.get_title()) == ("parameters", "inference on cpu, 64x64, batch 1")
    assert [list(line.get_xdata()) for line in latency.lines] == [[1000]]
