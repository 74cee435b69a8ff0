"""Optimisers and learning rates, by the names of a configuration."""

import math
from bisect import bisect_right
from collections.abc import Callable
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
            modules that the network does not have.
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
    """The parameters that learn; with multipliers in groups, first that of the rate itself."""
    learning = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not config.multipliers:
        return list(learning.values())
    modules = [name for name, _ in model.named_modules() if name]
    for prefix in config.multipliers:
        if prefix not in modules:
            raise ValueError(f"{no_such('module', prefix, modules)} optimizer.multipliers name modules of the network")
    groups: dict[float, list[nn.Parameter]] = {1.0: []}
    for name, parameter in learning.items():
        owners = [prefix for prefix in config.multipliers if name.startswith(f"{prefix}.")]
        multiplier = config.multipliers[max(owners, key=len)] if owners else 1.0
        groups.setdefault(multiplier, []).append(parameter)
    return [
        {"params": parameters, "lr": multiplier * config.lr} for multiplier, parameters in groups.items() if parameters
    ]


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
