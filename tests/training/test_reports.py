"""What an evaluation reports agrees with itself: every number follows from its tables, with one class or several."""

import csv
import json
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from brainseg.data import write_split
from brainseg.metrics import confidence_interval, read_cases
from brainseg.models import ModelSpec, SegmentationModel
from brainseg.training import Evaluation, TrainConfig, evaluate, write_config
from brainseg.training.config import DataConfig
from brainseg.visualization import brightened

Report = Callable[..., Evaluation]
SIDE = 24
NAMES = ("necrosis", "oedema", "core")


class Echo(SegmentationModel):
    """Logits that are the image's own channels: what is found is what was painted there."""

    stems = heads = ()

    def forward(self, images: Tensor) -> Tensor:
        return 20 * (images[:, : self.config["num_classes"]] - 0.5)


class Place(NamedTuple):
    patient: str
    slice: int


class Slices(list[dict[str, Any]]):
    """A data set in memory."""

    case = "patient"

    class_names: tuple[str, ...] = ("class_0", "class_1", "class_2")
    channel_names: tuple[str, ...] | None = None
    task = "multilabel"
    root = Path("memory")

    @property
    def files(self) -> list["Place"]:
        return [Place(sample["patient"], sample["slice"]) for sample in self]

    @property
    def patients(self) -> list[str]:
        return sorted({sample["patient"] for sample in self})

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        return [tuple(sample["image"].shape) for sample in self]

    @property
    def stretches(self) -> list[float]:
        return [1.0] * len(self)


# Patients, and of each slice the classes that are true and those that are found; the last class is nowhere.
SCANS: dict[str, list[tuple[str, str]]] = {
    "TCGA_CS_4941": [("01", "01"), ("0", ""), ("", "1"), ("", "")],
    "TCGA_CS_5395": [("1", "1"), ("1", "0"), ("0", "0")],
    "TCGA_DU_5855": [("", ""), ("", "")],  # without tumour, nothing found
    "TCGA_DU_6401": [("", "0"), ("", "")],  # without tumour, something found
    "TCGA_HT_7694": [("0", "0"), ("0", "0"), ("01", "0")],
    "other": [("01", "")],
}


def scans(classes: int, *, ignored: bool) -> Slices:
    """Squares at random places; where pixels are ignored, some are in the first row, and one slice is it as a whole."""
    random = np.random.default_rng(0)

    def squares(letters: str) -> Tensor:
        masks = torch.zeros(classes, SIDE, SIDE)
        for letter in letters:
            if int(letter) < classes:
                row, column, side = random.integers(0, 6, 3)
                masks[int(letter), row : row + 3 + side, column : column + 5 + side] = 1
        return masks

    samples = Slices()
    for patient, slices in SCANS.items():
        for index, (true, found) in enumerate(slices):
            image, mask, elsewhere = torch.zeros(3, SIDE, SIDE), squares(true), squares(found)
            for k in range(classes):
                if str(k) in found:  # what is there is found, some pixels to the side
                    image[k] = mask[k].roll(1 + len(samples) % 3, -1) if mask[k].any() else elsewhere[k]
            sample = {"image": image, "mask": mask, "patient": patient, "slice": index}
            if ignored:
                valid = torch.rand(1, SIDE, SIDE, generator=torch.Generator().manual_seed(index)) < 0.8
                sample["valid"] = valid & (patient != "TCGA_HT_7694" or index != 2)
            samples.append(sample)
    return samples


def numbered(samples: Slices) -> Slices:
    """Numbers of classes (H, W) in place of masks, and what is found as the largest of three channels."""
    for sample in samples:
        valid = sample.pop("valid", torch.ones(1, SIDE, SIDE, dtype=torch.bool))
        background = 1 - sample["mask"].amax(0, keepdim=True)
        sample["mask"] = torch.cat([background, sample["mask"]]).argmax(0).masked_fill(~valid[0], 255)
        # All channels below the threshold of a sigmoid, and the background never quite 0.
        sample["image"] = torch.cat([torch.full((1, SIDE, SIDE), 0.2), 0.4 * sample["image"][:2]])
    return samples


def evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: ModelSpec, samples: Slices) -> Evaluation:
    network = Echo(3, spec.num_classes)
    network.spec = spec
    (tmp_path / "run").mkdir(parents=True)
    network.save_pretrained(tmp_path / "run" / "best")
    write_config(TrainConfig(data=DataConfig(root="memory", batch_size=4)), tmp_path / "run" / "config.yaml")
    write_split({"train": [], "validation": [*SCANS], "test": []}, tmp_path / "run" / "split.json")
    monkeypatch.setattr("brainseg.training.subject.open_part", lambda *_: samples)
    return evaluate(tmp_path / "run")


BINARY = ModelSpec(class_names=("tumour",), shown_channel=0)
MULTILABEL = ModelSpec(task="multilabel", class_names=NAMES, shown_channel=1)
MULTICLASS = ModelSpec(task="multiclass", class_names=("background", *NAMES[:2]), shown_channel=2)


@pytest.fixture(params=[BINARY, MULTILABEL, MULTICLASS], ids=lambda spec: spec.task)
def spec(request: pytest.FixtureRequest) -> ModelSpec:
    return request.param


def samples(spec: ModelSpec, *, ignored: bool = True) -> Slices:
    made = scans(len(spec.foreground), ignored=ignored)
    return numbered(made) if spec.task == "multiclass" else made


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The evaluation of `samples`, each made once."""
    made: dict[tuple[str, bool], Evaluation] = {}

    def once(spec: ModelSpec, *, ignored: bool = True) -> Evaluation:
        if (spec.task, ignored) not in made:
            with pytest.MonkeyPatch.context() as patch:
                folder = tmp_path_factory.mktemp(spec.task)
                made[spec.task, ignored] = evaluated(folder, patch, spec, samples(spec, ignored=ignored))
        return made[spec.task, ignored]

    return once


# --- the numbers again, from the tables alone ---


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def known(values: Sequence[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def mean(values: Sequence[float]) -> float:
    return fmean(known(values)) if known(values) else math.nan


def number(cell: str) -> float:
    return float(cell) if cell else math.nan


class Tables:
    """patients.csv and slices.csv of an evaluation."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.patients, self.slices = rows(folder / "patients.csv"), rows(folder / "slices.csv")
        self.suffixes = [f"_{name}" for name in names] if len(names) > 1 else [""]

    def pixels(self, lines: Sequence[dict[str, str]], suffix: str) -> list[int]:
        columns = ("true_positives", "false_positives", "false_negatives")
        return [sum(int(line[f"{column}{suffix}"]) for line in lines) for column in columns]

    def scores(self, lines: Sequence[dict[str, str]], suffix: str) -> dict[str, float]:
        """Of slices pooled: NaN where nothing is there and nothing was found."""
        tp, fp, fn = self.pixels(lines, suffix)
        if not tp + fp + fn:
            return dict.fromkeys(("dice", "iou", "recall", "precision"), math.nan)
        recall, precision = (tp / (tp + x) if tp + x else 0 for x in (fn, fp))
        return {
            "dice": 2 * tp / (2 * tp + fp + fn),
            "iou": tp / (tp + fp + fn),
            "recall": recall,
            "precision": precision,
        }

    def over_classes(self, of_class: Any) -> float:
        return mean([of_class(suffix) for suffix in self.suffixes])

    def of_patients(self, column: str, take: Any = fmean) -> float:
        def of_class(suffix: str) -> float:
            values = known([number(line[f"{column}{suffix}"]) for line in self.patients])
            return take(values) if values else math.nan

        return self.over_classes(of_class)

    def of_slices(self, column: str) -> float:
        return self.over_classes(lambda suffix: mean([number(line[f"{column}{suffix}"]) for line in self.slices]))

    def of_batches(self, size: int, formula: Any) -> float:
        """The published score, of batches weighted by their size; one of which nothing counts has none."""
        batches = [self.slices[start : start + size] for start in range(0, len(self.slices), size)]

        def of_class(suffix: str) -> float:
            values = []
            for batch in batches:
                tp, fp, fn = self.pixels(batch, suffix)
                values += [formula((tp + 1e-5) / (tp + fp + fn + 1e-5))] * len(batch)
            return mean(values)

        return self.over_classes(of_class)

    def slices_with(self, *, tumour: bool, found: bool) -> int:
        seen = []
        for line in self.slices:
            pixels = [self.pixels([line], suffix) for suffix in self.suffixes]
            seen.append((any(tp + fn for tp, _, fn in pixels), any(tp + fp for tp, fp, _ in pixels)))
        return seen.count((tumour, found))


