"""Writes patients of the LGG slices as NIfTI volumes, in the layout that `--data.format volumes` reads.

python docs/lgg_volumes.py volumes --patients 10
"""

import argparse
from itertools import groupby
from pathlib import Path

import nibabel
import numpy as np

from brainseg.data import LGGSegmentation, lgg_root
from brainseg.data.nifti import Grid


def write_volumes(slices: LGGSegmentation, root: Path, spacing: tuple[float, float, float] = (5.0, 1.0, 1.0)) -> None:
    """A folder for each patient, `<patient>/<patient>_flair.nii.gz` and so on; the TIFF files know no spacing.

    Args:
        slices: the patients.
        root: folder of their folders, made if absent.
        spacing: from slice to slice, row to row and column to column, in mm.
    """
    affine = np.diag([-spacing[2], -spacing[1], spacing[0], 1.0])  # columns go to the left, rows to the back
    for patient, files in groupby(enumerate(slices.files), key=lambda item: item[1].patient):
        samples = [slices[index] for index, _ in files]
        images = np.stack([(sample["image"] * 255).round().byte().numpy() for sample in samples], axis=1)
        masks = np.stack([sample["mask"][0].byte().numpy() for sample in samples])
        (root / patient).mkdir(parents=True, exist_ok=True)
        for name, volume in zip((*slices.channel_names, "seg"), (*images, masks), strict=True):
            count, height, width = volume.shape
            voxels = Grid((width, height, count), affine).from_slices(volume, "axial")
            nibabel.save(nibabel.Nifti1Image(voxels, affine), root / patient / f"{patient}_{name}.nii.gz")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--patients", type=int, default=None, help="how many, from the first; all by default")
    options = parser.parse_args()
    everyone = LGGSegmentation(lgg_root())
    write_volumes(LGGSegmentation(lgg_root(), everyone.patients[: options.patients]), options.output)
