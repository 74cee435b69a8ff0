"""The harness: nothing unequal is timed, what is absent is named, ratios are what was slept."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from brainseg.benchmark import Candidate, Case, Run, harness, measure
from tests.benchmark.conftest import Clock


def candidate(name: str, value: float = 1.0, **arguments: Any) -> Candidate:
    def call() -> Tensor:
        return torch.tensor([value, 2.0])

    return Candidate(name, lambda: Run(call, {"parameters": 3}), **arguments)


def absent() -> Run:
    raise ImportError("no such package", name="peer")


def test_ratios_are_to_the_first_candidate(clock: Clock) -> None:
    def sleeps(seconds: float) -> Callable[[], Run]:
        def call() -> Tensor:
            clock.sleep(seconds)
            return torch.zeros(1)

        return lambda: Run(call)

    slow, fast = measure(
        Case("sleep", [Candidate("a", sleeps(0.25)), Candidate("b", sleeps(0.0625))]), rounds=5, calls=2
    )
    assert (slow.ratio, slow.median_ms) == (1, 250)
    assert (fast.ratio, fast.median_ms, fast.p95_ms) == (0.25, 62.5, 62.5)
    assert fast.ratio_quartiles == (0.25, 0.25)


def test_the_ratio_is_of_the_medians_and_the_quartiles_are_of_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    # Rounds of slow and fast, which stand first in turn: ratios 1/2, 1/4 and 3/6, their quartiles 3/8 and 1/2.
    times = iter([[2.0], [1.0], [1.0], [4.0], [6.0], [3.0]])
    monkeypatch.setattr(harness, "time_calls", lambda *_: next(times))
    slow, fast = measure(Case("given", [candidate("slow"), candidate("fast")]), rounds=3, calls=1)
    assert (slow.median_ms, fast.median_ms) == (4000, 1000)
    assert fast.ratio == 0.25
    assert fast.ratio_quartiles == (0.375, 0.5)


def test_what_is_not_installed_is_named_and_the_rest_is_measured() -> None:
    rows = measure(Case("peers", [Candidate("peer", absent), candidate("ours")]), rounds=1, calls=1)
    assert [row.status for row in rows] == ["not installed (peer)", "measured"]
    assert rows[0].median_ms is None
    assert rows[1].ratio is None
    assert rows[1].median_ms is not None


@pytest.mark.parametrize(("value", "message"), [(1.2, "off reference"), (float("nan"), "not finite")])
def test_unequal_and_infinite_results_are_not_timed(value: float, message: str) -> None:
    case = Case("wrong", [candidate("reference"), candidate("wrong", value=value, equal_to="reference")])
    reference, wrong = measure(case, rounds=1, calls=1)
    assert reference.median_ms is not None
    assert wrong.status.startswith("failed (it ")
    assert message in wrong.status
    assert wrong.median_ms is None


@pytest.mark.parametrize("other", ["typo", "later"])
def test_a_candidate_must_equal_one_that_comes_before_it(other: str) -> None:
    with pytest.raises(ValueError, match=f"is to equal {other}, which does not come before it"):
        Case("order", [candidate("first", equal_to=other), candidate("later")])


def test_two_candidates_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two candidates of twice are called a"):
        Case("twice", [candidate("a"), candidate("a")])


def test_what_has_nothing_to_be_compared_with_is_not_timed() -> None:
    rows = measure(Case("peers", [Candidate("peer", absent), candidate("ours", equal_to="peer")]), rounds=1, calls=1)
    assert rows[1].status == "not measured (there is no result of peer to compare with)"


def test_results_of_another_shape_are_not_equal_and_zeros_are() -> None:
    def gives(*shape: int) -> Callable[[], Run]:
        return lambda: Run(lambda: torch.zeros(shape))

    equal = Case("zeros", [Candidate("a", gives(2)), Candidate("b", gives(2), equal_to="a")])
    assert [row.status for row in measure(equal, rounds=1, calls=1)] == ["measured", "measured"]
    unequal = Case("shapes", [Candidate("a", gives(2)), Candidate("b", gives(1), equal_to="a")])
    assert measure(unequal, rounds=1, calls=1)[1].status == "failed (it gives (1,), a (2,))"


def raises(error: Exception, after: int = 0) -> Callable[[], Run]:
    """Builds a run whose calls fail after some that did not."""
    left = iter(range(after))

    def call() -> Tensor:
        if next(left, None) is None:
            raise error
        return torch.zeros(1)

    return lambda: Run(call)


CPU_ALLOCATOR = RuntimeError("[enforce fail at alloc_cpu.cpp:128] err == 0. DefaultCPUAllocator: can't allocate memory")


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory."), CPU_ALLOCATOR])
@pytest.mark.parametrize("after", [0, 4])
def test_out_of_memory_is_a_row_and_not_the_end(error: Exception, after: int) -> None:
    case = Case("memory", [Candidate("large", raises(error, after)), candidate("small")])
    large, small = measure(case, rounds=5, calls=1)
    assert (large.status, large.median_ms, large.ratio) == ("out of memory", None, None)
    assert small.status == "measured"
    assert small.median_ms is not None


def test_memory_that_the_system_refuses_is_a_row() -> None:
    case = Case("memory", [Candidate("huge", lambda: Run(lambda: torch.empty(2**60, dtype=torch.uint8)))])
    assert measure(case, rounds=1, calls=1)[0].status == "out of memory"


def test_a_candidate_that_fails_is_a_row_that_says_why() -> None:
    case = Case("error", [Candidate("broken", raises(ValueError("sides must\n be even"))), candidate("whole")])
    broken, whole = measure(case, rounds=1, calls=1)
    assert broken.status == "failed (ValueError: sides must be even)"
    assert whole.status == "measured"


def test_a_missing_module_of_ours_is_the_end() -> None:
    case = Case("ours", [Candidate("ours", lambda: raises_import_error("brainseg.models.moved"))])
    with pytest.raises(ImportError):
        measure(case, rounds=1, calls=1)


def raises_import_error(name: str) -> Run:
    raise ImportError(f"no {name}", name=name)


def test_candidates_that_are_known_not_to_run_are_left_out() -> None:
    case = Case("known", [Candidate("killed", raises(KeyError("never built"))), candidate("ours")])
    rows = measure(case, rounds=1, calls=1, leave_out={"killed": "out of memory"})
    assert [row.status for row in rows] == ["out of memory", "measured"]


def test_p50_and_p95_are_of_single_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = iter([[1.0] * 10, [1.0] * 9 + [9.0]])
    monkeypatch.setattr(harness, "time_calls", lambda *_: next(rounds))
    (row,) = measure(Case("tail", [candidate("a")], images=8), rounds=2, calls=1)
    assert (row.median_ms, row.p95_ms, row.images_per_second) == (1000, 1000, 8)
    rounds = iter([[1.0] * 10, [1.0] * 8 + [9.0] * 2])
    (row,) = measure(Case("tail", [candidate("a")]), rounds=2, calls=1)
    assert (row.median_ms, row.p95_ms, row.images_per_second) == (1000, 9000, None)


def test_the_order_turns_from_round_to_round() -> None:
    order: list[str] = []
    case = Case("order", [Candidate(n, lambda n=n: Run(lambda: order.append(n) or torch.zeros(1))) for n in "abc"])
    measure(case, rounds=3, calls=1)
    # The result and a warm-up of each, then in every round a call that is not timed and one that is.
    assert "".join(order) == "aabbcc" + "aabbcc" + "bbccaa" + "ccaabb"


def test_rounds_stop_when_the_time_is_up() -> None:
    calls: list[float] = []
    case = Case("long", [Candidate("counted", lambda: Run(lambda: calls.append(0.0) or torch.zeros(1)))])
    measure(case, rounds=1000, calls=1, seconds=0)
    assert len(calls) == 4


def test_short_calls_are_timed_in_greater_number_and_long_ones_are_not(clock: Clock) -> None:
    calls = {"short": 0, "long": 0}

    def counted(name: str, seconds: float) -> Callable[[], Run]:
        def call() -> Tensor:
            calls[name] += 1
            clock.sleep(seconds)
            return torch.zeros(1)

        return lambda: Run(call)

    case = Case("length", [Candidate("short", counted("short", 0.001)), Candidate("long", counted("long", 1.0))])
    measure(case, rounds=1, calls=3)
    # The result, a warm-up, four to find out, and a round with one that is not timed.
    assert calls == {"short": 6 + 31, "long": 6 + 4}
