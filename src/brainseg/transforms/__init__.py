"""Transforms of images and their masks: joint, batched, a draw of its own for each sample."""

from brainseg.transforms.base import Transform
from brainseg.transforms.compose import Compose, OneOf, RandomApply
from brainseg.transforms.cropping import CenterCrop, CropToHead, ForegroundCrop, PadToMultiple, RandomCrop
from brainseg.transforms.deformation import RandomAffine, RandomElastic
from brainseg.transforms.geometry import RandomFlip, RandomRotate90, RandomTranspose, Resize
from brainseg.transforms.head import head_mask
from brainseg.transforms.intensity import (
    RandomBlur,
    RandomBrightness,
    RandomContrast,
    RandomGamma,
    RandomGaussianNoise,
    RandomLowResolution,
    RandomScaleShift,
)
from brainseg.transforms.mri import (
    RandomBiasField,
    RandomChannelCopy,
    RandomChannelDropout,
    RandomGhosting,
    RandomMotion,
    RandomRicianNoise,
    RandomSpikes,
)
from brainseg.transforms.normalization import (
    ForegroundZScore,
    HeadZScore,
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
    "CropToHead",
    "ForegroundCrop",
    "ForegroundZScore",
    "HeadZScore",
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
    "RandomChannelCopy",
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
    "RandomScaleShift",
    "RandomSpikes",
    "RandomTranspose",
    "Rescale",
    "Resize",
    "SelectChannels",
    "Transform",
    "course_augmentation",
    "create_transform",
    "head_mask",
    "strong_augmentation",
]
