"""Cross-validation: every patient once, by the network that did not see it; it goes on where it was."""

import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from docs.phantom_maps import write_maps
from lightning.pytorch import Callback

from brainseg.data import read_folds, read_split, split_patients, write_folds, write_phantoms, write_split
from brainseg.inference import Ensemble, Predictor
from brainseg.metrics import confidence_interval, read_cases
from brainseg.training import TrainConfig, cross_validate, evaluate, train
from brainseg.training.config import DataConfig, ModelConfig, OptimizerConfig

CHANNELS = [4, 4, 8, 8, 8]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A tiny network on six patients, of which one is kept for the end."""
    root = tmp_path_factory.mktemp("folds")
    write_phantoms(root / "lgg", patients=6, slices=3, size=64)
    patients = sorted(path.name for path in (root / "lgg").iterdir() if path.is_dir())
    write_split({"train": patients[1:], "validation": [], "test": patients[:1]}, root / "lgg" / "split.json")
    return TrainConfig(
        model=ModelConfig(name="unext_tiny", arguments={"channels": CHANNELS}),
        data=DataConfig(root=str(root / "lgg"), cache_dir=str(root / "cache"), batch_size=4),
        optimizer=OptimizerConfig(lr=1e-2),
        epochs=1,
        accelerator="cpu",
        devices=1,
    )


@pytest.fixture(scope="module")
def folder(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished cross-validation of two folds."""
    folder = tmp_path_factory.mktemp("cv") / "cv"
    assert cross_validate(config, folder, folds=2) is not None
    return folder


def weights(folder: Path) -> bytes:
    return (folder / "best" / "model.safetensors").read_bytes()


def test_each_patient_is_scored_once_by_the_fold_that_did_not_train_on_it(config: TrainConfig, folder: Path) -> None:
    rows = read_cases(folder / "patients.csv")
    folds = read_folds(folder / "folds.json")
    held = read_split(Path(str(config.data.root)) / "split.json")["test"]
    assert sorted(str(case.patient) for case in rows["dice"]) == sorted(folds[0]["train"] + folds[0]["validation"])
    for number, split in enumerate(folds):
        assert split == {**read_split(folder / f"fold_{number}" / "split.json"), "test": held}
        mine = [str(case.patient) for case in rows["fold"] if case.values == (number,)]
        assert sorted(mine) == split["validation"]
        by_run = {row.patient: row.dice for row in evaluate(folder / f"fold_{number}").patients}
        assert {str(case.patient): case.value for case in rows["dice"] if case.patient in mine} == pytest.approx(
            by_run, nan_ok=True
        )


