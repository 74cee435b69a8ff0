"""Candidates side by side: checked to be finite and equal, then timed round by round in one process."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from brainseg.benchmark.clock import time_calls, warm_up
from brainseg.benchmark.memory import is_out_of_memory, release_memory

MEASURED = "measured"
OUT_OF_MEMORY = "out of memory"
WARM_UP = 0.5
"""Seconds that a CUDA device is kept busy with each candidate, so that its clocks have risen."""


@dataclass(frozen=True)
class Run:
    """What a candidate builds.

    Attributes:
        call: what is timed.
        facts: numbers for the table.
        result: gives the tensor that is checked to be finite and equal; None where a call gives it.
        kept_bytes: memory that is set aside for the calls once and for all, as by a CUDA graph; it counts as theirs.
    """

    call: Callable[[], Any]
    facts: Mapping[str, float] = field(default_factory=dict)
    result: Callable[[], Tensor] | None = None
    kept_bytes: int = 0


@dataclass(frozen=True)
class Candidate:
    """Something to measure.

    Attributes:
        name: its row.
        build: makes it ready; an ImportError says that it is not installed, `NotAvailableError` that it cannot
            run here.
        equal_to: a candidate before it whose result this one must give, to `tolerance` of its largest value.
        tolerance: see `equal_to`.
    """

    name: str
    build: Callable[[], Run]
    equal_to: str | None = None
    tolerance: float = 1e-4


@dataclass(frozen=True)
class Case:
    """Candidates that answer one question; ratios are to the first of them.

    Attributes:
        title: of the table.
        candidates: its rows.
        quick: whether a quick look takes it in.
        device: where the candidates work, "cpu" or "cuda".
        images: how many a call works on, for images a second; None where that means nothing.
        labels: what tables have in common or differ in, for plots: batch, size, mode.

    Raises:
        ValueError: two candidates of one name, or one that is to equal none before it.
    """

    title: str
    candidates: Sequence[Candidate]
    quick: bool = True
    device: str = "cpu"
    images: int | None = None
    labels: Mapping[str, str | int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        before: set[str] = set()
        for candidate in self.candidates:
            if candidate.name in before:
                raise ValueError(f"two candidates of {self.title} are called {candidate.name}; names tell rows apart")
            if candidate.equal_to is not None and candidate.equal_to not in before:
                raise ValueError(f"{candidate.name} is to equal {candidate.equal_to}, which does not come before it")
            before.add(candidate.name)


class NotAvailableError(Exception):
    """A candidate cannot be measured on this machine; the message says why."""


@dataclass
class Row:
    """A candidate's line of the table.

    Attributes:
        name: the candidate.
        status: "measured", or why it was not: "not installed (...)", "not measured (...)", "out of memory",
            "failed (...)".
        facts: as the candidate gives them.
        median_ms: of all timed calls (p50).
        p95_ms: 95 % of the calls took no longer.
        images_per_second: at the median.
        ratio: of the medians, to the first candidate.
        ratio_quartiles: of the ratios of every round.
        peak_mib: memory that a call takes on top of what its candidate holds; None if that was not measured.
    """

    name: str
    status: str
    facts: dict[str, float] = field(default_factory=dict)
    median_ms: float | None = None
    p95_ms: float | None = None
    images_per_second: float | None = None
    ratio: float | None = None
    ratio_quartiles: tuple[float, float] | None = None
    peak_mib: float | None = None


def measure(
    case: Case,
    *,
    rounds: int,
    calls: int,
    seconds: float = math.inf,
    leave_out: Mapping[str, str] | None = None,
) -> list[Row]:
    """One row a candidate; what cannot be measured says why, and does not keep the others from it.

    Args:
        case: its candidates are built in order.
        rounds: each times every candidate once, the order turned by one from round to round.
        calls: timed calls of a candidate in a round, after one that is not; more of them where these are short.
        seconds: rounds stop after this time.
        leave_out: candidates that are known not to run, and why.
    """
    rows = {candidate.name: Row(candidate.name, MEASURED) for candidate in case.candidates}
    for name, reason in (leave_out or {}).items():
        rows[name].status = reason
    device = torch.device(case.device)
    runs = _ready(case, rows)
    numbers = _enough(calls, runs, rows, device)
    times: dict[str, list[list[float]]] = {name: [] for name in runs}
    names = list(runs)
    start = time.perf_counter()
    for i in range(rounds):
        turn = i % len(names) if names else 0
        for name in names[turn:] + names[:turn]:
            if rows[name].status == MEASURED:
                with _failures_in(rows[name]):
                    times[name].append(time_calls(runs[name].call, numbers[name], device))
        if time.perf_counter() - start > seconds:
            break
    _fill(case, rows, times)
    return list(rows.values())


def _ready(case: Case, rows: Mapping[str, Row]) -> dict[str, Run]:
    """The candidates that run, checked and warm."""
    runs: dict[str, Run] = {}
    results: dict[str, Tensor] = {}
    device = torch.device(case.device)
    for candidate in case.candidates:
        row = rows[candidate.name]
        if row.status != MEASURED:
            continue
        with _failures_in(row):
            if candidate.equal_to is not None and candidate.equal_to not in results:
                raise NotAvailableError(f"there is no result of {candidate.equal_to} to compare with")
            run = candidate.build()
            row.facts = dict(run.facts)
            # On the host, so that results take no room on the device from what is measured.
            results[candidate.name] = (run.result or run.call)().detach().to("cpu", copy=True)
            check(candidate, results)
            warm_up(run.call, device, seconds=WARM_UP)
            runs[candidate.name] = run
    return runs


def _enough(calls: int, runs: Mapping[str, Run], rows: Mapping[str, Row], device: torch.device) -> dict[str, int]:
    """For each candidate so many calls that they take 30 ms a round."""
    numbers = dict.fromkeys(runs, calls)
    for name, run in runs.items() if calls > 1 else ():
        with _failures_in(rows[name]):
            numbers[name] = max(calls, round(0.03 / statistics.fmean(time_calls(run.call, calls, device))))
    return numbers


def _fill(case: Case, rows: Mapping[str, Row], times: Mapping[str, list[list[float]]]) -> None:
    measured = {name: rounds for name, rounds in times.items() if rows[name].status == MEASURED and rounds}
    reference = measured.get(case.candidates[0].name)
    for name, rounds in measured.items():
        row = rows[name]
        every = sorted(seconds for one in rounds for seconds in one)
        row.median_ms = 1e3 * statistics.median(every)
        # The smallest time that 95 % of the calls do not pass.
        row.p95_ms = 1e3 * every[math.ceil(0.95 * len(every)) - 1]
        if case.images is not None:
            row.images_per_second = 1e3 * case.images / row.median_ms
        if reference is not None:
            ratios = [
                statistics.median(own) / statistics.median(other) for own, other in zip(rounds, reference, strict=True)
            ]
            row.ratio = row.median_ms / (1e3 * statistics.median(x for one in reference for x in one))
            low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
            row.ratio_quartiles = (low, high)


def check(candidate: Candidate, results: Mapping[str, Tensor]) -> None:
    """Raises unless the candidate's result is finite and that of the candidate it must equal.

    Raises:
        AssertionError: values that are not finite, or another shape or other values than those to equal.
    """
    result = results[candidate.name]
    if not result.isfinite().all():
        raise AssertionError("it gives values that are not finite")
    if candidate.equal_to is None:
        return
    expected = results[candidate.equal_to]
    if result.shape != expected.shape:
        raise AssertionError(f"it gives {tuple(result.shape)}, {candidate.equal_to} {tuple(expected.shape)}")
    error, largest = (result - expected).abs().max().item(), expected.abs().max().item()
    if not error <= candidate.tolerance * largest:
        raise AssertionError(f"it is {error:.1e} off {candidate.equal_to}, whose largest is {largest:.1e}")


@contextmanager
def _failures_in(row: Row) -> Iterator[None]:
    """What goes wrong becomes the row's status."""
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] in ("brainseg", "benchmarks"):
            raise
        row.status = f"not installed ({error.name or _one_line(error)})"
    except (NotAvailableError, AssertionError) as error:
        kind = "not measured" if isinstance(error, NotAvailableError) else "failed"
        row.status = f"{kind} ({_one_line(error)})"
    except Exception as error:
        row.status = (
            OUT_OF_MEMORY if is_out_of_memory(error) else f"failed ({type(error).__name__}: {_one_line(error)})"
        )
    if row.status == OUT_OF_MEMORY:
        release_memory()  # for the candidates that come after it


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:199]}…"
