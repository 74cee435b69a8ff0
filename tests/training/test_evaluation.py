"""Evaluation: tables that a plain loop over the patients reproduces, and a picture of three cases."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from brainseg.data import LGGSegmentation, read_split
from brainseg.models import SegmentationModel
from brainseg.training import Evaluation, evaluate
from brainseg.training.config import DataConfig
from brainseg.transforms import create_transform


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


def test_slices_are_counted(evaluation: Evaluation) -> None:
    assert [(row.slices, row.tumour_slices) for row in evaluation.patients] == [(5, 1)] * 3
    assert (evaluation.summary["patients"], evaluation.summary["slices"]) == (3, 15)


def test_institutions_have_their_own_rows(evaluation: Evaluation) -> None:
    rows = evaluation.institutions()
    assert sum(row["patients"] for row in rows) == 3
    assert {row["institution"] for row in rows} == {row.patient.split("_")[1] for row in evaluation.patients}
    for row in rows:
        scores = [patient.dice for patient in evaluation.patients if patient.institution == row["institution"]]
        assert (row["mean"], row["worst"]) == (pytest.approx(np.mean(scores)), min(scores))


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


def test_a_folder_without_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no run"):
        evaluate(tmp_path)
