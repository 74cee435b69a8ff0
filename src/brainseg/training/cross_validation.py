"""Cross-validation: a run for each fold, one after the other, and what they say together."""

import math
from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter, itemgetter
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table
from torch import distributed

from brainseg._whole import written_whole
from brainseg.data import Split, read_folds, write_folds
from brainseg.inference import Ensemble
from brainseg.metrics import Case, confidence_interval, read_cases
from brainseg.models.files import CROSS_VALIDATION, is_model
from brainseg.report import read_rows, write_rows, write_values
from brainseg.report.screen import print_table
from brainseg.training.config import TrainConfig, decided, plain
from brainseg.training.datasets import find_folds, open_part
from brainseg.training.evaluation import BY_PATIENT, IMAGES, evaluate
from brainseg.training.fit import train
from brainseg.training.means import over_classes, over_known
from brainseg.training.resuming import PLACES, changes, resume
from brainseg.training.scores import scored_names

FOLDS, TABLE, SUMMARY = "folds.json", "patients.csv", "summary.json"
DEFAULT_FOLDS = 5


class FoldScore(NamedTuple):
    """A fold, by the patients that validated in it.

    Attributes:
        fold: number, from 0.
        patients: how many.
        mean: of their Dice scores; of several classes the mean over the classes.
        worst: likewise.
    """

    fold: int
    patients: int
    mean: float
    worst: float


class CrossValidation(NamedTuple):
    """What `cross_validate` found and wrote.

    Attributes:
        folds: a row each.
        summary: mean of the patients, each scored by the network that did not train on it, with its 95 % interval
            (patients resampled); median, worst; of several classes the Dice of each by its name; the mean of each fold.
        folder: of patients.csv (a row a patient, with its fold), summary.json, folds.json, the runs fold_0 and so on,
            and `ensemble`, which `Predictor.from_pretrained` and `brainseg predict` take, as they take the folder.
        case: "patient", or "image" where patients are not known and each image counts as one.
    """

    folds: list[FoldScore]
    summary: dict[str, float | int]
    folder: Path
    case: str = "patient"

    def show(self) -> None:
        """Prints the tables."""
        table = Table("fold", "patients", title="By fold" if self.case == "patient" else IMAGES)
        for score in ("mean Dice", "worst"):
            table.add_column(score, justify="right")
        for row in self.folds:
            table.add_row(str(row.fold), str(row.patients), f"{row.mean:.3f}", f"{row.worst:.3f}")
        print_table(table)
        table = Table("score", "value", title="Out of fold")
        for name, value in self.summary.items():
            table.add_row(name, f"{value:.3f}" if isinstance(value, float) else str(value))
        print_table(table)


def cross_validate(
    config: TrainConfig, folder: str | Path, *, folds: int | None = None, fold: int | None = None
) -> CrossValidation | None:
    """Trains a network for each fold, scores each patient by the one that did not train on it, and gathers.

    Started again it goes on at the fold and the epoch where it was, and repeats no finished fold.

    Args:
        config: of every run; what may differ when it is started again is where it computes and where the data lies
            (`brainseg.training.resuming.PLACES`).
        folder: made if absent.
        folds: how many, drawn by the config's seed from all patients outside the test part of its split; None for the
            folds that the file `data.split` holds, or for 5 without one.
        fold: run this one alone, for other devices to run others at the same time; the last one gathers.

    Returns:
        None if other folds are not finished yet, and in all processes of several but the first.

    Raises:
        FileExistsError: the folder holds something else.
        ValueError: other options, or other patients, than it was begun with, by name; or as for `train`.
        KeyboardInterrupt: Ctrl-C or a signal to end; it says how to go on.
        FileNotFoundError, FloatingPointError, OSError: as for `train`.
    """
    config, folder = decided(config), Path(folder)
    if config.data.folds is not None or config.data.fold is not None:
        raise ValueError(
            "data.folds and data.fold are of one run, and a cross-validation runs all folds; give folds (--folds 5)"
        )
    if folds is None and config.data.split is None:
        folds = DEFAULT_FOLDS
    data = replace(config.data, folds=folds, fold=0)
    splits = find_folds(data, seed=config.seed)
    if fold is not None and not 0 <= fold < len(splits):
        raise ValueError(f"fold must be one of 0 to {len(splits) - 1}, got {fold}")
    begin = _Begin(folder, {"folds": folds, **plain(config)}, splits)
    begin.check()
    for number in range(len(splits)) if fold is None else [fold]:
        run = folder / f"fold_{number}"
        if (run / TABLE).is_file():
            continue
        _say(f"Fold {number} of 0 to {len(splits) - 1}: {len(splits[number]['validation'])} validate")
        try:
            _run(replace(config, data=replace(data, fold=number)), run, begin)
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(f"interrupted in fold {number}; start it again to go on there") from error
        # One process scores, and its metrics would wait for the others.
        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()
        _finish(run, number)
    runs = [folder / f"fold_{number}" for number in range(len(splits))]
    if not all((run / TABLE).is_file() for run in runs):
        return None
    return _gather(runs, folder, open_part(config.data, splits[0], "validation").case)


