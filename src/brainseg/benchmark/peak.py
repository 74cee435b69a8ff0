"""The memory that a call takes, measured in a process of its own."""

import ctypes
import multiprocessing
import platform
import re
import signal
import statistics
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from brainseg import memory
from brainseg.benchmark.clock import Call
from brainseg.benchmark.harness import Case, Run


def peak_mib(
    make_cases: Callable[[], Sequence[Case]], case: str, candidate: str, *, keep_freed_memory: bool = False
) -> float | None:
    """MiB that one call takes on top of what the built candidate holds, in a process of its own.

    Args:
        make_cases: makes the cases once more, in that process; pickled by its name.
        case: title of the case.
        candidate: its name there.
        keep_freed_memory: by `brainseg.memory.keep_freed_memory`, in that process.

    Returns:
        None where it cannot be measured: the candidate fails, or the system does not tell.

    Raises:
        MemoryError: the system ended the process, as Linux does when memory is out.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    arguments = (sender, make_cases, case, candidate, torch.get_num_threads(), keep_freed_memory)
    process = context.Process(target=send_peak, args=arguments)
    process.start()
    sender.close()
    try:
        peak: float | None = receiver.recv()
    except EOFError:
        peak = None
    process.join()
    if process.exitcode == -signal.SIGKILL:
        raise MemoryError(f"the system ended the process of {candidate}")
    return peak


def send_peak(
    sender: Connection,
    make_cases: Callable[[], Sequence[Case]],
    case: str,
    candidate: str,
    threads: int,
    keep_freed_memory: bool,
) -> None:
    """What the process of `peak_mib` does: sends the median of five calls, or None."""
    torch.set_num_threads(threads)
    if keep_freed_memory:
        memory.keep_freed_memory()
    (found,) = [given for given in make_cases() if given.title == case]
    (build,) = [given.build for given in found.candidates if given.name == candidate]
    try:
        run = build()
        run.call()
        sender.send(statistics.median(_peak(run, torch.device(found.device)) for _ in range(5)))
    except Exception:  # the process that times it says what is wrong
        sender.send(None)


def _peak(run: Run, device: torch.device) -> float:
    if device.type == "cuda":
        return _peak_on_cuda(run.call, device) + run.kept_bytes / 2**20
    if platform.system() != "Linux":
        raise NotImplementedError("only Linux tells the highest use of memory since a moment")
    return _peak_on_linux(run.call)


def _peak_on_cuda(call: Call, device: torch.device) -> float:
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def _peak_on_linux(call: Call) -> float:
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
