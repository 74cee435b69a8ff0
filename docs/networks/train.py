"""Trains the networks of runs.csv one after the other, each as README.md says; started again, it goes on where it was.

python -m docs.networks.train runs/fair            # all of them
python -m docs.networks.train runs/fair unext      # these
"""

import argparse
import shlex
from pathlib import Path

from docs.recipe.train import create_parser, load, seen, train

from brainseg.memory import keep_freed_memory
from brainseg.report import read_rows

RUNS = Path(__file__).with_name("runs.csv")
RECIPE = "--fold 0 --seed 0 --steps 1200 --warm-up 150 --average 0.995 --faulty 0.3"


def folder_of(network: str, runs: Path) -> Path:
    return runs / network.replace(" ", "_")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder of the runs, a folder each")
    parser.add_argument("networks", nargs="*", help="names of runs.csv; all if there are none")
    arguments = parser.parse_args()
    rows = [row for row in read_rows(RUNS) if row["network"] in (arguments.networks or [row["network"]])]

    keep_freed_memory()
    patients = None
    for row in rows:
        run = folder_of(row["network"], arguments.output)
        options = [*shlex.split(RECIPE), "--model", row["model"], *shlex.split(row["options"]), "--output", str(run)]
        chosen = create_parser().parse_args(options)
        if patients is None:
            patients = load(chosen.root, seen(chosen))
        print(row["network"], flush=True)
        train(chosen, patients)


if __name__ == "__main__":
    main()
