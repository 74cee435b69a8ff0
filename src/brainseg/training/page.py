"""The page of an evaluation."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brainseg.report import Chart, Page, Quantity, create_chart, read_rows

NO_CASES = "It is not known whose the images are: each counts as a patient."


def evaluation_page(
    title: str,
    *,
    charts: Sequence[Chart],
    case: str,
    class_names: Sequence[str],
    summary: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
    patients: Sequence[Mapping[str, Any]],
    dice: Mapping[str, float],
    institutions: Sequence[Mapping[str, Any]],
) -> Page:
    """What stands on it beside the pictures; the worst patients come first, those without a score last.

    Args:
        title: of the page.
        charts: such as the `curves_of_run`.
        case: "patient" or "image".
        class_names: of those that are scored.
        summary: as in summary.json.
        intervals: of 95 %, by the name of the mean in the summary.
        patients: as in patients.csv.
        dice: of each patient, over the classes.
        institutions: as in institutions.csv.
    """

    def order(row: Mapping[str, Any]) -> tuple[bool, float]:
        score = dice[row["patient"]]
        return math.isnan(score), score

    # On a phone the first columns are those that are seen.
    last = ("institution", "slices", "tumour_slices")
    rows = [{**{k: row[k] for k in row if k not in last}, **{k: row[k] for k in last}} for row in patients]

    return Page(
        title=title,
        case=case,
        summary=_quantities(summary, intervals),
        rows=sorted(rows, key=order),
        sorted_by="dice" if "dice" in rows[0] else None,
        captions={
            patient: "nothing there, nothing found" if math.isnan(score) else f"Dice {score:.3f}"
            for patient, score in dice.items()
        },
        class_names=class_names,
        truth=True,
        groups=institutions if len(institutions) > 1 else (),
        charts=charts,
        notes=[NO_CASES] if case == "image" else [],
    )


def _quantities(summary: Mapping[str, float], intervals: Mapping[str, tuple[float, float]]) -> list[Quantity]:
    """The scores, each with its interval, the mean of patients first."""
    first = "mean patient Dice"
    names = [first, *(name for name in summary if name != first and not name.startswith("its 95 % interval"))]
    return [Quantity(name, summary[name], intervals.get(name)) for name in names]


def curves_of_run(run: Path, monitor: str) -> list[Chart]:
    """Losses, and the score that chose the weights beside the Dice of validation patients; none without their table.

    Args:
        run: its folder.
        monitor: the column of metrics.csv that chose the weights.
    """
    if not (run / "metrics.csv").is_file():
        return []
    rows = read_rows(run / "metrics.csv")
    if not rows:
        return []
    epochs = [int(row["epoch"]) for row in rows]
    best = run / "best" / "metrics.json"
    kept = int(json.loads(best.read_text())["epoch"]) if best.is_file() else None
    scores = [name for name in rows[0] if name == monitor != "val_loss" or name.startswith("val_dice_patient")]
    columns: dict[str, list[str]] = {
        "Loss": [name for name in ("train_loss", "val_loss") if name in rows[0]],
        "Scores on validation patients": scores,
    }
    return [
        create_chart(title, epochs, {name: [float(row[name] or "nan") for row in rows] for name in names}, kept=kept)
        for title, names in columns.items()
        if names
    ]
