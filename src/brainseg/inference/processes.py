"""Jobs shared over processes, a device each."""

import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process
from threading import Thread
from typing import Any, NamedTuple

import torch

from brainseg.checks import check_count
from brainseg.inference.jobs import Job, Manner, Outcome, do
from brainseg.inference.predictor import Predictor
from brainseg.report import Pictures


class Mine(NamedTuple):
    """What a process works with.

    Attributes:
        predictor: opened with the first job, so that what is wrong with it is an error of that job.
        manner: of all jobs.
    """

    predictor: Callable[[], Predictor]
    manner: Manner


def check_devices(devices: int, backend: str) -> list[str | None]:
    """The device of each process: one GPU each where there are some, else the processor for all.

    Raises:
        ValueError: less than one, or more than there are GPUs.
    """
    check_count("devices", devices)
    gpus = 0 if backend == "onnxruntime" else torch.cuda.device_count()
    if gpus == 0:
        return [None] * devices
    if devices > gpus:
        raise ValueError(f"devices must be at most {gpus}, the number of GPUs here, got {devices}")
    return [f"cuda:{number}" for number in range(devices)]


def do_in_processes(
    jobs: Sequence[Job],
    devices: Sequence[str | None],
    open_predictor: Callable[..., Predictor],
    manner: Manner,
    pictures: Pictures,
) -> Iterator[tuple[int, Outcome]]:
    """Does the jobs, and yields the number of each with what came of it, as they end.

    Args:
        jobs: to do.
        devices: of each process.
        open_predictor: takes `device=`; found by its name in a fresh process.
        manner: of all jobs.
        pictures: that the slices are added to.

    Raises:
        ChildProcessError: a process was killed.
        OSError: results cannot be written.
    """
    context = get_context("spawn")  # a GPU cannot be used in a copy of a process that has begun with it
    places = context.SimpleQueue()
    for device in devices:
        places.put(device)
    # As many threads as here: sums on others differ in the last bit, and so would probabilities.
    given = (places, open_predictor, manner, torch.get_num_threads())
    with ProcessPoolExecutor(len(devices), mp_context=context, initializer=_begin, initargs=given) as pool:
        try:
            yield from _results(pool, jobs, pictures, 2 * len(devices))
        except BrokenProcessPool as error:
            raise ChildProcessError(
                "a process was ended from outside, perhaps for its memory; go on with --skip-existing, on fewer devices"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _results(
    pool: ProcessPoolExecutor, jobs: Sequence[Job], pictures: Pictures, most: int
) -> Iterator[tuple[int, Outcome]]:
    """A few jobs at a time are given away, so that what is done does not pile up."""
    waiting: set[Future[Any]] = set()
    rest = list(enumerate(jobs))[::-1]
    while rest or waiting:
        while rest and len(waiting) < most:
            waiting.add(pool.submit(_do, *rest.pop()))
        ended, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in ended:
            number, outcome, drawn = future.result()
            pictures.extend(drawn)
            yield number, outcome


_mine: list[Mine] = []
"""Of a process that was started here, once it has begun."""


def _begin(places: Any, open_predictor: Callable[..., Predictor], manner: Manner, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one, which ends it
    Thread(target=_end_with_parent, daemon=True).start()
    logging.disable(logging.WARNING)  # said once already
    torch.set_num_threads(threads)
    device, opened = places.get(), list[Predictor]()

    def predictor() -> Predictor:
        if not opened:
            opened.append(open_predictor(device=device))
        return opened[0]

    _mine.append(Mine(predictor, manner))


def _do(number: int, job: Job) -> tuple[int, Outcome, Any]:
    (mine,) = _mine
    with Pictures() as pictures:
        outcome = do(job, mine.predictor(), mine.manner, pictures)
        return number, outcome, pictures.contents()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
