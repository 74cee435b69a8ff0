"""What the metrics compute, case by case, of tensors alone."""

from brainseg.metrics.functional.overlap import confusion_counts, dice_score, iou
from brainseg.metrics.functional.surface import (
    SurfaceMetrics,
    average_surface_distance,
    hausdorff_distance,
    normalized_surface_dice,
    surface_metrics,
)

__all__ = [
    "SurfaceMetrics",
    "average_surface_distance",
    "confusion_counts",
    "dice_score",
    "hausdorff_distance",
    "iou",
    "normalized_surface_dice",
    "surface_metrics",
]
