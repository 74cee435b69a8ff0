"""Networks judged by patient."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import default_collate
from torchmetrics import MetricCollection

from brainseg._whole import written_whole
from brainseg.data import SliceDataset, institution
from brainseg.inference import Ensemble
from brainseg.metrics import Case, Interval, confidence_interval, write_cases
from brainseg.metrics.base import CaseMetric
from brainseg.models import MaskDINO
from brainseg.report import Pictures, check_pages, write_page, write_rows, write_values
from brainseg.report.screen import print_table
from brainseg.training.config import DataConfig
from brainseg.training.found import find_masks
from brainseg.training.means import Take, over_classes, over_known
from brainseg.training.object_scores import ObjectScores
from brainseg.training.page import curves_of_run, evaluation_page
from brainseg.training.scores import BY_SLICE, create_details, create_scores, scored_masks, scored_names
from brainseg.training.subject import Subject, check_classes, find_run, find_weights
from brainseg.visualization import ShownCase, brightened, draw_cases

IMAGES = "By image, each counted as a patient: whose they are is not known"
BY_PATIENT = {"dice": "dice_patient", "iou": "iou_patient", "recall": "recall", "precision": "precision"}
"""Columns of patients.csv, and the scores that they hold."""
TITLES = {"dice": "Dice", "iou": "IoU", "recall": "sensitivity", "precision": "precision"}
"""What these are called in the summary."""
TOGETHER = ", masks of all slices together"
KNOWN_TOO = "of whom slices were trained on: scores are memory"
"""What the summary says of patients whom the run knows, by a split by slice or by another split than its own."""
PIXELS = ("true_positives", "false_positives", "false_negatives")


class PatientScore(NamedTuple):
    """A row of the table: all slices of a patient pooled.

    Of several classes a score is the mean over those that have one, and NaN where none has.

    Attributes:
        patient: name.
        institution: the two letters of its barcode.
        slices: how many.
        tumour_slices: how many of them have tumour, of whatever class.
        dice: Dice score, NaN where nothing is there and nothing was found.
        iou: intersection over union, likewise.
        recall: sensitivity, likewise.
        precision: likewise.
        class_dice: Dice score of each class by its name, likewise.
    """

    patient: str
    institution: str
    slices: int
    tumour_slices: int
    dice: float
    iou: float
    recall: float
    precision: float
    class_dice: dict[str, float]


class Evaluation(NamedTuple):
    """What `evaluate` found and wrote.

    Every number of several patients is taken over the patients of each class that have a value, and of several classes
    the mean over the classes.

    Attributes:
        patients: a row each, sorted by name.
        summary: mean of the patients with its 95 % interval (patients resampled), median, pooled, by slice and batch;
            surfaces and lesions by slice; of several classes the Dice of each by its name; of a network that answers
            with objects (Mask DINO) their average precision and panoptic quality.
        folder: of patients.csv, slices.csv, institutions.csv, summary.json, cases.png and report.html.
        case: "patient", or "image" where patients are not known and each image counts as one.
        together: whether masks were made of all slices of a patient together.
    """

    patients: list[PatientScore]
    summary: dict[str, float | int]
    folder: Path
    case: str = "patient"
    together: bool = False

    def show(self) -> None:
        """Prints the tables."""
        names = _several(self.patients)
        title = IMAGES if self.case == "image" else f"By patient{TOGETHER if self.together else ''}"
        table = Table("patient", "slices", "tumour", title=title)
        for score in ("Dice", *(f"Dice, {name}" for name in names), "IoU", "recall", "precision"):
            table.add_column(score, justify="right")
        for row in self.patients:
            scores = (row.dice, *(row.class_dice[name] for name in names), row.iou, row.recall, row.precision)
            table.add_row(row.patient, str(row.slices), str(row.tumour_slices), *map(_three_digits, scores))
        print_table(table)
        means = {"mean": "mean Dice", "worst": "worst", **{f"mean_{name}": f"mean Dice, {name}" for name in names}}
        table = Table("institution", "patients", *means.values(), title="By institution")
        for group in self.institutions():
            values = (_three_digits(group[column]) for column in means)
            table.add_row(group["institution"], str(group["patients"]), *values)
        print_table(table)
        table = Table("score", "value", title="Overall")
        for name, value in self.summary.items():
            table.add_row(name, _three_digits(value) if isinstance(value, float) else str(value))
        print_table(table)
        console = Console(markup=False)
        console.print(f"Tables and the picture of cases: {self.folder.resolve()}", soft_wrap=True, highlight=False)
        page = self.folder.resolve() / "report.html"
        console.print(f"A page to look at: {page}", soft_wrap=True, highlight=False)

    def institutions(self) -> list[dict[str, Any]]:
        """For each institution its name and number of patients, and of their Dice scores the mean and the worst."""
        groups = defaultdict(list)
        for row in self.patients:
            groups[row.institution].append(row)
        return [
            {
                "institution": name,
                "patients": len(rows),
                "mean": _over_classes(fmean, rows),
                "worst": _over_classes(min, rows),
                **{f"mean_{each}": _over_patients(fmean, rows, each) for each in _several(rows)},
            }
            for name, rows in sorted(groups.items())
        ]


@dataclass(frozen=True)
class Scored:
    """What was measured of the slices of a data set.

    Attributes:
        scores: by name, of the classes of `class_names`.
        class_names: those that are scored.
        dataset: the slices.
        batch_size: in which they came.
        objects: scores of a network that answers with objects.
    """

    scores: MetricCollection
    class_names: list[str]
    dataset: SliceDataset
    batch_size: int
    objects: ObjectScores | None = None

    def metric(self, name: str) -> CaseMetric:
        """One of the scores."""
        metric = self.scores[name]
        assert isinstance(metric, CaseMetric)
        return metric

    @cached_property
    def by_patient(self) -> dict[str, list[Case]]:
        """The columns of patients.csv, a case each patient."""
        return {column: self.metric(name).per_case() for column, name in BY_PATIENT.items()}

    @cached_property
    def pixels(self) -> dict[str, list[Case]]:
        """`PIXELS` of each slice, a value for each class."""
        cases = self.metric("pixels").per_case()  # of each class four: TP, FP, FN, TN
        return {
            name: [Case(case.patient, case.slice, tuple(map(int, case.values[first::4]))) for case in cases]
            for first, name in enumerate(PIXELS)
        }


def evaluate(
    model: str | Path,
    *,
    part: str | None = None,
    split: str | Path | None = None,
    root: str | Path | None = None,
    data: DataConfig | None = None,
    output: str | Path | None = None,
    channel: int | None = None,
    patients: bool | None = None,
) -> Evaluation:
    """Scores the best weights of a run, or any weights, by patient.

    Masks are compared at the size of the files, whatever size the network was trained at. They are what the network's
    `spec` makes of its logits, as in `Predictor`; the background of "multiclass" is not scored.

    Args:
        model: folder of a run, or of weights that `save_pretrained` wrote, or a name of `list_weights()`; of an
            ensemble or a cross-validation the mean of the logits is taken.
        part: "train", "validation" or "test" of the split, or "all" patients of the data; of a run "all" goes with
            another root. None for "validation" of a run; for weights for all patients of data that has no split.
        split: JSON file of patients; None for that of the run, and for weights for split.json in the data.
        root: folder of the data; None for that of the run, and for weights for that of `data`.
        data: how the data is read, for weights; None for the layout of the LGG data, the only one whose root need not
            be given (`lgg_root()`). Volumes are cut along the axis that the weights name. A run knows its own.
        output: folder for tables, picture and page, which must not hold such already; None for `evaluation/<part>` in
            the run, which is kept for the run's own split and data, and written anew each time.
        channel: of the images, that pictures show; None for what the spec of the weights names.
        patients: what the weights say of smoothing and components is done to all slices of a patient together, as by
            `brainseg predict --patients`; None for volumes alone, to which `brainseg predict` always does it.

    Raises:
        FileNotFoundError: no run and no weights, no best weights yet, no data, or a part of a split that is not there.
        FileExistsError: the output holds an evaluation already.
        ValueError: weights, another split or another root without an output, a part without patients or that has to be
            named, `patients` where a split is by slice or no patients are known, masks of other classes than the
            network's or that overlap where its classes do not, or files that cannot be used.
    """
    model = Path(model)
    chosen: dict[str, Any] = {"part": part, "split": split, "together": patients}
    chosen["output"] = None if output is None else Path(output)
    if not (model / "config.yaml").is_file():
        read = data or DataConfig()
        subject = find_weights(model, read if root is None else replace(read, root=str(root)), **chosen)
    elif data is None:
        subject = find_run(model, root=root, **chosen)
    else:
        raise ValueError(f"{model} is a run, whose config.yaml says how its data is read; give another folder as root")
    predictor, dataset, folder = subject.predictor, subject.dataset, subject.folder
    check_classes(predictor.spec.class_names, dataset)
    predictor.spec.check_channels(dataset.channel_names)
    channel = predictor.spec.shown_channel if channel is None else channel
    check_pages()
    with Pictures() as pictures:
        scored = _score(subject, pictures, channel)
        rows = _rows(scored)
        cases = draw_cases(_cases(scored, rows, subject, channel), scored.class_names)

        intervals = _intervals(scored)
        summary = _summary(scored, rows, intervals, known_too=subject.known_too)
        evaluation = Evaluation(rows, summary, folder, dataset.case, subject.together)
        folder.mkdir(parents=True, exist_ok=True)
        of_patients = _patients(scored, rows)
        write_rows(of_patients, folder / "patients.csv")
        by_slice = {"dice": "dice_slice", **{name: name for name in BY_SLICE}}
        tables = {column: scored.metric(name).per_case() for column, name in by_slice.items()}
        write_cases(folder / "slices.csv", {**tables, **scored.pixels}, names=scored.class_names)
        institutions = evaluation.institutions()
        write_rows(institutions, folder / "institutions.csv")
        write_values(evaluation.summary, folder / "summary.json")
        with written_whole(folder / "cases.png") as file:
            cases.savefig(file, dpi=120)
        page = evaluation_page(
            f"{subject.name}: {subject.part}{TOGETHER if subject.together else ''}",
            charts=() if subject.run is None else curves_of_run(*subject.run),
            case=dataset.case,
            class_names=scored.class_names,
            summary=evaluation.summary,
            intervals=intervals,
            patients=of_patients,
            dice={row.patient: row.dice for row in rows},
            institutions=institutions,
        )
        write_page(page, pictures, folder / "report.html")
    return evaluation


def _score(subject: Subject, pictures: Pictures, channel: int | None) -> Scored:
    predictor, dataset, batch_size = subject.predictor, subject.dataset, subject.batch_size
    names = scored_names(predictor.spec)
    scores = create_scores(names)
    scores.add_metrics(create_details(len(names)))
    objects = None
    if not isinstance(predictor, Ensemble) and isinstance(predictor.model, MaskDINO):
        objects = ObjectScores(predictor.spec, subject.objects)
    every = find_masks(predictor, dataset, batch_size=batch_size, together=subject.together, objects=objects)
    for batch, _, masks, stretches in every:
        found, true, valid = scored_masks(predictor.spec, masks, batch)
        scores.update(found, true, group=batch["patient"], slice_index=batch["slice"], valid=valid)
        for i, patient in enumerate(batch["patient"]):
            shown = brightened(batch["image"][i], channel)
            both = (mask[i] if valid is None else mask[i] & valid[i] for mask in (found, true))
            shapes = (mask.numpy() for mask in both)
            pictures.add(patient, int(batch["slice"][i]), shown, *shapes, stretch=stretches[i])
    for strip in pictures.slices.values():
        strip.sort(key=lambda shown: int(shown.label))  # a split by slice has an order of its own
    return Scored(scores, names, dataset, batch_size, objects)


def _rows(scored: Scored) -> list[PatientScore]:
    tumour = defaultdict(list)
    for tp, _, fn in zip(*scored.pixels.values(), strict=True):
        tumour[tp.patient].append(any((*tp.values, *fn.values)))
    rows = []
    for cases in zip(*scored.by_patient.values(), strict=True):
        patient = str(cases[0].patient)
        counts = (len(tumour[patient]), sum(tumour[patient]))
        dice, iou, recall, precision = cases
        class_dice = dict(zip(scored.class_names, dice.values, strict=True))
        means = (dice.value, iou.value, recall.value, precision.value)
        rows.append(PatientScore(patient, institution(patient), *counts, *means, class_dice))
    return rows


def _patients(scored: Scored, rows: Sequence[PatientScore]) -> list[dict[str, Any]]:
    """The table of patients, of several classes with a column for each."""
    suffixes = [f"_{name}" for name in scored.class_names] if len(scored.class_names) > 1 else [""]
    return [
        {
            **{name: getattr(row, name) for name in ("patient", "institution", "slices", "tumour_slices")},
            **{
                f"{column}{suffix}": value
                for column, cases in scored.by_patient.items()
                for suffix, value in zip(suffixes, cases[number].values, strict=True)
            },
        }
        for number, row in enumerate(rows)
    ]


def _intervals(scored: Scored) -> dict[str, Interval]:
    """95 % intervals of means over patients, by their names in the summary, where two patients have a value."""
    dice = scored.by_patient["dice"]
    tables = {f"mean patient {title}": scored.by_patient[column] for column, title in TITLES.items()}
    for k, name in enumerate(scored.class_names) if len(scored.class_names) > 1 else ():
        tables[f"mean patient Dice, {name}"] = [case._replace(values=case.values[k : k + 1]) for case in dice]
    known = {title: sum(not all(map(math.isnan, case.values)) for case in cases) for title, cases in tables.items()}
    return {title: confidence_interval(cases) for title, cases in tables.items() if known[title] > 1}


def _summary(
    scored: Scored, rows: Sequence[PatientScore], intervals: Mapping[str, Interval], *, known_too: int
) -> dict[str, float | int]:
    known = [row for row in rows if not math.isnan(row.dice)]
    interval = intervals.get("mean patient Dice", (math.nan, math.nan))
    means = (*BY_PATIENT.values(), "dice_dataset", "dice_slice", *BY_SLICE, "iou_batch", "dice_batch")
    value = {name: scored.metric(name).compute().item() for name in means}
    pixels = zip(*scored.pixels.values(), strict=True)
    # Of each slice whether it has tumour, and whether something was found.
    slices = [(any((*tp.values, *fn.values)), any((*tp.values, *fp.values))) for tp, fp, fn in pixels]
    by_class = {
        f"{title} patient Dice, {name}": _over_patients(take, rows, name)
        for title, take in (("mean", fmean), ("median", median), ("worst", min))
        for name in _several(rows)
    }
    return {
        "patients": len(rows),
        **({KNOWN_TOO: known_too} if known_too else {}),
        "patients without tumour, nothing found, left out": len(rows) - len(known),
        "slices": len(slices),
        "mean patient Dice": value["dice_patient"],
        "its 95 % interval, from": interval[0],
        "its 95 % interval, to": interval[1],
        "median patient Dice": _over_classes(median, rows),
        "worst patient Dice": _over_classes(min, rows),
        **by_class,
        "mean patient IoU": value["iou_patient"],
        "mean patient sensitivity": value["recall"],
        "mean patient precision": value["precision"],
        "pooled Dice": value["dice_dataset"],
        "mean slice Dice": value["dice_slice"],
        **{f"mean slice {title}": value[name] for name, title in BY_SLICE.items()},
        "slices with tumour, nothing found": slices.count((True, False)),
        "slices without tumour, something found": slices.count((False, True)),
        "slices without tumour, nothing found, left out": slices.count((False, False)),
        **(scored.objects.summary() if scored.objects is not None else {}),
        f"batch IoU, batches of {scored.batch_size}": value["iou_batch"],
        f"batch Dice, batches of {scored.batch_size}": value["dice_batch"],
    }


def _several(rows: Sequence[PatientScore]) -> list[str]:
    """Names of the classes if there are several."""
    names = list(rows[0].class_dice)
    return names if len(names) > 1 else []


def _over_patients(take: Take, rows: Sequence[PatientScore], name: str) -> float:
    """Mean, median or worst over the patients that have a Dice score of a class."""
    return over_known(take, (row.class_dice[name] for row in rows))


def _over_classes(take: Take, rows: Sequence[PatientScore]) -> float:
    """The mean over the classes of what is taken over the patients of each."""
    return over_classes(take, zip(*(row.class_dice.values() for row in rows), strict=True))


def _three_digits(value: float) -> str:
    return f"{value:.3f}"


def _cases(scored: Scored, rows: Sequence[PatientScore], subject: Subject, channel: int | None) -> list[ShownCase]:
    """The best, the median and the worst patient, each at the slice with most tumour."""
    pixels = zip(*scored.pixels.values(), strict=True)
    areas = {tp[:2]: sum((*tp.values, *fn.values)) for tp, _, fn in pixels}
    known = [row for row in rows if not math.isnan(row.dice)] or rows
    ranked = sorted(known, key=lambda row: row.dice, reverse=True)
    places = {"best": 0, "median": len(ranked) // 2, "worst": len(ranked) - 1}
    cases = []
    for name, place in places.items():
        row = ranked[place]
        slices = [i for i, files in enumerate(scored.dataset.files) if files.patient == row.patient]
        largest = max(slices, key=lambda i: areas[scored.dataset.files[i][:2]])
        sample = scored.dataset[largest]
        title = f"{name}: {row.patient}, slice {sample['slice']}\nDice of the patient {_three_digits(row.dice)}"
        if classes := _several(rows):
            title += "\n" + ", ".join(f"{each} {_three_digits(row.class_dice[each])}" for each in classes)
        masks = _masks(subject, sorted(slices, key=lambda i: scored.dataset.files[i].slice), largest)
        found, true, valid = scored_masks(subject.predictor.spec, masks, default_collate([sample]))
        true, found = (mask[0] if valid is None else (mask * valid)[0] for mask in (true, found))
        cases.append(ShownCase(title, brightened(sample["image"], channel), true, found))
    return cases


def _masks(subject: Subject, slices: Sequence[int], number: int) -> Tensor:
    """Those of a slice (1, K, H, W), of the slices of its patient in order."""
    predictor, dataset = subject.predictor, subject.dataset
    if subject.together:
        images = torch.stack([dataset[i]["image"] for i in slices])
        return predictor.volume(images, spacing=dataset.spacings[number])[slices.index(number)][None]
    return predictor.spec.masks(
        predictor.logits(dataset[number]["image"][None], stretch=dataset.stretches[number]).cpu()
    )
