"""Weights and their configuration on disk: written whole or not at all, read with a clear error or not at all."""

import json
import logging
import math
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import brainseg
from brainseg._whole import written_whole
from brainseg.models.convert import convert_state_dict, without_prefix

if TYPE_CHECKING:
    from brainseg.models.base import SegmentationModel

CONFIG, WEIGHTS = "config.json", "model.safetensors"

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
    "num_points",
    "oversample",
    "importance",
    "things",
}

logger = logging.getLogger(__name__)


def save(model: "SegmentationModel", folder: Path) -> None:
    """Writes `config.json` and `model.safetensors` into the folder.

    Raises:
        ValueError: the network is no longer the one that its config builds, and could not be read back.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with torch.device("meta"):
        built = type(model)(**model.config).state_dict()
    own = model.state_dict()
    if differences := _differences(built, own):
        raise ValueError(
            f"this {type(model).__name__} is not what its config builds ({differences}) and could not be read back; "
            "save it before optimize() or other changes to its boxes"
        )

    text = config_text(model)
    state_dict = {key: value.detach().contiguous() for key, value in own.items()}
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(folder / CONFIG) as configuration, written_whole(folder / WEIGHTS) as weights:
        try:
            save_file(state_dict, weights, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(f"{folder / WEIGHTS} cannot be written: {error}") from error
        configuration.write_text(text)
        weights.chmod(configuration.stat().st_mode)  # safetensors makes private files


def config_text(model: "SegmentationModel") -> str:
    """The content of `config.json`: model, arguments, normalization and version."""
    config = {
        "model": type(model).__name__,
        "arguments": model.config,
        "normalization": model.normalization,
        "brainseg": brainseg.__version__,
    }
    return json.dumps(config, indent=2) + "\n"


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
        normalization = config.get("normalization")
        sound = isinstance(config["model"], str) and isinstance(config["arguments"], dict)
        if sound and isinstance(normalization, dict | None):
            return {**config, "normalization": normalization}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
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
    except Exception as error:  # whatever a foreign file makes of itself: KeyError, IndexError, struct.error, ...
        raise ValueError(f"{path} is truncated or no PyTorch file ({type(error).__name__}); copy it again") from error
    if isinstance(content, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()):
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
    if config:
        _check_same_network(model, config, path)
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
    for key, value in given.items():
        if value.layout is not torch.strided or value.is_meta or value.is_quantized or value.is_complex():
            raise ValueError(f"{path}: {key} is no plain tensor ({value.layout}, {value.dtype}); save dense real ones")
        if key in own and value.is_floating_point() != own[key].is_floating_point():
            raise ValueError(f"{path}: {key} holds {value.dtype}, expected {own[key].dtype}")
    model.load_state_dict(state_dict)
    if config:
        model.normalization = config["normalization"]
    if adapted:
        logger.warning("%s: %s", path, "; ".join(adapted))
    return adapted


def _check_same_network(model: "SegmentationModel", config: dict[str, Any], path: Path) -> None:
    """Refuses a folder whose network differs in what the shapes of its weights may not show."""
    name = type(model).__name__
    if config["model"] != name:
        raise ValueError(f"{path} holds a {config['model']}, and the model is a {name}")
    other = [
        f"{key}={value!r} and not {model.config[key]!r}"
        for key, value in config["arguments"].items()
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
    model: "SegmentationModel", own: dict[str, Tensor], given: dict[str, Tensor]
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
