"""From cases to a report: its figures as JSON, its tables as Markdown."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from brainseg import memory
from brainseg._whole import written_whole
from brainseg.benchmark.growth import find_growth
from brainseg.benchmark.harness import MEASURED, OUT_OF_MEMORY, Case, Row, measure
from brainseg.benchmark.machine import clocks, environment
from brainseg.benchmark.memory import release_memory
from brainseg.benchmark.network_run import why_not
from brainseg.benchmark.peak import peak_mib
from brainseg.benchmark.plots import plot


def create_report(
    subject: str,
    make_cases: Callable[[], Sequence[Case]],
    *,
    quick: bool = False,
    seconds: float = 150,
    keep_freed_memory: bool = False,
    announce: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measures cases one after the other.

    Args:
        subject: what the report is of.
        make_cases: makes them; for the memory of a candidate they are made once more in a process of its own, so that
            it must be a function of a module, or a `partial` or a method that can be pickled.
        quick: two rounds of one call, no memory, and the cases marked as quick alone: to see that everything runs.
        seconds: for the rounds of a case; they are 60 at most.
        keep_freed_memory: by `brainseg.memory.keep_freed_memory`, for this process from now on and for those that
            measure memory.
        announce: hears the title of each case before it is measured.

    Returns:
        JSON values: "subject", "environment", and "tables" with "title", "labels", "clocks", "rows" (as `Row`) each.
    """
    kept = memory.keep_freed_memory() if keep_freed_memory else False
    tables = []
    cases = [case for case in make_cases() if case.quick or not quick]
    for case in cases:
        announce(case.title)
        peaks, killed = ({}, {}) if quick else _peaks(case, make_cases, keep_freed_memory)
        rows = measure(case, rounds=2 if quick else 60, calls=1 if quick else 3, seconds=seconds, leave_out=killed)
        for row in rows:
            row.peak_mib = peaks.get(row.name) if row.status == MEASURED else None
        tables.append(
            {
                "title": case.title,
                "labels": dict(case.labels),
                "clocks": clocks(case.device),
                "rows": [_values(row) for row in rows],
            }
        )
        if "torch._dynamo" in sys.modules:
            torch.compiler.reset()
        release_memory()
    where = environment([case.device for case in cases]) | {"keeps_freed_memory": kept}
    return {"subject": subject, "environment": where, "tables": tables}


def _peaks(
    case: Case, make_cases: Callable[[], Sequence[Case]], keep_freed_memory: bool
) -> tuple[dict[str, float | None], dict[str, str]]:
    """The memory of a call of each candidate, and those whose process the system has ended."""
    peaks: dict[str, float | None] = {}
    killed: dict[str, str] = {}
    for candidate in case.candidates if why_not(torch.device(case.device)) is None else ():
        try:
            peaks[candidate.name] = peak_mib(
                make_cases, case.title, candidate.name, keep_freed_memory=keep_freed_memory
            )
        except MemoryError:
            killed[candidate.name] = OUT_OF_MEMORY
    return peaks, killed


def _values(row: Row) -> dict[str, Any]:
    values = asdict(row)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def failures(report: Mapping[str, Any]) -> list[str]:
    """The rows that failed, with title and reason; what is not installed, not here or out of memory has not failed."""
    return [
        f"{table['title']}: {row['name']} {row['status']}"
        for table in report["tables"]
        for row in table["rows"]
        if row["status"].startswith("failed")
    ]


