"""Training from a configuration to a run folder."""

import logging
import signal
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, EarlyStopping, TQDMProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import MisconfigurationException  # type: ignore[attr-defined]

from brainseg.data import write_split
from brainseg.data.split import LEAK
from brainseg.models import ModelSpec
from brainseg.training.config import TrainConfig, decided, write_config
from brainseg.training.data import SliceDataModule
from brainseg.training.datasets import Parts, find_split
from brainseg.training.run_folder import RunFolder, WholeCheckpoints
from brainseg.training.task import SegmentationTask
from brainseg.training.trial import try_step
from brainseg.training.watching import create_callbacks, create_logger


def train(
    config: TrainConfig,
    folder: str | Path,
    *,
    callbacks: Sequence[Callback] = (),
    logger: Logger | None = None,
) -> None:
    """Trains a network and leaves everything about it in a folder.

    A training step on a copy of the network is tried first; nothing is written before it has passed.

    Args:
        config: the run.
        folder: made if absent; `resume` goes on in it if the run is cut off.
        callbacks: of Lightning, besides those of the configuration.
        logger: of Lightning, in place of the configuration's.

    Raises:
        FileExistsError: the folder holds a run already.
        FileNotFoundError: the data or the split is not there.
        ValueError: a configuration that does not fit the data or itself.
        FloatingPointError: a loss or weights that are not finite; what the epochs before have reached stays.
        KeyboardInterrupt: Ctrl-C or a signal to end; it says how to go on.
        OSError: a full or read-only disk; it names the file, of which nothing is left half written.
    """
    config, folder = decided(config), Path(folder)
    trainer = create_trainer(config, folder, callbacks=callbacks, logger=logger)
    if trainer.is_global_zero and (folder / "last.ckpt").exists():
        raise FileExistsError(f"{folder} holds a run already; go on with --resume {folder}, or give another folder")
    split = find_split(config.data, seed=config.seed)
    task, data = prepare(config, split, trainer)
    if trainer.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
        write_split(split, folder / "split.json")
        write_config(task.run, folder / "config.yaml")
    try:
        fit(trainer, task, data, folder)
    except FloatingPointError:
        if trainer.is_global_zero and not (folder / "last.ckpt").exists():  # nothing to go on from, or to evaluate
            for name in ("split.json", "config.yaml"):
                (folder / name).unlink()
        raise


def prepare(
    config: TrainConfig, split: Parts, trainer: Trainer, spec: ModelSpec | None = None
) -> tuple[SegmentationTask, SliceDataModule]:
    """Task and data of a run that have been tried; with the spec of a run that goes on, if it does."""
    if trainer.is_global_zero and config.data.split_by == "slice":
        warnings.warn(LEAK, stacklevel=3)
    seed_everything(config.seed, verbose=False)
    keeps = spec is None or spec.keep_aspect_ratio
    data = SliceDataModule(config.data, split, seed=config.seed, keep_aspect_ratio=keeps)
    data.check_share(trainer.world_size)
    slices = data.train_set
    if config.data.format == "volumes":  # other folders, evaluated later, may hold other sequences besides
        config = replace(config, data=replace(config.data, sequences=list(slices.channel_names or ())))
    task = SegmentationTask(
        config,
        in_channels=slices.shapes[0][0],
        num_classes=slices.num_classes,
        task=slices.task,
        class_names=slices.class_names,
        label_values=slices.labels.values,
        channel_names=slices.channel_names,
        spec=spec,
    )
    if config.monitor not in task.monitors:
        there_are = ", ".join(task.monitors)
        raise ValueError(f"monitor={config.monitor!r} names no validation metric; give one of {there_are}")
    try_step(task, data, trainer)
    return task, data


def fit(trainer: Trainer, task: SegmentationTask, data: SliceDataModule, folder: Path, **checkpoint: Any) -> None:
    """Runs the trainer; an interruption says how to go on."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(task, data, **checkpoint)
    except SystemExit as ended:  # Lightning's answer to Ctrl-C and SIGTERM
        signal.signal(signal.SIGINT, handler)  # which it ignores from then on
        reached = f"in epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
        raise KeyboardInterrupt(f"interrupted {reached}; go on with: brainseg train --resume {folder}") from ended


IGNORED = (
    ".*does not have many workers.*",  # slices come from memory
    ".*smaller than the logging interval.*",  # values of epochs are logged
    ".*LeafSpec.*deprecated",  # Lightning calls an old name
    ".*Grad strides do not match bucket view strides.*",  # depthwise kernels, too small to matter
)


class EpochProgressBar(TQDMProgressBar):
    """Lightning's bar with epochs counted from 1, as in metrics.csv."""

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description(f"Epoch {trainer.current_epoch + 1}/{trainer.max_epochs}")


def create_trainer(
    config: TrainConfig, folder: Path, *, callbacks: Sequence[Callback] = (), logger: Logger | None = None
) -> Trainer:
    """Lightning's trainer with what a run needs: its folder, early stopping, a progress bar on a terminal."""
    _quieten()
    mode = "min" if config.monitor == "val_loss" else "max"
    own: list[Callback] = [RunFolder(folder, monitor=config.monitor, mode=mode)]
    if config.patience is not None:
        own.append(EarlyStopping(config.monitor, mode=mode, patience=config.patience, check_finite=False))
    shown = sys.stdout.isatty()  # elsewhere the line that each epoch leaves is all
    if shown:
        own.append(EpochProgressBar())
    if logger is None and config.logger is not None:
        logger = create_logger(config.logger, folder)
    try:
        return Trainer(
            accelerator=config.accelerator,
            devices=config.devices,
            num_nodes=config.nodes,
            strategy=config.strategy,
            precision=config.precision,  # type: ignore[arg-type]
            max_epochs=config.epochs,
            gradient_clip_val=config.optimizer.clip_norm,
            callbacks=[*own, *create_callbacks(config.callbacks), *callbacks],
            plugins=[WholeCheckpoints()],
            logger=logger or False,
            enable_progress_bar=shown,
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
