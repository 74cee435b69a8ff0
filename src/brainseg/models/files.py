"""Weights and their configuration on disk: written whole or not at all, read with a clear error or not at all."""

import json
import logging
import math
import os
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import brainseg
from brainseg.models.convert import convert_state_dict, without_prefix

if TYPE_CHECKING:
    from brainseg.models.base import SegmentationModel

CONFIG, WEIGHTS = "config.json", "model.safetensors"

logger = logging.getLogger(__name__)


def save(model: "SegmentationModel", folder: Path) -> None:
    """Writes `config.json` and `model.safetensors` into the folder.

    Raises:
        ValueError: the network is no longer the one that its config builds, and could not be read back.
    """
    from safetensors.torch import save_file

    with torch.device("meta"):
        built = type(model)(**model.config).state_dict()
    if differences := _differences(built, model.state_dict()):
        raise ValueError(
            f"this {type(model).__name__} is not what its config builds ({differences}) and could not be read back; "
            "save it before optimize() or other changes to its boxes"
        )

    config = {
        "model": type(model).__name__,
        "arguments": model.config,
        "normalization": model.normalization,
        "brainseg": brainseg.__version__,
    }
    state_dict = {key: value.detach().contiguous() for key, value in model.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / WEIGHTS, lambda path: save_file(state_dict, path, metadata={"format": "pt"}))
    _replace(folder / CONFIG, lambda path: path.write_text(json.dumps(config, indent=2) + "\n"))


def read_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a folder: model, arguments, normalization and version.

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: not a configuration of ours.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no {CONFIG}; give a folder that save_pretrained wrote")
    try:
        config = json.loads(path.read_text())
        if isinstance(config["model"], str) and isinstance(config["arguments"], dict):
            return {"normalization": None, **config}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no model configuration ({error}); save_pretrained writes one") from error
    raise ValueError(f"{path} is no model configuration; save_pretrained writes one")


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a `.safetensors` file, or of a `.pt` or `.pth` file without running any code in it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a truncated or foreign file, or one that holds more than a state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is truncated or no safetensors file ({error}); copy it again") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is no PyTorch file or holds more than tensors, and is not loaded since that could run code in it; "
            "save its state_dict() alone"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise ValueError(f"{path} is truncated or no PyTorch file ({error}); copy it again") from error
    if isinstance(content, dict) and all(isinstance(value, Tensor) for value in content.values()):
        return content
    raise ValueError(f"{path} holds no plain state dict; save its state_dict() alone, or load the part that is one")


def load_weights(model: "SegmentationModel", path: str | Path, *, source: str | None = None) -> list[str]:
    """Loads weights into a network, whole or not at all.

    Where the file was made for another number of input channels or classes the stem's kernels are summed or repeated,
    and heads stay as the model has them; what was adapted is returned, and logged as a warning.

    Args:
        model: the network; it stays as it was if anything is wrong.
        path: a folder that `save_pretrained` wrote (its normalization is taken over), a `.safetensors`, `.pt` or
            `.pth` file.
        source: the official code that the file comes from, as for `convert_state_dict`; None for our own keys.

    Returns:
        what was adapted, a sentence each.

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: a truncated, foreign or unsafe file, or weights of another network.
    """
    path = Path(path)
    folder = path if path.is_dir() else None
    config = read_config(folder) if folder else None
    given = without_prefix(read_state_dict(folder / WEIGHTS if folder else path))
    if source is not None:
        given = convert_state_dict(given, source)
    own = model.state_dict()
    state_dict, adapted = _adapt(model, own, given)
    if _differences(own, state_dict):
        raise ValueError(
            f"{path} does not fit this {type(model).__name__}: {_differences(own, given)}; build the model with the "
            "arguments that the weights were saved with, or load an official checkpoint by load_weights(..., source=)"
        )
    model.load_state_dict(state_dict)
    if config:
        model.normalization = config["normalization"]
    if adapted:
        logger.warning("%s: %s", path, "; ".join(adapted))
    return adapted


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
    model: "SegmentationModel", own: dict[str, Tensor], given: dict[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """The given weights with a stem and heads that fit the model, and what was done to them."""
    state_dict, adapted = dict(given), []
    stem = f"{model.stem}.weight"
    if stem in given and given[stem].dim() == 4:
        old, new = given[stem].shape[1], own[stem].shape[1]
        if old != new:
            state_dict[stem] = adapt_input_channels(given[stem], new)
            adapted.append(f"kernels of {model.stem} adapted from {old} to {new} input channels")
    for key in sorted(own.keys() | given.keys()):
        if not key.startswith(("head.", "auxiliary_heads.")):
            continue
        if key not in own:
            del state_dict[key]
            adapted.append(f"{key} of the file left out")
        elif key not in given or given[key].shape != own[key].shape:
            state_dict[key] = own[key]
            adapted.append(f"{key} freshly initialised: train it")
    return state_dict, adapted


def _differences(own: dict[str, Tensor], given: dict[str, Tensor], most: int = 3) -> str:
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


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Writes beside the path and moves the file there, so that no reader meets half of it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        # mkstemp makes private files; these are as public as any other.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
