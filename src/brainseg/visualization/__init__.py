"""Figures: what the masks look like on the slices."""

from brainseg.visualization.outlines import draw_outlines

__all__ = ["draw_outlines"]