def test_the_summary_is_of_the_table(folder: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    dice = read_cases(folder / "patients.csv")["dice"]
    assert (summary["folds"], summary["patients"]) == (2, 5)
    assert summary["mean patient Dice"] == pytest.approx(fmean(case.value for case in dice))
    interval = (summary["its 95 % interval, from"], summary["its 95 % interval, to"])
    assert interval == pytest.approx(confidence_interval(dice))
    assert summary["worst patient Dice"] == min(case.value for case in dice)


def test_a_fold_is_the_run_that_train_makes_of_it(config: TrainConfig, folder: Path, tmp_path: Path) -> None:
    train(replace(config, data=replace(config.data, folds=2, fold=1)), tmp_path / "run")
    assert weights(tmp_path / "run") == weights(folder / "fold_1")


def test_the_folder_and_its_ensemble_predict_the_mean_of_the_folds(folder: Path) -> None:
    images = torch.rand(2, 3, 64, 64)
    logits = [Predictor.from_pretrained(folder / f"fold_{number}").logits(images) for number in range(2)]
    for predictor in (
        Predictor.from_pretrained(folder),
        Predictor.from_pretrained(folder / "ensemble"),
        Ensemble.from_pretrained(folder),
    ):
        assert isinstance(predictor, Ensemble)
        torch.testing.assert_close(predictor.logits(images), (logits[0] + logits[1]) / 2)


def test_patients_of_the_folds_are_known_to_their_ensemble(config: TrainConfig, folder: Path, tmp_path: Path) -> None:
    memory = "of whom slices were trained on: scores are memory"
    of_folds = evaluate(folder, part="all", data=config.data, output=tmp_path / "all").summary
    assert (of_folds["patients"], of_folds[memory]) == (6, 5)
    assert memory not in evaluate(folder, part="test", data=config.data, output=tmp_path / "test").summary
    best = folder / "fold_0" / "best"
    of_one = evaluate(best, part="all", data=config.data, output=tmp_path / "best").summary
    assert of_one[memory] == len(read_split(folder / "fold_0" / "split.json")["train"])


class Killed(Callback):
    """Ends the process's run in an epoch, as a signal does."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.current_epoch == self.epoch:
            raise KeyboardInterrupt


def test_started_again_it_goes_on_and_repeats_nothing(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, epochs=2)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    cross_validate(config, whole, folds=2)
    from brainseg.training import cross_validation

    trained = []

    def second_is_killed(config: TrainConfig, run: Path, callbacks: list[Any]) -> None:
        trained.append(run.name)
        train(config, run, callbacks=[*callbacks, *([Killed(1)] if run.name == "fold_1" else [])])

    monkeypatch.setattr(cross_validation, "train", second_is_killed)
    with pytest.raises(KeyboardInterrupt, match="interrupted in fold 1; start it again to go on there"):
        cross_validate(config, cut, folds=2)
    assert not (cut / "patients.csv").exists()
    with pytest.raises(FileNotFoundError, match="is a cross-validation whose folds are not all finished"):
        Predictor.from_pretrained(cut)
    first = (cut / "fold_0" / "last.ckpt").stat().st_mtime_ns
    moved = replace(config, data=replace(config.data, cache_dir=str(tmp_path / "cache")))  # where data lies may differ
    assert cross_validate(moved, cut, folds=2) is not None
    assert (cut / "fold_0" / "last.ckpt").stat().st_mtime_ns == first
    assert trained == ["fold_0", "fold_1"]  # the second call has resumed
    for name in ("fold_0", "fold_1"):
        assert weights(cut / name) == weights(whole / name)
    for name in ("patients.csv", "summary.json"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()


def test_folds_run_apart_are_gathered_by_the_last(config: TrainConfig, folder: Path, tmp_path: Path) -> None:
    write_folds(read_folds(folder / "folds.json"), tmp_path / "folds.json")
    config = replace(config, data=replace(config.data, split=str(tmp_path / "folds.json")))
    assert cross_validate(config, tmp_path / "cv", fold=1) is None
    assert not (tmp_path / "cv" / "fold_0").exists()
    result = cross_validate(config, tmp_path / "cv", fold=0)
    assert result is not None
    assert (tmp_path / "cv" / "patients.csv").read_bytes() == (folder / "patients.csv").read_bytes()


def test_other_options_than_it_was_begun_with_are_refused_by_name(
    config: TrainConfig, folder: Path, tmp_path: Path
) -> None:
    before = sorted(folder.rglob("*"))
    other = replace(config, epochs=3, optimizer=OptimizerConfig(lr=2e-2))
    with pytest.raises(ValueError, match=r"was begun with other options: optimizer\.lr, epochs; give those"):
        cross_validate(other, folder, folds=2)
    with pytest.raises(ValueError, match="was begun with other options: folds; give those"):
        cross_validate(config, folder, folds=3)
    patients = read_folds(folder / "folds.json")[0]
    write_folds(split_patients([*patients["train"], *patients["validation"]], folds=2, seed=5), tmp_path / "f.json")
    named = replace(config, data=replace(config.data, split=str(tmp_path / "f.json")))
    with pytest.raises(ValueError, match=r"was begun with other options: folds, data\.split; give those"):
        cross_validate(named, folder)
    assert sorted(folder.rglob("*")) == before


def test_what_cannot_run_writes_nothing(config: TrainConfig, tmp_path: Path) -> None:
    folder = tmp_path / "cv"
    of_a_run = replace(config, data=replace(config.data, folds=2, fold=0))
    wrong: list[tuple[TrainConfig, dict[str, int], str]] = [
        (of_a_run, {}, "data.folds and data.fold are of one run"),
        (config, {"folds": 6}, "folds=6 must lie between 2 and the 5 patients"),
        (config, {"folds": 2, "fold": 2}, "fold must be one of 0 to 1, got 2"),
        (replace(config, monitor="val_dise"), {"folds": 2}, "val_dise"),
        (replace(config, data=replace(config.data, batch_size=50)), {"folds": 2}, "batch of 50 slices is more than"),
        (
            replace(config, data=replace(config.data, split=f"{config.data.root}/split.json")),
            {},
            "split.json holds no folds",
        ),
    ]
    for bad, options, message in wrong:
        with pytest.raises(ValueError, match=message):
            cross_validate(bad, folder, **options)
        assert not folder.exists()


def test_classes_are_told_apart_by_their_names(config: TrainConfig, tmp_path: Path) -> None:
    write_maps(tmp_path / "own", patients=4, slices=2, size=32)
    data = replace(config.data, root=str(tmp_path / "own"), format="folder")
    result = cross_validate(replace(config, data=data), tmp_path / "cv", folds=2)
    assert result is not None
    dice = read_cases(tmp_path / "cv" / "patients.csv", names=["oedema", "core"])["dice"]
    by_class = [[case.values[k] for case in dice if case.values[k] == case.values[k]] for k in range(2)]
    assert result.summary["mean patient Dice, core"] == pytest.approx(fmean(by_class[1]))
    assert result.summary["mean patient Dice"] == pytest.approx(fmean(map(fmean, by_class)))
    assert Predictor.from_pretrained(tmp_path / "cv").spec.class_names == ("background", "oedema", "core")


def test_other_results_are_left_alone(config: TrainConfig, folder: Path) -> None:
    with pytest.raises(FileExistsError, match="fold_0 holds other results already; give another folder"):
        cross_validate(config, folder / "fold_0", folds=2)
