"""Slices and masks: read, split, cached, or made up."""

from brainseg.data.cache import Sample, SliceDataset
from brainseg.data.decode import read_image, to_unit_range
from brainseg.data.files import find_images
from brainseg.data.folder import ImageMaskFolder
from brainseg.data.lgg import LGGSegmentation, lgg_root
from brainseg.data.phantoms import Phantom, phantom, write_phantoms
from brainseg.data.samplers import ForegroundSampler, PatientSampler, UniformSampler
from brainseg.data.split import (
    LeakingSplit,
    Split,
    institution,
    read_folds,
    read_slices_leaking,
    read_split,
    split_patients,
    split_slices_leaking,
    write_folds,
    write_split,
)
from brainseg.data.tables import read_column
from brainseg.data.volumes import VolumeDataset

__all__ = [
    "ForegroundSampler",
    "ImageMaskFolder",
    "LGGSegmentation",
    "LeakingSplit",
    "PatientSampler",
    "Phantom",
    "Sample",
    "SliceDataset",
    "Split",
    "UniformSampler",
    "VolumeDataset",
    "find_images",
    "institution",
    "lgg_root",
    "phantom",
    "read_column",
    "read_folds",
    "read_image",
    "read_slices_leaking",
    "read_split",
    "split_patients",
    "split_slices_leaking",
    "to_unit_range",
    "write_folds",
    "write_phantoms",
    "write_split",
]
