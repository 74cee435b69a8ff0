"""`brainseg train`."""

import sys
from datetime import datetime
from operator import attrgetter
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
    train.add_argument(
        "--resume",
        type=Path,
        help="folder of a run to go on with, by its own configuration; with it --epochs extends the run",
    )
    train.add_argument(
        "--replan",
        action="store_true",
        help="with --resume and --epochs: a cosine or poly schedule falls over so many epochs",
    )
    add_memory_option(train)
    train.add_class_arguments(TrainConfig)
    return train


def run(options: Any) -> None:
    """Runs it."""
    from brainseg.training import resume, train  # makes Lightning importable
    from brainseg.training.resuming import PLACES
    from lightning.pytorch.utilities import rank_zero_only  # isort: skip

    config = to_config(options)
    if options.resume is not None:
        folder = options.resume
        places = [f"--{name}" for name in PLACES]
        named = {word.partition("=")[0] for word in sys.argv[1:] if word.startswith("--")}
        if fixed := sorted(named - {"--resume", "--replan", "--epochs", "--keep_freed_memory", *places}):
            raise ValueError(
                f"--resume takes {', '.join(fixed)} from the run's own config.yaml; leave the other options out (only "
                f"--epochs and {', '.join(places)} may change)"
            )
        resume(
            folder,
            epochs=config.epochs if "--epochs" in named else None,
            replan=options.replan,
            places={name: attrgetter(name)(config) for name in PLACES if f"--{name}" in named},
        )
    else:
        if options.replan:
            raise ValueError("--replan goes with --resume RUN --epochs N")
        folder = options.run or Path("runs") / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        train(config, folder)
    rank_zero_only(say)(f"The run: {folder.resolve()}. Next: brainseg evaluate {folder}")
