"""Runs: what their folders hold, and that a run which is killed ends where an uninterrupted one ends."""

import csv
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from brainseg.models import ModelSpec, Postprocessing, SegmentationModel, create_model
from brainseg.training import SegmentationTask, TrainConfig, evaluate, read_config, resume, train, write_config
from brainseg.training.config import LossConfig, ModelConfig, OptimizerConfig, ScheduleConfig
from brainseg.training.data import SliceDataModule
from brainseg.training.datasets import find_split
from brainseg.training.fit import create_trainer, prepare
from brainseg.training.run_folder import RunFolder
from brainseg.training.trial import try_step
from tests.command import call
from tests.hub import stub

# For each folder with a configuration, runs the command in a copy of this process, which kills itself the n-th time
# that a method is called.
KILLED = """
import importlib, os, signal, sys
from brainseg._torchvision import make_importable
make_importable()
import lightning.pytorch
import brainseg.training
from brainseg.cli import main

def run(folder, module, name, method, times):
    owner = getattr(importlib.import_module(module), name)
    original, calls = getattr(owner, method), []
    def killed(*arguments, **options):
        calls.append(1)
        if len(calls) == int(times):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)
    setattr(owner, method, killed)
    sys.argv = ["brainseg", "train", "--config", f"{folder}/config.yaml", "--run", f"{folder}/run"]
    main()

for folder, kill in zip(sys.argv[1::2], sys.argv[2::2]):
    if os.fork() == 0:
        run(folder, *kill.split())
        os._exit(0)
    assert os.WTERMSIG(os.wait()[1]) == signal.SIGKILL, folder
"""
KILLS = [
    "brainseg.training.task SegmentationTask training_step 15",  # the second epoch has just begun
    "lightning.pytorch Trainer save_checkpoint 2",  # the second epoch is over and not yet written
    "brainseg.models SegmentationModel save_pretrained 1",  # the checkpoint is written, the best weights not
    "brainseg.training.task SegmentationTask training_step 3",  # nothing is complete
]


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
    best = max(rows(run), key=lambda row: (float(row["val_dice_patient"]), -float(row["val_loss"])))
    saved = json.loads((run / "best" / "metrics.json").read_text())
    assert saved["epoch"] == int(best["epoch"])
    model = SegmentationModel.from_pretrained(run / "best")
    assert model.normalization == {"name": "ForegroundZScore", "arguments": {"fraction": 0.1}}


def test_the_last_checkpoint_says_what_its_weights_mean(run: Path, tmp_path: Path) -> None:
    best = SegmentationModel.from_pretrained(run)
    assert best.spec.class_names == ("tumour",)
    assert create_model("unext_tiny", weights=run / "last.ckpt").spec == best.spec
    checkpoint = torch.load(run / "last.ckpt", weights_only=True)
    del checkpoint["spec"]["keep_aspect_ratio"]  # before there was a choice
    torch.save(checkpoint, tmp_path / "last.ckpt")
    former = create_model("unext_tiny", weights=tmp_path / "last.ckpt").spec
    assert former == replace(best.spec, keep_aspect_ratio=False)


