"""A CUDA device that is none, whose tensors lie in the processor's memory; and time that passes by sleeping alone."""

import time
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from brainseg.benchmark import harness


class OnCPU(TorchFunctionMode):
    """Whatever is sent to CUDA stays where it is."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def moved(value: Any) -> Any:
            is_cuda = isinstance(value, torch.device | str) and str(value).startswith("cuda")
            return torch.device("cpu") if is_cuda else value

        if function is torch.device:
            return function(*args, **(kwargs or {}))
        return function(*map(moved, args), **{key: moved(value) for key, value in (kwargs or {}).items()})


class FakeCUDA:
    """What was asked of the device, in order, and the bytes that it says it holds."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.held = 0
        self.peak = 0

    def install(self, patch: pytest.MonkeyPatch) -> None:
        fake = self

        class Event:
            def __init__(self, *, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                fake.log.append("record")
                self.at = time.perf_counter()

            def elapsed_time(self, end: "Event") -> float:
                assert fake.log[-1] == "synchronize", "events are read before the device has reached them"
                return 1e3 * (end.at - self.at)

        class Stream:
            def __init__(self, *_: Any) -> None:
                pass

            def wait_stream(self, _: Any) -> None:
                fake.log.append("wait_stream")

        class Graph:
            def replay(self) -> None:
                fake.log.append("replay")

        @contextmanager
        def graph(_: Graph) -> Any:
            fake.log.append("capture")
            fake.peak = fake.held + 3 * 2**20
            yield
            fake.log.append("captured")

        properties = SimpleNamespace(
            name="Card", total_memory=80 * 2**30, major=9, minor=0, uuid="0-1", multi_processor_count=1
        )
        patched = {
            "is_available": lambda: True,
            "device_count": lambda: 1,
            "get_device_properties": lambda *_: properties,
            "synchronize": lambda *_: fake.log.append("synchronize"),
            "device": lambda *_: nullcontext(),
            "stream": lambda *_: nullcontext(),
            "current_stream": Stream,
            "is_current_stream_capturing": lambda: False,
            "memory_allocated": lambda *_: fake.held,
            "max_memory_allocated": lambda *_: fake.peak,
            "reset_peak_memory_stats": lambda *_: fake.log.append("reset peak"),
            "empty_cache": lambda: fake.log.append("empty cache"),
            "is_bf16_supported": lambda *_: True,
            "manual_seed_all": lambda *_: None,
            "Event": Event,
            "Stream": Stream,
            "CUDAGraph": Graph,
            "graph": graph,
        }
        for name, value in patched.items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(torch.accelerator, "current_stream", lambda *_: SimpleNamespace(is_capturing=lambda: False))


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What `time.perf_counter` tells, as long as the test runs."""
    fake = Clock()
    monkeypatch.setattr(time, "perf_counter", lambda: fake.now)
    return fake


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The device, as long as the test runs."""
    fake = FakeCUDA()
    fake.install(monkeypatch)
    monkeypatch.setattr(harness, "WARM_UP", 0.0)
    with OnCPU():
        yield fake
