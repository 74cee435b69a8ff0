"""`brainseg train`."""

import sys
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

from brainseg.cli.configuration import add_config_option
from brainseg.cli.output import say
from brainseg.cli.parser import Parser, add_memory_option
from brainseg.training.config import TrainConfig, to_config


def parser() -> Parser:
    """Its options."""
    train = Parser(description="Train a network; the run's folder gets all that is needed to evaluate or resume it.")
    add_config_option(train)
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
