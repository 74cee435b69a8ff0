"""Slices and masks: read, split, cached, or made up."""

from brainseg.data.phantom import Phantom, phantom

__all__ = ["Phantom", "phantom"]
