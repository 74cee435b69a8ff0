"""The task: optimisers, schedules, losses and metrics by name, each as the configuration says."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from brainseg.losses import BCEDiceLoss, DeepSupervisionLoss
from brainseg.models import UNeXt
from brainseg.training import SegmentationTask, TrainConfig
from brainseg.training.config import DataConfig, LossConfig, ModelConfig, OptimizerConfig, ScheduleConfig
from brainseg.transforms import course_augmentation, strong_augmentation


def task(**changes: object) -> SegmentationTask:
    config = TrainConfig(model=ModelConfig(name="unext_tiny"), **changes)  # type: ignore[arg-type]
    return SegmentationTask(config, in_channels=3, num_classes=1)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (ScheduleConfig(), [1e-5 + (0.1 - 1e-5) * (1 + math.cos(math.pi * epoch / 5)) / 2 for epoch in range(5)]),
        (ScheduleConfig(name="constant"), [0.1] * 5),
        (ScheduleConfig(name="multistep", milestones=[1, 3], gamma=0.5), [0.1, 0.05, 0.05, 0.025, 0.025]),
        (ScheduleConfig(name="plateau", patience=1, factor=0.1, minimum_lr=1e-2), [0.1, 0.1, 0.1, 1e-2, 1e-2]),
    ],
)
def test_learning_rates_follow_the_schedule(schedule: ScheduleConfig, expected: list[float]) -> None:
    module = task(schedule=schedule, optimizer=OptimizerConfig(lr=0.1), epochs=5)
    optimizer = module.configure_optimizers()
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        module.step_schedule(val_loss=1.0)
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize("name", ["course", "strong", "none"])
def test_augmentation_is_the_configured_one(name: str) -> None:
    parts = {"course": course_augmentation().config, "strong": strong_augmentation().config, "none": None}
    augmentation = task(data=DataConfig(augmentation=name)).augmentation  # type: ignore[arg-type]
    assert (None if augmentation is None else augmentation.config) == parts[name]


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD"])
def test_the_optimiser_has_the_configured_numbers(name: str) -> None:
    config = OptimizerConfig(name=name, lr=0.2, weight_decay=0.3, momentum=0.7, nesterov=True)  # type: ignore[arg-type]
    optimizer = task(optimizer=config).configure_optimizers()
    group = optimizer.param_groups[0]
    assert type(optimizer).__name__ == name
    assert (group["lr"], group["weight_decay"]) == (0.2, 0.3)
    if name == "SGD":
        assert (group["momentum"], group["nesterov"]) == (0.7, True)
    assert group.get("decoupled_weight_decay", False) == (name == "AdamW")


def test_deep_supervision_trains_every_head() -> None:
    module = task()
    assert isinstance(module.loss, BCEDiceLoss)
    config = TrainConfig(model=ModelConfig(name="unext_tiny", deep_supervision=True))
    deep = SegmentationTask(config, in_channels=3, num_classes=1)
    assert isinstance(deep.loss, DeepSupervisionLoss)
    logits = deep.train()(torch.rand(2, 3, 32, 32))
    total, parts = deep.compute_loss(logits, torch.zeros(2, 1, 32, 32))
    total.backward()
    assert set(parts) == {"bce", "dice"}
    assert all(head.weight.grad.abs().sum() > 0 for head in deep.model.auxiliary_heads)


def test_the_network_follows_the_data_unless_its_arguments_are_given() -> None:
    module = SegmentationTask(TrainConfig(), in_channels=3, num_classes=2)
    assert (module.model.config["in_channels"], module.model.config["num_classes"]) == (3, 2)


def test_training_starts_from_weights(tmp_path: Path) -> None:
    saved = UNeXt(channels=(8, 16, 24, 32, 64))
    saved.save_pretrained(tmp_path / "weights")
    config = TrainConfig(model=ModelConfig(name="unext_tiny", weights=str(tmp_path / "weights")))
    module = SegmentationTask(config, in_channels=3, num_classes=1)
    for name, value in module.model.state_dict().items():
        torch.testing.assert_close(value, saved.state_dict()[name], rtol=0, atol=0)


def test_the_normalization_is_saved_with_the_network() -> None:
    assert task(data=DataConfig(input="course_fixed")).model.normalization == {
        "name": "Normalize",
        "arguments": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    }


@pytest.mark.parametrize(("layout", "channel"), [("lgg", 1), ("folder", None)])
def test_pictures_of_lgg_slices_show_flair(layout: str, channel: int | None) -> None:
    assert task(data=DataConfig(format=layout)).model.spec.shown_channel == channel  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": ModelConfig(name="unet3")}, "no model 'unet3'; did you mean"),
        ({"model": ModelConfig(arguments={"depth": 3})}, "model.arguments do not fit unext: .*depth"),
        ({"loss": LossConfig(name="BCEDice")}, "no loss 'BCEDice'; did you mean BCEDiceLoss"),
        ({"loss": LossConfig(arguments={"smoth": 1})}, "loss.arguments do not fit BCEDiceLoss: .*smoth"),
    ],
)
def test_unknown_names_and_arguments_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SegmentationTask(replace(TrainConfig(), **changes), in_channels=3, num_classes=1)  # type: ignore[arg-type]
