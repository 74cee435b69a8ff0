"""Training, evaluation and their configurations, on Lightning.

Lightning takes seconds to import, so its users are loaded when first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from brainseg._torchvision import make_importable
from brainseg.training.config import TrainConfig, read_config, shipped_configs, write_config

if TYPE_CHECKING:
    from brainseg.training.cross_validation import CrossValidation, cross_validate
    from brainseg.training.data import SliceDataModule
    from brainseg.training.evaluation import Evaluation, evaluate
    from brainseg.training.fit import train
    from brainseg.training.resuming import resume
    from brainseg.training.task import SegmentationTask

make_importable()

_LAZY = {
    "CrossValidation": "cross_validation",
    "Evaluation": "evaluation",
    "SegmentationTask": "task",
    "SliceDataModule": "data",
    "cross_validate": "cross_validation",
    "evaluate": "evaluation",
    "resume": "resuming",
    "train": "fit",
}

__all__ = [
    "CrossValidation",
    "Evaluation",
    "SegmentationTask",
    "SliceDataModule",
    "TrainConfig",
    "cross_validate",
    "evaluate",
    "read_config",
    "resume",
    "shipped_configs",
    "train",
    "write_config",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"brainseg.training.{_LAZY[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("brainseg"):
            raise
        raise ImportError(f'brainseg.training needs {error.name}: pip install "brainseg-torch[train]"') from error
