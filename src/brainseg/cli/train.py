"""`brainseg train`."""

from datetime import datetime
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]

from brainseg.cli.output import say, stop
from brainseg.cli.parser import Parser, add_memory_option
from brainseg.training.config import CONFIGS, TrainConfig, shipped_configs, to_config


class NamedConfig(ActionConfigFile):
    """A YAML file, or the name of a configuration that comes with the package."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Reads it."""
        shipped = values in shipped_configs() and not Path(values).is_file()
        path = CONFIGS / f"{values}.yaml" if shipped else Path(values)
        if not path.is_file():
            stop(f"there is no configuration {values}; give a YAML file, or {' or '.join(shipped_configs())}")
        try:
            yaml.safe_load(path.read_text())
        except (ValueError, yaml.YAMLError) as error:
            stop(f"{values} is no YAML: {error}")
        super().__call__(parser, cfg, str(path), option_string)  # type: ignore[no-untyped-call]


def parser() -> Parser:
    """Its options."""
    train = Parser(description="Train a network; the run's folder gets all that is needed to evaluate or resume it.")
    train.add_argument(
        "--config",
        action=NamedConfig,
        help=f"YAML file, or one of {', '.join(shipped_configs())}; options after it override it",
    )
    train.add_argument("--run", type=Path, help="folder of the run (default: runs/<time>)")
    train.add_argument("--resume", type=Path, help="folder of a run to go on with, by its own configuration")
    add_memory_option(train)
    train.add_class_arguments(TrainConfig)
    return train


def run(options: Any) -> None:
    """Runs it."""
    from brainseg.training import resume, train  # makes Lightning importable
    from lightning.pytorch.utilities import rank_zero_only  # isort: skip

    config = to_config(options)
    if options.resume is not None:
        if config != TrainConfig() or options.run is not None:
            raise ValueError("--resume takes everything from the run's own config.yaml; leave the other options out")
        resume(options.resume)
        folder = options.resume
    else:
        folder = options.run or Path("runs") / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        train(config, folder)
    rank_zero_only(say)(f"The run: {folder.resolve()}. Next: brainseg evaluate {folder}")
