"""Evaluation: tables that a plain loop over the patients reproduces, and a picture of three cases."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from brainseg.data import LGGSegmentation, read_split, write_split
from brainseg.inference import Ensemble, Predictor
from brainseg.metrics import confidence_interval, read_cases
from brainseg.metrics.functional import hausdorff_distance
from brainseg.models import ModelSpec, Postprocessing, SegmentationModel, UNeXt
from brainseg.report import read_rows
from brainseg.training import Evaluation, TrainConfig, evaluate, write_config
from brainseg.training.config import DataConfig
from brainseg.training.evaluation import PIXELS
from brainseg.transforms import create_transform
from tests.command import call
from tests.pages import PageReader


@pytest.fixture(scope="module")
def evaluation(run: Path) -> Evaluation:
    return evaluate(run)


def by_hand(run: Path, data: DataConfig) -> dict[str, float]:
    """Dice of every validation patient, slice by slice."""
    model = SegmentationModel.from_pretrained(run / "best").eval()
    assert model.normalization is not None
    normalize = create_transform(model.normalization)
    scores = {}
    for patient in read_split(run / "split.json")["validation"]:
        found = true = both = 0.0
        for sample in LGGSegmentation(str(data.root), [patient], cache_dir=data.cache_dir):
            with torch.inference_mode():
                mask = model(normalize(sample["image"][None]))[0] > 0
            found, true = found + mask.sum().item(), true + sample["mask"].sum().item()
            both += (mask & (sample["mask"] > 0)).sum().item()
        scores[patient] = 2 * both / (found + true)
    return scores


def test_the_table_is_what_a_plain_loop_finds(evaluation: Evaluation, run: Path, data: DataConfig) -> None:
    expected = by_hand(run, data)
    assert {row.patient: row.dice for row in evaluation.patients} == pytest.approx(expected, abs=1e-6)
    assert all(row.iou == pytest.approx(row.dice / (2 - row.dice), abs=1e-6) for row in evaluation.patients)
    assert evaluation.summary["mean patient Dice"] == pytest.approx(np.mean(list(expected.values())), abs=1e-6)
    assert evaluation.summary["median patient Dice"] == pytest.approx(np.median(list(expected.values())), abs=1e-6)
    low, high = (evaluation.summary[f"its 95 % interval, {end}"] for end in ("from", "to"))
    assert low <= evaluation.summary["mean patient Dice"] <= high


def test_channels_in_another_order_than_that_of_the_weights_are_refused(
    run: Path, data: DataConfig, tmp_path: Path
) -> None:
    model = SegmentationModel.from_pretrained(run / "best")
    model.spec = replace(model.spec, channel_names=("flair", "t1", "t1ce"))
    model.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="the weights take the channels flair, t1, t1ce, and the data gives t1, flair"):
        evaluate(tmp_path / "other", part="validation", data=data, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_slices_are_counted(evaluation: Evaluation) -> None:
    assert [(row.slices, row.tumour_slices) for row in evaluation.patients] == [(5, 1)] * 3
    assert (evaluation.summary["patients"], evaluation.summary["slices"]) == (3, 15)


def test_slices_have_a_table_of_their_own(evaluation: Evaluation, run: Path, data: DataConfig) -> None:
    tables = read_cases(evaluation.folder / "slices.csv")
    pixels = ["true_positives", "false_positives", "false_negatives"]
    assert list(tables) == [
        "dice",
        "hd95",
        "assd",
        "masd",
        "nsd",
        "boundary_iou",
        "lesion_f1",
        "false_lesions",
        *pixels,
    ]
    model = SegmentationModel.from_pretrained(run / "best").eval()
    assert model.normalization is not None
    normalize = create_transform(model.normalization)
    expected = []
    for sample in LGGSegmentation(
        str(data.root), read_split(run / "split.json")["validation"], cache_dir=data.cache_dir
    ):
        with torch.inference_mode():
            logits = model(normalize(sample["image"][None]))
        expected.append(
            (sample["patient"], sample["slice"], hausdorff_distance(logits, sample["mask"][None], percentile=95))
        )
    found = [(case.patient, case.slice, case.values[0]) for case in tables["hd95"]]
    assert found == [
        (*place, pytest.approx(value.item(), nan_ok=True))
        for *place, value in sorted(expected, key=lambda row: row[:2])
    ]
    known = [value for *_, value in found if not np.isnan(value)]
    assert evaluation.summary["mean slice HD95, pixels"] == pytest.approx(np.mean(known))


def test_sensitivity_and_precision_make_the_dice(evaluation: Evaluation) -> None:
    for row in evaluation.patients:
        assert 2 * row.recall * row.precision == pytest.approx(row.dice * (row.recall + row.precision), abs=1e-6)


def test_institutions_have_their_own_rows(evaluation: Evaluation) -> None:
    rows = evaluation.institutions()
    assert sum(row["patients"] for row in rows) == evaluation.summary["patients"] == 3
    assert {row["institution"] for row in rows} == {row.patient.split("_")[1] for row in evaluation.patients}
    for row in rows:
        scores = [patient.dice for patient in evaluation.patients if patient.institution == row["institution"]]
        assert (row["mean"], row["worst"]) == (pytest.approx(np.mean(scores)), min(scores))


def test_the_table_of_patients_is_one_of_cases(evaluation: Evaluation) -> None:
    tables = read_cases(evaluation.folder / "patients.csv")
    assert list(tables) == ["slices", "tumour_slices", "dice", "iou", "recall", "precision"]
    assert [(case.patient, case.value) for case in tables["dice"]] == [
        (row.patient, row.dice) for row in evaluation.patients
    ]
    lower, upper = confidence_interval(tables["dice"])
    assert (lower, upper) == tuple(evaluation.summary[f"its 95 % interval, {end}"] for end in ("from", "to"))


def test_files_hold_what_was_found(evaluation: Evaluation, run: Path) -> None:
    assert evaluation.folder == run / "evaluation" / "validation"
    with (evaluation.folder / "patients.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(row["dice"]) for row in table] == [row.dice for row in evaluation.patients]
    assert json.loads((evaluation.folder / "summary.json").read_text()) == evaluation.summary
    with Image.open(evaluation.folder / "cases.png") as picture:
        colours = np.asarray(picture.convert("RGB")).astype(int)
    red, green = colours[..., 0] - colours[..., 1], colours[..., 1] - colours[..., 0]
    assert (green > 100).sum() > 100
    assert (red > 100).sum() > 50


def test_every_number_of_the_page_is_one_of_the_tables(evaluation: Evaluation) -> None:
    reader = PageReader(evaluation.folder / "report.html")
    patients, summary, institutions = reader.tables
    with (evaluation.folder / "patients.csv").open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: float(row["dice"]))  # the worst come first
    names = [name.replace(" ", "_") for name, _ in patients[0]]
    assert set(names) == rows[0].keys()
    assert [[exact for _, exact in row] for row in patients[1:]] == [[row[name] for name in names] for row in rows]
    assert list(reader.strips) == [row["patient"] for row in rows]
    assert all(f"Dice {float(row['dice']):.3f}" in reader.text for row in rows)
    expected = json.loads((evaluation.folder / "summary.json").read_text())
    ends = [expected.pop(f"its 95 % interval, {end}") for end in ("from", "to")]
    assert {row[0][0]: float(row[1][1] or "nan") for row in summary} == pytest.approx(expected, nan_ok=True, abs=0)
    assert summary[0][0][0] == "mean patient Dice"
    interval = [
        float(given["data-value"] or "") for tag, given in reader.elements if tag == "span" and "data-value" in given
    ]
    assert interval[:2] == ends
    tables = read_cases(evaluation.folder / "patients.csv")
    assert interval[2:] == [end for name in ("iou", "recall", "precision") for end in confidence_interval(tables[name])]
    with (evaluation.folder / "institutions.csv").open(newline="") as file:
        assert [[exact for _, exact in row] for row in institutions[1:]] == [
            list(row.values()) for row in csv.DictReader(file)
        ]


def test_the_page_shows_the_masks_that_were_scored(evaluation: Evaluation) -> None:
    reader = PageReader(evaluation.folder / "report.html")
    pixels = read_cases(evaluation.folder / "slices.csv")
    slices = {(patient, int(each["label"])): each for patient, strip in reader.strips.items() for each in strip}
    assert len(slices) == 15
    for tp, fp, fn in zip(*(pixels[name] for name in PIXELS), strict=True):
        (true,), (found,) = slices[str(tp.patient), int(tp.slice or 0)]["outlines"]
        assert bool(true) == bool(tp.value + fn.value)
        assert bool(found) == bool(tp.value + fp.value)


def test_the_tables_are_printed(evaluation: Evaluation, capsys: pytest.CaptureFixture[str]) -> None:
    evaluation.show()
    printed = capsys.readouterr().out
    for text in ("By patient", "By institution", "Overall", evaluation.patients[0].patient, "mean patient Dice"):
        assert text in printed


def test_a_part_without_patients_is_an_error(run: Path) -> None:
    with pytest.raises(ValueError, match="has no patients for test; choose another part"):
        evaluate(run, part="test")


def test_other_patients_and_folders_can_be_given(run: Path, data: DataConfig, tmp_path: Path) -> None:
    patients = read_split(run / "split.json")["train"][:2]
    (tmp_path / "split.json").write_text(json.dumps({"train": ["other"], "test": patients}))
    output = tmp_path / "tables"
    result = evaluate(run, part="test", split=tmp_path / "split.json", root=data.root, output=output)
    assert [row.patient for row in result.patients] == patients
    assert (output / "cases.png").is_file()
    memory = "of whom slices were trained on: scores are memory"
    assert result.summary[memory] == len(patients)  # by the run's own split
    assert "scores are memory" in (output / "report.html").read_text()
    assert memory not in evaluate(run, part="train", output=tmp_path / "train").summary  # which says so itself
    shutil.copytree(str(data.root), tmp_path / "copy")
    named = {"part": "test", "split": tmp_path / "split.json", "root": tmp_path / "copy"}
    assert memory not in evaluate(run, **named, output=tmp_path / "elsewhere").summary  # names may be others' there


def test_other_patients_need_a_folder_of_their_own(run: Path) -> None:
    with pytest.raises(ValueError, match=r"needs an output folder of its own"):
        evaluate(run, split=run / "split.json")


# --- weights without a run ---


def test_weights_by_themselves_score_as_their_run_does(
    evaluation: Evaluation, run: Path, data: DataConfig, tmp_path: Path
) -> None:
    alone = evaluate(run / "best", part="validation", split=run / "split.json", data=data, output=tmp_path / "alone")
    for file in ("patients.csv", "slices.csv", "summary.json", "cases.png"):
        assert (alone.folder / file).read_bytes() == (evaluation.folder / file).read_bytes()
    assert "best: validation" in (alone.folder / "report.html").read_text()
    twice = Ensemble([Predictor.from_pretrained(run)] * 2)
    twice.save_pretrained(tmp_path / "twice")
    both = evaluate(tmp_path / "twice", part="validation", data=data, output=tmp_path / "both")
    assert [row.dice for row in both.patients] == pytest.approx([row.dice for row in alone.patients], abs=1e-6)


def test_weights_are_scored_on_all_patients_of_data_without_a_split(
    data: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("images", "masks"):
        (tmp_path / "own" / folder).mkdir(parents=True)
    for number, patient in enumerate(LGGSegmentation(str(data.root), cache_dir=data.cache_dir).patients[:3]):
        image = next(Path(str(data.root), patient).glob("*_1.tif"))
        shutil.copy(image, tmp_path / "own" / "images" / f"{number}.tif")
        shutil.copy(image.with_name(f"{image.stem}_mask.tif"), tmp_path / "own" / "masks" / f"{number}.tif")
    monkeypatch.chdir(tmp_path)
    options = ("--data.format", "folder", "--data.root", "own", "--data.cache_dir", "cache", "-o", "tables")
    with pytest.raises(SystemExit):
        call(monkeypatch, "evaluate", "unext/lgg", *options, "--patients")
    assert "whose the images are is not known, so slices of a patient cannot" in capsys.readouterr().err
    call(monkeypatch, "evaluate", "unext/lgg", *options)
    assert "By image, each counted as a patient" in " ".join(capsys.readouterr().out.split())
    assert [row["patient"] for row in read_rows(Path("tables/patients.csv"))] == ["0", "1", "2"]
    assert "unext/lgg: all" in Path("tables/report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"output": None}, ValueError, r"best is no run, in whose folder .*; give an output folder \(-o\)"),
        ({"part": None}, ValueError, r"split.json splits the patients; say which part is scored"),
        ({"part": "test"}, ValueError, r"the split .*split.json has no patients for test; choose another part"),
        ({"split": "nowhere.json"}, FileNotFoundError, "there is no split nowhere.json"),
        ({"root": "nowhere"}, FileNotFoundError, "there is no folder nowhere"),
        ({"data": DataConfig(format="folder")}, ValueError, "data.format=folder needs data.root"),
    ],
)
def test_what_is_missing_beside_weights_is_said(
    arguments: dict[str, object], error: type[Exception], message: str, run: Path, data: DataConfig, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        evaluate(run / "best", **{"part": "validation", "data": data, "output": tmp_path / "tables", **arguments})
    assert not list(tmp_path.iterdir())


def test_a_part_of_data_without_a_split_is_an_error(run: Path, data: DataConfig, tmp_path: Path) -> None:
    shutil.copytree(str(data.root), tmp_path / "data", ignore=shutil.ignore_patterns("split.json"))
    with pytest.raises(FileNotFoundError, match=r"no split whose part test could be scored: .*split.json is not there"):
        evaluate(run / "best", part="test", root=tmp_path / "data", output=tmp_path / "tables")


def test_a_run_knows_its_data_and_what_it_was_trained_on(run: Path, data: DataConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is a run, whose config\.yaml says how its data is read"):
        evaluate(run, data=data, output=tmp_path / "tables")
    with pytest.raises(ValueError, match="those it was trained on too; choose a part, or another root"):
        evaluate(run, part="all", output=tmp_path / "tables")
    elsewhere = evaluate(run, part="all", root=data.root, output=tmp_path / "tables")
    assert [row.patient for row in elsewhere.patients] == LGGSegmentation(str(data.root)).patients


def test_several_classes_sizes_and_empty_masks(tmp_path: Path) -> None:
    """Ten images; class 1 is in one of them, which is empty of class 0; the last is empty of both."""
    data = DataConfig(root=str(tmp_path / "data"), format="folder", cache_dir=str(tmp_path / "cache"), batch_size=4)
    for folder in ("images", "masks/0", "masks/1"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for i in range(10):
        side = 32 if i % 2 else 40
        masks = np.zeros((2, 32, side), np.uint8)
        masks[1 if i == 0 else 0, 10:20, 10:20] = 0 if i == 9 else 255
        Image.fromarray(masks[0] // 2).save(tmp_path / "data" / "images" / f"{i}.png")
        for number, mask in enumerate(masks):
            Image.fromarray(mask).save(tmp_path / "data" / "masks" / str(number) / f"{i}.png")
    run = tmp_path / "run"
    run.mkdir()
    write_config(TrainConfig(data=data), run / "config.yaml")
    write_split({"train": [], "validation": [str(i) for i in range(10)], "test": []}, run / "split.json")
    network = UNeXt(1, 2, channels=(4, 6, 8, 10, 12))
    torch.nn.init.zeros_(network.head.weight)
    torch.nn.init.constant_(network.head.bias, -1)  # nothing is found
    network.save_pretrained(run / "best")

    result = evaluate(run)
    assert result.summary["mean patient Dice"] == 0
    assert result.summary["its 95 % interval, from"] <= 0 <= result.summary["its 95 % interval, to"]
    assert result.summary["batch IoU, batches of 1"] == pytest.approx(0.55)  # (1 / 10 + 10 / 10) / 2 over the classes
    assert [row.patient for row in result.patients if np.isnan(row.dice)] == ["9"]
    titles = json.loads((result.folder / "summary.json").read_text())
    assert titles["patients"] == 10


def test_masks_that_overlap_are_none_of_a_network_of_exclusive_classes(tmp_path: Path) -> None:
    for folder in ("images", "masks/0", "masks/1"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        Image.fromarray(np.full((32, 32), 255, np.uint8)).save(tmp_path / "data" / folder / "a.png")
    run = tmp_path / "run"
    run.mkdir()
    data = DataConfig(root=str(tmp_path / "data"), format="folder", cache_dir=str(tmp_path / "cache"))
    write_config(TrainConfig(data=data), run / "config.yaml")
    write_split({"train": [], "validation": ["a"], "test": []}, run / "split.json")
    network = UNeXt(1, 3, channels=(4, 6, 8, 10, 12))
    network.spec = ModelSpec(task="multiclass", class_names=("background", "class_1", "class_2"))
    network.save_pretrained(run / "best")
    with pytest.raises(ValueError, match="masks overlap, and the classes of a multiclass network exclude each other"):
        evaluate(run)
    assert not (run / "evaluation").exists()


def test_a_folder_without_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no run"):
        evaluate(tmp_path)


# --- all slices of a patient together ---


def finding_much(run: Path, data: DataConfig, folder: Path) -> Path:
    """Weights of a run whose threshold makes spots, of which their steps keep the largest."""
    model = SegmentationModel.from_pretrained(run / "best")
    patients = read_split(run / "split.json")["validation"]
    slices = LGGSegmentation(str(data.root), patients, cache_dir=data.cache_dir)
    likely = Predictor.from_pretrained(run).probabilities(torch.stack([sample["image"] for sample in slices]))
    steps = Postprocessing(smooth=True, components="largest")
    model.spec = replace(model.spec, threshold=likely.quantile(0.9).item(), postprocessing=steps)
    model.save_pretrained(folder)
    return folder


def test_slices_of_a_patient_are_scored_as_predict_makes_their_masks(
    run: Path, data: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = finding_much(run, data, tmp_path / "weights")
    options = ("--part", "validation", "--split", str(run / "split.json"), "--data.root", str(data.root))
    options = (*options, "--data.cache_dir", str(data.cache_dir))
    call(monkeypatch, "evaluate", str(weights), *options, "--patients", "-o", str(tmp_path / "tables"))
    assert "By patient, masks of all slices together" in " ".join(capsys.readouterr().out.split())
    assert "weights: validation, masks of all slices together" in (tmp_path / "tables" / "report.html").read_text()

    patients = read_split(run / "split.json")["validation"]
    folders = [Path(str(data.root), patient) for patient in patients]
    call(monkeypatch, "predict", str(weights), *map(str, folders), "--patients", "-o", str(tmp_path / "masks"))
    expected = {}
    for folder in folders:
        true, found = (
            np.stack([np.asarray(Image.open(path)) > 0 for path in sorted(paths, key=slice_number)])
            for paths in (folder.glob("*_mask.tif"), (tmp_path / "masks").rglob(f"{folder.name}_*_mask.png"))
        )
        expected[folder.name] = 2 * (true & found).sum() / (true.sum() + found.sum())
    rows = {row["patient"]: float(row["dice"]) for row in read_rows(tmp_path / "tables" / "patients.csv")}
    assert rows == pytest.approx(expected, abs=1e-6)
    alone = evaluate(weights, part="validation", split=run / "split.json", data=data, output=tmp_path / "alone")
    assert any(row.dice != pytest.approx(rows[row.patient], abs=1e-3) for row in alone.patients)


def slice_number(path: Path) -> int:
    return int(path.stem.removesuffix("_mask").rsplit("_", 1)[1])
