"""Optimisers by name and class path, and learning rates beside those of torch's own schedules."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    PolynomialLR,
    SequentialLR,
)

from brainseg._torchvision import make_importable
from brainseg.models import UNet, create_model
from brainseg.training.config import OptimizerConfig, ScheduleConfig, TrainConfig
from brainseg.training.optimization import create_optimizer, create_schedule, set_rates

EPOCHS = 6


def rates(step: Callable[[], None], optimizer: torch.optim.Optimizer) -> list[float]:
    """Of as many epochs."""
    seen = []
    for _ in range(EPOCHS):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        step()
    return seen


def optimizer() -> SGD:
    return SGD([nn.Parameter(torch.zeros(1))], lr=0.1)


def warmed(optimizer: SGD) -> LRScheduler:
    rising = LinearLR(optimizer, start_factor=1 / 3, total_iters=2)
    falling = CosineAnnealingLR(optimizer, T_max=EPOCHS - 2, eta_min=1e-5)
    return SequentialLR(optimizer, [rising, falling], milestones=[2])


@pytest.mark.parametrize(
    ("config", "oracle"),
    [
        (ScheduleConfig(), lambda o: CosineAnnealingLR(o, T_max=EPOCHS, eta_min=1e-5)),
        (ScheduleConfig(warmup=2), warmed),
        (ScheduleConfig("poly", minimum_lr=0.0), lambda o: PolynomialLR(o, total_iters=EPOCHS, power=0.9)),
        (ScheduleConfig("multistep", milestones=[3, 1], gamma=0.5), lambda o: MultiStepLR(o, [1, 3], gamma=0.5)),
        (ScheduleConfig("constant", warmup=3), lambda o: LinearLR(o, start_factor=1 / 4, total_iters=3)),
    ],
    ids=lambda value: value.name if isinstance(value, ScheduleConfig) else "",
)
def test_learning_rates_are_those_of_torch(config: ScheduleConfig, oracle: Any) -> None:
    ours, theirs = optimizer(), optimizer()
    schedule = create_schedule(config, ours, lr=0.1, epochs=EPOCHS)
    expected = oracle(theirs)
    assert rates(schedule.step, ours) == pytest.approx(rates(expected.step, theirs))


def test_plateau_follows_the_loss() -> None:
    ours = optimizer()
    config = ScheduleConfig("plateau", patience=1, factor=0.1, minimum_lr=1e-2)
    schedule = create_schedule(config, ours, lr=0.1, epochs=EPOCHS)
    assert rates(lambda: schedule.step(1.0), ours) == pytest.approx([0.1, 0.1, 0.1, 1e-2, 1e-2, 1e-2])  # type: ignore[arg-type, call-arg]


def test_a_schedule_of_more_epochs_goes_on_where_it_stands() -> None:
    ours = optimizer()
    state = create_schedule(ScheduleConfig(), ours, lr=0.1, epochs=2).state_dict()
    longer = create_schedule(ScheduleConfig(minimum_lr=0.0), ours, lr=0.1, epochs=4)
    longer.load_state_dict({**state, "last_epoch": 1})
    set_rates(longer)  # type: ignore[arg-type]
    assert ours.param_groups[0]["lr"] == pytest.approx(0.1 * (1 + math.cos(math.pi / 4)) / 2)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD"])
def test_the_optimiser_has_the_configured_numbers(name: str) -> None:
    config = OptimizerConfig(name=name, lr=0.2, weight_decay=0.3, momentum=0.7, nesterov=True)
    created = create_optimizer(config, nn.Linear(2, 1))
    group = created.param_groups[0]
    assert type(created).__name__ == name
    assert (group["lr"], group["weight_decay"]) == (0.2, 0.3)
    if name == "SGD":
        assert (group["momentum"], group["nesterov"]) == (0.7, True)
    assert group.get("decoupled_weight_decay", False) == (name == "AdamW")


@pytest.mark.parametrize(("name", "decay"), [("Adam", 0.0), ("AdamW", 1e-2), ("SGD", 0.0), ("torch.optim.NAdam", 0.0)])
def test_a_weight_decay_that_is_not_given_is_the_optimisers_own(name: str, decay: float) -> None:
    created = create_optimizer(OptimizerConfig(name=name), nn.Linear(2, 1))
    assert created.param_groups[0]["weight_decay"] == decay
    assert inspect.signature(type(created)).parameters["weight_decay"].default == decay


def test_any_optimiser_comes_by_its_class_path() -> None:
    config = OptimizerConfig("torch.optim.RMSprop", lr=0.2, arguments={"alpha": 0.5})
    created = create_optimizer(config, nn.Linear(2, 1))
    assert isinstance(created, torch.optim.RMSprop)
    assert (created.param_groups[0]["lr"], created.param_groups[0]["alpha"]) == (0.2, 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "torch.optim.Adem"}, "'torch.optim.Adem' names no class"),
        ({"name": "no.such.module"}, "'no.such.module' names no class"),
        ({"name": "torch.nn.Linear"}, "'torch.nn.Linear' is no torch.optim.Optimizer"),
        ({"arguments": {"beta": 1}}, "optimizer.arguments do not fit AdamW: .*beta"),
        ({"multipliers": {"encodr": 0.1}}, r"no module 'encodr'; did you mean encoder.*\? optimizer.multipliers name"),
    ],
)
def test_optimisers_that_do_not_exist_or_do_not_fit_are_named(changes: dict[str, Any], message: str) -> None:
    network = nn.ModuleDict({"encoder": nn.Linear(2, 2)})
    with pytest.raises(ValueError, match=message):
        create_optimizer(OptimizerConfig(**changes), network)


def test_modules_learn_at_rates_of_their_own() -> None:
    model = create_model("unext_tiny")
    config = OptimizerConfig(lr=0.1, multipliers={"stages": 0.1, "stages.0": 0.0, "head": 2.0})
    groups = create_optimizer(config, model).param_groups
    rate = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert groups[0]["lr"] == 0.1
    for name, parameter in model.named_parameters():
        expected = 0.0 if name.startswith("stages.0.") else 0.01 if name.startswith("stages.") else 0.1
        expected = 0.2 if name.startswith("head.") else expected
        assert rate[id(parameter)] == pytest.approx(expected), name


@pytest.mark.parametrize(
    ("model", "layers"),
    [
        (lambda: create_model("unext_tiny"), 6),  # five stages, and the decoder
        (lambda: UNet(encoder="resnet18"), 10),  # the stem, eight blocks, and the decoder
        (lambda: UNet(encoder="swin_tiny_patch4_window7_224"), 13),  # twelve blocks, and the decoder
        (lambda: UNet(encoder="convnext_atto"), 13),
    ],
)
def test_layer_decay_is_that_of_timm(model: Callable[[], nn.Module], layers: int) -> None:
    make_importable()
    from timm.optim import param_groups_layer_decay

    network = model()
    theirs = {
        id(parameter): group["lr_scale"]
        for group in param_groups_layer_decay(network, layer_decay=0.75)
        for parameter in group["params"]
    }
    groups = create_optimizer(OptimizerConfig(lr=0.1, layer_decay=0.75), network).param_groups
    ours = {id(parameter): group["lr"] / 0.1 for group in groups for parameter in group["params"]}
    assert ours == pytest.approx(theirs)
    assert len(set(theirs.values())) == layers
    assert all(ours[id(parameter)] == 1.0 for parameter in network.head.parameters())


def test_layer_decay_and_multipliers_multiply() -> None:
    model = create_model("unext_tiny")
    config = OptimizerConfig(lr=1.0, layer_decay=0.5, multipliers={"stages.4": 0.1})
    rate = {id(p): group["lr"] for group in create_optimizer(config, model).param_groups for p in group["params"]}
    assert rate[id(model.stages[4].norm.weight)] == pytest.approx(0.05)
    assert rate[id(model.stages[3].norm.weight)] == pytest.approx(0.25)
    with pytest.raises(ValueError, match="layer_decay asks a network for its group_matcher, and Linear has none"):
        create_optimizer(OptimizerConfig(layer_decay=0.5), nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda: OptimizerConfig("Adm"), "there is no optimizer 'Adm'; did you mean Adam"),
        (lambda: OptimizerConfig(clip_norm=0.0), "clip_norm must be a number above 0"),
        (lambda: OptimizerConfig(multipliers={"head": -1.0}), "multipliers must be numbers from 0, got -1.0 for head"),
        (lambda: OptimizerConfig(layer_decay=1.5), "layer_decay must lie between 0 and 1, got 1.5"),
        (lambda: ScheduleConfig(warmup=-1), "warmup must be 0 or more"),
        (lambda: ScheduleConfig("plateau", warmup=1), "warmup goes with schedules that know their epochs"),
        (lambda: ScheduleConfig("poly", power=0.0), "power must be a number above 0"),
        (lambda: TrainConfig(epochs=2, schedule=ScheduleConfig(warmup=2)), "warmup must end before 2 epochs"),
    ],
)
def test_numbers_that_cannot_be_are_refused(create: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create()
