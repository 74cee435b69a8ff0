"""Writes folds.json: five folds of the patients, in proportion of institutions and of missing sequences.

    python docs/recipe/folds.py [--root FOLDER] [--output docs/recipe/folds.json]

A sequence is missing where its channel repeats FLAIR in every slice. Patients are shuffled, sorted by what they
miss and by institution, and dealt one by one, those with a missing sequence first, to the fold that has fewest of their
kind.
"""

import argparse
import json
import random
from collections import defaultdict
from pathlib import Path

from brainseg.data import LGGSegmentation, institution, lgg_root

FOLDS = 5
SEED = 27
PRE, FLAIR, POST = 0, 1, 2


def missing_sequences(data: LGGSegmentation) -> dict[str, str]:
    """What each patient misses: "nothing", "post", "pre" or "pre and post"."""
    repeats: dict[str, set[int]] = defaultdict(lambda: {PRE, POST})
    for number, files in enumerate(data.files):
        image = data[number]["image"]
        repeats[files.patient] &= {channel for channel in (PRE, POST) if image[channel].equal(image[FLAIR])}
    names = {PRE: "pre", POST: "post"}
    return {
        patient: " and ".join(names[channel] for channel in sorted(repeats[patient])) or "nothing"
        for patient in data.patients
    }


def deal(missing: dict[str, str]) -> list[list[str]]:
    """The patients of each fold."""
    patients = sorted(missing)
    random.Random(SEED).shuffle(patients)
    patients.sort(key=lambda patient: (missing[patient] == "nothing", missing[patient], institution(patient)))
    folds: list[list[str]] = [[] for _ in range(FOLDS)]
    for patient in patients:
        misses, where = missing[patient] != "nothing", institution(patient)

        def taken(fold: list[str], misses: bool = misses, where: str = where) -> tuple[int, int, int]:
            alike = sum(missing[other] != "nothing" for other in fold) if misses else 0
            return alike, sum(institution(other) == where for other in fold), len(fold)

        min(folds, key=taken).append(patient)
    return [sorted(fold) for fold in folds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=lgg_root())
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("folds.json"))
    arguments = parser.parse_args()
    missing = missing_sequences(LGGSegmentation(arguments.root))
    described = {
        "seed": SEED,
        "missing": {patient: what for patient, what in missing.items() if what != "nothing"},
        "folds": deal(missing),
    }
    arguments.output.write_text(json.dumps(described, indent=1) + "\n")


if __name__ == "__main__":
    main()
