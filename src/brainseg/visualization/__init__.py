"""Figures: what the masks look like on the slices."""

from brainseg.visualization.brightness import brightened
from brainseg.visualization.cases import ShownCase, draw_cases
from brainseg.visualization.instances import draw_instances
from brainseg.visualization.outlines import draw_outlines

__all__ = ["ShownCase", "brightened", "draw_cases", "draw_instances", "draw_outlines"]
