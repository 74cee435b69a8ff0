"""Scores of masks: by slice, by patient or pooled, with one rule for empty masks."""

from importlib.util import find_spec

from brainseg._torchvision import make_importable

if lacking := [name for name in ("torchmetrics", "scipy") if find_spec(name) is None]:
    raise ImportError(f'metrics need {" and ".join(lacking)}: pip install "brainseg-torch[metrics]"')
make_importable()

from brainseg.metrics.cases import Case  # noqa: E402
from brainseg.metrics.overlap import DiceScore, IoU  # noqa: E402
from brainseg.metrics.rules import MetricResult  # noqa: E402
from brainseg.metrics.statistics import Interval, confidence_interval  # noqa: E402
from brainseg.metrics.surface import AverageSurfaceDistance, HausdorffDistance, NormalizedSurfaceDice  # noqa: E402

__all__ = [
    "AverageSurfaceDistance",
    "Case",
    "DiceScore",
    "HausdorffDistance",
    "Interval",
    "IoU",
    "MetricResult",
    "NormalizedSurfaceDice",
    "confidence_interval",
]
