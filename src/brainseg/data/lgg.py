"""The LGG brain MRI slices, as Kaggle's archive lays them out."""

import os
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from brainseg.data.cache import SliceDataset, SliceFiles

IMAGE = re.compile(r"(?P<patient>.+)_(?P<slice>\d+)\.tif")


class LGGSegmentation(SliceDataset):
    """LGG MRI Segmentation (Buda, Saha and Mazurowski 2019, doi:10.1016/j.compbiomed.2019.05.002).

    110 patients, 3929 axial slices of 256x256 with three sequences (pre-contrast, FLAIR, post-contrast; a missing one
    repeats FLAIR), about a third of them with tumour. Items are `Sample`s: image (3, 256, 256) float32 in [0, 1], mask
    (1, 256, 256), patient (its folder), slice (its number). They come sorted by patient, then by the slice's number.

    Args:
        root: the folder that holds a folder for each patient, with `<patient>_<slice>.tif` and
            `<patient>_<slice>_mask.tif`.
        patients: names of the folders to use; None for all.
        cache_dir: where decoded slices are kept; the user's cache folder by default.

    Raises:
        FileNotFoundError: no such root, no slices in it, or a slice without its mask (or a mask without its slice).
        ValueError: unknown patients, or files that cannot be used, by name.
    """

    def __init__(
        self, root: str | Path, patients: Sequence[str] | None = None, *, cache_dir: str | Path | None = None
    ) -> None:
        root = Path(root).expanduser()
        super().__init__(root, _index(root), patients, cache_dir)
        for files, shape in zip(self.files, self.shapes, strict=True):
            if shape[0] != 3:
                raise ValueError(
                    f"{files.image} has {shape[0]} channel, expected 3 (pre-contrast, FLAIR, post-contrast); "
                    "use ImageMaskFolder for other images"
                )


def lgg_root() -> Path:
    """Where the LGG data is looked for: the folder that BRAINSEG_LGG names, else ~/.cache/brainseg/lgg."""
    return Path(os.environ.get("BRAINSEG_LGG") or "~/.cache/brainseg/lgg").expanduser()


def _index(root: Path) -> list[SliceFiles]:
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}; give the one that holds the patients' folders")
    slices = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        masks = {name for name in names if name.endswith("_mask.tif")}
        for match in filter(None, map(IMAGE.fullmatch, names)):
            if match["patient"] != folder.name:
                raise ValueError(
                    f"{folder / match.string} lies in the folder of {folder.name}; move it to its patient's"
                )
            mask = f"{match.string.removesuffix('.tif')}_mask.tif"
            if mask not in masks:
                raise FileNotFoundError(f"{folder / match.string} has no mask; expected {mask} beside it")
            masks.remove(mask)
            slices.append(SliceFiles(folder.name, int(match["slice"]), folder / match.string, (folder / mask,)))
        if masks:
            raise FileNotFoundError(f"{folder / min(masks)} is a mask without its slice; copy the slice again")
    if not slices:
        raise FileNotFoundError(f"{root} holds no patients: {_where(root)}")
    slices.sort(key=lambda files: (files.patient, files.slice))
    for first, second in pairwise(slices):
        if first[:2] == second[:2]:
            raise ValueError(f"{first.image} and {second.image.name} are both slice {first.slice}; keep one of them")
    return slices


def _where(root: Path) -> str:
    """Whether the patients are one level higher or lower."""
    if any(IMAGE.fullmatch(path.name) for path in root.iterdir()):
        return f"it is a patient's own folder; give its parent {root.resolve().parent}"
    for path in root.glob("*/*/*.tif"):
        return f"they are one level lower; give {path.parent.parent}"
    return "expected a folder for each patient with <patient>_<slice>.tif and <patient>_<slice>_mask.tif"
