"""Callbacks and loggers of a run, its running mean of the weights, and the task under a trainer of one's own."""

import csv
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, LambdaCallback, Timer
from lightning.pytorch.tuner.tuning import Tuner
from torch import Tensor

from brainseg.models import SegmentationModel, create_model
from brainseg.training import SegmentationTask, SliceDataModule, TrainConfig, resume, train
from brainseg.training.config import ScheduleConfig
from brainseg.training.datasets import find_split
from brainseg.training.watching import create_callbacks, create_logger


class Mean(Callback):
    """The running mean of the weights and of the floating statistics, in a plain loop."""

    def __init__(self, keep: float) -> None:
        self.keep = keep
        self.values: dict[str, Tensor] = {}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        del trainer
        for name, value in pl_module.model.state_dict().items():  # type: ignore[union-attr, operator]
            if value.is_floating_point():
                mean = self.values.get(name, value)
                self.values[name] = self.keep * mean + (1 - self.keep) * value


@pytest.fixture(scope="module")
def averaged(config: TrainConfig) -> TrainConfig:
    # The loss alone: its score of 0 in every epoch would name one by it anyway.
    return replace(config, ema=0.8, monitor="val_loss", schedule=ScheduleConfig("constant"))


@pytest.fixture(scope="module")
def finished(averaged: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mean]:
    folder, mean = tmp_path_factory.mktemp("averaged") / "run", Mean(0.8)
    train(replace(averaged, logger="csv"), folder, callbacks=[mean])
    return folder, mean


def test_the_running_mean_of_the_weights_is_saved_as_best(finished: tuple[Path, Mean]) -> None:
    folder, mean = finished
    assert "\n2," in (folder / "metrics.csv").read_text()
    assert '"epoch": 2' in (folder / "best" / "metrics.json").read_text()
    best = SegmentationModel.from_pretrained(folder).state_dict()
    for name, value in mean.values.items():
        torch.testing.assert_close(best[name], value, msg=name)
    last = create_model("unext_tiny", weights=folder / "last.ckpt").state_dict()
    assert all(torch.equal(value, best[name]) for name, value in last.items())


def test_a_logger_gets_the_values_of_every_epoch(finished: tuple[Path, Mean]) -> None:
    folder, _ = finished
    with (folder / "logs" / "version_0" / "metrics.csv").open() as file:
        logged = [row for row in csv.DictReader(file) if row["val_loss"]]
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for column in ("val_loss", "val_dice_patient"):
        assert [float(row[column]) for row in logged] == [float(row[column]) for row in rows]


def test_a_running_mean_goes_on_bit_by_bit(averaged: TrainConfig, finished: tuple[Path, Mean], tmp_path: Path) -> None:
    epochs: list[int] = []
    counts = LambdaCallback(on_train_epoch_end=lambda trainer, _: epochs.append(trainer.current_epoch))
    train(replace(averaged, epochs=1), tmp_path / "run")
    resume(tmp_path / "run", epochs=2, callbacks=[counts])
    assert epochs == [1]
    for file in ("metrics.csv", "best/model.safetensors"):
        assert (tmp_path / "run" / file).read_bytes() == (finished[0] / file).read_bytes()


def test_callbacks_come_by_class_path() -> None:
    path = "lightning.pytorch.callbacks.Timer"
    (timer,) = create_callbacks([{"class_path": path, "init_args": {"duration": "00:01:00:00"}}])
    assert isinstance(timer, Timer)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"name": "Timer"}, "is described by {class_path: ..., init_args: {...}}, got {'name': 'Timer'}"),
        ({"class_path": "Timer"}, "is described by"),
        ({"class_path": "lightning.pytorch.callbacks.Timr"}, "there is no callback lightning.pytorch.callbacks.Timr"),
        ({"class_path": "no.such.module"}, "there is no callback no.such.module"),
        ({"class_path": "torch.nn.Linear"}, "torch.nn.Linear is no lightning.pytorch.Callback"),
        ({"class_path": "lightning.pytorch.callbacks.Timer", "init_args": {"till": 3}}, "init_args do not fit"),
    ],
)
def test_what_is_no_callback_is_named(description: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        create_callbacks([description])
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_logger_that_is_not_installed_names_its_extra(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("wandb", "tensorboard", "tensorboardX", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)
    for module in ("tensorboard", "wandb"):
        logging = sys.modules[f"lightning.pytorch.loggers.{module}"]
        for known in ("_WANDB_AVAILABLE", "_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE"):
            monkeypatch.setattr(logging, known, False, raising=False)
    with pytest.raises(ImportError, match=rf'needs {name}: pip install "brainseg-torch\[{name}\]"'):
        create_logger(name, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_the_task_runs_under_a_trainer_of_ones_own_that_finds_a_rate(config: TrainConfig, tmp_path: Path) -> None:
    data = SliceDataModule(config.data, find_split(config.data, seed=0), seed=0)
    task = SegmentationTask(config, in_channels=3, num_classes=1)
    own: dict[str, Any] = {
        **{"accelerator": "cpu", "devices": 1, "default_root_dir": tmp_path, "use_distributed_sampler": False},
        **{"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False, "logger": False},
        "limit_val_batches": 0,
    }
    tuner = Tuner(Trainer(max_epochs=3, **own))
    finder = tuner.lr_find(task, datamodule=data, num_training=25, min_lr=1e-5, max_lr=1e-1, early_stop_threshold=None)
    assert finder is not None
    assert finder.results["lr"] == sorted(finder.results["lr"])
    assert task.lr == finder.suggestion() == task.run.optimizer.lr
    trainer = Trainer(max_epochs=1, **own)
    trainer.fit(task, data)
    assert trainer.callback_metrics["train_loss"].isfinite()
    assert "val_loss" not in trainer.callback_metrics