def again(folder: Path, names: Sequence[str], batch_size: int) -> dict[str, float]:
    """summary.json from patients.csv and slices.csv."""
    tables = Tables(folder, names)
    lower, upper = confidence_interval(read_cases(folder / "patients.csv", names=names)["dice"])
    empty = [all(math.isnan(number(line[f"dice{suffix}"])) for suffix in tables.suffixes) for line in tables.patients]
    summary = {
        "patients": len(tables.patients),
        "patients without tumour, nothing found, left out": sum(empty),
        "slices": len(tables.slices),
        "mean patient Dice": tables.of_patients("dice"),
        "its 95 % interval, from": lower,
        "its 95 % interval, to": upper,
        "median patient Dice": tables.of_patients("dice", median),
        "worst patient Dice": tables.of_patients("dice", min),
        "mean patient IoU": tables.of_patients("iou"),
        "mean patient sensitivity": tables.of_patients("recall"),
        "mean patient precision": tables.of_patients("precision"),
        "pooled Dice": tables.over_classes(lambda suffix: tables.scores(tables.slices, suffix)["dice"]),
        "mean slice Dice": tables.of_slices("dice"),
        "mean slice HD95, pixels": tables.of_slices("hd95"),
        "mean slice ASSD, pixels": tables.of_slices("assd"),
        "mean slice MASD, pixels": tables.of_slices("masd"),
        "mean slice NSD within 2 pixels": tables.of_slices("nsd"),
        "mean slice boundary IoU, 2 pixels wide": tables.of_slices("boundary_iou"),
        "mean slice lesion F1": tables.of_slices("lesion_f1"),
        "mean slice false lesions": tables.of_slices("false_lesions"),
        "slices with tumour, nothing found": tables.slices_with(tumour=True, found=False),
        "slices without tumour, something found": tables.slices_with(tumour=False, found=True),
        "slices without tumour, nothing found, left out": tables.slices_with(tumour=False, found=False),
        f"batch IoU, batches of {batch_size}": tables.of_batches(batch_size, lambda iou: iou),
        f"batch Dice, batches of {batch_size}": tables.of_batches(batch_size, lambda iou: 2 * iou / (iou + 1)),
    }
    for title, take in (("mean", fmean), ("median", median), ("worst", min)):
        for name in names if len(names) > 1 else ():
            values = known([number(line[f"dice_{name}"]) for line in tables.patients])
            summary[f"{title} patient Dice, {name}"] = take(values) if values else math.nan
    return summary


def scored(spec: ModelSpec) -> list[str]:
    return [spec.class_names[k] for k in spec.foreground]


@pytest.mark.parametrize("ignored", [False, True])
def test_every_number_of_the_summary_follows_from_the_tables(report: Report, spec: ModelSpec, ignored: bool) -> None:
    result = report(spec, ignored=ignored)
    summary = json.loads((result.folder / "summary.json").read_text())
    expected = again(result.folder, scored(spec), batch_size=4)
    assert {name: math.nan if value is None else value for name, value in summary.items()} == pytest.approx(
        expected, rel=1e-5, abs=1e-7, nan_ok=True
    )
    assert result.summary == pytest.approx(expected, rel=1e-5, abs=1e-7, nan_ok=True)


def test_patients_come_first_and_classes_then(report: Report) -> None:
    """Where classes lack in some patients the other order gives other numbers."""
    result = report(MULTILABEL)
    for title, take in (("mean", fmean), ("median", median), ("worst", min)):
        found = result.summary[f"{title} patient Dice"]
        of_classes = [take(known([row.class_dice[name] for row in result.patients])) for name in NAMES[:2]]
        assert found == pytest.approx(fmean(of_classes))
        if title != "worst":
            assert abs(found - take(known([row.dice for row in result.patients]))) > 0.01


