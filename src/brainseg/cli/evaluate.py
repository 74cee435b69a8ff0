"""`brainseg evaluate`."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from brainseg.cli.parser import Parser, add_memory_option
from brainseg.training.config import DataConfig

READING = ("root", "format", "task", "classes", "patient_pattern", "sequences", "cache_dir")
"""Fields of the data section that say how data is read."""


def parser() -> Parser:
    """Its options."""
    evaluate = Parser(
        description="Score a run's best weights, or any weights, by patient, institution and overall, and draw cases."
    )
    evaluate.add_argument(
        "model",
        type=Path,
        help="folder of a run, or of weights that save_pretrained wrote, hf-hub:org/name, or the name of weights that "
        "ship, such as unext/lgg; weights are scored on the data that --data.root and --data.format name",
    )
    evaluate.add_argument(
        "--part",
        choices=["train", "validation", "test", "all"],
        help="of the split, or all patients (default: validation of a run; for weights all, of data without a split)",
    )
    evaluate.add_argument(
        "--split",
        type=Path,
        help="JSON file of patients (default: that of the run; for weights split.json in the data)",
    )
    evaluate.add_argument("--root", type=Path, help="folder of the data (default: that of the run, or --data.root)")
    evaluate.add_argument(
        "-o",
        "--output",
        type=Path,
        help="folder of tables and picture, without any yet (default: RUN/evaluation/PART, written anew)",
    )
    evaluate.add_argument(
        "--channel", type=int, help="of the images, from 0, that the picture shows (default: what the weights name)"
    )
    evaluate.add_argument(
        "--patients",
        action="store_true",
        default=None,
        help="do what the weights say of smoothing and components to all slices of a patient together, as predict "
        "--patients does (default: to volumes alone)",
    )
    add_memory_option(evaluate)
    left_out = {field.name for field in fields(DataConfig)} - {*READING}
    evaluate.add_class_arguments(DataConfig, "data", skip=left_out)
    return evaluate


def run(options: Any) -> None:
    """Runs it."""
    from brainseg.training import evaluate

    evaluate(
        options.model,
        part=options.part,
        split=options.split,
        root=options.root,
        data=None if options.data == DataConfig() else options.data,
        output=options.output,
        channel=options.channel,
        patients=options.patients,
    ).show()
