"""Going on with a run from its folder."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from brainseg._names import no_such
from brainseg.models import ModelSpec
from brainseg.training.config import TrainConfig, decided, plain, read_config, write_config
from brainseg.training.datasets import read_parts
from brainseg.training.fit import create_trainer, fit, prepare

PLACES = ("accelerator", "devices", "nodes", "strategy", "data.root", "data.workers", "data.cache_dir", "logger")
"""What may differ when a run goes on: where it computes, where the data lies, and who is told."""


def resume(
    folder: str | Path,
    *,
    epochs: int | None = None,
    replan: bool = False,
    places: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
    logger: Logger | None = None,
) -> None:
    """Goes on with a run from its last completed epoch, to the weights that it would have reached uninterrupted.

    With more epochs a finished run goes on as well, with the rates of a constant, plateau or multistep schedule as if
    it had been planned so from the start. A cosine or poly schedule depends on all of its epochs.

    Args:
        folder: of the run; its config.yaml and split.json say all the rest.
        epochs: how many there shall be in the end; None for those of its config.yaml.
        replan: the rates of a cosine or poly schedule are from here on those of a run of so many epochs.
        places: fields of the configuration by full name, of those in `PLACES`, such as {"data.root": "/data/lgg"}.
        callbacks: as for `train`.
        logger: likewise.

    Raises:
        FileNotFoundError: no run in the folder.
        ValueError: its files cannot be read, its configuration is no longer that of its checkpoint, or epochs that it
            cannot go on to.
        FloatingPointError, KeyboardInterrupt, OSError: as for `train`.
    """
    folder = Path(folder)
    if not (folder / "config.yaml").is_file():
        raise FileNotFoundError(f"{folder} holds no run; expected the folder that brainseg train wrote")
    written = read_config(folder / "config.yaml")
    config = _placed(decided(written), places or {})
    if epochs is not None:
        config = replace(config, epochs=epochs)
    path = folder / "last.ckpt"
    checkpoint = _read_checkpoint(path) if path.is_file() else None
    goes_on = checkpoint is None or _goes_on(config, checkpoint, folder, replan=replan)
    trainer = create_trainer(config, folder, callbacks=callbacks, logger=logger)
    spec = ModelSpec.from_json(checkpoint["spec"]) if checkpoint else None
    task, data = prepare(config, read_parts(folder / "split.json"), trainer, spec)
    if trainer.is_global_zero and task.run != written:
        write_config(task.run, folder / "config.yaml")
    if not goes_on:
        return
    if checkpoint is None:
        fit(trainer, task, data, folder)
    else:
        fit(trainer, task, data, folder, ckpt_path=path, weights_only=True)


def _placed(config: TrainConfig, places: Mapping[str, Any]) -> TrainConfig:
    for name, value in places.items():
        if name not in PLACES:
            raise ValueError(f"{no_such('field that may change', name, PLACES)} All else is that of the run")
        section, _, field = name.rpartition(".")
        config = (
            replace(config, data=replace(config.data, **{field: value}))
            if section
            else replace(config, **{field: value})
        )
    return decided(config)


def _goes_on(config: TrainConfig, checkpoint: dict[str, Any], folder: Path, *, replan: bool) -> bool:
    """Whether anything is left to do; ValueError if the run cannot go on to what is asked for."""
    began = checkpoint["config"]
    if changed := changes(began, plain(config), allowed=(*PLACES, "data.split", "epochs")):
        raise ValueError(
            f"{folder / 'config.yaml'} differs from what the run began with in {', '.join(changed)}; put it back, "
            "or start another run with model.weights"
        )
    if "spec" not in checkpoint:
        raise ValueError(
            f"{folder} is a run of brainseg 0.1, whose optimiser and schedule are not those of today; start another "
            f"run from its best weights with model.weights={folder}"
        )
    state = next(state for state in checkpoint["callbacks"].values() if "rows" in state)
    done, planned = len(state["rows"]), began["epochs"]
    if config.epochs == planned and not replan:
        return not state["stopped"]
    if state["stopped"]:
        raise ValueError(
            f"{folder} was ended by patience={config.patience} in epoch {done}, and more epochs would end it again; "
            "start another run with model.weights"
        )
    if config.epochs < done:
        raise ValueError(f"{folder} has completed {done} epochs, epochs={config.epochs} would undo some")
    name = config.schedule.name
    bound = name in ("cosine", "poly")
    if replan and not bound:
        raise ValueError(f"replan is for a cosine or poly schedule; {name} goes on by itself")
    if bound and not replan:
        raise ValueError(
            f"the {name} of this run falls over {planned} epochs, and its rates would be others with {config.epochs}; "
            "give --replan (replan=True) to go on with those of so many epochs, or start another run with model.weights"
        )
    return True


def changes(began: Mapping[str, Any], now: Mapping[str, Any], *, allowed: Sequence[str], prefix: str = "") -> list[str]:
    """The fields of two configurations that differ, by their full names, but for those that may."""
    changed = []
    for name, value in now.items():
        if name not in began:  # of a newer version
            continue
        before, full = began[name], f"{prefix}{name}"
        if isinstance(value, dict) and isinstance(before, dict) and name != "arguments":
            changed += changes(before, value, allowed=allowed, prefix=f"{full}.")
        elif value != before and full not in allowed:
            changed.append(full)
    return changed


def _read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if checkpoint.keys() >= {"state_dict", "callbacks", "config"}:
            return checkpoint
    except Exception as error:  # whatever a foreign file makes of itself; PyTorch's words advise to run what it holds
        raise ValueError(
            f"{path} is truncated or no checkpoint ({type(error).__name__}); the best weights are in best/"
        ) from error
    raise ValueError(f"{path} is no checkpoint of a run; the best weights are in best/")
