"""Weights put into a network: whole or not at all, its stem and its head fitted where the file has other channels."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from brainseg.models.files import Configuration
from brainseg.models.spec import ModelSpec

# Arguments in which a network may differ from the file it is loaded from.
ADAPTABLE = {
    "in_channels",
    "num_classes",
    "deep_supervision",
    "drop",
    "drop_path",
    "encoder_drop",
    "decoder_drop",
    "denoising",
    "dn_number",
    "dn_noise",
    "num_queries",  # a table of learned queries tells by its shape that it does not fit
    "num_points",
    "oversample",
    "importance",
    "things",
}

logger = logging.getLogger(__name__)


class Network(Protocol):
    """What loading needs of a network; `SegmentationModel` describes the attributes."""

    config: dict[str, Any]
    normalization: dict[str, Any] | None
    former_modules: ClassVar[Mapping[str, str]]
    stems: tuple[str, ...]

    @property
    def class_modules(self) -> tuple[str, ...]: ...

    def take_spec(self, spec: ModelSpec) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> Any: ...


def load_adapted(
    model: Network, given: Mapping[str, Tensor], path: Path, config: Configuration | None = None
) -> list[str]:
    """Puts weights into a network, whole or not at all.

    Args:
        model: the network; it stays as it was if anything is wrong.
        given: the weights, in the network's own keys, of this version or an earlier one.
        path: where they come from, for errors.
        config: of the folder that they come from, whose spec the network takes over.

    Returns:
        what was adapted, a sentence each.

    Raises:
        ValueError: weights of another network.
    """
    if config:
        _check_same_network(model, config, path)
    given = {_key_of_today(model, key): value for key, value in given.items()}
    own = model.state_dict()
    state_dict, adapted = _adapt(model, own, given)
    if differences(own, state_dict):
        raise ValueError(
            f"{path} does not fit this {type(model).__name__}: {differences(own, given)}; build the model with the "
            "arguments that the weights were saved with, or load an official checkpoint by load_weights(..., source=)"
        )
    for key, value in given.items():
        if value.layout is not torch.strided or value.is_meta or value.is_quantized or value.is_complex():
            raise ValueError(f"{path}: {key} is no plain tensor ({value.layout}, {value.dtype}); save dense real ones")
        if key in own and value.is_floating_point() != own[key].is_floating_point() and not _is_count(value):
            raise ValueError(f"{path}: {key} holds {value.dtype}, expected {own[key].dtype}")
    model.load_state_dict(state_dict)
    if config and config.spec:
        model.take_spec(config.spec)
    elif config:
        model.normalization = config.normalization
    if adapted:
        logger.warning("%s: %s", path, "; ".join(adapted))
    return adapted


def _key_of_today(model: Network, key: str) -> str:
    for former, now in model.former_modules.items():
        if key.startswith(f"{former}."):
            return f"{now}{key.removeprefix(former)}"
    return key


def _is_count(value: Tensor) -> bool:
    """Whether these are whole numbers, as counts of batches are that were halved or widened with all else."""
    return value.is_floating_point() and bool((value.isfinite() & (value == value.round())).all())


def _check_same_network(model: Network, config: Configuration, path: Path) -> None:
    """Refuses a folder whose network differs in what the shapes of its weights may not show."""
    name = type(model).__name__
    if config.model != name:
        raise ValueError(f"{path} holds a {config.model}, and the model is a {name}")
    other = [
        f"{key}={value!r} and not {model.config[key]!r}"
        for key, value in config.arguments.items()
        if key in model.config and key not in ADAPTABLE and value != model.config[key]
    ]
    if other:
        raise ValueError(f"{path} does not fit this {name}: it was saved with {', '.join(other)}")


def adapt_input_channels(weight: Tensor, in_channels: int) -> Tensor:
    """Kernels (D, C, h, w) for another number of input channels.

    As timm does: one channel gets the sum, more get the kernels over and over, scaled by old over new. One channel, or
    a multiple of the old number, answers a gray image as before; other numbers nearly so.
    """
    old = weight.shape[1]
    if in_channels == 1:
        return weight.sum(dim=1, keepdim=True)
    repeated = weight.repeat(1, math.ceil(in_channels / old), 1, 1)[:, :in_channels]
    return repeated * (old / in_channels)


def _adapt(
    model: Network, own: Mapping[str, Tensor], given: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """The given weights with stems and heads that fit the model, and what was done to them."""
    state_dict, adapted = dict(given), []
    for stem in model.stems:
        key = f"{stem}.weight"
        if key not in given or given[key].dim() != 4 or given[key].shape[1] == 0:
            continue
        old, new = given[key].shape[1], own[key].shape[1]
        if old != new:
            state_dict[key] = adapt_input_channels(given[key], new)
            adapted.append(f"kernels of {stem} adapted from {old} to {new} input channels")
    # A head is taken from the file whole or not at all.
    prefixes = tuple(f"{module}." for module in model.class_modules)
    heads: dict[str, list[str]] = {}
    for key in sorted(own.keys() | given.keys()):
        if key.startswith(prefixes):
            heads.setdefault(key.rpartition(".")[0], []).append(key)
    for head, keys in heads.items():
        if not any(key in own for key in keys):
            adapted.append(f"{head} of the file left out")
        elif not any(key in given for key in keys):
            adapted.append(f"{head} freshly initialised: train it")
        elif all(key in given and len(given[key]) != len(own[key]) for key in keys):
            adapted.append(f"{head} freshly initialised for {model.config['num_classes']} classes: train it")
        else:
            continue
        for key in keys:
            state_dict.pop(key, None)
            if key in own:
                state_dict[key] = own[key]
    return state_dict, adapted


def differences(own: Mapping[str, Tensor], given: Mapping[str, Tensor], most: int = 3) -> str:
    """How many keys are missing, unknown or of another shape, and the first of them; empty if all fit."""
    lists = {
        "missing": own.keys() - given.keys(),
        "unknown": given.keys() - own.keys(),
        "of another shape": {key for key in own.keys() & given.keys() if own[key].shape != given[key].shape},
    }
    return ", ".join(
        f"{len(keys)} {name} ({', '.join(sorted(keys)[:most])}{', ...' if len(keys) > most else ''})"
        for name, keys in lists.items()
        if keys
    )
