"""Scores of masks: by slice, by patient or pooled, with one rule for empty masks."""

from importlib.util import find_spec

from brainseg._torchvision import make_importable

if lacking := [name for name in ("torchmetrics", "scipy") if find_spec(name) is None]:
    raise ImportError(f'metrics need {" and ".join(lacking)}: pip install "brainseg-torch[metrics]"')
make_importable()

from brainseg.metrics.boundary import BoundaryIoU  # noqa: E402
from brainseg.metrics.cases import Case  # noqa: E402
from brainseg.metrics.centreline import ClDiceScore  # noqa: E402
from brainseg.metrics.detection import MeanAveragePrecision, PanopticQuality  # noqa: E402
from brainseg.metrics.lesions import LesionDetection  # noqa: E402
from brainseg.metrics.overlap import (  # noqa: E402
    ConfusionCounts,
    DiceScore,
    FBeta,
    IoU,
    Precision,
    Recall,
    Specificity,
    VolumeDifference,
)
from brainseg.metrics.rules import MetricResult  # noqa: E402
from brainseg.metrics.statistics import Comparison, Interval, compare, confidence_interval  # noqa: E402
from brainseg.metrics.surface import (  # noqa: E402
    AverageSurfaceDistance,
    HausdorffDistance,
    MeanAverageSurfaceDistance,
    NormalizedSurfaceDice,
)
from brainseg.metrics.tables import read_cases, write_cases  # noqa: E402

__all__ = [
    "AverageSurfaceDistance",
    "BoundaryIoU",
    "Case",
    "ClDiceScore",
    "Comparison",
    "ConfusionCounts",
    "DiceScore",
    "FBeta",
    "HausdorffDistance",
    "Interval",
    "IoU",
    "LesionDetection",
    "MeanAveragePrecision",
    "MeanAverageSurfaceDistance",
    "MetricResult",
    "NormalizedSurfaceDice",
    "PanopticQuality",
    "Precision",
    "Recall",
    "Specificity",
    "VolumeDifference",
    "compare",
    "confidence_interval",
    "read_cases",
    "write_cases",
]
