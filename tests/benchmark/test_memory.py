"""Memory of a call, measured in a process of its own, and what counts as its end."""

import os
import signal

import pytest
import torch
from torch import Tensor

from brainseg.benchmark import Candidate, Case, Run
from brainseg.benchmark.peak import peak_mib, send_peak
from tests.benchmark.conftest import FakeCUDA

MIB = 2**20


def take_64_mib() -> Tensor:
    return torch.ones(16 * MIB).sum()


def die() -> Tensor:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a killed process goes on")


def fail() -> Run:
    raise ValueError("cannot be built")


def cases() -> list[Case]:
    candidates = {"64": lambda: Run(take_64_mib), "killed": lambda: Run(die), "broken": fail}
    return [Case("memory", [Candidate(name, build) for name, build in candidates.items()])]


class Sender:
    def __init__(self) -> None:
        self.sent: list[float | None] = []

    def send(self, value: float | None) -> None:
        self.sent.append(value)


def test_peak_memory_of_a_call_is_that_of_what_it_allocates() -> None:
    sender = Sender()
    send_peak(sender, cases, "memory", "64", torch.get_num_threads(), False)  # type: ignore[arg-type]
    assert sender.sent == [pytest.approx(64, abs=4)]


def test_what_fails_has_no_peak() -> None:
    sender = Sender()
    send_peak(sender, cases, "memory", "broken", torch.get_num_threads(), False)  # type: ignore[arg-type]
    assert sender.sent == [None]


def test_a_process_that_the_system_ends_is_out_of_memory() -> None:
    with pytest.raises(MemoryError, match="the system ended the process of killed"):
        peak_mib(cases, "memory", "killed")


def test_on_cuda_the_peak_is_the_allocators_and_what_a_graph_keeps(cuda: FakeCUDA) -> None:
    cuda.held = 10 * MIB

    def call() -> None:
        cuda.peak = 25 * MIB

    def of_graph() -> list[Case]:
        return [Case("graph", [Candidate("replayed", lambda: Run(call, kept_bytes=2 * MIB))], device="cuda")]

    sender = Sender()
    send_peak(sender, of_graph, "graph", "replayed", torch.get_num_threads(), False)  # type: ignore[arg-type]
    assert sender.sent == [15 + 2]
    assert "reset peak" in cuda.log
