"""The command `brainseg`: a file a command, each imported, and with it its layer, when its command is named."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from brainseg import __version__
from brainseg.cli.output import in_words, stop
from brainseg.memory import keep_freed_memory

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

INSTALL = 'pip install "brainseg-torch[train]"'

COMMANDS = {
    "demo": "train, evaluate and draw on synthetic slices",
    "split": "draw a split, or folds, by patient",
    "train": "train a network, or resume a run",
    "cross-validate": "train a network for each fold, and score each patient by the one that did not see it",
    "experiment": "run a published experiment, or list them",
    "evaluate": "score a run, or weights, by patient",
    "predict": "segment image files",
    "models": "list the networks",
    "benchmark": "measure networks side by side",
}


def main() -> None:
    """Entry point of the command."""
    try:
        given = sys.argv[1:]
        name = next((word for word in given if word in COMMANDS), None)
        parser = _parser(name)
        options = parser.instantiate(parser.parse_args(given))
        chosen = options[options.subcommand]
        if chosen.get("keep_freed_memory"):
            keep_freed_memory()
        _module(options.subcommand).run(chosen)
    except ImportError as error:
        message = str(error) if "pip install" in str(error) else f"brainseg needs {error.name}: {INSTALL}"
        raise SystemExit(message) from error
    except (OSError, ValueError) as error:
        stop(in_words(error))
    except FloatingPointError as error:  # a run that diverged
        stop(str(error), code=1)
    except KeyboardInterrupt as error:
        stop(str(error) or "interrupted", code=130)


def _parser(name: str | None) -> "ArgumentParser":
    """The parser of the whole command, with the options of the one that is named."""
    from brainseg.cli.parser import Parser

    parser = Parser(prog="brainseg", description="Segmentation of tumours on brain MRI slices.")
    parser.add_argument("--version", action="version", version=f"brainseg {__version__}")
    commands = parser.add_subcommands(metavar="COMMAND")
    for command, summary in COMMANDS.items():
        commands.add_subcommand(command, _module(command).parser() if command == name else Parser(), help=summary)
    return parser


def _module(name: str) -> Any:
    return import_module(f"brainseg.cli.{name.replace('-', '_')}")
