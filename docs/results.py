"""Writes docs/results.md from the tables in docs/runs; the prose, with its numbers as expressions, is results.in.md.

    brainseg experiment course-1 --run runs/course-1
    python docs/results.py runs/course-1

Of each run docs/runs keeps what says how it went: configuration, split, tables, and of each validation slice the two
parts of its loss. Without arguments the page is written again from these.
"""

import json
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, StrictUndefined
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from brainseg.data import read_slices_leaking
from brainseg.inference import Predictor
from brainseg.losses import BCEDiceLoss
from brainseg.metrics import Interval, compare, confidence_interval
from brainseg.report import read_rows, write_rows
from brainseg.training import evaluate, read_config, write_config
from brainseg.training.config import DataConfig
from brainseg.training.datasets import open_part, read_parts
from brainseg.training.experiments import EXPERIMENTS

HERE = Path(__file__).parent
RUNS = HERE / "runs"
TABLES = ("patients.csv", "slices.csv", "institutions.csv", "summary.json")
PICTURED = ("course-1-patients", "default")
BATCHES = {"1": 1, "8": 8, "16": 16, "99": 99, "all": 10_000}
SMOOTH = 1e-5
RESAMPLES = 10_000


class Measured(NamedTuple):
    """A mean with its 95 % interval over patients, None where the tables do not say."""

    value: float
    interval: Interval | None = None

    def __str__(self) -> str:
        return d3(self.value) + (
            "" if self.interval is None else f" ({d3(self.interval[0])} to {d3(self.interval[1])})"
        )


