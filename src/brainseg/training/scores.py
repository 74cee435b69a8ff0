"""The scores that a run logs and an evaluation reports."""

from collections.abc import Sequence
from typing import get_args

from torchmetrics import MetricCollection

from brainseg.metrics import DiceScore, IoU
from brainseg.metrics.rules import Aggregation

AGGREGATIONS: tuple[Aggregation, ...] = get_args(Aggregation)
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
