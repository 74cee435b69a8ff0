"""Optimisers and learning rates, by the names of a configuration."""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from brainseg._names import no_such
from brainseg.training.config import OptimizerConfig, ScheduleConfig


def create_optimizer(config: OptimizerConfig, model: nn.Module) -> Optimizer:
    """The optimiser of a network's parameters, in groups if some learn at rates of their own.

    Raises:
        ValueError: a class that does not exist or is no optimiser, arguments that it does not take, or multipliers of
            modules that the network does not have, or a layer-wise decay of a network without layers.
    """
    arguments: dict[str, Any] = {"lr": config.lr, **config.arguments}
    if config.weight_decay is not None:
        arguments["weight_decay"] = config.weight_decay
    if config.name == "SGD":
        arguments = {"momentum": config.momentum, "nesterov": config.nesterov, **arguments}
    try:
        return _class(config.name)(_groups(config, model), **arguments)
    except TypeError as error:
        raise ValueError(f"optimizer.arguments do not fit {config.name}: {error}") from error


def _class(name: str) -> type[Optimizer]:
    path = name if "." in name else f"torch.optim.{name}"
    module, _, attribute = path.rpartition(".")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"optimizer.name {name!r} names no class ({error}); give one such as torch.optim.NAdam"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Optimizer)):
        raise ValueError(f"optimizer.name {name!r} is no torch.optim.Optimizer; give one such as torch.optim.NAdam")
    return found


def _groups(config: OptimizerConfig, model: nn.Module) -> list[nn.Parameter] | list[dict[str, Any]]:
    """The parameters that learn; with rates of their own in groups, first that of the rate itself."""
    learning = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not config.multipliers and config.layer_decay is None:
        return list(learning.values())
    groups: dict[float, list[nn.Parameter]] = {1.0: []}
    multipliers, decays = _multipliers(config, model, learning), _decays(config.layer_decay, model)
    for name, parameter in learning.items():
        groups.setdefault(multipliers[name] * decays.get(name, 1.0), []).append(parameter)
    return [
        {"params": parameters, "lr": multiplier * config.lr} for multiplier, parameters in groups.items() if parameters
    ]


def _multipliers(config: OptimizerConfig, model: nn.Module, names: Iterable[str]) -> dict[str, float]:
    """Of each parameter that of the innermost module that has one."""
    modules = [name for name, _ in model.named_modules() if name]
    for prefix in config.multipliers:
        if prefix not in modules:
            raise ValueError(f"{no_such('module', prefix, modules)} optimizer.multipliers name modules of the network")
    owners = {name: [prefix for prefix in config.multipliers if name.startswith(f"{prefix}.")] for name in names}
    return {name: config.multipliers[max(found, key=len)] if found else 1.0 for name, found in owners.items()}


def _decays(layer_decay: float | None, model: nn.Module) -> dict[str, float]:
    """Of each parameter the factor of its layer, as timm's `param_groups_layer_decay` has it."""
    if layer_decay is None:
        return {}
    matcher = getattr(model, "group_matcher", None)
    if matcher is None:
        network = type(model).__name__
        raise ValueError(f"optimizer.layer_decay asks a network for its group_matcher, and {network} has none")
    layer_of = matcher(coarse=False)
    layers = {name: layer_of(name) for name, _ in model.named_parameters()}
    last = max(layers.values())
    return {name: layer_decay ** (last - layer) for name, layer in layers.items()}


def create_schedule(
    config: ScheduleConfig, optimizer: Optimizer, *, lr: float, epochs: int
) -> LambdaLR | ReduceLROnPlateau:
    """The rates of the epochs; each depends on its number alone, but for plateau, where it follows the loss."""
    if config.name == "plateau":
        return ReduceLROnPlateau(optimizer, factor=config.factor, patience=config.patience, min_lr=config.minimum_lr)
    return LambdaLR(optimizer, rate(config, lr=lr, epochs=epochs))


def rate(config: ScheduleConfig, *, lr: float, epochs: int) -> Callable[[int], float]:
    """The factor of the learning rate in an epoch, which counts from 0; not of plateau."""
    low, warmup = config.minimum_lr / lr, config.warmup
    milestones = sorted(config.milestones)

    def factor(epoch: int) -> float:
        if epoch < warmup:
            return (epoch + 1) / (warmup + 1)
        progress = min((epoch - warmup) / max(epochs - warmup, 1), 1.0)
        match config.name:
            case "cosine":
                return low + (1 - low) * (1 + math.cos(math.pi * progress)) / 2
            case "poly":
                return low + (1 - low) * math.pow(1 - progress, config.power)
            case "multistep":
                return math.pow(config.gamma, bisect_right(milestones, epoch))
            case _:
                return 1.0

    return factor


def set_rates(schedule: LambdaLR) -> None:
    """Gives the optimiser the rates that the schedule has where it stands: its epochs may have become more."""
    for group, start, factor in zip(
        schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
    ):
        group["lr"] = start * factor(schedule.last_epoch)
