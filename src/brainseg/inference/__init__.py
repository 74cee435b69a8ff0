"""From trained networks to masks, fast."""

from brainseg.inference.export import export
from brainseg.inference.optimize import optimize
from brainseg.inference.predictor import Predictor

__all__ = ["Predictor", "export", "optimize"]