def test_patients_follow_from_their_slices(report: Report, spec: ModelSpec) -> None:
    result = report(spec)
    tables = Tables(result.folder, scored(spec))
    for line, row in zip(tables.patients, result.patients, strict=True):
        slices = [one for one in tables.slices if one["patient"] == line["patient"]]
        tumour = [any(sum(tables.pixels([one], suffix)[::2]) for suffix in tables.suffixes) for one in slices]
        assert (line["institution"], int(line["slices"])) == (row.institution, len(slices) == row.slices and row.slices)
        assert int(line["tumour_slices"]) == row.tumour_slices == sum(tumour)
        of_class = [tables.scores(slices, suffix) for suffix in tables.suffixes]
        for score in ("dice", "iou", "recall", "precision"):
            values = [number(line[f"{score}{suffix}"]) for suffix in tables.suffixes]
            assert values == pytest.approx([scores[score] for scores in of_class], nan_ok=True)
            assert getattr(row, score) == pytest.approx(mean(values), nan_ok=True)
        assert [*row.class_dice] == scored(spec)


def test_the_pixels_are_those_of_the_masks(report: Report) -> None:
    data = samples(MULTILABEL)
    result = report(MULTILABEL)
    for line, sample in zip(rows(result.folder / "slices.csv"), data, strict=True):
        assert (line["patient"], int(line["slice"])) == (sample["patient"], sample["slice"])
        for name, found, true in zip(NAMES, sample["image"] > 0.5, sample["mask"] > 0, strict=True):
            valid = sample["valid"][0]
            expected = [(found & true & valid), (found & ~true & valid), (~found & true & valid)]
            columns = ("true_positives", "false_positives", "false_negatives")
            assert [int(line[f"{column}_{name}"]) for column in columns] == [int(mask.sum()) for mask in expected]


def test_institutions_take_patients_first_and_classes_then(report: Report, spec: ModelSpec) -> None:
    result = report(spec)
    tables = Tables(result.folder, scored(spec))
    groups = defaultdict(list)
    for line in tables.patients:
        groups[line["institution"]].append(line)
    written = rows(result.folder / "institutions.csv")
    assert [line["institution"] for line in written] == sorted(groups) == ["CS", "DU", "HT", "other"]
    for line in written:
        tables.patients = groups[line["institution"]]
        assert int(line["patients"]) == len(tables.patients)
        assert number(line["mean"]) == pytest.approx(tables.of_patients("dice"), nan_ok=True)
        assert number(line["worst"]) == pytest.approx(tables.of_patients("dice", min), nan_ok=True)


def test_slices_are_counted_once_however_many_classes_they_have(report: Report) -> None:
    summary = report(MULTILABEL, ignored=False).summary
    counts = (
        "with tumour, nothing found",
        "without tumour, something found",
        "without tumour, nothing found, left out",
    )
    assert [summary[f"slices {count}"] for count in counts] == [2, 2, 4]
    assert summary["slices"] == 15