class Run:
    """What docs/runs keeps of a run, and what follows from it; false if it was not run."""

    def __init__(self, name: str) -> None:
        self.name, self.folder = name, RUNS / name

    def __bool__(self) -> bool:
        return (self.folder / "metrics.csv").is_file()

    @cached_property
    def epochs(self) -> list[dict[str, float]]:
        return [{name: float(cell) for name, cell in row.items()} for row in read_rows(self.folder / "metrics.csv")]

    @cached_property
    def data(self) -> DataConfig:
        return read_config(self.folder / "config.yaml").data

    @property
    def batch_size(self) -> int:
        return self.data.batch_size

    @cached_property
    def best(self) -> dict[str, float]:
        """The row of the epoch whose weights are scored."""
        epoch = json.loads((self.folder / "best.json").read_text())["epoch"]
        return next(row for row in self.epochs if row["epoch"] == epoch)

    @cached_property
    def patients(self) -> dict[str, float]:
        """Dice of each patient; a patient without tumour in whom nothing was found has none."""
        rows = read_rows(self.folder / "patients.csv")
        return {row["patient"]: float(row["dice"]) for row in rows if row["dice"] not in ("", "nan")}

    @cached_property
    def summary(self) -> dict[str, float]:
        content: dict[str, float] = json.loads((self.folder / "summary.json").read_text())
        return content

    @cached_property
    def keys(self) -> list[tuple[str, int]]:
        """The validation slices in the order in which batches are made of them."""
        by_slice = self.data.split_by == "slice"
        return read_slices_leaking(self.folder / "split.json")["validation"] if by_slice else sorted(self.pixels)

    @cached_property
    def pixels(self) -> dict[tuple[str, int], tuple[int, int, int]]:
        """True positives, false positives and false negatives of each slice; empty if the run kept none."""
        path = self.folder / "slices.csv"
        rows = read_rows(path) if path.is_file() else []
        names = ("true_positives", "false_positives", "false_negatives")
        return {(row["patient"], int(row["slice"])): tuple(int(row[name]) for name in names) for row in rows}  # type: ignore[misc]

    @cached_property
    def counts(self) -> NDArray[np.float64]:
        """`pixels` in the order of `keys`, (N, 3)."""
        return np.array([self.pixels[key] for key in self.keys], dtype=np.float64)

    def batch(self, size: str, *, counts: NDArray[np.float64] | None = None) -> tuple[float, float]:
        """The published IoU and Dice of the kept predictions, in batches of so many slices."""
        if not self.pixels:
            iou, dice = json.loads((self.folder / "batches.json").read_text())[size]
            return iou, dice
        counts = self.counts if counts is None else counts
        parts = np.split(counts, range(BATCHES[size], len(counts), BATCHES[size]))
        sizes = [len(part) for part in parts]
        ious = [(tp + SMOOTH) / (tp + fp + fn + SMOOTH) for tp, fp, fn in (part.sum(0) for part in parts)]
        return mean(ious, sizes), mean([2 * iou / (iou + 1) for iou in ious], sizes)

    def batch_by_patient(self, size: str) -> tuple[float, float]:
        """`batch` of the slices sorted by patient and number."""
        return self.batch(size, counts=np.array([self.pixels[key] for key in sorted(self.pixels)], dtype=np.float64))

    @cached_property
    def empty(self) -> NDArray[np.bool_]:
        """Of the slices of `keys`, which hold no tumour."""
        empty: NDArray[np.bool_] = self.counts[:, 0] + self.counts[:, 2] == 0
        return empty

    @cached_property
    def batches_without_tumour(self) -> list[int]:
        """The sizes of those validation batches of the run that hold no tumour."""
        parts = np.split(self.empty, range(self.batch_size, len(self.empty), self.batch_size))
        return [len(part) for part in parts if part.all()]

    @property
    def of_nothing(self) -> float:
        """The batch IoU of a network that finds nothing anywhere."""
        return sum(self.batches_without_tumour) / len(self.keys)

    @cached_property
    def dice_patient(self) -> Measured:
        return Measured(fmean(self.patients.values()), confidence_interval(self.patients))

    @cached_property
    def dice_slice(self) -> Measured:
        if not self.pixels:
            return Measured(self.summary["mean slice Dice"])
        by_patient: dict[str, list[float]] = {}
        for (patient, _), (tp, fp, fn) in self.pixels.items():
            if tp + fp + fn:
                by_patient.setdefault(patient, []).append(2 * tp / (2 * tp + fp + fn))
        every = [value for values in by_patient.values() for value in values]
        return Measured(fmean(every), confidence_interval(by_patient))

    @cached_property
    def dice_dataset(self) -> Measured:
        if not self.pixels:
            return Measured(self.summary["pooled Dice"])
        totals: dict[str, NDArray[np.float64]] = {}
        for (patient, _), pixels in sorted(self.pixels.items()):
            totals[patient] = totals.get(patient, np.zeros(3)) + pixels
        sums = np.stack(list(totals.values()))
        drawn = np.random.default_rng(0).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=RESAMPLES)
        lower, upper = np.quantile(pooled(drawn @ sums), [0.025, 0.975])
        return Measured(float(pooled(sums.sum(0))), Interval(float(lower), float(upper)))

    @cached_property
    def losses(self) -> dict[tuple[str, int], tuple[float, float]]:
        """Dice part and cross-entropy of each validation slice, before their weights."""
        rows = read_rows(self.folder / "losses.csv")
        return {(row["patient"], int(row["slice"])): (float(row["dice"]), float(row["bce"])) for row in rows}

    def dice_loss(self, *, empty: bool) -> float:
        """The mean Dice part of the slices without tumour, or of those with it."""
        chosen = zip(self.keys, self.empty.tolist(), strict=True)
        return fmean(self.losses[key][0] for key, is_empty in chosen if is_empty is empty)

    @property
    def mean_dice_loss(self) -> float:
        return fmean(dice for dice, _ in self.losses.values())

    def collapsed(self) -> list[int]:
        """The epochs whose batch IoU is that of a network that finds nothing."""
        return [
            int(row["epoch"])
            for row in self.epochs
            if math.isclose(row["val_iou_batch"], self.of_nothing, abs_tol=1e-6)
        ]

    def below(self, other: "Run") -> int:
        """In how many epochs its validation loss is below that of the other."""
        pairs = zip(self.epochs, other.epochs, strict=False)
        return sum(row["val_loss"] < beside["val_loss"] for row, beside in pairs)

    @property
    def recovered(self) -> int:
        """The first epoch after which it never again finds nothing."""
        return max(self.collapsed(), default=0) + 1


