"""How long a call takes: by the processor's clock, or by events on the stream of a CUDA device."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

Call = Callable[[], Any]


def time_calls(call: Call, calls: int, device: torch.device) -> list[float]:
    """Seconds of each of some calls, after one that is not timed.

    On CUDA a call is timed between two events on the current stream, and the host waits once, after the last of
    them: what is timed is the device at work, or waiting for a host that does not launch fast enough.

    Args:
        call: what to time.
        calls: how often.
        device: the one that the call works on.
    """
    call()
    if device.type == "cuda":
        with torch.cuda.device(device):
            return _by_events(call, calls)
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def _by_events(call: Call, calls: int) -> list[float]:
    event = partial(torch.cuda.Event, enable_timing=True)
    events = [(event(), event()) for _ in range(calls)]
    torch.cuda.synchronize()
    for start, end in events:
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) / 1e3 for start, end in events]


def warm_up(call: Call, device: torch.device, *, seconds: float) -> None:
    """Calls until a CUDA device has had time to raise its clocks; a processor needs no more than one call.

    Args:
        call: what will be timed.
        device: the one that it works on.
        seconds: how long a CUDA device is kept busy, with three calls at least.
    """
    call()
    if device.type != "cuda":
        return
    call()
    call()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        call()
        torch.cuda.synchronize(device)
