"""A run's best weights, judged by patient."""

import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import track
from rich.table import Column, Table
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection

from brainseg._whole import written_whole
from brainseg.data import SliceDataset, institution, read_split
from brainseg.inference import Predictor
from brainseg.metrics import write_cases
from brainseg.metrics.base import CaseMetric
from brainseg.report import write_rows, write_values
from brainseg.training.config import read_config
from brainseg.training.datasets import open_part
from brainseg.training.scores import BY_SLICE, create_details, create_scores
from brainseg.visualization import ShownCase, draw_cases


class PatientScore(NamedTuple):
    """A row of the table: all slices of a patient pooled.

    Attributes:
        patient: name.
        institution: the two letters of its barcode.
        slices: how many.
        tumour_slices: how many of them have tumour.
        dice: Dice score, NaN where nothing is there and nothing was found.
        iou: intersection over union, likewise.
        recall: sensitivity, likewise.
        precision: likewise.
    """

    patient: str
    institution: str
    slices: int
    tumour_slices: int
    dice: float
    iou: float
    recall: float
    precision: float


class Evaluation(NamedTuple):
    """What `evaluate` found and wrote.

    Attributes:
        patients: a row each, sorted by name.
        summary: mean of the patients with its 95 % interval (patients resampled), median, pooled, by slice and batch;
            surfaces and lesions by slice.
        folder: of patients.csv, slices.csv, institutions.csv, summary.json and cases.png.
    """

    patients: list[PatientScore]
    summary: dict[str, float | int]
    folder: Path

    def show(self) -> None:
        """Prints the tables."""
        console = Console(markup=False)
        table = Table(Column("patient", no_wrap=True), "slices", "tumour", title="By patient")
        for score in ("Dice", "IoU", "recall", "precision"):
            table.add_column(score, justify="right")
        for row in self.patients:
            scores = (f"{score:.3f}" for score in (row.dice, row.iou, row.recall, row.precision))
            table.add_row(row.patient, str(row.slices), str(row.tumour_slices), *scores)
        console.print(table)
        table = Table("institution", "patients", "mean Dice", "worst", title="By institution")
        for group in self.institutions():
            table.add_row(group["institution"], str(group["patients"]), f"{group['mean']:.3f}", f"{group['worst']:.3f}")
        console.print(table)
        table = Table("score", "value", title="Overall")
        for name, value in self.summary.items():
            table.add_row(name, f"{value:.3f}" if isinstance(value, float) else str(value))
        console.print(table)
        console.print(f"Tables and the picture of cases: {self.folder.resolve()}", soft_wrap=True, highlight=False)

    def institutions(self) -> list[dict[str, Any]]:
        """For each institution its name, and of the Dice scores of its patients the number, mean and worst."""
        scores = defaultdict(list)
        for row in self.patients:
            if not math.isnan(row.dice):
                scores[row.institution].append(row.dice)
        return [
            {"institution": name, "patients": len(values), "mean": fmean(values), "worst": min(values)}
            for name, values in sorted(scores.items())
        ]


def evaluate(
    run: str | Path,
    *,
    part: str = "validation",
    split: str | Path | None = None,
    root: str | Path | None = None,
    output: str | Path | None = None,
) -> Evaluation:
    """Scores the best weights of a run on the patients of one part of its split.

    Masks are compared at the size of the files, whatever size the network was trained at.

    Args:
        run: folder of the run.
        part: "train", "validation" or "test".
        split: other JSON file of patients.
        root: folder of the data; None for that of the run.
        output: folder for the tables and the picture; None for `evaluation/<part>` in the run,
            which is kept for the run's own split and data.

    Raises:
        FileNotFoundError: no run, no best weights yet, or no data.
        ValueError: another split or root without an output, a part without patients, or files that cannot be used.
    """
    run = Path(run)
    if output is None and (split is not None or root is not None):
        raise ValueError("another split or root than the run's own needs an output folder of its own (-o)")
    if not (run / "config.yaml").is_file():
        raise FileNotFoundError(f"{run} holds no run; give the folder that brainseg train wrote")
    predictor, config = Predictor.from_pretrained(run), read_config(run / "config.yaml")
    data = config.data if root is None else replace(config.data, root=str(root))
    patients = read_split(split or run / "split.json")
    if not patients.get(part):
        raise ValueError(f"the split of {split or run} has no patients for {part}; choose another part")
    dataset = open_part(data, patients, part)
    batch_size = data.batch_size if len(set(dataset.shapes)) == 1 else 1
    scores, areas = _score(predictor, dataset, batch_size)
    rows = _rows(scores, areas, dataset)

    folder = Path(output) if output is not None else run / "evaluation" / part
    folder.mkdir(parents=True, exist_ok=True)
    evaluation = Evaluation(rows, _summary(scores, rows, batch_size), folder)
    write_rows([row._asdict() for row in rows], folder / "patients.csv")
    by_slice = {"dice": "dice_slice", **{name: name for name in BY_SLICE}}
    write_cases(folder / "slices.csv", {title: _metric(scores, name).per_case() for title, name in by_slice.items()})
    write_rows(evaluation.institutions(), folder / "institutions.csv")
    write_values(evaluation.summary, folder / "summary.json")
    with written_whole(folder / "cases.png") as file:
        draw_cases(_cases(rows, areas, dataset, predictor)).savefig(file, dpi=120)
    return evaluation


