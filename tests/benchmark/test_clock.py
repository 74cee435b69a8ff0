"""Times of single calls, on the processor and between events."""

import pytest
import torch

from brainseg.benchmark.clock import time_calls, warm_up
from tests.benchmark.conftest import Clock, FakeCUDA


def test_every_call_is_timed_after_one_that_is_not(clock: Clock) -> None:
    sleeps = iter([5.0, 1.0, 2.0, 3.0])
    assert time_calls(lambda: clock.sleep(next(sleeps)), 3, torch.device("cpu")) == [1, 2, 3]


def test_on_cuda_calls_lie_between_events_and_the_host_waits_once_at_the_end(cuda: FakeCUDA, clock: Clock) -> None:
    sleeps = iter([5.0, 1.0, 2.0])

    def call() -> None:
        cuda.log.append("call")
        clock.sleep(next(sleeps))

    times = time_calls(call, 2, torch.device("cuda"))
    between = ["record", "call", "record"]
    assert cuda.log == ["call", "synchronize", *between, *between, "synchronize"]
    assert times == [pytest.approx(1), pytest.approx(2)]


def test_a_cuda_device_is_kept_busy_before_anything_is_timed(cuda: FakeCUDA, clock: Clock) -> None:
    calls: list[float] = []

    def call() -> None:
        clock.sleep(0.125)
        calls.append(clock.now)

    warm_up(call, torch.device("cuda"), seconds=1.0)
    assert calls[-1] == 3 * 0.125 + 1
    assert "synchronize" in cuda.log


def test_a_processor_is_warm_after_one_call() -> None:
    calls: list[int] = []
    warm_up(lambda: calls.append(0), torch.device("cpu"), seconds=1.0)
    assert calls == [0]
