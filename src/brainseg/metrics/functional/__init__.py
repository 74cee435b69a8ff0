"""What the metrics compute, case by case, of tensors alone."""

from brainseg.metrics.functional.boundary import boundary_iou
from brainseg.metrics.functional.centreline import cldice_score
from brainseg.metrics.functional.lesions import LesionScores, lesion_detection
from brainseg.metrics.functional.overlap import (
    confusion_counts,
    dice_score,
    f_beta,
    iou,
    precision,
    recall,
    specificity,
    volume_difference,
)
from brainseg.metrics.functional.surface import (
    SurfaceMetrics,
    average_surface_distance,
    hausdorff_distance,
    mean_average_surface_distance,
    normalized_surface_dice,
    surface_metrics,
)

__all__ = [
    "LesionScores",
    "SurfaceMetrics",
    "average_surface_distance",
    "boundary_iou",
    "cldice_score",
    "confusion_counts",
    "dice_score",
    "f_beta",
    "hausdorff_distance",
    "iou",
    "lesion_detection",
    "mean_average_surface_distance",
    "normalized_surface_dice",
    "precision",
    "recall",
    "specificity",
    "surface_metrics",
    "volume_difference",
]
