"""Weights and their configuration on disk: written whole or not at all, read with a clear error or not at all."""

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import brainseg
from brainseg._whole import written_whole
from brainseg.models import hub
from brainseg.models.shipped import list_weights, shipped_folder
from brainseg.models.spec import ModelSpec

CONFIG, WEIGHTS, ENSEMBLE = "config.json", "model.safetensors", "ensemble.json"
CROSS_VALIDATION = "cross_validation.yaml"
"""What `brainseg cross-validate` leaves in its folder as it begins."""


class Configuration(NamedTuple):
    """The content of `config.json`.

    Attributes:
        model: name of the network's class.
        arguments: of its constructor.
        spec: what its weights take and give; None in files before 0.2, which may name a normalization alone.
        normalization: of such a file.
    """

    model: str
    arguments: dict[str, Any]
    spec: ModelSpec | None
    normalization: dict[str, Any] | None


def config_text(model: str, arguments: Mapping[str, Any], spec: ModelSpec | None) -> str:
    """The content of `config.json`: model, arguments, spec and version."""
    known = None if spec is None else spec.to_json()
    config = {"model": model, "arguments": arguments, "spec": known, "brainseg": brainseg.__version__}
    return json.dumps(config, indent=2) + "\n"


def write(folder: Path, config: str, state_dict: Mapping[str, Tensor]) -> None:
    """Writes `config.json` and `model.safetensors` into the folder, which is made if absent."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    dense = {key: value.detach().contiguous() for key, value in state_dict.items()}
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(folder / CONFIG) as configuration, written_whole(folder / WEIGHTS) as weights:
        try:
            save_file(dense, weights, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(f"{folder / WEIGHTS} cannot be written: {error}") from error
        configuration.write_text(config)
        weights.chmod(configuration.stat().st_mode)  # safetensors makes private files


def read_config(folder: Path) -> Configuration:
    """The `config.json` of a folder.

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: not a configuration of ours.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no {CONFIG}; give a folder that save_pretrained wrote")
    try:
        config = json.loads(path.read_text())
        name, arguments, spec = config["model"], config["arguments"], config.get("spec")
        normalization = config.get("normalization")
        sound = isinstance(name, str) and isinstance(arguments, dict) and isinstance(spec, dict | None)
        if sound and isinstance(normalization, dict | None):
            return Configuration(name, arguments, None if spec is None else ModelSpec.from_json(spec), normalization)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is no model configuration ({error}); save_pretrained writes one") from error
    raise ValueError(f"{path} is no model configuration; save_pretrained writes one")


def is_model(path: Path) -> bool:
    """Whether a folder is one of weights, a run's, an ensemble's or a cross-validation's.

    `find_members` finds the networks there or says why not.
    """
    marks = (CONFIG, f"best/{CONFIG}", "config.yaml", ENSEMBLE, CROSS_VALIDATION)
    return any((path / mark).is_file() for mark in marks)


def find_folder(path: Path) -> Path:
    """The folder of weights that is meant.

    That is the path itself, the best weights of the run there, weights that ship, or those of a repository of the Hub,
    "org/name", which are downloaded. timm's "local-dir:" and "hf-hub:" say which of them alone is meant.

    Raises:
        ConnectionError: the Hub cannot be reached.
        FileNotFoundError: neither weights nor a run with any, or an ensemble.
    """
    name = path.as_posix()
    if name.startswith(hub.PREFIX):
        return _fetch(name.removeprefix(hub.PREFIX))
    path = Path(name.removeprefix(hub.LOCAL)).expanduser()
    if (path / CONFIG).is_file():
        return path
    if (path / "best" / CONFIG).is_file():
        return path / "best"
    if (path / "config.yaml").is_file():
        raise FileNotFoundError(
            f"{path} has no best weights: its first epoch is not complete (brainseg train --resume {path}), or best/ "
            "was removed (train again)"
        )
    if is_model(path):
        raise FileNotFoundError(
            f"{path} holds several networks, and one is wanted: name the folder of one, such as "
            f"{path / ('member_0' if (path / ENSEMBLE).is_file() else 'fold_0')}"
        )
    if not path.exists() and path.as_posix() in list_weights():
        return shipped_folder(path.as_posix())
    if repository := _repository(path):
        try:
            return _fetch(repository)
        except (ConnectionError, FileNotFoundError) as error:
            raise type(error)(f"there is no folder {path}, and {error}") from error
    raise FileNotFoundError(
        f"{path} holds no run and no weights; give the folder of a run, one that save_pretrained wrote, or the name of "
        f"weights that ship: {', '.join(list_weights())}"
    )


