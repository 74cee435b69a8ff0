"""`brainseg experiment`."""

from pathlib import Path
from typing import Any

from brainseg.cli.output import say
from brainseg.cli.parser import Parser, add_memory_option
from brainseg.training.experiments import EXPERIMENTS, run_experiment


def parser() -> Parser:
    """Its options."""
    experiment = Parser(
        description="Train and evaluate a published experiment; without a name, list them. Started again, it goes on."
    )
    experiment.add_argument("name", nargs="?", choices=list(EXPERIMENTS), help="which")
    experiment.add_argument(
        "--data", type=Path, help="folder of the LGG slices (default: that of BRAINSEG_LGG, else ~/.cache/brainseg/lgg)"
    )
    experiment.add_argument(
        "--split",
        type=Path,
        help="JSON file, such as split.json of a run (default: the published draw of slices; by patient split.json of "
        "the data)",
    )
    experiment.add_argument("--run", type=Path, help="folder of the run (default: runs/NAME)")
    add_memory_option(experiment)
    return experiment


def run(options: Any) -> None:
    """Runs it."""
    if options.name is None:
        for name, experiment in EXPERIMENTS.items():
            published = (
                f", as published with IoU / Dice {experiment.reported}" if experiment.split_by == "slice" else ""
            )
            say(f"{name:18} {experiment.setting}, split by {experiment.split_by}{published}")
        return
    folder = options.run or Path("runs") / options.name
    run_experiment(options.name, folder, root=options.data, split=options.split).show()
