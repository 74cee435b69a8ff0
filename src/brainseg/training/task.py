"""One training run as a Lightning module: network, loss, optimiser, schedule, metrics."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, MultiStepLR, ReduceLROnPlateau

from brainseg import losses
from brainseg._names import no_such
from brainseg.models import SegmentationModel, create_model
from brainseg.training.config import LossConfig, OptimizerConfig, ScheduleConfig, TrainConfig, plain
from brainseg.training.inputs import create_input
from brainseg.training.scores import create_scores, named, scored_masks, scored_names
from brainseg.transforms import Compose, course_augmentation, strong_augmentation

AUGMENTATIONS: dict[str, Callable[[], Compose]] = {"course": course_augmentation, "strong": strong_augmentation}


class SegmentationTask(LightningModule):
    """Trains and validates a network on batches of `brainseg.data.Sample`.

    Logged each epoch: train_loss and its parts, train_iou_batch, train_dice_batch, and for validation the loss, its
    parts, and Dice and IoU by slice, patient, data set and batch (val_dice_patient, ...); of several classes the Dice
    of each by its name (val_dice_patient_core, ...). What is scored is what the model's spec makes of its logits.

    Args:
        config: the run.
        in_channels: channels of the images, unless the configuration names them.
        num_classes: channels of the masks, likewise.
    """

    def __init__(self, config: TrainConfig, *, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.run = config
        self.model = _create_model(config, in_channels=in_channels, num_classes=num_classes)
        self.loss = _create_loss(config.loss, deep_supervision=config.model.deep_supervision)
        self.input = create_input(config.data.input)
        self.model.spec = replace(
            self.model.spec,
            image_size=config.data.image_size,
            normalization=None if self.input is None else self.input.config,
            # Of the three sequences of the LGG data FLAIR shows tumour best.
            shown_channel=1 if config.data.format == "lgg" else None,
        )
        chosen = config.data.augmentation
        self.augmentation = None if chosen == "none" else AUGMENTATIONS[chosen]()
        self.class_names = scored_names(self.model.spec)
        self.train_scores = create_scores(self.class_names, aggregations=["batch"], prefix="train_")
        self.val_scores = create_scores(self.class_names, prefix="val_")

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Logits of images (B, C, H, W) in [0, 1], channels as stored; a list when training with deep supervision."""
        logits: Tensor | list[Tensor] = self.model(images if self.input is None else self.input(images))
        return logits

    def on_train_epoch_start(self) -> None:
        # The epoch's randomness depends on seed, epoch and process alone, so that a resumed run draws the same.
        torch.manual_seed(self._seed(-1 - self.current_epoch))

    def training_step(self, batch: dict[str, Any], _: int) -> Tensor:
        images, target = batch["image"], batch["mask"]
        if self.augmentation is not None:
            generator = torch.Generator(self.device).manual_seed(self._seed(self.global_step))
            images, target = self.augmentation(images, target, generator=generator)
        logits = self(images)
        loss, parts = self.compute_loss(logits, target)
        finest = logits if isinstance(logits, Tensor) else logits[0]
        found, true, valid = scored_masks(self.model.spec, finest, {**batch, "mask": target})
        scores = self.train_scores(found, true, valid=valid)
        self._log("train_loss", loss, parts, len(images))
        # Shown as they are: a mean over processes would be asked for by the first one alone, which has the bar.
        self.log_dict({"loss": loss, "dice": scores["train_dice_batch"]}, prog_bar=True, batch_size=len(images))
        return loss

    def on_train_epoch_end(self) -> None:
        self.log_dict(named(self.train_scores, self.class_names))
        # Here and not by Lightning, which does so after checkpoints of the epoch are written.
        self.step_schedule(val_loss=self.trainer.callback_metrics["val_loss"].item())

    def step_schedule(self, *, val_loss: float) -> None:
        """Sets the learning rate of the next epoch."""
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(val_loss)
        else:
            self.schedule.step()

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        images, target = batch["image"], batch["mask"]
        logits = self(images)
        loss, parts = self.compute_loss(logits, target)
        self._log("val_loss", loss, parts, len(images))
        found, true, valid = scored_masks(self.model.spec, logits, batch)
        self.val_scores.update(found, true, group=batch["patient"], slice_index=batch["slice"], valid=valid)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(named(self.val_scores, self.class_names))

    def configure_optimizers(self) -> Optimizer:
        self.optimizer = _create_optimizer(self.run.optimizer, self.model)
        self.schedule = _create_schedule(self.run.schedule, self.optimizer, self.run.epochs)
        return self.optimizer

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["schedule"] = self.schedule.state_dict()
        checkpoint["config"] = plain(self.run)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._schedule_state = checkpoint["schedule"]

    def on_fit_start(self) -> None:
        # Optimisers, and with them the schedule, are made after the checkpoint's own hook has run.
        if state := self.__dict__.pop("_schedule_state", None):
            self.schedule.load_state_dict(state)

    def compute_loss(self, logits: Tensor | list[Tensor], target: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss and its parts, which are empty for a loss without any."""
        if (parts := getattr(self.loss, "parts", None)) is not None:
            in_parts: tuple[Tensor, Mapping[str, Tensor]] = parts(logits, target)
            return in_parts
        return self.loss(logits, target), {}

    def _log(self, name: str, loss: Tensor, parts: Mapping[str, Tensor], batch_size: int) -> None:
        values = {name: loss, **{f"{name}_{part}": value for part, value in parts.items()}}
        for key, value in values.items():
            self.log(key, value, on_step=False, on_epoch=True, sync_dist=True, batch_size=batch_size)

    def _seed(self, number: int) -> int:
        rank = self.trainer.global_rank
        return ((self.run.seed * 1_000_003 + number) * 1_009 + rank) % 2**63


def _create_model(config: TrainConfig, **data: int) -> SegmentationModel:
    arguments = {**data, **config.model.arguments}
    if config.model.deep_supervision:
        arguments["deep_supervision"] = True
    try:
        return create_model(config.model.name, weights=config.model.weights, **arguments)
    except TypeError as error:
        raise ValueError(f"model.arguments do not fit {config.model.name}: {error}") from error


def _create_loss(config: LossConfig, *, deep_supervision: bool) -> nn.Module:
    known = [name for name in losses.__all__ if name.endswith("Loss") and name != "DeepSupervisionLoss"]
    if config.name not in known:
        raise ValueError(no_such("loss", config.name, known, most=1))
    try:
        loss: nn.Module = getattr(losses, config.name)(**config.arguments)
    except TypeError as error:
        raise ValueError(f"loss.arguments do not fit {config.name}: {error}") from error
    return losses.DeepSupervisionLoss(loss) if deep_supervision else loss


def _create_optimizer(config: OptimizerConfig, model: nn.Module) -> Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if config.name == "SGD":
        return SGD(
            parameters, config.lr, momentum=config.momentum, weight_decay=config.weight_decay, nesterov=config.nesterov
        )
    adam: type[Adam] = {"Adam": Adam, "AdamW": AdamW}[config.name]
    return adam(parameters, lr=config.lr, weight_decay=config.weight_decay)


def _create_schedule(config: ScheduleConfig, optimizer: Optimizer, epochs: int) -> LRScheduler | ReduceLROnPlateau:
    match config.name:
        case "cosine":
            return CosineAnnealingLR(optimizer, T_max=epochs, eta_min=config.minimum_lr)
        case "plateau":
            return ReduceLROnPlateau(
                optimizer, factor=config.factor, patience=config.patience, min_lr=config.minimum_lr
            )
        case "multistep":
            return MultiStepLR(optimizer, milestones=config.milestones, gamma=config.gamma)
        case "constant":
            return ConstantLR(optimizer, factor=1.0)