def test_classes_are_named_in_tables_summary_and_on_the_screen(
    report: Report, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = report(MULTILABEL)
    result.show()
    printed = " ".join(capsys.readouterr().out.split())
    for name in NAMES:
        assert f"dice_{name}" in rows(result.folder / "patients.csv")[0]
        assert f"hd95_{name}" in rows(result.folder / "slices.csv")[0]
        assert f"mean_{name}" in rows(result.folder / "institutions.csv")[0]
        assert f"mean patient Dice, {name} │ {result.summary[f'mean patient Dice, {name}']:.3f}" in printed
        assert f"Dice, {name}" in printed


def test_multiclass_takes_the_likeliest_class_and_scores_no_background(report: Report) -> None:
    """All of its sigmoids are below the threshold."""
    summary, masks = (report(spec, ignored=False).summary for spec in (MULTICLASS, MULTILABEL))
    assert summary["mean patient Dice, oedema"] > 0
    assert not [name for name in summary if "background" in name]
    assert {name for name in masks if "core" not in name} == {*summary}


def test_thresholds_are_those_of_the_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each class its own: one that nothing is above finds nothing."""
    high = ModelSpec(task="multilabel", class_names=NAMES, threshold=(0.5, 1.0, 0.5))
    summary = evaluated(tmp_path, monkeypatch, high, samples(MULTILABEL)).summary
    assert summary["mean patient Dice, necrosis"] > 0
    assert summary["mean patient Dice, oedema"] == 0


def test_data_of_other_classes_is_refused_and_nothing_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ValueError, match=r"slices have 1 mask\(s\), and the network's class\(es\) are necrosis, oedema"
    ):
        evaluated(tmp_path, monkeypatch, MULTILABEL, samples(BINARY))
    assert not (tmp_path / "run" / "evaluation").exists()


@pytest.mark.parametrize(
    ("classes", "fits"),
    [
        (NAMES, True),
        (("class_0", "class_1", "class_2"), True),
        (NAMES[::-1], False),
        (("label_1", "label_2", "label_4"), False),
    ],
)
def test_classes_that_have_other_names_in_the_data_are_not_taken_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: tuple[str, ...], fits: bool
) -> None:
    data = samples(MULTILABEL)
    data.class_names = classes
    if fits:
        assert evaluated(tmp_path, monkeypatch, MULTILABEL, data).summary["slices"] == 15
        return
    with pytest.raises(
        ValueError, match=f"data are {', '.join(classes)} and those of the network necrosis, oedema, core"
    ):
        evaluated(tmp_path, monkeypatch, MULTILABEL, data)
    assert not (tmp_path / "run" / "evaluation").exists()


def test_numbers_of_fewer_classes_are_not_taken_for_the_first_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Label maps of 0, 1 and 4 number their classes 0, 1, 2; those of the network may be 0, 1, 2 and 4."""
    data = samples(MULTICLASS)
    data.task, data.class_names = "multiclass", ("background", "label_4")
    with pytest.raises(ValueError, match="the classes of the data are background, label_4 and those of the network"):
        evaluated(tmp_path, monkeypatch, MULTICLASS, data)


def test_the_picture_shows_the_brightened_channel_of_the_spec_and_names_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []

    def spy(cases: Any, names: Any) -> Any:
        shown[:] = [cases, names]
        return draw_cases(cases, names)

    from brainseg.visualization import draw_cases

    monkeypatch.setattr("brainseg.training.evaluation.draw_cases", spy)
    data = samples(MULTILABEL)
    result = evaluated(tmp_path, monkeypatch, MULTILABEL, data)
    cases, names = shown
    assert names == [*NAMES]
    by_dice = sorted((row for row in result.patients if not math.isnan(row.dice)), key=lambda row: -row.dice)
    for word, row, case in zip(("best", "median", "worst"), (by_dice[0], by_dice[2], by_dice[-1]), cases, strict=True):
        first, second, third = case.title.splitlines()
        assert first.startswith(f"{word}: {row.patient}, slice ")
        assert second == f"Dice of the patient {row.dice:.3f}"
        assert third == ", ".join(f"{name} {row.class_dice[name]:.3f}" for name in NAMES)
        sample = next(x for x in data if first.endswith(f"{x['patient']}, slice {x['slice']}"))
        assert np.array_equal(case.image, brightened(sample["image"], 1))
        assert torch.equal(case.target > 0, (sample["mask"] > 0) & sample["valid"])
        assert torch.equal(case.prediction > 0, (sample["image"] > 0.5) & sample["valid"])


def test_an_option_names_the_channel_of_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = samples(BINARY)
    for sample in data:
        sample["image"][1] = torch.linspace(0.1, 0.5, SIDE)
    first = evaluated(tmp_path, monkeypatch, BINARY, data)
    pictures = []
    for channel, folder in ((0, first.folder), (1, tmp_path / "one")):
        output = None if channel == 0 else folder
        evaluate(tmp_path / "run", output=output, channel=channel)
        with Image.open(folder / "cases.png") as picture:
            pictures.append(np.asarray(picture.convert("L")))
    assert pictures[1].mean() > pictures[0].mean() + 5


# --- where it is written ---


def test_an_evaluation_elsewhere_is_never_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = evaluated(tmp_path, monkeypatch, BINARY, samples(BINARY))
    before = {path.name: path.read_bytes() for path in own.folder.iterdir()}
    elsewhere = evaluate(tmp_path / "run", root="other", output=tmp_path / "elsewhere").folder
    for output in (own.folder, elsewhere):
        for other in ({}, {"split": tmp_path / "run" / "split.json"}, {"root": "memory"}):
            with pytest.raises(FileExistsError, match=r"holds patients.csv already, .* give another output"):
                evaluate(tmp_path / "run", output=output, **other)
    assert {path.name: path.read_bytes() for path in own.folder.iterdir()} == before
    assert evaluate(tmp_path / "run").folder == own.folder  # its own is written anew
