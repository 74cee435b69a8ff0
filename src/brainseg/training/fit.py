"""Training from a configuration to a run folder."""

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, EarlyStopping, TQDMProgressBar
from lightning.pytorch.utilities import rank_zero_only

from brainseg.data import Split, read_split, write_split
from brainseg.training.config import TrainConfig, read_config, write_config
from brainseg.training.data import SliceDataModule
from brainseg.training.datasets import find_split
from brainseg.training.run_folder import RunFolder
from brainseg.training.scores import MONITORS
from brainseg.training.task import SegmentationTask


def train(config: TrainConfig, folder: str | Path) -> None:
    """Trains a network and leaves everything about it in a folder.

    Args:
        config: the run.
        folder: made if absent; `resume` goes on in it if the run is cut off.

    Raises:
        FileExistsError: the folder holds a run already.
        FileNotFoundError: the data or the split is not there.
        ValueError: a configuration that does not fit the data or itself.
    """
    folder = Path(folder)
    split = find_split(config.data, seed=config.seed)
    _check_free(folder)
    _fit(config, split, folder, checkpoint=None)


def resume(folder: str | Path) -> None:
    """Goes on with a run from its last completed epoch, to the weights that it would have reached uninterrupted.

    Args:
        folder: of the run; its config.yaml and split.json say all the rest.

    Raises:
        FileNotFoundError: no run in the folder.
        ValueError: its files cannot be read.
    """
    folder = Path(folder)
    if not (folder / "config.yaml").is_file():
        raise FileNotFoundError(f"{folder} holds no run; expected the folder that brainseg train wrote")
    config = read_config(folder / "config.yaml")
    checkpoint = folder / "last.ckpt"
    if checkpoint.is_file() and _has_stopped(checkpoint):
        return
    _fit(config, read_split(folder / "split.json"), folder, checkpoint if checkpoint.is_file() else None)


def _has_stopped(checkpoint: Path) -> bool:
    """Whether early stopping has ended the run: Lightning would train another epoch."""
    callbacks = torch.load(checkpoint, map_location="cpu", weights_only=True)["callbacks"]
    return any(state.get("stopped_epoch") for state in callbacks.values())


def _fit(config: TrainConfig, split: Split, folder: Path, checkpoint: Path | None) -> None:
    _quieten()
    seed_everything(config.seed, verbose=False)
    data = SliceDataModule(config.data, split, seed=config.seed)
    task = SegmentationTask(config, in_channels=data.train_set.shapes[0][0], num_classes=data.train_set.num_classes)
    trainer = create_trainer(config, folder)
    if trainer.is_global_zero and checkpoint is None:
        folder.mkdir(parents=True, exist_ok=True)
        write_split(split, folder / "split.json")
        write_config(config, folder / "config.yaml")
    trainer.fit(task, data, ckpt_path=checkpoint, weights_only=True)


IGNORED = (
    ".*does not have many workers.*",  # slices come from memory
    ".*LeafSpec.*deprecated",  # Lightning calls an old name
    ".*Grad strides do not match bucket view strides.*",  # depthwise kernels, too small to matter
)


class EpochProgressBar(TQDMProgressBar):
    """Lightning's bar with epochs counted from 1, as in metrics.csv."""

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description(f"Epoch {trainer.current_epoch + 1}/{trainer.max_epochs}")


def create_trainer(config: TrainConfig, folder: Path) -> Trainer:
    """Lightning's trainer with what a run needs: its folder, early stopping, a progress bar."""
    if config.monitor not in MONITORS:
        raise ValueError(f"monitor={config.monitor!r} names no validation metric; give one of {', '.join(MONITORS)}")
    mode = "min" if config.monitor == "val_loss" else "max"
    callbacks: list[Callback] = [EpochProgressBar(), RunFolder(folder, monitor=config.monitor, mode=mode)]
    if config.patience is not None:
        callbacks.append(EarlyStopping(config.monitor, mode=mode, patience=config.patience, check_finite=False))
    return Trainer(
        accelerator=config.accelerator,
        devices=config.devices,
        num_nodes=config.nodes,
        strategy=config.strategy,
        precision=config.precision,  # type: ignore[arg-type]
        max_epochs=config.epochs,
        callbacks=callbacks,
        logger=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


@rank_zero_only  # the other processes are started when the first has made the folder
def _check_free(folder: Path) -> None:
    if (folder / "config.yaml").exists():
        raise FileExistsError(f"{folder} holds a run already; go on with --resume {folder}, or give another folder")


def _quieten() -> None:
    """Leaves out warnings that a user can do nothing about."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in IGNORED:
        warnings.filterwarnings("ignore", message)
