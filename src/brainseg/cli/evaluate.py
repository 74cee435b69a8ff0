"""`brainseg evaluate`."""

from pathlib import Path
from typing import Any

from brainseg.cli.parser import Parser, add_memory_option


def parser() -> Parser:
    """Its options."""
    evaluate = Parser(description="Score a run's best weights by patient, institution and overall, and draw cases.")
    evaluate.add_argument("run", type=Path, help="folder of the run")
    evaluate.add_argument("--part", choices=["train", "validation", "test"], default="validation", help="of the split")
    evaluate.add_argument("--split", type=Path, help="other JSON file of patients to evaluate on")
    evaluate.add_argument("--root", type=Path, help="folder of the data (default: that of the run)")
    evaluate.add_argument(
        "-o",
        "--output",
        type=Path,
        help="folder of tables and picture, without any yet (default: RUN/evaluation/PART, written anew)",
    )
    evaluate.add_argument(
        "--channel", type=int, help="of the images, from 0, that the picture shows (default: what the weights name)"
    )
    add_memory_option(evaluate)
    return evaluate


def run(options: Any) -> None:
    """Runs it."""
    from brainseg.training import evaluate

    evaluate(
        options.run,
        part=options.part,
        split=options.split,
        root=options.root,
        output=options.output,
        channel=options.channel,
    ).show()