def mean(values: Sequence[float], weights: Sequence[int]) -> float:
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)


def pooled(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Dice of counts (..., 3)."""
    tp, fp, fn = np.moveaxis(counts, -1, 0)
    dice: NDArray[np.float64] = 2 * tp / (2 * tp + fp + fn)
    return dice


def between(a: Mapping[str, float], b: Mapping[str, float]) -> Measured:
    """The difference of two means over other patients, each drawn again."""
    rng = np.random.default_rng(0)
    means = [rng.choice([*each.values()], (RESAMPLES, len(each))).mean(1) for each in (a, b)]
    lower, upper = np.quantile(means[0] - means[1], [0.025, 0.975])
    return Measured(fmean(a.values()) - fmean(b.values()), Interval(float(lower), float(upper)))


def paired(a: Mapping[str, float], b: Mapping[str, float]) -> tuple[int, Measured]:
    """How many patients both have, and their mean difference."""
    both = sorted(a.keys() & b.keys())
    difference = compare({name: a[name] for name in both}, {name: b[name] for name in both})
    return len(both), Measured(difference.difference, Interval(difference.lower, difference.upper))


def d3(value: float) -> str:
    return f"{value:.3f}"


def d4(value: float) -> str:
    return f"{value:.4f}"


def published() -> dict[str, float]:
    """What others report, by its name in runs/published.csv."""
    return {row["name"]: float(row["value"]) for row in read_rows(RUNS / "published.csv")}


def keep(run: Path) -> None:
    """Evaluates a run and copies its tables, and pictures that the page shows, to docs/runs."""
    evaluation = evaluate(run)
    folder = RUNS / run.name
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*TABLES, "cases.png") if run.name in PICTURED else TABLES:
        shutil.copy(evaluation.folder / name, folder / name)
    for name in ("metrics.csv", "split.json"):
        shutil.copy(run / name, folder / name)
    shutil.copy(run / "best" / "metrics.json", folder / "best.json")
    config = read_config(run / "config.yaml")
    # Where files lie is a matter of one machine.
    weights = config.model.weights and Path(config.model.weights).name
    data = replace(config.data, root=None, split=None, cache_dir=None)
    write_config(replace(config, model=replace(config.model, weights=weights), data=data), folder / "config.yaml")
    write_rows(losses(run), folder / "losses.csv")


def losses(run: Path) -> list[dict[str, Any]]:
    """Dice part and cross-entropy of each validation slice, of the run's best weights."""
    predictor, config = Predictor.from_pretrained(run), read_config(run / "config.yaml")
    dataset = open_part(config.data, read_parts(run / "split.json"), "validation")
    parts_of, rows = BCEDiceLoss(reduction="none"), []
    for batch in DataLoader(dataset, batch_size=16):
        _, parts = parts_of.parts(predictor.logits(batch["image"]).cpu(), batch["mask"])
        columns = (batch["patient"], batch["slice"].tolist(), parts["dice"].tolist(), parts["bce"].tolist())
        names = ("patient", "slice", "dice", "bce")
        rows += [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return sorted(rows, key=lambda row: (row["patient"], row["slice"]))


def page() -> str:
    """The page as the tables have it."""
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True)
    environment.filters |= {"d3": d3, "d4": d4, "middle": median}
    return environment.from_string((HERE / "results.in.md").read_text()).render(
        run={name: Run(name) for name in (*EXPERIMENTS, "course-2-tenth", "course-fixed", "default")},
        experiments=EXPERIMENTS,
        published=published(),
        batch_sizes=list(BATCHES),
        between=between,
        paired=paired,
        pictured=PICTURED,
    )


if __name__ == "__main__":
    for run in map(Path, sys.argv[1:]):
        keep(run)
    (HERE / "results.md").write_text(page())
