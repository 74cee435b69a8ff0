"""python -m benchmarks.shares [--run FOLDER] [--slices 600] [--rounds 3] [--threads 2] [--quick] [--output FOLDER].

Which share of a validation, and of `evaluate`, is the network: measured around the calls of a real one of each.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from matplotlib.figure import Figure

from brainseg._whole import written_whole
from brainseg.benchmark import environment
from brainseg.data import LGGSegmentation, SliceDataset, lgg_root, write_phantoms
from brainseg.metrics.base import CaseMetric
from brainseg.models import SegmentationModel
from brainseg.training import TrainConfig, evaluate, evaluation, train
from brainseg.training.config import DataConfig, ModelConfig, read_config, write_config
from brainseg.training.data import SliceDataModule
from brainseg.training.fit import create_trainer
from brainseg.training.task import SegmentationTask

from torchmetrics import MetricCollection  # isort: skip  (brainseg.metrics has made it importable)

PARTS: dict[str, list[tuple[Any, str]]] = {
    "network": [(SegmentationModel, "forward")],
    "reading": [(SliceDataset, "__getitem__")],
    "loss": [(SegmentationTask, "compute_loss")],
    "scores": [(MetricCollection, "update"), *((CaseMetric, name) for name in ("compute", "per_case", "result"))],
    "interval": [(CaseMetric, "confidence_interval")],
    "picture": [(evaluation, "draw_cases"), (Figure, "savefig")],
}
GOAL = 0.8


class Stopwatch:
    """Seconds that the calls of some functions take; a call within another one counts for the outer."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.inside = False

    def watched(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            if self.inside:
                return function(*arguments, **named)
            self.inside, start = True, time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.inside = False
                self.seconds[part] += time.perf_counter() - start

        return timed

    @contextmanager
    def running(self) -> Iterator[None]:
        with ExitStack() as stack:
            for part, places in PARTS.items():
                for owner, name in places:
                    stack.enter_context(patch.object(owner, name, self.watched(part, getattr(owner, name))))
            yield


def shares(call: Callable[[], object], rounds: int) -> dict[str, float]:
    """Median seconds of a call in all, and of its parts; the first call, which fills caches, does not count."""
    call()
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        watch, start = Stopwatch(), time.perf_counter()
        with watch.running():
            call()
        total = time.perf_counter() - start
        rest = total - sum(watch.seconds.values())
        for name, seconds in {"all": total, **watch.seconds, "rest": rest}.items():
            found.setdefault(name, []).append(seconds)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def trained_run(folder: Path, root: Path, patients: Sequence[str], slices: int, *, epochs: int) -> Path:
    """A run that has trained for a minute: masks of an untrained network are noise, whose distances take long."""
    data = DataConfig(root=str(root), cache_dir=str(folder / "cache"))
    names = list(patients)
    lengths = {name: len(LGGSegmentation(root, [name], cache_dir=folder / "cache")) for name in names}
    held: list[str] = []
    while names[2:] and sum(lengths[name] for name in held) < slices:
        held.append(names.pop())
    split = {"train": names[:10], "validation": held, "test": []}
    (folder / "split.json").write_text(json.dumps(split))
    config = TrainConfig(data=replace(data, split=str(folder / "split.json")), epochs=epochs, accelerator="cpu")
    train(config, folder / "run")
    return folder / "run"


def measure(run: Path, folder: Path, rounds: int) -> list[dict[str, Any]]:
    """A row each for validation and `evaluate` of the run's validation slices."""
    config = read_config(run / "config.yaml")
    config = replace(config, model=ModelConfig(config.model.name, config.model.arguments, str(run / "best")))
    data = SliceDataModule(config.data, json.loads((run / "split.json").read_text()), seed=config.seed)
    write_config(config, folder / "config.yaml")
    trainer = create_trainer(config, folder)
    sample = data.val_set[0]
    task = SegmentationTask(config, in_channels=len(sample["image"]), num_classes=len(sample["mask"]))

    def validate() -> None:
        trainer.validate(task, data, verbose=False)

    def evaluate_run() -> None:
        evaluate(run, output=Path(tempfile.mkdtemp(dir=folder)))  # a new one each round: none is overwritten

    return [
        {"name": name, "model": config.model.name, "slices": len(data.val_set), "seconds": shares(call, rounds)}
        for name, call in (("validation", validate), ("evaluate", evaluate_run))
    ]


def markdown(report: dict[str, Any]) -> str:
    where, rows = report["environment"], report["rows"]
    parts = [*PARTS, "rest"]
    lines = [
        "# Benchmark: shares of validation and evaluation",
        "",
        f"{where['date']}, {where['cpu']}, {where['threads']} threads of {where['cores']} cores, "
        f"Python {where['python']}, torch {where['versions']['torch']}. {report['data']}.",
        "",
        f"Median of {report['rounds']} runs after one that fills the cache; goal: {GOAL:.0%} for the network.",
        "",
        "| | of | slices | s | " + " | ".join(parts) + " |",
        "|---|---|---:|---:|" + "---:|" * len(parts),
    ]
    for row in rows:
        seconds = row["seconds"]
        cells = " | ".join(f"{seconds[part] / seconds['all']:.1%}" for part in parts)
        lines.append(f"| {row['name']} | {row['model']} | {row['slices']} | {seconds['all']:.2f} | {cells} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shares", description="The network's share.")
    parser.add_argument("--run", type=Path, help="a trained run (default: one is trained for a minute)")
    parser.add_argument("--slices", type=int, default=600, help="of validation, in whole patients (600)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a few small phantoms, to see that it runs")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = lgg_root()
        if arguments.quick or not root.is_dir():
            size, count = (64, 4) if arguments.quick else (256, 30)
            root = folder / "lgg"
            write_phantoms(root, patients=4 if arguments.quick else 30, slices=count, size=size)
        source = "Phantoms" if root == folder / "lgg" else "LGG slices"
        run = arguments.run
        if run is None:
            patients = LGGSegmentation(root, cache_dir=folder / "cache").patients
            slices = 8 if arguments.quick else arguments.slices
            run = trained_run(folder, root, patients, slices, epochs=1 if arguments.quick else 3)
        rows = measure(run, folder, 1 if arguments.quick else arguments.rounds)
    report = {
        "subject": "shares",
        "environment": environment(),
        "data": source,
        "rounds": 1 if arguments.quick else arguments.rounds,
        "rows": rows,
    }
    output = arguments.output or (here.parent / "build" / "benchmarks" if arguments.quick else here / "results")
    output.mkdir(parents=True, exist_ok=True)
    for suffix, text in ((".json", json.dumps(report, indent=2) + "\n"), (".md", markdown(report))):
        with written_whole(output / f"shares{suffix}") as path:
            path.write_text(text)
    print(markdown(report))


if __name__ == "__main__":
    main()
