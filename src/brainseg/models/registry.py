"""Networks by name."""

import inspect
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

from brainseg._names import no_such
from brainseg.models import hub
from brainseg.models.base import SegmentationModel
from brainseg.models.features import EncoderFeatures
from brainseg.models.loading import load_weights
from brainseg.models.mask_dino import MaskDINO
from brainseg.models.resunet import ResUNet
from brainseg.models.shipped import list_weights, shipped_folder
from brainseg.models.unet import UNet
from brainseg.models.unext import UNeXt

Network = TypeVar("Network", bound=SegmentationModel)

_MODELS: dict[str, tuple[type[SegmentationModel], dict[str, Any]]] = {
    "unext_tiny": (UNeXt, {"channels": (8, 16, 24, 32, 64)}),
    "unext_small": (UNeXt, {"channels": (8, 16, 32, 64, 128)}),
    "unext": (UNeXt, {"channels": (16, 32, 128, 160, 256)}),
    "unext_large": (UNeXt, {"channels": (32, 64, 128, 256, 512)}),
    "unet_small": (UNet, {"channels": (32, 64, 128, 256, 512)}),
    "unet": (UNet, {"channels": (64, 128, 256, 512, 1024)}),
    "resunet": (ResUNet, {"channels": (64, 128, 256, 512)}),
    "mask_dino_small": (
        MaskDINO,
        {
            "backbone": "small",
            "channels": (32, 64, 128, 256),
            "conv_dim": 128,
            "mask_dim": 128,
            "hidden_dim": 128,
            "encoder_layers": 3,
            "encoder_ffn": 512,
            "decoder_layers": 3,
            "decoder_ffn": 512,
            "num_queries": 50,
            "dn_number": 20,
            "num_points": 3136,
        },
    ),
    "mask_dino_resnet50": (MaskDINO, {"backbone": "resnet50"}),
}


def register_model(name: str, **arguments: Any) -> Callable[[type[Network]], type[Network]]:
    """Decorator of one's own network: `create_model(name)` builds it, and `list_models` names it.

    Several names, each with arguments of its own, are several decorators. The name lasts as long as the process; where
    a run or a folder of weights is read again, import the module that defines the network first.

    Args:
        name: not that of another network.
        arguments: of the constructor, which this name stands for.

    Raises:
        TypeError: what is decorated is no subclass of `SegmentationModel`.
        ValueError: a name that is taken or none, or arguments that the constructor does not take.
    """
    if not isinstance(name, str) or not name or set(name) & set("/*?[] "):
        raise ValueError(f"a model's name must be a word, got {name!r}; write @register_model('my_network')")

    def register(network: type[Network]) -> type[Network]:
        if not (isinstance(network, type) and issubclass(network, SegmentationModel)):
            raise TypeError(f"register_model decorates subclasses of SegmentationModel, got {network!r}")
        known = _MODELS.get(name, (network, {}))[0]
        if (known.__module__, known.__qualname__) != (network.__module__, network.__qualname__):
            raise ValueError(f"there is a model {name!r} already, a {known.__qualname__}; take another name")
        try:
            inspect.signature(network).bind_partial(**arguments)
        except TypeError as error:
            raise ValueError(f"the arguments of {name!r} do not fit {network.__name__}: {error}") from error
        _MODELS[name] = (network, arguments)
        return network

    return register


def list_models(pattern: str = "*") -> list[str]:
    """Registered names that match a shell pattern.

    >>> list_models("unext_*")
    ['unext_tiny', 'unext_small', 'unext_large']
    """
    return [name for name in _MODELS if fnmatchcase(name, pattern)]


@overload
def create_model(
    name: str,
    *,
    weights: str | Path | None = None,
    features_only: Literal[False] = False,
    out_indices: None = None,
    **arguments: Any,
) -> SegmentationModel: ...


@overload
def create_model(
    name: str,
    *,
    weights: str | Path | None = None,
    features_only: Literal[True],
    out_indices: int | Sequence[int] | None = None,
    **arguments: Any,
) -> EncoderFeatures: ...


def create_model(
    name: str,
    *,
    weights: str | Path | None = None,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    **arguments: Any,
) -> SegmentationModel | EncoderFeatures:
    """Builds a network by its registered name.

    Args:
        name: one of `list_models()`.
        weights: None for a fresh initialisation; the tag of weights that ship with the network ("lgg", see
            `list_weights`); a file for `load_weights`; or a folder that `save_pretrained` wrote or of a run, or
            "hf-hub:org/name" or "local-dir:folder", whose arguments are then those that neither the name nor the call
            gives.
        features_only: the encoder alone, as timm's function of this name gives it: a list of features.
        out_indices: which of them, as for `SegmentationModel.forward_intermediates`; None for all.
        arguments: the constructor's; they go before those of the name.

    Raises:
        FileNotFoundError: neither a tag of this network nor a file or folder.
        ValueError: an unknown name, a folder of another network, or what the constructor and `load_weights` raise.

    >>> create_model("unext_tiny", num_classes=2).config["channels"]
    [8, 16, 24, 32, 64]
    """
    if features_only:
        return EncoderFeatures(create_model(name, weights=weights, **arguments), out_indices)
    if out_indices is not None:
        raise ValueError(f"out_indices={out_indices!r} choose among features; add features_only=True")
    if name not in _MODELS:
        raise ValueError(f"{no_such('model', name, _MODELS)} list_models() shows all")
    network, defaults = _MODELS[name]
    # The widths of the name are those of the encoder or backbone that an argument replaces.
    replaced = arguments.get("encoder") is not None or arguments.get("backbone", "small") != "small"
    if replaced and network in (UNet, MaskDINO):
        defaults = {key: value for key, value in defaults.items() if key != "channels"}
    arguments = {**defaults, **arguments}
    if weights is None:
        return network(**arguments)
    shipped = list_weights(f"{name}/*")
    if f"{name}/{weights}" in shipped:
        return network.from_pretrained(shipped_folder(f"{name}/{weights}"), **arguments)
    if hub.is_prefixed(weights):
        return network.from_pretrained(weights, **arguments)
    if not Path(weights).expanduser().exists():
        tags = ", ".join(tag.removeprefix(f"{name}/") for tag in shipped) or "none"
        raise FileNotFoundError(f"there is no file or folder {weights}; weights that ship with {name}: {tags}")
    if Path(weights).expanduser().is_dir():
        return network.from_pretrained(weights, **arguments)
    model = network(**arguments)
    load_weights(model, weights)
    return model
