"""`brainseg demo`."""

from pathlib import Path
from typing import Any

from brainseg.cli.parser import Parser, add_memory_option


def parser() -> Parser:
    """Its options."""
    demo = Parser(description="Train UNeXt for about a minute on synthetic slices, evaluate it, and draw the outcome.")
    demo.add_argument("--output", type=Path, default=Path("demo"), help="folder of the run, replaced if there is one")
    add_memory_option(demo)
    return demo


def run(options: Any) -> None:
    """Runs it."""
    from brainseg.training.demo import demo

    demo(options.output)
