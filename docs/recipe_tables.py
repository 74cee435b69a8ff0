"""Writes the tables of docs/recipe.md, README and the model card of `unext/lgg`, from those that docs/recipe keeps.

    python docs/recipe_tables.py

`recipe/score.py` makes patients.csv, of every patient by the network of arm g that has not seen it, half/patients.csv
with parameters in float16, and those of other arms in a folder each; `recipe/robustness.py` makes robustness.csv.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, median

sys.path.insert(0, str(Path(__file__).parents[1]))
from docs.blocks import with_blocks

from brainseg.metrics import compare, confidence_interval
from brainseg.models.shipped import SHIPPED
from brainseg.report import read_rows

HERE = Path(__file__).parent
TABLES = HERE / "recipe"
CARDS = tuple(SHIPPED / network / "lgg" / "README.md" for network in ("unext", "unext_small"))
PAGES = (HERE.parent / "README.md", HERE / "recipe.md", *CARDS)

Rows = list[dict[str, str]]

PREDICTIONS = {
    "slice": "each slice by itself",
    "smoothed": "neighbours smoothed (0.2, 0.6, 0.2)",
    "likeliest": "of these the likeliest components of the volume",
    "largest": "of these the largest component alone",
    "whole": "each slice by itself, all of it in place of the part around the head",
}
STEPS = [
    ("slice", "whole", "part around the head, 192x192", "**kept**, in the spec of the weights"),
    ("smoothed", "slice", "neighbours smoothed (0.2, 0.6, 0.2)", "**kept**, for all slices of a patient"),
    ("likeliest", "smoothed", "of these the likeliest components", "**kept**, for all slices of a patient"),
    ("largest", "smoothed", "of these the largest component alone", "dropped: TCGA_CS_5395 loses its tumour"),
]
ARM_E = "arm_e/patients.csv"
# Of fold 0, in a folder each; what has none was not run.
ARMS = {
    "longer": "g0: 8,000 more steps from the weights of e, at half the rate; FLAIR in place of pre-contrast alone too",
    "snapshots": "mean probabilities of e and g0, the snapshots of one training",
    "second_seed": "h: e with another seed",
    "deep_supervision": "i: e with deep supervision",
    "distilled": "j: half of the target is the mean of e, g0 and h",
    "neighbours": "k: the slices before and after as further channels",
    "default": "`default` of `brainseg train`, 20 epochs, last weights",
}


def read(path: str, *, of: Rows | None = None) -> Rows:
    """The rows of a table; with others, those of their patients."""
    rows = read_rows(TABLES / path)
    return rows if of is None else [row for row in rows if row["patient"] in {each["patient"] for each in of}]


def values(rows: Rows, column: str) -> dict[str, float]:
    return {row["patient"]: float(row[column]) for row in rows}


def mean(scores: dict[str, float]) -> str:
    """With its interval where there are two patients or more."""
    found = f"{fmean(scores.values()):.3f}"
    if len(scores) == 1:
        return found
    interval = confidence_interval(scores)
    return f"{found} ({interval.lower:.3f} to {interval.upper:.3f})"


def score(scores: dict[str, float]) -> str:
    """Mean with its interval, and median."""
    return f"{mean(scores)} | {median(scores.values()):.3f}"


def difference(a: dict[str, float], b: dict[str, float], digits: int = 3) -> str:
    """Its mean with the interval, and what the patient lost who lost most."""
    found = compare(a, b)
    worst = min(a[patient] - b[patient] for patient in a)
    change, lower, upper, least = (
        f"{value:+.{digits}f}" for value in (found.difference, found.lower, found.upper, worst)
    )
    return f"{change} ({lower} to {upper}) | {least}"


def reached() -> str:
    lines = ["| prediction | mean Dice (95 % interval) | median |", "|---|---|---|"]
    rows = read("patients.csv")
    return "\n".join([*lines, *(f"| {what} | {score(values(rows, name))} |" for name, what in PREDICTIONS.items())])


def shipped() -> str:
    """What README shows."""
    rows = read("patients.csv")
    return (
        f"| prediction, {len(rows)} patients | mean Dice (95 % interval) | median |\n|---|---|---|\n"
        f"| each slice by itself | {score(values(rows, 'slice'))} |\n"
        f"| all slices of a patient together | {score(values(rows, 'likeliest'))} |"
    )


def groups() -> str:
    """Of the institutions and of the sequences that are missing."""
    lines = ["| patients | number | each slice by itself | median | all slices together | median |"]
    lines.append("|---|---|---|---|---|---|")
    rows = read("patients.csv")
    for column in ("institution", "missing"):
        for group in sorted({row[column] for row in rows}):
            members = [row for row in rows if row[column] == group]
            name = group if column == "institution" else f"missing: {group}"
            alone, together = (score(values(members, kind)) for kind in ("slice", "likeliest"))
            lines.append(f"| {name} | {len(members)} | {alone} | {together} |")
    return "\n".join(lines)


def steps() -> str:
    lines = ["| step | patients | difference of mean Dice (95 % interval) | worst | |", "|---|---|---|---|---|"]
    rows = read("patients.csv")
    for name, before, what, outcome in STEPS:
        change = difference(values(rows, name), values(rows, before))
        lines.append(f"| {what} | {len(rows)} | {change} | {outcome} |")
    return "\n".join(lines)


def faults() -> str:
    """Arm e beside arm a, on the patients of fold 0."""
    without = read("arm_a/patients.csv")
    title = "faults of the scanner in training, e beside a"
    return _changes(title, read(ARM_E, of=without), without, ("slice", "likeliest", "whole"))


def longer() -> str:
    """Arms g0 to g4 beside e, on all patients."""
    title = "12,000 steps, g0 to g4, beside the 4,000 of e"
    return _changes(title, read("patients.csv"), read(ARM_E), ("slice", "likeliest", "whole"))


def arms() -> str:
    """Arms of fold 0 beside e: each slice by itself, and all slices of a patient together."""
    titles = ["each slice by itself", "beside e", "worst", "all slices together", "beside e", "worst"]
    lines = [f"| arm, 16 patients | {' | '.join(titles)} |", f"|---|{'---|' * len(titles)}"]
    for folder, what in ARMS.items():
        if not (TABLES / folder / "patients.csv").exists():
            lines.append(f"| {what} |{' not run |' * len(titles)}")
            continue
        rows = read(f"{folder}/patients.csv")
        beside = read(ARM_E, of=rows)
        cells = []
        for name in ("slice", "likeliest"):
            found = values(rows, name)
            cells += [mean(found), difference(found, values(beside, name))]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def small() -> str:
    """`unext_small` on the patients of fold 0, beside `unext`."""
    lines = ["| prediction | `unext_small` | median | beside `unext` | worst |", "|---|---|---|---|---|"]
    rows = read("unext_small/patients.csv")
    beside = read(ARM_E, of=rows)
    for name in ("slice", "likeliest"):
        found = values(rows, name)
        lines.append(f"| {PREDICTIONS[name]} | {score(found)} | {difference(found, values(beside, name))} |")
    return "\n".join(lines)


def half() -> str:
    """Parameters as they are stored in the package, beside those of training, of arm e."""
    title = "parameters in float16, beside float32, arm e"
    return _changes(title, read("half/patients.csv"), read(ARM_E), ("slice", "likeliest"), digits=5)


def _changes(title: str, rows: Rows, beside: Rows, names: Sequence[str], *, digits: int = 3) -> str:
    """A table of the differences of predictions, patient by patient."""
    lines = [f"| {title} | patients | difference | worst |", "|---|---|---|---|"]
    for name in names:
        change = difference(values(rows, name), values(beside, name), digits)
        lines.append(f"| {PREDICTIONS[name]} | {len(rows)} | {change} |")
    return "\n".join(lines)


def robustness() -> str:
    lines = ["| fault | strength | mean Dice (95 % interval) | change |", "|---|---|---|---|"]
    for row in read("robustness.csv"):
        interval = f"{float(row['mean']):.3f} ({float(row['lower']):.3f} to {float(row['upper']):.3f})"
        lines.append(f"| {row['fault']} | {row['strength']} | {interval} | {float(row['change']):+.3f} |")
    return "\n".join(lines)


DRAWN: dict[str, Callable[[], str]] = {
    function.__name__: function
    for function in (reached, shipped, groups, steps, faults, longer, arms, small, half, robustness)
}


def with_tables(page: str) -> str:
    """The page with every table as it comes out now."""
    return with_blocks(page, lambda name, _: DRAWN[name]())


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(with_tables(path.read_text()))