def _score(predictor: Predictor, dataset: SliceDataset, batch_size: int) -> tuple[MetricCollection, list[int]]:
    """The scores of all slices, and the true pixels in each."""
    scores = create_scores(dataset.num_classes)
    scores.add_metrics(create_details(dataset.num_classes))
    areas: list[int] = []
    for batch in track(DataLoader(dataset, batch_size), "Evaluating", transient=True):
        found = predictor.spec.masks(predictor.logits(batch["image"])).cpu()
        scores.update(found, batch["mask"], group=batch["patient"], slice_index=batch["slice"])
        areas += batch["mask"].sum((1, 2, 3)).int().tolist()
    return scores, areas


def _metric(scores: MetricCollection, name: str) -> CaseMetric:
    metric = scores[name]
    assert isinstance(metric, CaseMetric)
    return metric


def _rows(scores: MetricCollection, areas: list[int], dataset: SliceDataset) -> list[PatientScore]:
    tumour = defaultdict(list)
    for files, area in zip(dataset.files, areas, strict=True):
        tumour[files.patient].append(area > 0)
    tables = [_metric(scores, name).per_case() for name in ("dice_patient", "iou_patient", "recall", "precision")]
    rows = []
    for cases in zip(*tables, strict=True):
        patient = str(cases[0].patient)
        counts = (len(tumour[patient]), sum(tumour[patient]))
        rows.append(PatientScore(patient, institution(patient), *counts, *(case.value for case in cases)))
    return rows


def _summary(scores: MetricCollection, rows: list[PatientScore], batch_size: int) -> dict[str, float | int]:
    known = [row.dice for row in rows if not math.isnan(row.dice)]
    interval = _metric(scores, "dice_patient").confidence_interval() if len(known) > 1 else (math.nan, math.nan)
    value = {name: score.item() for name, score in scores.compute().items()}
    slices = _metric(scores, "dice_slice").result()
    return {
        "patients": len(rows),
        "slices": sum(row.slices for row in rows),
        "mean patient Dice": value["dice_patient"],
        "its 95 % interval, from": interval[0],
        "its 95 % interval, to": interval[1],
        "median patient Dice": median(known) if known else math.nan,
        "worst patient Dice": min(known, default=math.nan),
        "mean patient IoU": value["iou_patient"],
        "mean patient sensitivity": value["recall"],
        "mean patient precision": value["precision"],
        "pooled Dice": value["dice_dataset"],
        "mean slice Dice": value["dice_slice"],
        **{f"mean slice {title}": value[name] for name, title in BY_SLICE.items()},
        "slices with tumour, nothing found": slices.missed,
        "slices without tumour, something found": slices.false_alarms,
        "slices without tumour, nothing found, left out": slices.excluded,
        f"batch IoU, batches of {batch_size}": value["iou_batch"],
        f"batch Dice, batches of {batch_size}": value["dice_batch"],
    }


def _cases(rows: list[PatientScore], areas: list[int], dataset: SliceDataset, predictor: Predictor) -> list[ShownCase]:
    """The best, the median and the worst patient, each at the slice with most tumour."""
    known = [row for row in rows if not math.isnan(row.dice)] or rows
    ranked = sorted(known, key=lambda row: row.dice, reverse=True)
    places = {"best": 0, "median": len(ranked) // 2, "worst": len(ranked) - 1}
    cases = []
    for name, place in places.items():
        row = ranked[place]
        slices = [i for i, files in enumerate(dataset.files) if files.patient == row.patient]
        largest = max(slices, key=areas.__getitem__)
        sample = dataset[largest]
        # Of the three sequences of the LGG data FLAIR shows tumour best; some are too dark to see.
        image = sample["image"][1] if len(sample["image"]) == 3 else sample["image"]
        image = image / image.quantile(0.995).clamp(min=1e-3)
        title = f"{name}: {row.patient}, slice {sample['slice']}\nDice of the patient {row.dice:.3f}"
        cases.append(ShownCase(title, image, sample["mask"].amax(0), predictor(sample["image"]).any(0)))
    return cases
