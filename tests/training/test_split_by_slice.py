"""Runs whose slices are split regardless of patients: as the published ones, and they say so."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from brainseg.data import LeakingSplit, read_slices_leaking, read_split, write_split
from brainseg.training import TrainConfig, evaluate, resume, train
from brainseg.training.config import DataConfig
from brainseg.training.data import SliceDataModule
from brainseg.training.datasets import find_split, open_part

MEMORY = "slices of one patient train and validate: scores on this split are memory"


def leaking(data: DataConfig) -> DataConfig:
    return replace(data, split_by="slice")


def test_all_slices_are_shared_out_regardless_of_patients(data: DataConfig) -> None:
    split = find_split(leaking(data), seed=41)
    assert [len(split[part]) for part in ("train", "validation", "test")] == [48, 12, 0]
    every = [(files.patient, files.slice) for files in open_part(data, None, "train").files]
    assert sorted(split["train"] + split["validation"]) == every
    assert {patient for patient, _ in split["train"]} & {patient for patient, _ in split["validation"]}


def test_validation_comes_in_the_order_of_the_draw(data: DataConfig) -> None:
    split = find_split(leaking(data), seed=41)
    loader = SliceDataModule(leaking(data), split, seed=0).val_dataloader()
    keys = [key for batch in loader for key in zip(batch["patient"], batch["slice"].tolist(), strict=True)]
    assert keys == split["validation"] != sorted(keys)


def test_patients_that_are_kept_for_the_end_stay_out(data: DataConfig, tmp_path: Path) -> None:
    root = tmp_path / "lgg"
    root.mkdir()
    for path in Path(str(data.root)).iterdir():
        if path.is_dir():
            (root / path.name).symlink_to(path)
    patients = sorted(path.name for path in root.iterdir())
    write_split({"train": patients[2:-1], "validation": patients[-1:], "test": patients[:2]}, root / "split.json")
    split = find_split(leaking(replace(data, root=str(root))), seed=41)
    assert {patient for part in split.values() for patient, _ in part} == {*patients[2:]}


def test_a_run_by_slice_goes_on_and_is_evaluated(config: TrainConfig, tmp_path: Path) -> None:
    whole, cut = (tmp_path / name for name in ("whole", "cut"))
    config = replace(config, data=leaking(config.data), schedule=replace(config.schedule, name="constant"))
    with pytest.warns(UserWarning, match=MEMORY):
        train(config, whole)
    with pytest.warns(UserWarning, match=MEMORY):
        train(replace(config, epochs=1), cut)
    with pytest.warns(UserWarning, match=MEMORY):
        resume(cut, epochs=2)
    assert (cut / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    states = [torch.load(run / "last.ckpt", weights_only=True)["state_dict"] for run in (whole, cut)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])

    split = read_slices_leaking(whole / "split.json")
    assert split == find_split(config.data, seed=0)
    evaluation = evaluate(whole)
    shared = {patient for patient, _ in split["validation"]} & {patient for patient, _ in split["train"]}
    assert evaluation.summary["of whom slices were trained on: scores are memory"] == len(shared) > 0
    assert evaluation.summary["slices"] == 12
    assert "scores are memory" in (evaluation.folder / "report.html").read_text()
    by_patient = evaluate(whole, split=Path(str(config.data.root)) / "split.json", output=tmp_path / "other").summary
    scored = read_split(Path(str(config.data.root)) / "split.json")["validation"]
    known = len({*scored} & {patient for patient, _ in split["train"]})
    assert (by_patient["slices"], by_patient["of whom slices were trained on: scores are memory"]) == (15, known)
    with pytest.raises(
        ValueError, match="a split by slice parts the slices of a patient, which cannot be taken together"
    ):
        evaluate(whole, patients=True)


def test_a_split_by_slice_is_used_by_those_who_ask_for_it(data: DataConfig, tmp_path: Path) -> None:
    drawn = find_split(leaking(data), seed=41)
    write_split(drawn, tmp_path / "slices.json")
    asked = replace(leaking(data), split=str(tmp_path / "slices.json"))
    assert find_split(asked, seed=0) == drawn
    with pytest.raises(ValueError, match=r"data\.split_by=slice"):
        find_split(replace(data, split=str(tmp_path / "slices.json")), seed=0)
    with pytest.raises(ValueError, match="does not split slices"):
        find_split(replace(asked, split=f"{data.root}/split.json"), seed=0)
    missing: LeakingSplit = {"train": drawn["train"], "validation": [("nobody", 1)], "test": []}
    with pytest.raises(ValueError, match="'nobody'"):
        open_part(asked, missing, "validation")
    first = drawn["validation"][0][0]
    with pytest.raises(ValueError, match=f"no slice 99 of '{first}'"):
        open_part(asked, {**missing, "validation": [(first, 99)]}, "validation")


@pytest.mark.parametrize("given", [{"folds": 3, "fold": 0}, {"stratify": "sex"}])
def test_folds_and_groups_are_of_patients(data: DataConfig, given: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"data\.split_by=slice knows no patients"):
        replace(leaking(data), **given)
