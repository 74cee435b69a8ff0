"""Candidates side by side: checked to be equal, then timed round by round in one process, memory in one of its own."""

import ctypes
import datetime
import json
import math
import multiprocessing
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Run:
    """What a candidate builds: the call to time, and facts about it for the table."""

    call: Callable[[], Tensor]
    facts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """Something to measure.

    `equal_to` names the candidate whose result this one must give, to `tolerance` of its largest value.
    """

    name: str
    build: Callable[[], Run]
    equal_to: str | None = None
    tolerance: float = 1e-4


@dataclass(frozen=True)
class Case:
    """Candidates that answer one question; ratios are to the first of them."""

    title: str
    candidates: Sequence[Candidate]
    quick: bool = True


@dataclass
class Row:
    name: str
    status: str
    facts: dict[str, float] = field(default_factory=dict)
    median_ms: float | None = None
    ratio: float | None = None
    ratio_quartiles: tuple[float, float] | None = None
    peak_mib: float | None = None


def measure(case: Case, *, rounds: int, calls: int, seconds: float = math.inf) -> list[Row]:
    """One row a candidate; what is not installed is named and left out.

    Args:
        case: its candidates are built in order.
        rounds: each times every candidate once, the order turned by one from round to round.
        calls: timed calls of a candidate in a round, after one that is not; more of them where these are short.
        seconds: rounds stop after this time.
    """
    rows = [Row(candidate.name, "measured") for candidate in case.candidates]
    runs: dict[str, Run] = {}
    results: dict[str, Tensor] = {}
    for candidate, row in zip(case.candidates, rows, strict=True):
        try:
            runs[candidate.name] = candidate.build()
        except ImportError as error:
            if (error.name or "").partition(".")[0] in ("brainseg", "benchmarks"):
                raise
            row.status = f"not installed ({error.name})"
            continue
        row.facts = runs[candidate.name].facts
        results[candidate.name] = runs[candidate.name].call().detach().clone()
        check(candidate, results)

    if runs and calls > 1:
        calls = max(calls, round(0.03 / _time(next(iter(runs.values())).call, calls)))
    times: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    start = time.perf_counter()
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            times[name].append(_time(runs[name].call, calls))
        if time.perf_counter() - start > seconds:
            break
    reference = times.get(rows[0].name)
    for row in rows:
        if row.name in times:
            row.median_ms = 1e3 * statistics.median(times[row.name])
            if reference:
                ratios = [own / other for own, other in zip(times[row.name], reference, strict=True)]
                row.ratio = row.median_ms / (1e3 * statistics.median(reference))
                low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
                row.ratio_quartiles = (low, high)
    return rows


def check(candidate: Candidate, results: dict[str, Tensor]) -> None:
    """Raises unless the candidate's result is finite and that of the candidate it must equal."""
    result = results[candidate.name]
    if not result.isfinite().all():
        raise AssertionError(f"{candidate.name} gives values that are not finite")
    if candidate.equal_to is None:
        return
    if candidate.equal_to not in results:
        raise AssertionError(f"{candidate.name} is to equal {candidate.equal_to}, which was not measured before it")
    expected = results[candidate.equal_to]
    if result.shape != expected.shape:
        raise AssertionError(
            f"{candidate.name} gives {tuple(result.shape)}, {candidate.equal_to} {tuple(expected.shape)}"
        )
    error, largest = (result - expected).abs().max().item(), expected.abs().max().item()
    if not error <= candidate.tolerance * largest:
        raise AssertionError(
            f"{candidate.name} is {error:.1e} off {candidate.equal_to}, whose largest is {largest:.1e}"
        )


