"""The page of predictions."""

import math
from collections.abc import Sequence
from statistics import median

from brainseg.inference.measures import Measures
from brainseg.report import Page, Quantity


def prediction_page(
    title: str, rows: Sequence[Measures], class_names: Sequence[str], *, case: str, notes: Sequence[str]
) -> Page:
    """What stands on it beside the pictures.

    Args:
        title: above it.
        rows: of volumes.csv, at least one.
        class_names: of the masks, without the background.
        case: "patient" or "image".
        notes: what a reader must know, a line each.
    """
    by_patient: dict[str, list[Measures]] = {}
    for row in rows:
        by_patient.setdefault(row.patient, []).append(row)
    summary = [Quantity(f"{case}s", len(by_patient))]
    for name in class_names:
        found = [row for row in rows if row.label == name and row.voxels]
        summary.append(Quantity(f"{case}s with {name}", len(found)))
        volumes = [row.ml for row in found if not math.isnan(row.ml)]
        if volumes:
            summary.append(Quantity(f"median ml of {name} where there is any", median(volumes)))
    return Page(
        title=title,
        case=case,
        summary=summary,
        rows=[row._asdict() for row in rows],
        sorted_by="patient",
        captions={patient: "; ".join(map(_caption, of_patient)) for patient, of_patient in by_patient.items()},
        class_names=class_names,
        truth=False,
        notes=notes,
    )


def _caption(row: Measures) -> str:
    if not row.voxels:
        return f"{row.label}: nothing found"
    size = f"{row.voxels} voxels" if math.isnan(row.ml) else f"{row.ml:.3f} ml"
    return f"{row.label}: {size}"
