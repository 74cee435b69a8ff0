"""`brainseg split`."""

from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainseg.cli.output import say
from brainseg.cli.parser import Parser
from brainseg.training.config import DataConfig

if TYPE_CHECKING:
    from brainseg.data import Split

READING = ("root", "format", "task", "classes", "patient_pattern", "sequences", "axis", "stratify", "cache_dir")
"""Fields of the data section that say which patients there are, and of which group."""


def parser() -> Parser:
    """Its options."""
    split = Parser(
        description="Draw a split by patient, or the folds of a cross-validation, each institution (or group of "
        "--data.stratify) in proportion; train takes the file as --data.split."
    )
    split.add_argument("-o", "--output", type=Path, required=True, help="JSON file, not there yet")
    split.add_argument("--validation", type=float, help="share of the patients that validate (default: 0.2)")
    split.add_argument("--test", type=float, default=0.0, help="share of the patients to keep for the end")
    split.add_argument(
        "--folds", type=int, help="this many folds, in which each patient outside the test part validates once"
    )
    split.add_argument("--seed", type=int, default=0, help="of the draw")
    split.add_argument(
        "--table",
        type=Path,
        help="CSV file with the columns patient and that of --data.stratify (default: patients.csv in the root)",
    )
    left_out = {field.name for field in fields(DataConfig)} - {*READING}
    split.add_class_arguments(DataConfig, "data", skip=left_out)
    return split


def run(options: Any) -> None:
    """Runs it."""
    from brainseg.data import split_patients, write_folds, write_split
    from brainseg.training.datasets import groups, open_part

    if options.folds is not None and options.validation is not None:
        raise ValueError("--validation is the share of one split; of folds each validates on its own part")
    if options.table is not None and options.data.stratify is None:
        raise ValueError(f"--table {options.table} needs --data.stratify, the column to stratify by")
    if options.output.exists():
        raise FileExistsError(f"{options.output} is there already and never overwritten; give another --output")
    whole = open_part(options.data, None, "train")
    stratify = groups(options.data, options.table or whole.root / "patients.csv")
    drawn: dict[str, Any] = {"test": options.test, "seed": options.seed, "stratify": stratify}
    if options.folds is None:
        share = 0.2 if options.validation is None else options.validation
        parts = split_patients(whole.patients, validation=share, **drawn)
        write_split(parts, options.output)
    else:
        folds = split_patients(whole.patients, folds=options.folds, **drawn)
        write_folds(folds, options.output)
        parts = {f"fold {number}": fold["validation"] for number, fold in enumerate(folds)}
        parts |= {"test": folds[0]["test"]} if options.test else {}
    _show(parts, stratify if callable(stratify) else stratify.__getitem__, options.data.stratify or "institution")
    fold = "" if options.folds is None else " --data.fold 0"
    say(f"The split: {options.output.resolve()}. Next: brainseg train --data.split {options.output}{fold}")


def _show(parts: "Split", group_of: Any, title: str) -> None:
    """How many patients of each group are in each part."""
    from rich.table import Table

    from brainseg.report.screen import print_table

    counts = {part: Counter(map(group_of, names)) for part, names in parts.items()}
    table = Table("part", "patients", title=f"Patients by {title}")
    names = sorted({group for each in counts.values() for group in each})
    for name in names:
        table.add_column(name, justify="right")
    for part, each in counts.items():
        table.add_row(part, str(each.total()), *(str(each[name]) for name in names))
    print_table(table)