def _fetch(repository: str) -> Path:
    return hub.fetch_folder(repository, (CONFIG, WEIGHTS))


def _repository(path: Path) -> str | None:
    """That of the Hub, unless a name of weights that ship was mistyped."""
    networks = {name.partition("/")[0] for name in list_weights()}
    return None if path.exists() or path.parent.as_posix() in networks else hub.repository_of(path)


def write_ensemble(folder: Path, members: Sequence[str]) -> None:
    """Writes `ensemble.json`, which names the folders of weights below, in one move."""
    with written_whole(folder / ENSEMBLE) as partial:
        partial.write_text(json.dumps({"members": list(members), "brainseg": brainseg.__version__}, indent=2) + "\n")


def find_members(path: Path) -> list[Path]:
    """The folders of weights of an ensemble, or of a cross-validation's; else the one that `find_folder` finds.

    Raises:
        FileNotFoundError: as for `find_folder`, or a cross-validation some of whose folds are missing.
        ValueError: an ensemble.json that names no folders.
    """
    if (path / CROSS_VALIDATION).is_file():
        if not (path / "ensemble" / ENSEMBLE).is_file():
            raise FileNotFoundError(
                f"{path} is a cross-validation whose folds are not all finished; start brainseg cross-validate again"
            )
        path = path / "ensemble"
    if not (path / ENSEMBLE).is_file():
        return [find_folder(path)]
    try:
        members = json.loads((path / ENSEMBLE).read_text())["members"]
        sound = isinstance(members, list) and members and all(isinstance(name, str) and name for name in members)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path / ENSEMBLE} names no members ({error}); Ensemble.save_pretrained writes it") from error
    if not sound:
        raise ValueError(f"{path / ENSEMBLE} names no members; Ensemble.save_pretrained writes it")
    return [find_folder(path / name) for name in members]


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The state dict of `read_file` alone."""
    return read_file(path)[0]


def read_file(path: str | Path) -> tuple[dict[str, Tensor], ModelSpec | None]:
    """Tensors of a `.safetensors` file, or of a `.pt`, `.pth` or `.ckpt` file without running any code in it.

    Of a training checkpoint those of its network: what it holds under "state_dict", "model_state_dict" or "model"; of a
    run's last.ckpt the spec of its network as well.

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
            return load_file(path), None
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
    if _is_state_dict(content):
        return dict(content), None
    if isinstance(content, dict):
        for name in ("state_dict", "model_state_dict", "model"):
            if _is_state_dict(content.get(name)):
                spec = _spec_of(content)
                return _outcome(content[name]) if spec else dict(content[name]), spec
    raise ValueError(f"{path} holds no plain state dict{_parts(content)}; save its state_dict() alone")


def _parts(content: Any) -> str:
    """What a file holds in place of weights, and which parts of it may be some."""
    if not isinstance(content, Mapping) or not content:
        return f" but a {type(content).__name__}" if not isinstance(content, Mapping) else " but nothing"
    words = ", ".join(map(repr, list(content)[:8])) + (", ..." if len(content) > 8 else "")
    found = [f"torch.load(...)[{name!r}]" for name, part in content.items() if part and _is_state_dict(part)]
    return f" but {words}" + (f", of which {' and '.join(found)} may be meant" if found else "")


def _outcome(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of a run's checkpoint the running mean of the weights, if it has one, else the weights."""
    mean = {key: value for key, value in state_dict.items() if key.startswith("averaged.module.")}
    return {key.removeprefix("averaged."): value for key, value in mean.items()} or dict(state_dict)


def _spec_of(checkpoint: Mapping[str, Any]) -> ModelSpec | None:
    spec = checkpoint.get("spec")
    # Of another library, unless it says this; attributes that came later may be missing.
    if not isinstance(spec, Mapping) or not spec.keys() >= {"task", "class_names", "threshold"}:
        return None
    return ModelSpec.from_json(spec)


def _is_state_dict(content: Any) -> bool:
    return isinstance(content, Mapping) and all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()
    )


def without_prefix(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without what wrappers put in front of every key, in whatever order they were put around each other.

    DataParallel and its like write `module.`, torch.compile `_orig_mod.`, Lightning `model.`; averaged models add a
    count of their own, which is left out.
    """
    given = {key: value for key, value in state_dict.items() if key.rpartition(".")[2] != "n_averaged"}
    while prefix := next((p for p in ("module.", "_orig_mod.", "model.") if all(k.startswith(p) for k in given)), ""):
        if not given:
            break
        given = {key.removeprefix(prefix): value for key, value in given.items()}
    return given
