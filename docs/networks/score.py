"""Scores the runs of `docs.networks.train` that have ended: patients.csv and trained.csv beside this file.

    python -m docs.networks.score runs/fair

patients.csv: Dice of every patient of the fold by every network, each slice by itself; "whole", the network sees all of
the slice, "part", the part of 192x192 around the head alone. trained.csv: steps, seconds of the processor for all of
them on one thread, and the loss of the last 50. Probabilities are kept in the run's folder, as the recipe's are.
"""

import argparse
import json
from pathlib import Path

from docs.networks.train import RUNS, folder_of
from docs.recipe.score import HERE as RECIPE
from docs.recipe.score import dice, predict

from brainseg.data import institution, lgg_root
from brainseg.report import read_rows, write_rows

HERE = Path(__file__).parent
FOLD = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of the runs")
    parser.add_argument("--root", type=Path, default=lgg_root(), help="folder of the patients' folders")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of the tables")
    arguments = parser.parse_args()

    unseen = json.loads((RECIPE / "folds.json").read_text())["folds"][FOLD]
    rows, trained = [], []
    for network in (row["network"] for row in read_rows(RUNS)):
        run = folder_of(network, arguments.runs)
        if not (run / "weights" / "model.safetensors").exists():
            continue
        last = read_rows(run / "losses.csv")[-1]
        trained.append({"network": network, **{name: last[name] for name in ("step", "seconds", "loss")}})
        for patient in unseen:
            target, part, whole = predict([run], patient, arguments.root)
            about = {"network": network, "patient": patient, "institution": institution(patient)}
            about |= {"slices": len(target), "tumour": int(target.sum())}
            scores = {name: round(dice(found > 0.5, target), 5) for name, found in (("whole", whole), ("part", part))}
            rows.append(about | scores)
        print(network, flush=True)
        write_rows(rows, arguments.output / "patients.csv")
        write_rows(trained, arguments.output / "trained.csv")


if __name__ == "__main__":
    main()
