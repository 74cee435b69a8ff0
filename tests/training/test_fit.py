"""Runs: what their folders hold, and that a run which is killed ends where an uninterrupted one ends."""

import csv
import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from brainseg.models import SegmentationModel, create_model
from brainseg.training import SegmentationTask, TrainConfig, evaluate, read_config, resume, train, write_config
from brainseg.training.config import LossConfig, ModelConfig, OptimizerConfig, ScheduleConfig

# Runs the command, and kills itself the n-th time that a method is called.
KILLED = """
import importlib, os, signal, sys
from brainseg.cli import main
module, name, method, times = sys.argv.pop(1), sys.argv.pop(1), sys.argv.pop(1), int(sys.argv.pop(1))
from brainseg._torchvision import make_importable
make_importable()
owner = getattr(importlib.import_module(module), name)
original, calls = getattr(owner, method), []
def killed(*arguments, **options):
    calls.append(1)
    if len(calls) == times:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **options)
setattr(owner, method, killed)
main()
"""


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def weights(folder: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(folder / "last.ckpt", weights_only=True)
    return checkpoint


def assert_same_run(folder: Path, other: Path) -> None:
    """Bit by bit: weights, optimiser, table and best weights."""
    first, second = weights(folder), weights(other)
    for name, value in first["state_dict"].items():
        assert torch.equal(value, second["state_dict"][name]), name
    states = (checkpoint["optimizer_states"][0]["state"] for checkpoint in (first, second))
    for one, another in zip(*(state.values() for state in states), strict=True):
        assert torch.equal(one["exp_avg"], another["exp_avg"])
    assert (folder / "metrics.csv").read_text() == (other / "metrics.csv").read_text()
    best = "best/model.safetensors"
    assert (folder / best).read_bytes() == (other / best).read_bytes()


def test_a_run_leaves_everything_about_it(run: Path) -> None:
    assert {path.name for path in run.iterdir()} >= {"config.yaml", "split.json", "metrics.csv", "best", "last.ckpt"}
    table = rows(run)
    assert [row["epoch"] for row in table] == ["1", "2", "3", "4"]
    names = {f"val_{score}_{over}" for score in ("dice", "iou") for over in ("slice", "patient", "dataset", "batch")}
    assert names | {"lr", "train_loss", "train_loss_bce", "train_dice_batch", "val_loss"} <= table[0].keys()
    assert float(table[0]["lr"]) == 1e-2
    assert float(table[-1]["train_loss"]) < float(table[0]["train_loss"])


def test_best_weights_are_those_of_the_best_epoch(run: Path) -> None:
    best = max(rows(run), key=lambda row: float(row["val_dice_patient"]))
    saved = json.loads((run / "best" / "metrics.json").read_text())
    assert saved["epoch"] == int(best["epoch"])
    model = SegmentationModel.from_pretrained(run / "best")
    assert model.normalization == {"name": "ForegroundZScore", "arguments": {"fraction": 0.1}}


@pytest.mark.parametrize(
    ("method", "times"),
    [
        ("brainseg.training.task SegmentationTask training_step", 15),  # the second epoch has just begun
        ("lightning.pytorch Trainer save_checkpoint", 2),  # the second epoch is over and not yet written
        ("brainseg.models SegmentationModel save_pretrained", 1),  # the checkpoint is written, the best weights not
        ("brainseg.training.task SegmentationTask training_step", 3),  # nothing is complete
    ],
)
def test_a_killed_run_ends_as_if_it_had_not_been(
    config: TrainConfig, straight: Path, tmp_path: Path, method: str, times: int
) -> None:
    write_config(config, tmp_path / "config.yaml")
    command = ["train", "--config", str(tmp_path / "config.yaml"), "--run", str(tmp_path / "run")]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *method.split(), str(times), *command],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resume(tmp_path / "run")
    assert_same_run(tmp_path / "run", straight)


