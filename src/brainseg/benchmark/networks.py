"""Any network by a name: ours, those of timm, smp and MONAI, and what a module of yours makes."""

import inspect
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial
from importlib import import_module
from typing import Any

from torch import nn

from brainseg._names import no_such
from brainseg._torchvision import make_importable
from brainseg.models import create_model, list_models

Builder = Callable[[int, int], nn.Module]
"""From the channels of the image and its side in pixels to the network."""

# MONAI's networks have no defaults for these; the widths are those that its tutorials and ours compare with.
MONAI_ARGUMENTS: dict[str, Any] = {
    "spatial_dims": 2,
    "out_channels": 1,
    "channels": (16, 32, 64, 128, 256),
    "strides": (2, 2, 2, 2),
}
MONAI_CHOICES: dict[str, dict[str, Any]] = {"UNet": {"num_res_units": 2}}


def find_network(name: str) -> Builder:
    """What builds the network of a name, with random weights and where there is a choice with one class.

    Args:
        name: a registered network of ours; `timm/NAME`; `smp/ARCHITECTURE` or `smp/ARCHITECTURE/ENCODER` of
            segmentation-models-pytorch (ResNet-34 by default); `monai/CLASS` of `monai.networks.nets` (`UNet` with
            channels 16 to 256 and two residual units); or `package.module:callable`, which is called without
            arguments, or is a network itself.

    Raises:
        ValueError: no such network, or a callable that is none.
        ImportError: its library is not installed.
    """
    if ":" in name:
        return _of_module(name)
    library, slash, rest = name.partition("/")
    if slash:
        if library not in LIBRARIES or not rest:
            raise ValueError(f"{no_such('library', library, LIBRARIES)} Networks of others are {OTHERS}")
        return LIBRARIES[library](rest)
    if name not in list_models():
        raise ValueError(f"{no_such('network', name, list_models())} Networks of others are {OTHERS}")
    return lambda in_channels, _: create_model(name, in_channels=in_channels)


def match_networks(names: list[str]) -> list[str]:
    """The names, with shell patterns replaced by those of our networks that match; all of ours if there are none.

    Raises:
        ValueError: a pattern that nothing matches, or a name twice.
    """
    found = []
    for name in names or ["*"]:
        is_pattern = any(sign in name for sign in "*?[")
        matching = [known for known in list_models() if fnmatchcase(known, name)] if is_pattern else [name]
        if not matching:
            raise ValueError(f"no network of ours is called {name}; there are {', '.join(list_models())}")
        found += matching
    for name in found:
        if found.count(name) > 1:
            raise ValueError(f"{name} is named {found.count(name)} times; name every network once")
    return found


def _of_timm(name: str) -> Builder:
    make_importable()
    timm = import_module("timm")
    if not timm.is_model(name):
        raise ValueError(no_such("network of timm", name, timm.list_models()))
    # Some transformers take one size alone, which they are built for.
    sized = getattr(timm.models.get_pretrained_cfg(name), "fixed_input_size", False)

    def build(in_channels: int, size: int) -> nn.Module:
        arguments = {"img_size": size} if sized else {}
        network: nn.Module = timm.create_model(name, pretrained=False, in_chans=in_channels, **arguments)
        return network

    return build


def _of_smp(name: str) -> Builder:
    make_importable()
    smp = import_module("segmentation_models_pytorch")
    architecture, _, encoder = name.partition("/")
    known = [found for found, kind in vars(smp).items() if inspect.isclass(kind) and issubclass(kind, nn.Module)]
    if architecture.lower() not in [found.lower() for found in known]:
        raise ValueError(no_such("architecture of smp", architecture, known))
    if encoder and not encoder.startswith("tu-") and encoder not in smp.encoders.get_encoder_names():
        raise ValueError(no_such("encoder of smp", encoder, smp.encoders.get_encoder_names()))

    def build(in_channels: int, _: int) -> nn.Module:
        network: nn.Module = smp.create_model(
            architecture, encoder or "resnet34", encoder_weights=None, in_channels=in_channels, classes=1
        )
        return network

    return build


def _of_monai(name: str) -> Builder:
    make_importable()
    nets = import_module("monai.networks.nets")
    network = getattr(nets, name, None)
    if not (inspect.isclass(network) and issubclass(network, nn.Module)):
        known = [found for found, kind in vars(nets).items() if inspect.isclass(kind) and issubclass(kind, nn.Module)]
        raise ValueError(no_such("network of MONAI", name, known))
    return partial(_build_monai, network)


def _build_monai(network: type[nn.Module], in_channels: int, size: int) -> nn.Module:
    parameters = inspect.signature(network).parameters
    offered = {**MONAI_ARGUMENTS, "in_channels": in_channels, "img_size": (size, size)}
    given = {key: value for key, value in offered.items() if key in parameters}
    given |= MONAI_CHOICES.get(network.__name__, {})
    missing = [key for key, x in parameters.items() if x.default is x.empty and x.kind is not x.VAR_KEYWORD]
    missing = [key for key in missing if key not in given]
    if missing:
        raise ValueError(
            f"MONAI's {network.__name__} has no default for {', '.join(missing)}; build it in a function of your own "
            "and give package.module:function"
        )
    return network(**given)


def _of_module(name: str) -> Builder:
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), *attribute.split(".")]):
        raise ValueError(f"{name!r} does not read package.module:callable")
    try:
        found: Any = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ValueError(
            f"there is no module {error.name}; give package.module:callable from where Python finds the module: the "
            "folder you are in, or an installed package"
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [known for known in vars(found) if not known.startswith("_")]
            raise ValueError(no_such(f"name in {module_name}", part, public))
        found = getattr(found, part)
    if not callable(found):
        raise ValueError(f"{name} is {type(found).__name__}, expected a network or what makes one")

    def build(*_: int) -> nn.Module:
        network = found if isinstance(found, nn.Module) else found()
        if not isinstance(network, nn.Module):
            raise ValueError(f"{name} made {type(network).__name__}, expected torch.nn.Module")
        return network

    return build


LIBRARIES: dict[str, Callable[[str], Builder]] = {"timm": _of_timm, "smp": _of_smp, "monai": _of_monai}
OTHERS = "timm/NAME, smp/ARCHITECTURE, monai/CLASS and package.module:callable"
