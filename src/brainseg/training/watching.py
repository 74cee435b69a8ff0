"""What watches a run besides its folder: loggers by name, callbacks by class path."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger


def create_logger(name: str, folder: Path) -> Logger:
    """Lightning's logger of this name, which writes into `logs` of the run's folder once training begins.

    Raises:
        ImportError: what it needs is not installed.
    """
    try:
        if name == "wandb":
            return WandbLogger(name=folder.name, save_dir=folder / "logs", project="brainseg")
        if name == "tensorboard":
            return TensorBoardLogger(folder, name="logs", version="")
        return CSVLogger(folder, name="logs")  # a folder for each start: it deletes what lies in its own
    except ModuleNotFoundError as error:
        raise ImportError(f'logger={name} needs {name}: pip install "brainseg-torch[{name}]"') from error


def create_callbacks(descriptions: Sequence[Mapping[str, Any]]) -> list[Callback]:
    """Callbacks of Lightning, each described by `class_path` and, if it takes any, `init_args`.

    Raises:
        ValueError: another description, no such class, or arguments that it does not take.
    """
    return [_create(description) for description in descriptions]


def _create(description: Mapping[str, Any]) -> Callback:
    path, arguments = description.get("class_path"), description.get("init_args", {})
    if not description.keys() <= {"class_path", "init_args"} or not isinstance(path, str) or "." not in path:
        raise ValueError(f"a callback is described by {{class_path: ..., init_args: {{...}}}}, got {dict(description)}")
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"there is no callback {path} ({error})") from error
    if not (isinstance(found, type) and issubclass(found, Callback)):
        raise ValueError(f"{path} is no lightning.pytorch.Callback")
    try:
        return found(**arguments)
    except TypeError as error:
        raise ValueError(f"init_args do not fit {path}: {error}") from error
