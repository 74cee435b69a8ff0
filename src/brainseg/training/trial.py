"""A training step before a run, so that what cannot be trained is known before anything is written."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import Precision
from torch import Tensor
from torch.optim import Optimizer

from brainseg.data import SliceDataset
from brainseg.inference.foreign import copy_of
from brainseg.training.data import SliceDataModule
from brainseg.training.task import SegmentationTask, Step, not_finite, weights_not_finite


def try_step(task: SegmentationTask, data: SliceDataModule, trainer: Trainer) -> None:
    """Trains and validates a copy of the network on a few slices, in the precision and on the device of the run.

    Two slices stand for a batch, one for a batch of one. The task, its random numbers and the slices stay as they are.

    Args:
        task: of the run.
        data: of the run.
        trainer: that will run it.

    Raises:
        ValueError: network, loss, optimiser and slices that do not fit each other.
        FloatingPointError: a loss or weights that are not finite after this one step.
    """
    copy = copy_of(task)
    precision, device = trainer.strategy.precision_plugin, _device(task, trainer)
    precision.convert_module(copy).to(device)

    def batch_of(slices: SliceDataset) -> dict[str, Any]:
        samples = [slices[0], slices[len(slices) - 1]][: data.config.batch_size]
        batch: dict[str, Any] = precision.convert_input(_moved(data.collate(samples), device))
        return batch

    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            optimizer = copy.configure_optimizers()
            step = _trained(copy, batch_of(data.train_set), optimizer, precision)
            found, true, valid = step.masks(copy.model.spec)
            copy.train_scores.update(found, true, valid=valid)
            with precision.val_step_context(), torch.no_grad():
                validated = copy.eval().step(batch_of(data.val_set))
                copy.score(validated, slice_index=range(len(validated.logits)))
    except (RuntimeError, TypeError, ValueError, IndexError, AssertionError) as error:
        hint = ""
        if "more than 1 value per channel" in str(error):
            hint = "; batch norms need several: give data.batch_size 2 or more, or larger slices by data.image_size"
        raise ValueError(f"network, loss and slices do not fit: {error}{hint}") from error
    if not step.loss.isfinite():
        raise not_finite(f"the loss of a first batch is {step.loss.item()}", task.run, 0)
    if wrong := weights_not_finite(copy.model):
        raise not_finite(f"after a first step the weights {wrong} are not finite", task.run, 0)


def _trained(task: SegmentationTask, batch: Mapping[str, Any], optimizer: Optimizer, precision: Precision) -> Step:
    """What the network made of the batch before the step."""
    steps = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        with precision.train_step_context():
            steps.append(task.step(batch, torch.Generator(task.device).manual_seed(task.run.seed)))
        loss = steps[-1].loss
        if loss.dim() != 0:
            raise ValueError(
                f"the loss has the shape {tuple(loss.shape)}, expected one number; leave reduction at mean"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    return steps[0]


def _device(task: SegmentationTask, trainer: Trainer) -> torch.device:
    # Processes that are forked later cannot use a GPU that this one has begun with.
    forks = task.run.strategy in ("ddp_fork", "ddp_notebook")
    return torch.device("cpu") if forks else trainer.strategy.root_device


def _moved(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    return {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