class _Begin(Callback):
    """Writes down what was begun, once a step of the first run has been tried, and checks it when it goes on."""

    def __init__(self, folder: Path, options: dict[str, Any], splits: Sequence[Split]) -> None:
        self.folder, self.options, self.splits = folder, options, list(splits)

    def check(self) -> None:
        """FileExistsError or ValueError if the folder holds something else, or what was begun with other options."""
        import yaml  # type: ignore[import-untyped]

        if not (self.folder / CROSS_VALIDATION).is_file():
            if is_model(self.folder) or any(self.folder.glob(TABLE)) or any(self.folder.glob("fold_*/last.ckpt")):
                raise FileExistsError(f"{self.folder} holds other results already; give another folder")
            return
        began = yaml.safe_load((self.folder / CROSS_VALIDATION).read_text(encoding="utf-8"))
        if changed := changes(began, self.options, allowed=PLACES):
            raise ValueError(
                f"{self.folder} was begun with other options: {', '.join(changed)}; give those that "
                f"{CROSS_VALIDATION} there names, or another folder"
            )
        if read_folds(self.folder / FOLDS) != self.splits:
            raise ValueError(
                f"the patients of the data, or of its split, are others than those of {self.folder / FOLDS}, with "
                "which this was begun; give another folder"
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Writes the options and the folds."""
        import yaml

        if trainer.is_global_zero and not (self.folder / CROSS_VALIDATION).is_file():
            write_folds(self.splits, self.folder / FOLDS)
            with written_whole(self.folder / CROSS_VALIDATION) as partial:
                partial.write_text(yaml.safe_dump(self.options, sort_keys=False), encoding="utf-8")


def _run(config: TrainConfig, run: Path, begin: _Begin) -> None:
    """Trains a fold, or goes on with it."""
    if (run / "last.ckpt").is_file():
        resume(run, places={name: attrgetter(name)(config) for name in PLACES})
    else:
        train(config, run, callbacks=[begin])


@rank_zero_only
def _finish(run: Path, fold: int) -> None:
    """Scores a fold's patients; once their rows are there, with its number, the fold is finished."""
    evaluate(run)
    rows = read_rows(run / "evaluation" / "validation" / "patients.csv")
    write_rows([{"patient": row.pop("patient"), "fold": fold, **row} for row in rows], run / TABLE)


@rank_zero_only
def _gather(runs: Sequence[Path], folder: Path, case: str) -> CrossValidation:
    ensemble = Ensemble.from_folders(runs, device="cpu")
    names = scored_names(ensemble.spec)
    rows = sorted((row for run in runs for row in read_rows(run / TABLE)), key=itemgetter("patient"))
    write_rows(rows, folder / TABLE)
    tables = read_cases(folder / TABLE, names=names if len(names) > 1 else None)
    fold_of = {str(case.patient): int(case.values[0]) for case in tables["fold"]}
    folds = [
        _score(number, [case for case in tables["dice"] if fold_of[str(case.patient)] == number])
        for number in range(len(runs))
    ]
    summary = _summary(tables, names, folds)
    write_values(summary, folder / SUMMARY)
    ensemble.save_pretrained(folder / "ensemble")
    return CrossValidation(folds, summary, folder, case)


def _score(fold: int, cases: Sequence[Case]) -> FoldScore:
    mean, worst = (over_classes(take, _columns(cases)) for take in (fmean, min))
    return FoldScore(fold, len(cases), mean, worst)


def _columns(cases: Sequence[Case]) -> list[tuple[float, ...]]:
    """The values of the patients for each class."""
    return list(zip(*(case.values for case in cases), strict=True))


def _summary(tables: dict[str, list[Case]], names: Sequence[str], folds: Sequence[FoldScore]) -> dict[str, float | int]:
    dice = tables["dice"]
    known = [case for case in dice if not math.isnan(case.value)]
    interval = confidence_interval(dice) if len(known) > 1 else (math.nan, math.nan)
    by_class = {
        f"{title} patient Dice, {name}": over_known(take, column)
        for title, take in (("mean", fmean), ("median", median), ("worst", min))
        for name, column in zip(names, _columns(dice), strict=True)
        if len(names) > 1
    }
    mean = {column: over_classes(fmean, _columns(tables[column])) for column in BY_PATIENT}
    return {
        "folds": len(folds),
        "patients": len(dice),
        "patients without tumour, nothing found, left out": len(dice) - len(known),
        "mean patient Dice": mean["dice"],
        "its 95 % interval, from": interval[0],
        "its 95 % interval, to": interval[1],
        "median patient Dice": over_classes(median, _columns(dice)),
        "worst patient Dice": over_classes(min, _columns(dice)),
        **by_class,
        "mean patient IoU": mean["iou"],
        "mean patient sensitivity": mean["recall"],
        "mean patient precision": mean["precision"],
        **{f"mean patient Dice, fold {row.fold}": row.mean for row in folds},
    }


@rank_zero_only
def _say(text: str) -> None:
    Console(markup=False).print(text, soft_wrap=True, highlight=False)
