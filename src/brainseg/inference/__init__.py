"""From a trained network to predictions."""

from brainseg.inference.optimize import optimize

__all__ = ["optimize"]
