"""The scores that a run logs and an evaluation reports."""

from collections.abc import Sequence
from typing import Any, get_args

from torchmetrics import MetricCollection

from brainseg.metrics import (
    AverageSurfaceDistance,
    DiceScore,
    HausdorffDistance,
    IoU,
    LesionDetection,
    NormalizedSurfaceDice,
    Precision,
    Recall,
)
from brainseg.metrics.rules import Aggregation

AGGREGATIONS: tuple[Aggregation, ...] = get_args(Aggregation)
TOLERANCE = 2.0
"""Pixels within which a boundary is right."""
BY_SLICE = {
    "hd95": "HD95, pixels",
    "assd": "ASSD, pixels",
    "nsd": f"NSD within {TOLERANCE:g} pixels",
    "lesion_f1": "lesion F1",
    "false_lesions": "false lesions",
}
"""Those of `create_details` that score slices, and what they are called in tables."""
MONITORS = ("val_loss", *(f"val_{score}_{over}" for score in ("dice", "iou") for over in AGGREGATIONS))


def create_scores(
    num_classes: int,
    *,
    aggregations: Sequence[Aggregation] = AGGREGATIONS,
    threshold: float = 0.5,
    prefix: str | None = None,
) -> MetricCollection:
    """Dice and IoU under names such as `dice_patient`, with a prefix if one is given."""
    return MetricCollection(
        {
            f"{name}_{over}": score(num_classes, aggregation=over, threshold=threshold)
            for name, score in (("dice", DiceScore), ("iou", IoU))
            for over in aggregations
        },
        prefix=prefix,
    )


def create_details(num_classes: int, *, threshold: float = 0.5) -> MetricCollection:
    """What an evaluation reports beside Dice and IoU: of patients sensitivity and precision, of slices `BY_SLICE`.

    Distances are in pixels, since image files know no spacing.
    """
    common: dict[str, Any] = {"num_classes": num_classes, "threshold": threshold}
    return MetricCollection(
        {
            "recall": Recall(aggregation="patient", **common),
            "precision": Precision(aggregation="patient", **common),
            "hd95": HausdorffDistance(percentile=95, **common),
            "assd": AverageSurfaceDistance(**common),
            "nsd": NormalizedSurfaceDice(tolerance=TOLERANCE, **common),
            "lesion_f1": LesionDetection(measure="f1", **common),
            "false_lesions": LesionDetection(measure="false_positives", **common),
        }
    )
