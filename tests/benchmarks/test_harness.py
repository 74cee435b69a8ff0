"""The harness: nothing unequal is timed, what is absent is named, ratios are what was slept."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import _harness
from benchmarks._harness import Candidate, Case, Run, benchmark, measure


def candidate(name: str, seconds: float = 0.0, value: float = 1.0, **arguments: Any) -> Candidate:
    def call() -> Tensor:
        time.sleep(seconds)
        return torch.tensor([value, 2.0])

    return Candidate(name, lambda: Run(call, {"parameters": 3}), **arguments)


def absent() -> Run:
    raise ImportError("no such package", name="peer")


def test_ratios_are_to_the_first_candidate() -> None:
    case = Case("sleep", [candidate("slow", 0.02), candidate("fast", 0.005)])
    slow, fast = measure(case, rounds=5, calls=2)
    assert slow.ratio == 1
    assert fast.ratio == pytest.approx(0.25, abs=0.1)
    assert fast.median_ms == pytest.approx(5, abs=2)
    assert fast.ratio_quartiles is not None
    assert fast.ratio_quartiles == (pytest.approx(0.25, abs=0.1), pytest.approx(0.25, abs=0.1))


def test_the_ratio_is_of_the_medians_and_the_quartiles_are_of_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    # Rounds of slow and fast, which stand first in turn: ratios 1/2, 1/4 and 3/6.
    times = iter([2.0, 1.0, 1.0, 4.0, 6.0, 3.0])
    monkeypatch.setattr(_harness, "_time", lambda *_: next(times))
    slow, fast = measure(Case("given", [candidate("slow"), candidate("fast")]), rounds=3, calls=1)
    assert (slow.median_ms, fast.median_ms) == (4000, 1000)
    assert fast.ratio == 0.25
    assert fast.ratio_quartiles == (0.25, 0.5)


def test_what_is_not_installed_is_named_and_the_rest_is_measured() -> None:
    rows = measure(Case("peers", [Candidate("peer", absent), candidate("ours")]), rounds=1, calls=1)
    assert [row.status for row in rows] == ["not installed (peer)", "measured"]
    assert rows[0].median_ms is None
    assert rows[1].ratio is None
    assert rows[1].median_ms is not None


@pytest.mark.parametrize(("value", "message"), [(1.2, "off reference"), (float("nan"), "not finite")])
def test_unequal_and_infinite_results_are_not_timed(value: float, message: str) -> None:
    case = Case("wrong", [candidate("reference"), candidate("wrong", value=value, equal_to="reference")])
    with pytest.raises(AssertionError, match=message):
        measure(case, rounds=1, calls=1)


@pytest.mark.parametrize("other", ["typo", "later"])
def test_a_candidate_must_equal_one_that_was_measured_before_it(other: str) -> None:
    case = Case("order", [candidate("first", equal_to=other), candidate("later")])
    with pytest.raises(AssertionError, match=f"is to equal {other}, which was not measured before it"):
        measure(case, rounds=1, calls=1)


def test_results_of_another_shape_are_not_equal_and_zeros_are() -> None:
    def gives(*shape: int) -> Callable[[], Run]:
        return lambda: Run(lambda: torch.zeros(shape))

    measure(Case("zeros", [Candidate("a", gives(2)), Candidate("b", gives(2), equal_to="a")]), rounds=1, calls=1)
    with pytest.raises(AssertionError, match=r"b gives \(1,\), a \(2,\)"):
        measure(Case("shapes", [Candidate("a", gives(2)), Candidate("b", gives(1), equal_to="a")]), rounds=1, calls=1)


def test_the_order_turns_from_round_to_round() -> None:
    order: list[str] = []
    case = Case("order", [Candidate(n, lambda n=n: Run(lambda: order.append(n) or torch.zeros(1))) for n in "abc"])
    measure(case, rounds=3, calls=1)
    assert "".join(order) == "abc" + "aabbcc" + "bbccaa" + "ccaabb"


def test_rounds_stop_when_the_time_is_up() -> None:
    calls: list[float] = []
    case = Case("long", [Candidate("counted", lambda: Run(lambda: calls.append(0.0) or torch.zeros(1)))])
    measure(case, rounds=1000, calls=1, seconds=0)
    assert len(calls) == 3  # the result, one call that is not timed, one that is


def test_peak_memory_of_a_call_is_that_of_what_it_allocates(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[float] = []

    def call() -> Tensor:
        return torch.ones(64 * 2**18).sum()

    module = type("Module", (), {"cases": staticmethod(lambda: [Case("memory", [Candidate("64", lambda: Run(call))])])})
    monkeypatch.setattr(_harness, "import_module", lambda _: module)
    sender = type("Sender", (), {"send": staticmethod(sent.append)})
    _harness._send_peak(sender, "subject", "memory", "64")
    assert sent == [pytest.approx(64, abs=4)]


def test_a_report_has_figures_tables_and_a_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cases() -> list[Case]:
        quick = Case("a", [candidate("ours"), Candidate("peer", absent)])
        return [quick, Case("b", [candidate("long")], quick=False)]

    monkeypatch.setattr(_harness, "import_module", lambda _: type("Module", (), {"cases": staticmethod(cases)}))
    path = benchmark("subject", quick=True, output=tmp_path)
    report = json.loads((tmp_path / "subject.json").read_text())
    assert [table["title"] for table in report["tables"]] == ["a"]
    assert torch.__version__.startswith(report["environment"]["versions"]["torch"].partition("+")[0])
    table = path.read_text()
    assert "| peer |  | not installed (peer) |  |  |" in table
    assert "| ours | 3 | " in table
    assert "not measured |" in table
    assert (tmp_path / "subject.svg").read_text().startswith("<?xml")


@pytest.mark.slow
def test_the_models_benchmark_runs(tmp_path: Path) -> None:
    table = benchmark("models", quick=True, output=tmp_path).read_text()
    assert "| unext | 1,471,921 | 0.5620 |" in table