@pytest.fixture(scope="module")
def killed(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of `config`, each killed at another place."""
    folders = {kill: tmp_path_factory.mktemp("killed") for kill in KILLS}
    for folder in folders.values():
        write_config(config, folder / "config.yaml")
    arguments = [str(argument) for kill, folder in folders.items() for argument in (folder, kill)]
    result = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    return {kill: folder / "run" for kill, folder in folders.items()}


@pytest.mark.parametrize("kill", KILLS)
def test_a_killed_run_ends_as_if_it_had_not_been(straight: Path, killed: dict[str, Path], kill: str) -> None:
    resume(killed[kill])
    assert_same_run(killed[kill], straight)


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


def in_epoch(number: int, act: Callable[[SegmentationTask], None]) -> Any:
    """A hook that acts when this epoch begins."""
    original = SegmentationTask.on_train_epoch_start

    def on_train_epoch_start(task: SegmentationTask) -> None:
        original(task)
        if task.current_epoch + 1 == number:
            act(task)

    return on_train_epoch_start


def press_ctrl_c(_: SegmentationTask) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["plateau", "multistep"])
def test_an_extended_run_is_that_of_so_many_epochs(
    config: TrainConfig, blind: ModelConfig, tmp_path: Path, name: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished run with plateau; with multistep one that Ctrl-C has ended, and says how to go on.

    Rates of their own in some modules and clipped gradients go on as well.
    """
    schedule = ScheduleConfig(name=name, patience=1, minimum_lr=1e-9, milestones=[1, 3])
    optimizer = OptimizerConfig(lr=1e-3, weight_decay=0.0, multipliers={"head": 0.5}, clip_norm=1.0)
    config = replace(config, model=blind, schedule=schedule, epochs=4, optimizer=optimizer)
    train(config, tmp_path / "straight")
    if name == "plateau":
        train(replace(config, epochs=2), tmp_path / "run")
    else:
        with monkeypatch.context() as patch:
            patch.setattr(SegmentationTask, "on_train_epoch_start", in_epoch(3, press_ctrl_c))
            said = f"in epoch 3 of 3; go on with: brainseg train --resume {tmp_path / 'run'}"
            with pytest.raises(KeyboardInterrupt, match=re.escape(said)):
                train(replace(config, epochs=3), tmp_path / "run")
    assert len(rows(tmp_path / "run")) == 2
    resume(tmp_path / "run", epochs=4)
    assert_same_run(tmp_path / "run", tmp_path / "straight")
    assert read_config(tmp_path / "run" / "config.yaml").epochs == 4
    rates = [float(row["lr"]) for row in rows(tmp_path / "run")]
    expected = {"plateau": [1, 1, 1, 1 / 10], "multistep": [1, 2 / 3, 2 / 3, 4 / 9]}[name]
    assert rates == pytest.approx([1e-3 * rate for rate in expected])


def test_a_cosine_is_extended_only_if_it_may_be_planned_anew(straight: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for epochs in (1, 3):
        with pytest.raises(
            ValueError, match=f"epochs={epochs} would undo|falls over 2 epochs.*others with 3; give --rep"
        ):
            resume(run, epochs=epochs)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    resume(run, epochs=3, replan=True)
    rates = [float(row["lr"]) for row in rows(run)]
    # (1 + cos 120 degrees) / 2, the third rate of a cosine over three epochs, after two of one over two.
    assert rates == pytest.approx([3e-3, (3e-3 + 1e-5) / 2, 1e-5 + (3e-3 - 1e-5) / 4])


@pytest.mark.parametrize("what", ["loss", "weight"])
def test_a_run_that_diverges_ends_in_that_epoch_and_goes_on_from_the_one_before(
    config: TrainConfig, straight: Path, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(task: SegmentationTask) -> None:
        if what == "loss":
            monkeypatch.setattr(task, "compute_loss", lambda logits, _: (logits.sum() * torch.nan, {}))
        else:
            monkeypatch.setattr(task, "on_validation_end", lambda: task.model.head.bias.data.fill_(torch.inf))

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(SegmentationTask, "on_train_epoch_start", in_epoch(2, diverge))
        said = {"loss": "train_loss is nan", "weight": r"the weights head.bias are not finite"}[what]
        with pytest.raises(FloatingPointError, match=rf"epoch 2: {said}.*optimizer.lr is 0.003.*as epoch 1 left them"):
            train(config, run)
    assert [row["epoch"] for row in rows(run)] == ["1"]
    assert all(value.isfinite().all() for value in SegmentationModel.from_pretrained(run).state_dict().values())
    resume(run)
    assert_same_run(run, straight)


def test_a_run_that_diverges_in_its_first_epoch_leaves_nothing_to_go_on_with(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(task: SegmentationTask) -> None:
        task.model.head.bias.data.fill_(torch.nan)

    monkeypatch.setattr(SegmentationTask, "on_train_epoch_start", in_epoch(1, diverge))
    with pytest.raises(FloatingPointError, match=r"epoch 1: .* there is nothing to go on from"):
        train(config, tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize("what", ["precision", "weights"])
def test_what_diverges_at_once_is_told_before_anything_is_written(
    config: TrainConfig, tmp_path: Path, what: str
) -> None:
    if what == "precision":  # the smallest squares of gradients are 0 in float16, and Adam divides by them
        config, said = replace(config, precision="16-true"), "after a first step .* precision 16-true"
    else:
        model = create_model("unext_tiny")
        torch.nn.init.constant_(model.head.bias, torch.nan)
        model.save_pretrained(tmp_path / "weights")
        weights = ModelConfig(name="unext_tiny", weights=str(tmp_path / "weights"))
        config, said = replace(config, model=weights), "the loss of a first batch is nan.* starting weights"
    with pytest.raises(FloatingPointError, match=f"epoch 1: {said}"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_trial_leaves_network_and_random_numbers_as_they_are(config: TrainConfig, tmp_path: Path) -> None:
    split = find_split(config.data, seed=0)
    data = SliceDataModule(config.data, split, seed=0)
    task = SegmentationTask(config, in_channels=3, num_classes=1)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    drawn = torch.get_rng_state()
    try_step(task, data, create_trainer(config, tmp_path))
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    assert all(parameter.grad is None for parameter in task.parameters())
    assert task.training
    assert not list(tmp_path.iterdir())


def test_early_stopping_waits_for_so_many_epochs_and_a_score_of_0_is_said(
    config: TrainConfig, blind: ModelConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(replace(config, model=blind, epochs=9, patience=2), tmp_path / "run")
    assert [row["val_dice_patient"] for row in rows(tmp_path / "run")] == ["0.0"] * 3
    assert "val_dice_patient is 0 in each of 3 epochs" in capsys.readouterr().out
    before = (tmp_path / "run" / "metrics.csv").read_text()
    resume(tmp_path / "run")
    assert (tmp_path / "run" / "metrics.csv").read_text() == before
    with pytest.raises(ValueError, match="was ended by patience=2 in epoch 3"):
        resume(tmp_path / "run", epochs=20)
    shutil.copytree(str(config.data.root), tmp_path / "moved")
    resume(tmp_path / "run", places={"data.root": str(tmp_path / "moved")})
    assert read_config(tmp_path / "run" / "config.yaml").data.root == str(tmp_path / "moved")
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


def test_a_run_of_stretched_slices_goes_on_with_such(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, data=replace(config.data, image_size=(32, 48)))
    trainer, split = create_trainer(config, tmp_path / "run"), find_split(config.data, seed=0)
    began = ModelSpec.from_json({"image_size": [32, 48]})
    for spec, keeps in ((began, False), (None, True)):
        task, data = prepare(config, split, trainer, spec)
        assert data.collate.resize is not None
        assert data.collate.resize.keep_aspect_ratio == task.model.spec.keep_aspect_ratio == keeps


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
        ({"data": {"batch_size": 64}}, "a batch of 64 slices is more than there are"),
        (
            {"data": {"batch_size": 1, "image_size": 32}},
            "more than 1 value per channel.*give data.batch_size 2 or more",
        ),
        ({"data": {"image_size": 16}}, "do not fit: .*at least 32 pixels"),
        ({"precision": "17"}, "precision"),
        ({"strategy": "dpp"}, "strategy"),
        ({"accelerator": "abacus"}, "accelerator"),
    ],
)
def test_a_configuration_that_cannot_run_leaves_no_folder(
    config: TrainConfig, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    if "data" in changes:
        changes = {"data": replace(config.data, **changes["data"])}
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
    changed = replace(config, seed=9, optimizer=replace(config.optimizer, lr=1e-4))
    write_config(changed, run / "config.yaml")
    with pytest.raises(ValueError, match=r"differs from what the run began with in optimizer.lr, seed; put it back"):
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
    (run / "last.ckpt").write_text("a note")
    with pytest.raises(
        ValueError, match=r"last.ckpt is truncated or no checkpoint \(IndexError\); the best weights are in"
    ):
        resume(run)


def test_a_full_disk_is_named_and_leaves_no_file_half_written(
    config: TrainConfig, tmp_path: Path, full_disk: Callable[[], AbstractContextManager[None]]
) -> None:
    run = tmp_path / "run"
    with full_disk(), pytest.raises(OSError, match=re.escape(str(run / "last.ckpt"))):
        train(replace(config, epochs=1), run)
    assert {path.name for path in run.rglob("*")} == {"config.yaml", "split.json"}


def test_lost_best_weights_are_written_again_if_they_are_the_last(config: TrainConfig, tmp_path: Path) -> None:
    train(replace(config, epochs=1), tmp_path / "run")
    before = (tmp_path / "run" / "best" / "model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "run" / "best")
    resume(tmp_path / "run")
    assert (tmp_path / "run" / "best" / "model.safetensors").read_bytes() == before


def row(epoch: int, score: float, loss: float) -> dict[str, float]:
    return {"epoch": epoch, "val_dice_patient": score, "val_loss": loss}


@pytest.mark.parametrize(
    ("scores", "losses", "best"),
    [
        ([0.1, 0.3, 0.2], [1.0, 2.0, 0.5], 2),
        ([0.3, 0.3, 0.3], [1.0, 0.7, 0.9], 2),  # of equal scores the lowest loss
        ([0.3, 0.3], [1.0, 1.0], 1),  # of equal ones the first
        ([math.nan, 0.0, math.nan], [0.1, 0.9, 0.2], 2),  # any number is better than none
        ([math.nan, math.nan], [0.9, 0.2], 2),
    ],
)
def test_the_best_epoch_has_the_highest_score_and_of_equal_ones_the_lowest_loss(
    scores: list[float], losses: list[float], best: int
) -> None:
    folder = RunFolder(Path(), monitor="val_dice_patient", mode="max")
    folder.rows = [row(epoch, *values) for epoch, values in enumerate(zip(scores, losses, strict=True), start=1)]
    assert folder.best["epoch"] == best


@pytest.mark.parametrize(
    ("scores", "said"),
    [([0.0, 0.0], "is 0 in each of 2 epochs"), ([0.0], "is 0 in"), ([math.nan], "is no number"), ([0.0, 0.1], None)],
)
def test_a_score_that_tells_nothing_is_said(scores: list[float], said: str | None) -> None:
    folder = RunFolder(Path(), monitor="val_dice_patient", mode="max")
    folder.rows = [row(epoch, score, 1.0) for epoch, score in enumerate(scores, start=1)]
    assert said in folder.doubt() if said else folder.doubt() == ""


def test_a_loss_of_0_is_no_doubt() -> None:
    folder = RunFolder(Path(), monitor="val_loss", mode="min")
    folder.rows = [row(1, 0.0, 0.0)]
    assert folder.doubt() == ""


@pytest.mark.parametrize("prefix", ["hf-hub:", "local-dir:"])
def test_a_run_starts_from_weights_of_the_hub_by_their_name(
    prefix: str, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    repositories = stub(monkeypatch, tmp_path / "hub", accepted=None)
    model = create_model("unext_tiny", num_classes=2)
    model.spec = ModelSpec(
        task="multiclass", class_names=("background", "oedema"), postprocessing=Postprocessing(smooth=True)
    )
    model.push_to_hub("someone/tumours")
    name = {"hf-hub:": "hf-hub:someone/tumours", "local-dir:": "local-dir:hub/someone/tumours"}[prefix]
    write_config(replace(config, model=ModelConfig(name="unext_tiny"), epochs=1), tmp_path / "config.yaml")
    call(
        monkeypatch, "train", "--config", "config.yaml", "--model.weights", name, "--run", "run", "--optimizer.lr", 1e-5
    )
    best = SegmentationModel.from_pretrained("run")
    assert best.spec == replace(
        model.spec,
        image_size=None,
        normalization=best.spec.normalization,
        channel_names=("t1", "flair", "t1ce"),
        shown_channel=1,
    )
    torch.testing.assert_close(best.head.weight, model.head.weight, rtol=0, atol=1e-3)
    written = read_config(tmp_path / "run" / "config.yaml").model.weights
    assert written == (name if prefix == "hf-hub:" else str(repositories / "someone" / "tumours"))
    image = next(Path(str(config.data.root)).rglob("*_1.tif"))
    call(monkeypatch, "predict", name, image, "-o", "masks")
    assert (tmp_path / "masks" / f"{image.stem}_labels.png").is_file()
    with pytest.raises(SystemExit):
        call(
            monkeypatch,
            "train",
            "--config",
            "config.yaml",
            "--model.weights",
            f"{prefix}someone/none",
            "--run",
            "other",
        )
    assert not (tmp_path / "other").exists()
    shutil.rmtree(repositories)  # a run that goes on has its own
    resume("run", epochs=2, replan=True)
