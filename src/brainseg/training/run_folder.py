"""A run's folder: config.yaml, split.json, metrics.csv, best/ and last.ckpt."""

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from brainseg.training.tables import write_rows
from brainseg.training.task import SegmentationTask

Row = dict[str, float]


class RunFolder(Checkpoint):
    """Writes what each epoch has reached, so that a run that is killed goes on from its last completed epoch.

    The rows of metrics.csv are part of the checkpoint: whatever a killed epoch left in the folder is written again.

    Args:
        folder: of the run.
        monitor: column that names the best epoch.
        mode: "min" if the lowest value is best, "max" if the highest.
    """

    def __init__(self, folder: Path, *, monitor: str, mode: str) -> None:
        self.folder, self.monitor, self.mode = folder, monitor, mode
        self.rows: list[Row] = []

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]

    def on_train_epoch_start(self, trainer: Trainer, _: LightningModule) -> None:
        self.lr: float = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, SegmentationTask)
        logged = sorted(trainer.callback_metrics.items())
        values = {name: value.item() for name, value in logged if name.startswith(("train_", "val_"))}
        row = {"epoch": trainer.current_epoch + 1, "lr": self.lr, **values}
        self.rows.append(row)
        if trainer.is_global_zero:
            write_rows(self.rows, self.folder / "metrics.csv")
            if self.best is row:
                pl_module.model.save_pretrained(self.folder / "best")
                (self.folder / "best" / "metrics.json").write_text(json.dumps(row, indent=2) + "\n")
        partial = self.folder / "last.partial"
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            partial.replace(self.folder / "last.ckpt")
            trainer.print(describe(row))

    @property
    def best(self) -> Row:
        """The first row with the best value of `monitor`; without any number the first of all."""
        numbers = [row for row in self.rows if row[self.monitor] == row[self.monitor]] or self.rows
        return (min if self.mode == "min" else max)(numbers, key=lambda row: row[self.monitor])


def describe(row: Row) -> str:
    """An epoch in a line.

    >>> describe({"epoch": 3, "lr": 1e-4, "train_loss": 0.81234, "val_loss": 0.9, "val_dice_patient": 0.61})
    'epoch 3  train_loss 0.812  val_loss 0.900  val_dice_patient 0.610'
    """
    shown = ("train_loss", "val_loss", "val_dice_patient", "val_iou_batch")
    return "  ".join([f"epoch {row['epoch']}", *(f"{name} {row[name]:.3f}" for name in shown if name in row)])