def write_report(report: Mapping[str, Any], folder: Path) -> Path:
    """Writes `<subject>.json`, `.md` and `.svg`; returns the second.

    Raises:
        ImportError: no matplotlib for the plot; the other two are written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    subject = report["subject"]
    for suffix, text in ((".json", json.dumps(report, indent=2) + "\n"), (".md", markdown(report))):
        with written_whole(folder / f"{subject}{suffix}") as path:
            path.write_text(text)
    with written_whole(folder / f"{subject}.svg") as path:
        plot(report, path)
    return folder / f"{subject}.md"


def markdown(report: Mapping[str, Any]) -> str:
    """The report's tables."""
    lines = [f"# Benchmark: {report['subject']}", "", _where(report["environment"]), "", HOW]
    for table in report["tables"]:
        lines += ["", f"## {table['title']}", ""]
        if table["clocks"] is not None:
            lines += [
                "After the last round: {sm_mhz} MHz, memory {memory_mhz} MHz, {celsius} °C.".format(**table["clocks"]),
                "",
            ]
        lines += _table(table["rows"])
    growths = find_growth(report["tables"])
    if growths:
        lines += ["", "## How time grows", "", SLOPES, ""]
        lines += ["| | against | from | to | slope | steepest |", "|---|---|---:|---:|---:|---:|"]
        lines += [
            f"| {growth.name} | {growth.against}, {growth.where} | {growth.counts[0]:,} | {growth.counts[-1]:,} | "
            f"{growth.slope:.3f} | {growth.steepest:.3f} |"
            for growth in growths
        ]
    return "\n".join(lines) + "\n"


HOW = (
    "Time: p50 and p95 of all timed calls, after calls that are not timed; on CUDA between two events on the stream, "
    "after half a second of warming up. Ratio: of the medians, to the first row (quartiles of the per-round ratios); "
    "the candidates are interleaved in one process. Peak: memory that a call takes on top of what its candidate holds, "
    "in a process of its own."
)
SLOPES = (
    "Slope of the line of least squares through the logarithms of time and of pixels or images (1: in proportion), and "
    "the largest between two neighbours."
)


def _where(environment: Mapping[str, Any]) -> str:
    freed = "kept" if environment["keeps_freed_memory"] else "returned"
    parts = [
        environment["date"],
        *_card(environment),
        environment["cpu"],
        f"{environment['threads']} threads of {environment['cores']} cores",
        f"freed memory {freed}",
        f"Python {environment['python']}",
        *(f"{name} {version}" for name, version in environment["versions"].items() if version[0].isdigit()),
    ]
    return ", ".join(parts) + "."


def _card(environment: Mapping[str, Any]) -> list[str]:
    gpu = environment["gpu"]
    if gpu is None:
        return []
    tf32 = ", ".join(f"{what} {'yes' if on else 'no'}" for what, on in environment["tf32"].items())
    return [
        f"{gpu['name']} ({gpu['memory_gib']} GiB, at most {gpu['max_sm_mhz']} MHz, memory {gpu['max_memory_mhz']} MHz, "
        f"driver {gpu['driver']}, CUDA {gpu['cuda']}, cuDNN {gpu['cudnn']}; TF32 where a row says so, else {tf32})"
    ]


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    facts = list(dict.fromkeys(fact for row in rows for fact in row["facts"]))
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "p50 ms": lambda row: f"{row['median_ms']:.2f}",
        "p95 ms": lambda row: f"{row['p95_ms']:.2f}",
        "images/s": lambda row: f"{row['images_per_second']:,.1f}",
        "ratio": _ratio,
        "peak MiB": lambda row: "not measured" if row["peak_mib"] is None else f"{row['peak_mib']:.1f}",
    }
    if all(row["images_per_second"] is None for row in rows):
        del columns["images/s"]
    header = ["", *facts, *columns]
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    for row in rows:
        if row["status"] == MEASURED:
            cells = [*(_number(row["facts"].get(fact)) for fact in facts), *(cell(row) for cell in columns.values())]
        else:
            cells = [*[""] * len(facts), row["status"], *[""] * (len(columns) - 1)]
        lines.append("| " + " | ".join([row["name"], *(cell.replace("|", "\\|") for cell in cells)]) + " |")
    return lines


def _ratio(row: Mapping[str, Any]) -> str:
    if row["ratio"] is None:
        return "not measured"
    return "{:.3f} ({:.3f} to {:.3f})".format(row["ratio"], *row["ratio_quartiles"])


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
