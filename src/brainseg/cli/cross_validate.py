"""`brainseg cross-validate`."""

from pathlib import Path
from typing import Any

from brainseg.cli.configuration import add_config_option
from brainseg.cli.output import say
from brainseg.cli.parser import Parser, add_memory_option
from brainseg.training.config import TrainConfig, to_config


def parser() -> Parser:
    """Its options."""
    command = Parser(
        description="Train a network for each fold, score each patient by the one that did not train on it, and leave "
        "the table, its mean with interval, and the ensemble. Started again with the same options, it goes on where it "
        "was.",
    )
    add_config_option(command)
    command.add_argument("-o", "--output", type=Path, required=True, help="folder of the runs, tables and ensemble")
    command.add_argument(
        "--folds", type=int, help="how many (default: those of the file of folds that --data.split names, else 5)"
    )
    command.add_argument("--fold", type=int, help="run this one alone, from 0, for others to run on other devices")
    add_memory_option(command)
    command.add_class_arguments(TrainConfig)
    return command


def run(options: Any) -> None:
    """Runs it."""
    from brainseg.training import cross_validate  # makes Lightning importable
    from lightning.pytorch.utilities import rank_zero_only  # isort: skip

    result = cross_validate(to_config(options), options.output, folds=options.folds, fold=options.fold)
    if result is not None:
        result.show()
        say(f"Tables and ensemble: {options.output.resolve()}. Next: brainseg predict {options.output} IMAGES -o masks")
    elif options.fold is not None:
        rank_zero_only(say)(f"Fold {options.fold} is done; others are not, and the last one gathers all")
