"""One training run as a Lightning module: network, loss, optimiser, schedule, metrics."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchmetrics import Metric

from brainseg import losses
from brainseg._names import no_such
from brainseg.metrics import MeanAveragePrecision
from brainseg.models import MaskDINO, ModelSpec, SegmentationModel, create_model, hub
from brainseg.models.files import find_folder, read_config
from brainseg.models.spec import Task
from brainseg.training.config import DataConfig, LossConfig, ObjectsConfig, TrainConfig, plain, shipped_tag
from brainseg.training.inputs import create_input
from brainseg.training.objects import ObjectStep, object_step
from brainseg.training.optimization import create_optimizer, create_schedule, set_rates
from brainseg.training.scores import create_scores, named, scored_masks, scored_names
from brainseg.training.targets import are_chosen, to_target, valid_of
from brainseg.transforms import Compose, Transform, course_augmentation, create_transform, strong_augmentation

AUGMENTATIONS: dict[str, Callable[[], Compose]] = {"course": course_augmentation, "strong": strong_augmentation}


class Step(NamedTuple):
    """What a network makes of a batch.

    Attributes:
        batch: of `brainseg.data.Sample`s, as the network saw it.
        logits: (B, K, H, W), the finest of those of deep supervision.
        loss: of all logits, or of a network's own criterion.
        parts: of the loss, empty for a loss without any.
        objects: of a network that answers with objects.
    """

    batch: Mapping[str, Any]
    logits: Tensor
    loss: Tensor
    parts: Mapping[str, Tensor]
    objects: ObjectStep | None = None

    def masks(self, spec: ModelSpec) -> tuple[Tensor, Tensor, Tensor | None]:
        """What was found, what is true, and where it counts, as `scored_masks` has them."""
        return scored_masks(spec, spec.masks(self.logits), self.batch)


class SegmentationTask(LightningModule):
    """Trains and validates a network on batches of `brainseg.data.Sample`.

    Logged each epoch: train_loss and its parts, train_iou_batch, train_dice_batch, and for validation the loss, its
    parts, and Dice and IoU by slice, patient, data set and batch (val_dice_patient, ...); of several classes the Dice
    of each by its name (val_dice_patient_core, ...); of objects val_map, their average precision. What is scored is
    what the model's spec makes of its logits.

    A network that answers with objects (`MaskDINO`) is trained by its own criterion.

    The task of the network's `spec` decides what the masks become: targets of sigmoids, or class indices of a softmax.

    Args:
        config: the run.
        in_channels: channels of the images, unless the configuration names them.
        num_classes: channels of the logits, likewise.
        task: what the data set's masks mean; None for what the network's weights say.
        class_names: of the data set's masks, likewise.
        label_values: of these classes in label maps; None for what the network's weights say.
        channel_names: of its images; None where nobody named them.
        spec: of a run that goes on, whose weights follow: none are looked for here.

    Attributes:
        run: the configuration, with the loss that the task decides on.
        model: the network; its `spec` is what the run trains it for.

    Raises:
        ValueError: names or arguments that do not exist or do not fit each other.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        in_channels: int,
        num_classes: int,
        task: Task | None = None,
        class_names: Sequence[str] | None = None,
        label_values: tuple[int, ...] | None = None,
        channel_names: Sequence[str] | None = None,
        spec: ModelSpec | None = None,
    ) -> None:
        super().__init__()
        self.model = _create_model(config, spec, in_channels=in_channels, num_classes=num_classes)
        if spec is None:
            spec = _with_channels(self.model.spec, channel_names, config.data)
            spec = _with_classes(spec, task, class_names)
            if label_values is not None:
                spec = replace(spec, label_values=label_values)
            self.input = _find_input(config, spec)
            normalization = None if self.input is None else self.input.config
            # Of the three sequences of the LGG data FLAIR shows tumour best.
            channel = 1 if config.data.format == "lgg" else None
            size = config.data.size
            spec = replace(spec, image_size=size, keep_aspect_ratio=True, crop=None)
            spec = replace(spec, normalization=normalization, shown_channel=channel)
        else:
            self.input = None if spec.normalization is None else create_transform(spec.normalization)
        self.model.spec = spec
        self.loss: nn.Module
        if isinstance(self.model, MaskDINO):
            _check_no_loss(config)
            self.run, self.loss = config, self.model.criterion
        else:
            _check_no_objects(config)
            self.run = replace(config, loss=config.loss.decided(multiclass=spec.task == "multiclass"))
            self.loss = _create_loss(self.run.loss, deep_supervision=config.model.deep_supervision)
        chosen = config.data.augmentation
        self.augmentation = None if chosen == "none" else AUGMENTATIONS[chosen]()
        self.averaged = None
        if config.ema is not None:
            mean = get_ema_multi_avg_fn(config.ema)  # type: ignore[no-untyped-call]
            self.averaged = AveragedModel(self.model, multi_avg_fn=mean, use_buffers=True)
            self.averaged.requires_grad_(False)
        self.class_names = scored_names(spec)
        self.train_scores = create_scores(self.class_names, aggregations=["batch"], prefix="train_")
        self.val_scores = create_scores(self.class_names, prefix="val_")
        self.val_map = MeanAveragePrecision(spec.num_classes) if isinstance(self.model, MaskDINO) else None

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Logits of images (B, C, H, W) in [0, 1], channels as stored; a list when training with deep supervision."""
        logits: Tensor | list[Tensor] = self._network(self._scaled(images))
        return logits

    @property
    def outcome(self) -> SegmentationModel:
        """The network that the run is for: the one trained, or its running mean."""
        return self.model if self.averaged is None else cast("SegmentationModel", self.averaged.module)

    @property
    def monitors(self) -> list[str]:
        """Names of what a run may choose its best epoch by: the validation loss, lowest, and scores, highest."""
        return ["val_loss", *self._validated]

    @property
    def lr(self) -> float:
        """The learning rate at the start, under the name by which Lightning's finder sets it."""
        return self.run.optimizer.lr

    @lr.setter
    def lr(self, lr: float) -> None:
        self.run = replace(self.run, optimizer=replace(self.run.optimizer, lr=lr))

    def on_train_epoch_start(self) -> None:
        # The epoch's randomness depends on seed, epoch and process alone, so that a resumed run draws the same.
        torch.manual_seed(self._seed(-1 - self.current_epoch))

    def training_step(self, batch: dict[str, Any], _: int) -> Tensor:
        generator = torch.Generator(self.device).manual_seed(self._seed(self.global_step))
        step = self.step(batch, generator)
        found, true, valid = step.masks(self.model.spec)
        scores = self.train_scores(found, true, valid=valid)
        self._log("train_loss", step)
        # Shown as they are: a mean over processes would be asked for by the first one alone, which has the bar.
        shown = {"loss": step.loss, "dice": scores["train_dice_batch"]}
        self.log_dict(shown, prog_bar=True, batch_size=len(batch["image"]))
        return step.loss

    def on_train_batch_end(self, *_: Any) -> None:
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)

    def step(self, batch: Mapping[str, Any], generator: torch.Generator | None = None) -> Step:
        """What the network makes of a batch, augmented by what the generator draws if one is given."""
        if self.augmentation is not None and generator is not None:
            batch = augmented(batch, self.augmentation, generator)
        network = self._network
        if isinstance(network, MaskDINO):
            objects = object_step(network, self._scaled(batch["image"]), batch, self.run.objects)
            return Step(batch, objects.logits, objects.loss, objects.parts, objects)
        logits, target = self(batch["image"]), to_target(batch["mask"], self.model.spec)
        loss, parts = self.compute_loss(logits, target, **valid_of(batch))
        return Step(batch, logits if isinstance(logits, Tensor) else logits[0], loss, parts)

    def on_train_epoch_end(self) -> None:
        self.log_dict(named(self.train_scores, self.class_names))
        self.log("lr", self.optimizer.param_groups[0]["lr"])
        self._stop_if_not_finite()
        # Here and not by Lightning, which does so after checkpoints of the epoch are written.
        if not self.trainer.lr_scheduler_configs:  # as its finder of learning rates has one
            self.step_schedule(val_loss=self.trainer.callback_metrics.get("val_loss"))

    def step_schedule(self, *, val_loss: Tensor | float | None) -> None:
        """Sets the learning rate of the next epoch; that of plateau stays where nothing is validated."""
        if isinstance(self.schedule, LambdaLR):
            self.schedule.step()
        elif val_loss is not None:
            self.schedule.step(float(val_loss))

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        step = self.step(batch)
        self._log("val_loss", step)
        self.score(step, slice_index=batch["slice"])

    def score(self, step: Step, *, slice_index: Any) -> None:
        """Adds a validated batch to the scores."""
        found, true, valid = step.masks(self.model.spec)
        self.val_scores.update(found, true, group=step.batch["patient"], slice_index=slice_index, valid=valid)
        if self.val_map is not None and step.objects is not None and step.objects.found:
            self.val_map.update(step.objects.found, step.objects.true)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self._validated)

    def configure_optimizers(self) -> Optimizer:
        self.optimizer = create_optimizer(self.run.optimizer, self.model)
        self.schedule = create_schedule(
            self.run.schedule, self.optimizer, lr=self.run.optimizer.lr, epochs=self.run.epochs
        )
        return self.optimizer

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["schedule"] = self.schedule.state_dict()
        checkpoint["config"] = plain(self.run)
        checkpoint["spec"] = self.model.spec.to_json()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._schedule_state = checkpoint["schedule"]

    def on_fit_start(self) -> None:
        # Optimisers, and with them the schedule, are made after the checkpoint's own hook has run.
        if state := self.__dict__.pop("_schedule_state", None):
            self.schedule.load_state_dict(state)
            self._goes_on = True

    def on_train_start(self) -> None:
        # Here and not earlier: the state of the optimiser, and with it the rate, is restored last.
        if self.__dict__.pop("_goes_on", False) and isinstance(self.schedule, LambdaLR):
            set_rates(self.schedule)

    def compute_loss(
        self, logits: Tensor | list[Tensor], target: Tensor, **where: Tensor
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss, of `valid` pixels if that is given, and its parts, which are empty for a loss without any."""
        if (parts := getattr(self.loss, "parts", None)) is not None:
            in_parts: tuple[Tensor, Mapping[str, Tensor]] = parts(logits, target, **where)
            return in_parts
        return self.loss(logits, target, **where), {}

    @property
    def _network(self) -> SegmentationModel:
        """The network that answers: in validation that which the run is for."""
        return self.model if self.training else self.outcome

    @property
    def _validated(self) -> dict[str, Metric]:
        """The scores of validation by their names."""
        scores = named(self.val_scores, self.class_names)
        return scores if self.val_map is None else {**scores, "val_map": self.val_map}

    def _scaled(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] as the network takes them."""
        return images if self.input is None else self.input(images)

    def _stop_if_not_finite(self) -> None:
        """Before anything of the epoch is kept, and on all processes alike: these values are theirs in common."""
        values = self.trainer.callback_metrics
        for name in ("train_loss", "val_loss"):
            if name in values and not values[name].isfinite():
                raise not_finite(f"{name} is {values[name].item()}", self.run, self.current_epoch)
        if wrong := weights_not_finite(self.model) or weights_not_finite(self.outcome):
            raise not_finite(f"the weights {wrong} are not finite", self.run, self.current_epoch)

    def _log(self, name: str, step: Step) -> None:
        values = {name: step.loss, **{f"{name}_{part}": value for part, value in step.parts.items()}}
        for key, value in values.items():
            self.log(key, value, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(step.logits))

    def _seed(self, number: int) -> int:
        rank = self.trainer.global_rank
        return ((self.run.seed * 1_000_003 + number) * 1_009 + rank) % 2**63


def augmented(batch: Mapping[str, Any], augmentation: Compose, generator: torch.Generator) -> dict[str, Any]:
    """The batch with images and masks, and where they count, moved and changed as the generator draws."""
    images, masks, valid = batch["image"], batch["mask"], batch.get("valid")
    if valid is None:
        images, masks = augmentation(images, masks, generator=generator)
        return {**batch, "image": images, "mask": masks}
    images, both = augmentation(images, torch.cat([masks, valid.to(masks.dtype)], dim=1), generator=generator)
    return {**batch, "image": images, "mask": both[:, :-1], "valid": both[:, -1:] > 0}


def not_finite(what: str, config: TrainConfig, epoch: int) -> FloatingPointError:
    """The error of a run that diverged in an epoch, which counts from 0."""
    causes = [
        f"a learning rate that is too high (optimizer.lr is {config.optimizer.lr:g})",
        "starting weights or slices that hold such values already",
    ]
    if not config.precision.startswith(("32", "64")):
        causes.insert(0, f"numbers beyond the range of precision {config.precision} (try 32-true or bf16-mixed)")
    kept = f"last.ckpt and best/ stay as epoch {epoch} left them" if epoch else "there is nothing to go on from"
    return FloatingPointError(
        f"epoch {epoch + 1}: {what}, so the run ends; likely causes: {', or '.join(causes)}; {kept}"
    )


def weights_not_finite(model: nn.Module) -> str:
    """The first weight or statistic that holds NaN or infinity, and how many do; empty if none does."""
    values = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
    finite = torch.stack([value.isfinite().all() for value in values.values()]).tolist()
    wrong = [name for name, sound in zip(values, finite, strict=True) if not sound]
    return "" if not wrong else wrong[0] + (f" and {len(wrong) - 1} more" if len(wrong) > 1 else "")


def _create_model(
    config: TrainConfig, trained: ModelSpec | None, *, in_channels: int, num_classes: int
) -> SegmentationModel:
    """The network with its starting weights, or without if it has been trained since, to what this spec says."""
    weights = None if trained else config.model.weights
    if trained is not None:
        num_classes = trained.num_classes
    elif weights is not None and shipped_tag(config.model) is None and _is_folder(weights):
        spec = read_config(find_folder(Path(weights))).spec
        # Masks are of classes, and the background of a softmax is one more.
        if spec is not None and spec.task == "multiclass" and spec.num_classes == num_classes + 1:
            num_classes += 1
    arguments = {"in_channels": in_channels, "num_classes": num_classes, **config.model.arguments}
    if config.model.deep_supervision:
        arguments["deep_supervision"] = True
    if trained:
        for key in ("pretrained", "pretrained_cfg_overlay"):
            arguments.pop(key, None)
    try:
        model: SegmentationModel = create_model(config.model.name, weights=weights, **arguments)
    except TypeError as error:
        raise ValueError(f"model.arguments do not fit {config.model.name}: {error}") from error
    return model


def _is_folder(weights: str) -> bool:
    return Path(weights).is_dir() or weights.startswith(hub.PREFIX)


def _with_classes(spec: ModelSpec, task: Task | None, class_names: Sequence[str] | None) -> ModelSpec:
    """The spec with task and names of the data set, where it has any and they are those of the network's classes.

    Classes exclude each other if the data set or the network says so; masks in files of their own do not say.
    """
    if task == "multiclass" and spec.task != task:
        spec = replace(spec, task=task, class_names=tuple(class_names or spec.class_names), threshold=None)
    if class_names is None or len(class_names) != spec.num_classes:
        return spec
    if are_chosen(spec.class_names) and not are_chosen(class_names):
        return spec
    return replace(spec, class_names=tuple(class_names))


def _with_channels(spec: ModelSpec, names: Sequence[str] | None, data: DataConfig) -> ModelSpec:
    """The spec with the channels of the data set, which must come in the order that the network's weights know."""
    if data.format == "volumes":
        spec = replace(spec, axis=data.axis)
    if names is None:
        return spec
    spec.check_channels(names)
    return replace(spec, channel_names=tuple(names))


def _find_input(config: TrainConfig, spec: ModelSpec) -> Transform | None:
    """The input that is asked for, else that of the network's weights, else the recipe's."""
    if config.data.input is not None:
        return create_input(config.data.input)
    return create_input("foreground_z_score") if spec.normalization is None else create_transform(spec.normalization)


def _check_no_loss(config: TrainConfig) -> None:
    if config.loss != LossConfig():
        given = ", ".join(f"loss.{name}={value}" for name, value in vars(config.loss).items() if value is not None)
        raise ValueError(
            f"{config.model.name} is trained by its own criterion, and {given} has no part in it; leave the section "
            "loss out (settings of the criterion are model.arguments, such as num_points)"
        )


def _check_no_objects(config: TrainConfig) -> None:
    if config.objects != ObjectsConfig():
        raise ValueError(
            f"{config.model.name} answers with masks and knows no objects; leave the section objects out, or train "
            "mask_dino_small"
        )


def _create_loss(config: LossConfig, *, deep_supervision: bool) -> nn.Module:
    known = [name for name in losses.__all__ if name.endswith("Loss") and name != "DeepSupervisionLoss"]
    if config.name not in known:
        raise ValueError(no_such("loss", str(config.name), known, most=1))
    try:
        loss: nn.Module = getattr(losses, config.name)(**(config.arguments or {}))
    except TypeError as error:
        raise ValueError(f"loss.arguments do not fit {config.name}: {error}") from error
    return losses.DeepSupervisionLoss(loss) if deep_supervision else loss