@pytest.fixture(scope="module")
def straight(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `config`, uninterrupted."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    train(config, folder)
    return folder


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    """A network that finds nothing and does not learn to: neither score nor loss gets better."""
    folder = tmp_path_factory.mktemp("blind")
    model = create_model("unext_tiny")
    torch.nn.init.constant_(model.head.bias, -1e8)
    model.save_pretrained(folder)
    return ModelConfig(name="unext_tiny", weights=str(folder))


class Interruption(Exception):  # noqa: N818
    pass


def interrupt_in_epoch(number: int) -> Any:
    def on_train_epoch_start(task: SegmentationTask) -> None:
        if task.current_epoch + 1 == number:
            raise Interruption

    return on_train_epoch_start


@pytest.mark.parametrize("name", ["plateau", "multistep"])
def test_schedules_are_resumed(
    config: TrainConfig, blind: ModelConfig, tmp_path: Path, name: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = ScheduleConfig(name=name, patience=1, minimum_lr=1e-9, milestones=[1, 3])
    config = replace(
        config, model=blind, schedule=schedule, epochs=4, optimizer=OptimizerConfig(lr=1e-3, weight_decay=0.0)
    )
    train(config, tmp_path / "straight")
    with monkeypatch.context() as patch:
        patch.setattr(SegmentationTask, "on_train_epoch_start", interrupt_in_epoch(3))
        with pytest.raises(Interruption):
            train(config, tmp_path / "run")
    assert len(rows(tmp_path / "run")) == 2
    resume(tmp_path / "run")
    assert_same_run(tmp_path / "run", tmp_path / "straight")
    rates = [float(row["lr"]) for row in rows(tmp_path / "run")]
    expected = {"plateau": [1, 1, 1, 1 / 10], "multistep": [1, 2 / 3, 2 / 3, 4 / 9]}[name]
    assert rates == pytest.approx([1e-3 * rate for rate in expected])


def test_early_stopping_waits_for_so_many_epochs(config: TrainConfig, blind: ModelConfig, tmp_path: Path) -> None:
    train(replace(config, model=blind, epochs=9, patience=2), tmp_path / "run")
    assert [row["val_dice_patient"] for row in rows(tmp_path / "run")] == ["0.0"] * 3
    before = (tmp_path / "run" / "metrics.csv").read_text()
    resume(tmp_path / "run")
    assert (tmp_path / "run" / "metrics.csv").read_text() == before


def test_resuming_a_finished_run_changes_nothing(straight: Path) -> None:
    before = {path: path.read_bytes() for path in straight.rglob("*") if path.is_file()}
    resume(straight)
    assert {path: path.read_bytes() for path in straight.rglob("*") if path.is_file()} == before


def test_deep_supervision_mixed_precision_and_another_loss_train(config: TrainConfig, tmp_path: Path) -> None:
    model = ModelConfig(name="unext_tiny", deep_supervision=True)
    config = replace(config, model=model, loss=LossConfig("DiceLoss", {}), epochs=1, precision="bf16-mixed")
    config = replace(config, data=replace(config.data, image_size=(32, 32)), monitor="val_loss")
    train(config, tmp_path / "run")
    assert read_config(tmp_path / "run" / "config.yaml") == config
    (row,) = rows(tmp_path / "run")
    assert 0 < float(row["val_loss"]) < 1


def test_two_processes_give_the_metrics_of_one(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, devices=2, strategy="ddp", epochs=1)
    write_config(config, tmp_path / "config.yaml")
    run = tmp_path / "run"
    script = tmp_path / "command.py"
    script.write_text("from brainseg.cli import main\nmain()\n")
    command = [sys.executable, str(script), "train", "--config", str(tmp_path / "config.yaml"), "--run", str(run)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    (row,) = rows(run)
    # 15 slices on two processes; best weights are the last ones, so that one process must find the same.
    alone = evaluate(run).summary
    for column, name in (
        ("val_dice_patient", "mean patient Dice"),
        ("val_iou_patient", "mean patient IoU"),
        ("val_dice_dataset", "pooled Dice"),
        ("val_dice_slice", "mean slice Dice"),
    ):
        assert float(row[column]) == pytest.approx(alone[name], abs=1e-6), column
    assert 0 < alone["pooled Dice"] < 1


def test_a_folder_with_a_run_is_left_alone(config: TrainConfig, straight: Path) -> None:
    before = (straight / "last.ckpt").read_bytes()
    with pytest.raises(FileExistsError, match="holds a run already; go on with --resume"):
        train(config, straight)
    assert (straight / "last.ckpt").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"monitor": "val_dise"}, "names no validation metric"),
        ({"model": ModelConfig(name="une")}, "no model 'une'"),
        ({"model": ModelConfig("unext_tiny", {"num_classes": 2})}, "do not fit: .*target"),
        ({"model": ModelConfig("unext_tiny", {"in_channels": 1})}, "do not fit: .*1 channels"),
        ({"loss": LossConfig("DiceLoss", {"reduction": "none"})}, "leave reduction at mean"),
        ({"loss": LossConfig("DiceLoss", {"smooth": "a"})}, "do not fit"),
        ({"data": 64}, "a batch of 64 slices is more than there are"),
        ({"strategy": "dpp"}, "strategy"),
        ({"accelerator": "abacus"}, "accelerator"),
    ],
)
def test_a_configuration_that_cannot_run_leaves_no_folder(
    config: TrainConfig, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    if "data" in changes:
        changes = {"data": replace(config.data, batch_size=changes["data"])}
    with pytest.raises(ValueError, match=message):
        train(replace(config, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_resuming_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no run"):
        resume(tmp_path)


def test_a_changed_configuration_is_not_resumed(straight: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    config = read_config(run / "config.yaml")
    write_config(replace(config, epochs=9, optimizer=replace(config.optimizer, lr=1e-4)), run / "config.yaml")
    with pytest.raises(ValueError, match=r"differs from what the run began with in optimizer.lr, epochs; put it back"):
        resume(run)
    moved = replace(config, data=replace(config.data, workers=1), devices="auto")
    write_config(moved, run / "config.yaml")
    resume(run)


@pytest.mark.parametrize("length", [0, 100, -100])
def test_a_broken_checkpoint_is_named(straight: Path, tmp_path: Path, length: int) -> None:
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    checkpoint = (run / "last.ckpt").read_bytes()
    (run / "last.ckpt").write_bytes(checkpoint[:length])
    with pytest.raises(ValueError, match=r"last.ckpt is truncated or no checkpoint"):
        resume(run)


def test_a_checkpoint_of_something_else_is_named(straight: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    torch.save({"state_dict": {}}, run / "last.ckpt")
    with pytest.raises(ValueError, match=r"last.ckpt is no checkpoint of a run"):
        resume(run)


def test_lost_best_weights_are_written_again_if_they_are_the_last(config: TrainConfig, tmp_path: Path) -> None:
    train(replace(config, epochs=1), tmp_path / "run")
    before = (tmp_path / "run" / "best" / "model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "run" / "best")
    resume(tmp_path / "run")
    assert (tmp_path / "run" / "best" / "model.safetensors").read_bytes() == before


def test_a_full_disk_is_told(config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save_checkpoint(*_: object, **__: object) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(Trainer, "save_checkpoint", save_checkpoint)
    with pytest.raises(OSError, match=r"last.partial cannot be written: .*file write failed"):
        train(replace(config, epochs=1), tmp_path / "run")
