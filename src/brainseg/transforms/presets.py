"""Compositions with a name."""

from brainseg.transforms.compose import Compose
from brainseg.transforms.geometry import RandomFlip, RandomRotate90


def course_augmentation() -> Compose:
    """The augmentation of the course report: a quarter turn and a flip, each with probability 1/2.

    The turn is by 0 to 3 quarters, the flip horizontal, vertical or both, all equally likely.
    An image that is not square keeps its shape: see `RandomRotate90`.
    """
    return Compose([RandomRotate90(p=0.5), RandomFlip(axes=("horizontal", "vertical", "both"), p=0.5)])
