"""Training from a configuration to a run folder."""

import logging
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, EarlyStopping, TQDMProgressBar
from lightning.pytorch.utilities.exceptions import MisconfigurationException  # type: ignore[attr-defined]

from brainseg.data import Split, read_split, write_split
from brainseg.training.config import TrainConfig, plain, read_config, with_absolute_paths, write_config
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
    config, folder = with_absolute_paths(config), Path(folder)
    trainer = create_trainer(config, folder)
    if trainer.is_global_zero and (folder / "last.ckpt").exists():
        raise FileExistsError(f"{folder} holds a run already; go on with --resume {folder}, or give another folder")
    split = find_split(config.data, seed=config.seed)
    task, data = _prepare(config, split, trainer.world_size)
    if trainer.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
        write_split(split, folder / "split.json")
        write_config(config, folder / "config.yaml")
    trainer.fit(task, data)


def resume(folder: str | Path) -> None:
    """Goes on with a run from its last completed epoch, to the weights that it would have reached uninterrupted.

    Args:
        folder: of the run; its config.yaml and split.json say all the rest.

    Raises:
        FileNotFoundError: no run in the folder.
        ValueError: its files cannot be read, or its configuration is no longer that of its checkpoint.
    """
    folder = Path(folder)
    if not (folder / "config.yaml").is_file():
        raise FileNotFoundError(f"{folder} holds no run; expected the folder that brainseg train wrote")
    config = read_config(folder / "config.yaml")
    trainer = create_trainer(config, folder)
    path = folder / "last.ckpt"
    checkpoint = _read_checkpoint(path) if path.is_file() else None
    if checkpoint is not None:
        if changed := _changes(checkpoint["config"], plain(config)):
            raise ValueError(
                f"{folder / 'config.yaml'} differs from what the run began with in {', '.join(changed)}; put it back, "
                "or start another run with model.weights"
            )
        state = next(state for state in checkpoint["callbacks"].values() if "rows" in state)
        if state["stopped"]:
            return
    task, data = _prepare(config, read_split(folder / "split.json"), trainer.world_size)
    trainer.fit(task, data, ckpt_path=None if checkpoint is None else path, weights_only=True)


# What may differ when a run goes on: where it computes, and where the data lies.
FREE = {"accelerator", "devices", "nodes", "strategy", "data.root", "data.split", "data.workers", "data.cache_dir"}


def _changes(began: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """The fields that differ, by their full names."""
    changed = []
    for name, value in now.items():
        before = began.get(name)
        if isinstance(value, dict) and isinstance(before, dict) and name != "arguments":
            changed += _changes(before, value, f"{prefix}{name}.")
        elif value != before and f"{prefix}{name}" not in FREE:
            changed.append(f"{prefix}{name}")
    return changed


def _read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if checkpoint.keys() >= {"state_dict", "callbacks", "config"}:
            return checkpoint
    except (RuntimeError, EOFError, OSError, ValueError, AttributeError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is truncated or no checkpoint ({error}); the best weights are in best/") from error
    raise ValueError(f"{path} is no checkpoint of a run; the best weights are in best/")


def _prepare(config: TrainConfig, split: Split, world: int) -> tuple[SegmentationTask, SliceDataModule]:
    """Task and data of a run, tried on two slices, so that what does not fit is known before anything is written."""
    seed_everything(config.seed, verbose=False)
    data = SliceDataModule(config.data, split, seed=config.seed)
    data.check_share(world)
    task = SegmentationTask(config, in_channels=data.train_set.shapes[0][0], num_classes=data.train_set.num_classes)
    batch = data.collate([data.train_set[0], data.train_set[len(data.train_set) - 1]])
    try:
        with torch.no_grad():
            loss, _ = task.eval().compute_loss(task(batch["image"]), batch["mask"])
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"network, loss and slices do not fit: {error}") from error
    if loss.dim() != 0:
        raise ValueError(f"the loss has the shape {tuple(loss.shape)}, expected one number; leave reduction at mean")
    return task.train(), data


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
    _quieten()
    if config.monitor not in MONITORS:
        raise ValueError(f"monitor={config.monitor!r} names no validation metric; give one of {', '.join(MONITORS)}")
    mode = "min" if config.monitor == "val_loss" else "max"
    callbacks: list[Callback] = [EpochProgressBar(), RunFolder(folder, monitor=config.monitor, mode=mode)]
    if config.patience is not None:
        callbacks.append(EarlyStopping(config.monitor, mode=mode, patience=config.patience, check_finite=False))
    try:
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
    except MisconfigurationException as error:
        raise ValueError(f"accelerator, devices, strategy or precision: {error}") from error


def _quieten() -> None:
    """Leaves out warnings that a user can do nothing about."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in IGNORED:
        warnings.filterwarnings("ignore", message)
