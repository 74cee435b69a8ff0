"""The LGG brain MRI slices, as Kaggle's archive lays them out."""

import os
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from brainseg.data.cache import SliceDataset, SliceFiles
from brainseg.data.files import find_images, name_of, one_spelling, subfolders, what_lies_in
from brainseg.data.labels import Labels, Task

NAME = re.compile(r"(?P<patient>.+)_(?P<slice>\d+)(?P<mask>_mask)?", re.IGNORECASE)
SUFFIXES = (".tif", ".tiff", ".png")
LAYOUT = "<patient>_<slice>.tif and <patient>_<slice>_mask.tif (or .tiff, .png)"


class LGGSegmentation(SliceDataset):
    """LGG MRI Segmentation (Buda, Saha and Mazurowski 2019, doi:10.1016/j.compbiomed.2019.05.002).

    110 patients, 3929 axial slices of 256x256 with three sequences (pre-contrast, FLAIR, post-contrast; a missing one
    repeats FLAIR), about a third of them with tumour. Items are `Sample`s: image (3, 256, 256) float32 in [0, 1], mask
    (1, 256, 256), patient (its folder), slice (its number). They come sorted by patient, then by the slice's number.

    Args:
        root: the folder that holds a folder for each patient, with `<patient>_<slice>.tif` and
            `<patient>_<slice>_mask.tif`; .tiff and .png too, in any case. Hidden files and files that are no images
            (`find_images`) are left out.
        patients: names of the folders to use; None for all.
        task: "binary", or "multiclass" for numbers of two classes, background and tumour; None for "binary".
        cache_dir: where decoded slices are kept; the user's cache folder by default.

    Raises:
        FileNotFoundError: no such root, no slices in it or in one of its folders, or a slice without its mask (or a
            mask without its slice).
        ValueError: unknown patients, images that are no slice of their folder's patient, or files that cannot be used,
            by name.
    """

    # By the names that BraTS gave to files.
    channel_names = ("t1", "flair", "t1ce")

    def __init__(
        self,
        root: str | Path,
        patients: Sequence[str] | None = None,
        *,
        task: Task | None = None,
        cache_dir: str | Path | None = None,
    ) -> None:
        root = Path(root).expanduser()
        super().__init__(root, _index(root, cache_dir), patients, cache_dir)
        self.labels = Labels.of_masks(1, ["tumour"], task)
        for files, shape in zip(self.files, self.shapes, strict=True):
            if shape[0] != 3:
                raise ValueError(
                    f"{files.images[0]} has {shape[0]} channel, expected 3 (pre-contrast, FLAIR, post-contrast); "
                    "use ImageMaskFolder for other images"
                )


def lgg_root() -> Path:
    """Where the LGG data is looked for: the folder that BRAINSEG_LGG names, else ~/.cache/brainseg/lgg."""
    return Path(os.environ.get("BRAINSEG_LGG") or "~/.cache/brainseg/lgg").expanduser()


def _index(root: Path, cache_dir: str | Path | None) -> list[SliceFiles]:
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}; give the one that holds the patients' folders")
    patients = {folder: _slices(folder) for folder in subfolders(root, cache_dir)}
    slices = [files for found in patients.values() for files in found]
    if not slices:
        raise FileNotFoundError(f"{root} holds no patients: {_where(root)}")
    for folder, found in patients.items():
        if not found:
            raise FileNotFoundError(
                f"{folder} holds no slices, {what_lies_in(folder)}; expected {LAYOUT}: copy them again, or move the "
                "folder away if it is no patient's"
            )
    known = {files.patient for files in slices}
    for path in root.iterdir():
        match = NAME.fullmatch(name_of(path))
        if match and path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and match["patient"] in known:
            raise ValueError(f"{path} lies beside the patients' folders; move it to {match['patient']}")
    slices.sort(key=lambda files: (files.patient, files.slice))
    for first, second in pairwise(slices):
        if first[:2] == second[:2]:
            one, other = first.images[0], second.images[0]
            name = other.name if other.parent == one.parent else other
            raise ValueError(f"{one} and {name} are both slice {first.slice}; keep one of them")
    return slices


def _slices(folder: Path) -> list[SliceFiles]:
    """The slices of a patient with their masks; none if no image here is named as one."""
    images = find_images(folder)
    if not any(path.parent == folder and NAME.fullmatch(name_of(path)) for path in images):
        return []
    patient = one_spelling(folder.name)
    found: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    for path in images:
        match = NAME.fullmatch(name_of(path))
        if match is None or path.suffix.lower() not in SUFFIXES or path.parent != folder:
            raise ValueError(f"{path} is no slice of {patient}; expected {LAYOUT}: rename it, or move it away")
        if match["patient"] != patient:
            raise ValueError(f"{path} lies in the folder of {patient}; move it to its patient's")
        name = f"{patient}_{match['slice']}"
        same = masks if match["mask"] else found
        if name in same:
            raise ValueError(f"{same[name]} and {path.name} are both slice {match['slice']}; keep one of them")
        same[name] = path
    for name, path in found.items():
        if name not in masks:
            raise FileNotFoundError(f"{path} has no mask; expected {name}_mask{path.suffix} beside it")
    if alone := sorted(masks.keys() - found.keys()):
        raise FileNotFoundError(f"{masks[alone[0]]} is a mask without its slice; copy the slice again")
    return [
        SliceFiles(patient, int(name.rpartition("_")[2]), (path,), (masks[name],))
        for name, path in sorted(found.items())
    ]


def _where(root: Path) -> str:
    """Whether the patients are one level higher or lower."""
    if any(path.suffix.lower() in SUFFIXES and NAME.fullmatch(name_of(path)) for path in root.iterdir()):
        return f"it is a patient's own folder; give its parent {root.resolve().parent}"
    images = find_images(root)
    for path in images:
        if len(path.relative_to(root).parts) == 3 and NAME.fullmatch(name_of(path)):
            return f"they are one level lower; give {path.parent.parent}"
    return f"expected a folder for each patient with {LAYOUT}, but {what_lies_in(root)}"
