"""From trained networks to masks, fast."""

from brainseg.inference.components import postprocess
from brainseg.inference.exported import export
from brainseg.inference.measures import Measures, measure
from brainseg.inference.optimized import optimize
from brainseg.inference.predictor import Ensemble, Predictor
from brainseg.inference.symmetries import mean_over_symmetries
from brainseg.inference.windows import mean_over_windows

__all__ = [
    "Ensemble",
    "Measures",
    "Predictor",
    "export",
    "mean_over_symmetries",
    "mean_over_windows",
    "measure",
    "optimize",
    "postprocess",
]