def _time(call: Callable[[], Tensor], calls: int) -> float:
    call()
    _synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    _synchronize()
    return (time.perf_counter() - start) / calls


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_mib(subject: str, title: str, name: str) -> float | None:
    """MiB that one call takes on top of what the built candidate holds; None where it cannot be measured."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_peak, args=(sender, subject, title, name))
    process.start()
    sender.close()
    try:
        peak: float | None = receiver.recv()
    except EOFError:
        peak = None
    process.join()
    return peak


def _send_peak(sender: Any, subject: str, title: str, name: str) -> None:
    cases: list[Case] = import_module(f"benchmarks.{subject}").cases()
    candidates = {candidate.name: candidate for case in cases if case.title == title for candidate in case.candidates}
    call = candidates[name].build().call
    call()
    measured = _peak_on_gpu if torch.cuda.is_available() else _peak_on_linux if platform.system() == "Linux" else None
    if measured:
        sender.send(statistics.median(measured(call) for _ in range(5)))


def _peak_on_gpu(call: Callable[[], Tensor]) -> float:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def _peak_on_linux(call: Callable[[], Tensor]) -> float:
    # What an earlier call left in the allocator's hands would hide what this one takes.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_kib("VmRSS")
    call()
    return (_status_kib("VmHWM") - before) / 2**10


def _status_kib(key: str) -> int:
    match = re.search(rf"^{key}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1])


def environment() -> dict[str, Any]:
    """What the numbers depend on."""
    versions = {}
    for package in ("brainseg-torch", "torch", "monai", "segmentation-models-pytorch", "kornia", "torchmetrics"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "python": platform.python_version(),
        "versions": versions,
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    match = re.search(r"^model name\s*: (.+)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return match[1] if match else platform.processor()


def benchmark(subject: str, *, quick: bool, output: Path) -> Path:
    """Measures the cases of `benchmarks.<subject>`; writes `<subject>.json`, `.md` and `.svg`, returns the second."""
    cases: list[Case] = import_module(f"benchmarks.{subject}").cases()
    tables = []
    for case in cases:
        if quick and not case.quick:
            continue
        rows = measure(case, rounds=2 if quick else 60, calls=1 if quick else 3, seconds=150)
        for row in rows:
            if row.status == "measured" and not quick:
                row.peak_mib = peak_mib(subject, case.title, row.name)
        tables.append({"title": case.title, "rows": [asdict(row) for row in rows]})
    report = {"subject": subject, "environment": environment(), "tables": tables}
    output.mkdir(parents=True, exist_ok=True)
    (output / f"{subject}.json").write_text(json.dumps(report, indent=2) + "\n")
    path = output / f"{subject}.md"
    path.write_text(markdown(report))
    plot(report, output / f"{subject}.svg")
    return path


def markdown(report: dict[str, Any]) -> str:
    """The report's tables."""
    where = report["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items() if version[0].isdigit())
    lines = [
        f"# Benchmark: {report['subject']}",
        "",
        f"{where['date']}, {where['gpu'] or where['cpu']}, {where['threads']} threads of {where['cores']} cores, "
        f"Python {where['python']}, {versions}.",
        "",
        "Time: median of the rounds. Ratio: of the medians, to the first row (quartiles of the per-round ratios); the "
        "candidates are interleaved in one process. Peak: memory that a call takes on top of what its candidate holds.",
    ]
    for table in report["tables"]:
        facts = list(dict.fromkeys(fact for row in table["rows"] for fact in row["facts"]))
        header = ["", *facts, "ms", "ratio", "peak MiB"]
        lines += ["", f"## {table['title']}", ""]
        lines += ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
        lines += ["| " + " | ".join(_cells(row, facts)) + " |" for row in table["rows"]]
    return "\n".join(lines) + "\n"


def _cells(row: dict[str, Any], facts: list[str]) -> list[str]:
    if row["status"] != "measured":
        return [row["name"], *[""] * len(facts), row["status"], "", ""]
    ratio = "not measured"
    if row["ratio"] is not None:
        ratio = "{:.3f} ({:.3f} to {:.3f})".format(row["ratio"], *row["ratio_quartiles"])
    peak = "not measured" if row["peak_mib"] is None else f"{row['peak_mib']:.1f}"
    values = [_number(row["facts"].get(fact)) for fact in facts]
    return [row["name"], *values, f"{row['median_ms']:.2f}", ratio, peak]


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def plot(report: dict[str, Any], path: Path) -> None:
    """A bar for each ratio, with its quartiles."""
    from matplotlib.figure import Figure

    tables = report["tables"]
    figure = Figure(figsize=(8, 0.6 + 0.4 * sum(len(table["rows"]) + 2 for table in tables)), layout="constrained")
    axes = figure.subplots(len(tables), 1, squeeze=False)[:, 0]
    for ax, table in zip(axes, tables, strict=True):
        rows = [row for row in table["rows"] if row["ratio"] is not None][::-1]
        ratios = [row["ratio"] for row in rows]
        # The ratio of medians may lie outside the quartiles of the rounds' ratios.
        spread = [
            [max(0.0, row["ratio"] - row["ratio_quartiles"][0]) for row in rows],
            [max(0.0, row["ratio_quartiles"][1] - row["ratio"]) for row in rows],
        ]
        ax.barh([row["name"] for row in rows], ratios, xerr=spread)
        ax.axvline(1, color="black", linewidth=0.8)
        ax.set_title(table["title"], fontsize=9)
        ax.set_xlabel(f"time over that of {table['rows'][0]['name']}", fontsize=8)
    figure.savefig(path, metadata={"Date": None})
