"""timm's backbones and their weights, by name, folder or file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError

import torch
from torch import Tensor, nn

from brainseg._names import no_such
from brainseg._torchvision import make_importable
from brainseg.models import hub
from brainseg.models.adaptation import adapt_input_channels
from brainseg.models.files import read_state_dict, without_prefix

# timm's own order.
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
SOURCES = ("hf-hub:", "hf_hub:", "local-dir:")


class Backbone(NamedTuple):
    """What a name of timm means.

    Attributes:
        name: as it was given.
        architecture: name of the backbone itself, for which neither folder nor connection is needed.
        arguments: of its constructor.
        folder: of its weights, of a name that begins with local-dir:.
    """

    name: str
    architecture: str
    arguments: dict[str, Any]
    folder: Path | None = None


def find_backbone(name: Any, arguments: Mapping[str, Any] | None) -> Backbone:
    """The backbone of a name, which may begin with hf-hub: or local-dir: as for timm.

    Raises:
        ConnectionError: the Hub cannot be reached.
        FileNotFoundError: no such folder or repository.
        ValueError: an unknown name, or a configuration that is none of timm's.
    """
    make_importable()
    import timm

    given = dict(arguments or {})
    if not isinstance(name, str) or not name.startswith(SOURCES):
        if not isinstance(name, str) or not timm.is_model(name):
            raise ValueError(f"{no_such('timm model', str(name), timm.list_models())} timm.list_models() shows all")
        return Backbone(name, name, given)
    source, _, place = name.partition(":")
    folder = Path(place).expanduser() if source == "local-dir" else None
    path = hub.fetch(place, "config.json") if folder is None else folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no config.json; timm's save_for_hf writes such a folder")
    try:
        config = json.loads(path.read_text())
        architecture, saved = config["architecture"], config.get("model_args") or {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no configuration of timm ({type(error).__name__}: {error})") from error
    of_the_file = ("in_chans", "num_classes", "global_pool", "features_only", "out_indices")
    kept = {key: value for key, value in saved.items() if key not in of_the_file}
    return Backbone(name, architecture, {**kept, **given}, folder)


def create_backbone(
    backbone: Backbone,
    in_channels: int,
    *,
    pretrained: bool | str | Path,
    pretrained_cfg_overlay: Mapping[str, Any] | None,
    always_partition: bool,
) -> nn.Module:
    """The module that gives features alone; arguments as of `TimmEncoder`."""
    import timm

    name, given, stem, overlay = backbone.name, None, None, dict(pretrained_cfg_overlay or {})
    if not isinstance(pretrained, bool | str | Path):
        raise ValueError(f"pretrained must be True, False or a file of weights, got {pretrained!r}")
    file = backbone.folder if pretrained is True else None if pretrained is False else Path(pretrained).expanduser()
    if file is not None:
        file = _weights_in(file) if file.is_dir() else file
        given = without_prefix(read_state_dict(file))
        stem, size = _stem(backbone.architecture, given)
        if stem is not None:
            # Of a file of other than three channels not every version of timm adapts the kernels: none has to here.
            given[f"{stem}.weight"] = adapt_input_channels(given[f"{stem}.weight"], in_channels)
            overlay = {"input_size": (in_channels, *size), **overlay, "first_conv": None}
        overlay |= {"source": "", "state_dict": given}
    elif pretrained is True:
        _check_download(name, overlay)
    arguments: dict[str, Any] = {
        **backbone.arguments,
        "features_only": True,
        "in_chans": in_channels,
        "pretrained": pretrained is not False,
        "pretrained_cfg_overlay": overlay,
    }
    # Swin checks sizes, and shrinks windows to the maps of its own size, unless told not to; others know neither.
    any_size: dict[str, Any] = {"strict_img_size": False}
    attempts = ([{**any_size, "always_partition": True}] if always_partition else []) + [any_size, {}]
    for attempt in attempts:
        try:
            features: nn.Module = timm.create_model(name, **arguments, **attempt)
        except TypeError as error:
            if attempt:
                continue
            if backbone.arguments or overlay:
                raise ValueError(f"arguments do not fit timm's {name!r}: {error}") from error
            raise
        except URLError as error:
            raise ConnectionError(
                f"the weights of {name} cannot be downloaded ({error.reason}): connect once, or give a local file"
            ) from error
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            if given is not None:
                raise ValueError(f"{file} does not fit timm's {name!r}: {reason}") from error
            raise ValueError(f"timm gives no features of {name!r}: {reason}") from error
        else:
            break
    if given is not None:
        configuration: Any = features.pretrained_cfg
        configuration.pop("state_dict", None)
        if stem is not None:
            configuration["first_conv"] = stem
        _check_complete(features, given, f"{file} does not fit timm's {name!r}")
    return features


def _check_download(name: str, overlay: Mapping[str, Any]) -> None:
    """Asks for weights that timm would download, so that its patience is not needed."""
    from timm.models import get_pretrained_cfg

    if overlay.get("file") or overlay.get("state_dict"):
        return
    place = name.partition(":")[2]
    known: Any = None if place else get_pretrained_cfg(name)
    repository = overlay.get("hf_hub_id") or place or getattr(known, "hf_hub_id", None)
    file = overlay.get("hf_hub_filename") or getattr(known, "hf_hub_filename", None)
    if repository:
        hub.check_reachable(repository, [file] if file else WEIGHTS)


def _stem(architecture: str, given: Mapping[str, Tensor]) -> tuple[str | None, Sequence[int]]:
    """The convolution of a file that reads the image, if there is one alone, and the size that it is made for."""
    from timm.models import get_pretrained_cfg

    known: Any = get_pretrained_cfg(architecture)
    name = getattr(known, "first_conv", None)
    weight = given.get(f"{name}.weight")
    return (None, ()) if weight is None or weight.dim() != 4 else (name, known.input_size[1:])


def _weights_in(folder: Path) -> Path:
    found = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    if not found:
        raise FileNotFoundError(f"{folder} holds none of {', '.join(WEIGHTS)}; give the file itself")
    return found[0]


def _check_complete(features: nn.Module, given: Mapping[str, Tensor], problem: str) -> None:
    """Refuses a file that left parts of the backbone as they were, of which timm tells in its log alone.

    A part counts as found if the file has its name, dots of which are gone in a backbone of features alone, or its
    numbers: timm converts the names of other authors' files.
    """
    known = {_plain(key) for key in given}
    missing = [key for key, _ in features.named_parameters() if _plain(key) not in known]
    if not missing:
        return
    parameters = dict(features.named_parameters())
    numbers = {_numbers(value) for value in given.values() if value.dim() > 1}
    absent = [key for key in missing if parameters[key].dim() > 1 and _numbers(parameters[key]) not in numbers]
    if absent:
        raise ValueError(
            f"{problem}: it lacks {len(absent)} of {len(parameters)} parameters, such as {absent[0]}; give the weights "
            "of this backbone, under timm's names"
        )


def _plain(key: str) -> str:
    return key.removeprefix("model.").replace(".", "_")


def _numbers(value: Tensor) -> int:
    return hash(value.detach().to(torch.float32).cpu().numpy().tobytes())
