"""Compositions with a name."""

from brainseg.transforms.compose import Compose
from brainseg.transforms.deformation import RandomAffine, RandomElastic
from brainseg.transforms.geometry import RandomFlip, RandomRotate90
from brainseg.transforms.intensity import (
    RandomBlur,
    RandomBrightness,
    RandomContrast,
    RandomGamma,
    RandomGaussianNoise,
    RandomLowResolution,
)


def course_augmentation() -> Compose:
    """The augmentation of the course report: a quarter turn and a flip, each with probability 1/2.

    The turn is by 0 to 3 quarters, the flip horizontal, vertical or both, all equally likely.
    An image that is not square keeps its shape: see `RandomRotate90`.
    """
    return Compose([RandomRotate90(p=0.5), RandomFlip(axes=("horizontal", "vertical", "both"), p=0.5)])


def strong_augmentation() -> Compose:
    """Like what nnU-Net draws in two dimensions (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z), of [0, 1].

    Flips, turns by any angle, scaling and an elastic deformation, all in one interpolation; noise, blur, brightness,
    contrast, low resolution and gamma, each of few samples. Unlike there a sample is turned and scaled or neither, the
    elastic deformation is a spline, the deviation of the noise is in the image's unit, and there is no gamma of the
    inverted image.
    """
    return Compose(
        [
            RandomFlip(p=0.75),
            RandomAffine(degrees=(-180, 180), scale=(0.7, 1.4), translation=(0, 0), p=0.2),
            RandomElastic(p=0.2),
            RandomGaussianNoise(std=(0.0, 0.1), p=0.1),
            RandomBlur(sigma=(0.5, 1.0), p=0.2),
            RandomBrightness(factor=(0.75, 1.25), p=0.15),
            RandomContrast(factor=(0.75, 1.25), p=0.15),
            RandomLowResolution(zoom=(0.5, 1.0), p=0.25),
            RandomGamma(gamma=(0.7, 1.5), p=0.3),
        ]
    )
