"""Transforms of images and their masks: joint, batched, a draw of its own for each sample."""

from brainseg.transforms.base import Transform
from brainseg.transforms.compose import Compose, OneOf, RandomApply
from brainseg.transforms.cropping import CenterCrop, ForegroundCrop, PadToMultiple, RandomCrop
from brainseg.transforms.deformation import RandomAffine, RandomElastic
from brainseg.transforms.geometry import RandomFlip, RandomRotate90, RandomTranspose, Resize
from brainseg.transforms.intensity import (
    RandomBlur,
    RandomBrightness,
    RandomContrast,
    RandomGamma,
    RandomGaussianNoise,
    RandomLowResolution,
)
from brainseg.transforms.mri import (
    RandomBiasField,
    RandomChannelDropout,
    RandomGhosting,
    RandomMotion,
    RandomRicianNoise,
    RandomSpikes,
)
from brainseg.transforms.normalization import (
    ForegroundZScore,
    MinMaxNormalize,
    Normalize,
    PercentileNormalize,
    Rescale,
    SelectChannels,
)
from brainseg.transforms.presets import course_augmentation, strong_augmentation
from brainseg.transforms.registry import create_transform

__all__ = [
    "CenterCrop",
    "Compose",
    "ForegroundCrop",
    "ForegroundZScore",
    "MinMaxNormalize",
    "Normalize",
    "OneOf",
    "PadToMultiple",
    "PercentileNormalize",
    "RandomAffine",
    "RandomApply",
    "RandomBiasField",
    "RandomBlur",
    "RandomBrightness",
    "RandomChannelDropout",
    "RandomContrast",
    "RandomCrop",
    "RandomElastic",
    "RandomFlip",
    "RandomGamma",
    "RandomGaussianNoise",
    "RandomGhosting",
    "RandomLowResolution",
    "RandomMotion",
    "RandomRicianNoise",
    "RandomRotate90",
    "RandomSpikes",
    "RandomTranspose",
    "Rescale",
    "Resize",
    "SelectChannels",
    "Transform",
    "course_augmentation",
    "create_transform",
    "strong_augmentation",
]
