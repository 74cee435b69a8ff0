"""A run's folder: config.yaml, split.json, metrics.csv, best/ and last.ckpt."""

import math
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from brainseg._whole import written_whole
from brainseg.report import write_rows, write_values
from brainseg.training.task import SegmentationTask

Row = dict[str, float]


class RunFolder(Checkpoint):
    """Writes what each epoch has reached, so that a run that is killed goes on from its last completed epoch.

    The rows of metrics.csv are part of the checkpoint, which is written first; table and best weights follow from it.

    Args:
        folder: of the run.
        monitor: column that names the best epoch.
        mode: "min" if the lowest value is best, "max" if the highest.

    Attributes:
        rows: of metrics.csv.
        stopped: whether early stopping has ended the run.
    """

    def __init__(self, folder: Path, *, monitor: str, mode: str) -> None:
        self.folder, self.monitor, self.mode = folder, monitor, mode
        self.rows: list[Row] = []
        self.stopped = False

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "stopped": self.stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.stopped = state_dict["rows"], state_dict["stopped"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The run may have been killed after its checkpoint and before its best weights were written.
        if self.rows and trainer.is_global_zero:
            self._write(pl_module)

    def on_train_epoch_start(self, trainer: Trainer, _: LightningModule) -> None:
        self.lr: float = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        logged = sorted(trainer.callback_metrics.items())
        values = {name: value.item() for name, value in logged if name.startswith(("train_", "val_"))}
        self.rows.append({"epoch": trainer.current_epoch + 1, "lr": self.lr, **values})
        self.stopped = trainer.should_stop
        trainer.save_checkpoint(self.folder / "last.ckpt")
        if trainer.is_global_zero:
            self._write(pl_module)
            trainer.print(describe(self.rows[-1], self.monitor))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        if self.rows and (doubt := self.doubt()):
            trainer.print(doubt)

    def doubt(self) -> str:
        """What speaks against the best weights: a score that tells no epoch from another; empty if it does."""
        values = {row[self.monitor] for row in self.rows}
        if all(math.isnan(value) for value in values):
            said = "is no number in any epoch (nothing to find in the validation slices, and nothing found)"
        elif self.mode == "max" and values == {0.0}:
            said = f"is 0 in each of {len(self.rows)} epochs: nothing is found"
        else:
            return ""
        best = self.best["epoch"]
        return f"{self.monitor} {said}; best/ holds epoch {best}, that of the lowest val_loss, and is no good model yet"

    def _write(self, pl_module: LightningModule) -> None:
        """What follows from the rows: their table, and the weights if the last of them is the best."""
        assert isinstance(pl_module, SegmentationTask)
        write_rows(self.rows, self.folder / "metrics.csv")
        if self.best is self.rows[-1]:
            pl_module.outcome.save_pretrained(self.folder / "best")
            write_values(self.best, self.folder / "best" / "metrics.json")

    @property
    def best(self) -> Row:
        """The row with the best value of `monitor`, of equal ones the first with the lowest validation loss.

        No number is worse than any.
        """
        sign = 1 if self.mode == "min" else -1

        def order(row: Row) -> tuple[float, float]:
            values = (sign * row[self.monitor], row["val_loss"])
            return (values[0] if not math.isnan(values[0]) else math.inf, values[1])

        return min(self.rows, key=order)


class WholeCheckpoints(TorchCheckpointIO):
    """Lightning's checkpoint files, written whole or not at all."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:  # noqa: ARG002
        """Writes the file in one move.

        Raises:
            OSError: a full or read-only disk; it names the file.
        """
        with written_whole(Path(path)) as partial:
            try:
                torch.save(checkpoint, partial)
            except RuntimeError as error:  # PyTorch's word for a full disk
                raise OSError(f"{path} cannot be written: {str(error).splitlines()[0]}") from error


def describe(row: Row, monitor: str) -> str:
    """An epoch in a line.

    >>> describe({"epoch": 3, "train_loss": 0.81234, "val_loss": 0.9, "val_iou_slice": 0.61}, "val_iou_slice")
    'epoch 3  train_loss 0.812  val_loss 0.900  val_iou_slice 0.610'
    """
    shown = dict.fromkeys(("train_loss", "val_loss", monitor))
    return "  ".join([f"epoch {row['epoch']}", *(f"{name} {row[name]:.3f}" for name in shown)])
