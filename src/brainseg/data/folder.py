"""Anyone's images and masks in two folders."""

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from brainseg.data.cache import SliceDataset, SliceFiles
from brainseg.data.decode import read_image, read_label_map
from brainseg.data.files import find_images, name_of, one_spelling, subfolders, what_lies_in
from brainseg.data.labels import IGNORED, Classes, Labels, Task
from brainseg.data.patients import places_of


class ImageMaskFolder(SliceDataset):
    r"""Images and their masks, matched by name: `images/<name>.*` with `masks/<name>.*`.

    With several classes the masks lie in `masks/0/<name>.*`, `masks/1/<name>.*`, one folder a class; or they are label
    maps, gray or palette, whose values are numbers of classes and 255 where nothing is to be learned. Items are
    `Sample`s sorted by patient and slice: image (C, H, W) float32 in [0, 1], gray (C = 1) or colour (C = 3), and the
    mask that the task has.

    Which patient an image is of, the first of these that is there says: `patient_pattern`; the table `patients.csv` in
    the root with the columns `file` and `patient`; folders, `images/<patient>/<name>.*` and `masks/<patient>/<name>.*`.
    A slice's number is the one that its name ends with, if all of a patient's have one, else its place among them. With
    none of the three each image counts as a patient of its own, called by its name, slice 0.

    Args:
        root: the folder that holds `images` and `masks`; what counts as an image is said at `find_images`. Names match
            however Unicode spells their accents.
        names: the patients to use; None for all.
        patient_pattern: regular expression that fits the whole name of each image (with its folders, without its
            suffix) and has a group `patient`, and maybe a group `slice`: r"(?P<patient>.+)_(?P<slice>\d+)".
        classes: names of the classes, of label maps from value 0 on, or the value, or values, of each name; the
            masks are label maps where several names or values stand here. None for `classes.json` in the root, a list
            or an object of the same kind, if there is one.
        task: "multiclass" (softmax over classes that exclude each other), "multilabel" (masks that may overlap) or
            "binary" (one mask). None for what the masks are: label maps "multiclass", or "binary" with one class beside
            the background; several masks "multilabel", one "binary".
        cache_dir: where decoded images are kept; the user's cache folder by default.

    Raises:
        FileNotFoundError: no such folders, no images, or an image without its mask (or a mask without its image).
        ValueError: unknown or doubled names, an image without a patient, gray images beside colour ones, masks that
            do not fit the classes, or files that cannot be used, by name.
    """

    def __init__(
        self,
        root: str | Path,
        names: Sequence[str] | None = None,
        *,
        patient_pattern: str | None = None,
        classes: Classes | None = None,
        task: Task | None = None,
        cache_dir: str | Path | None = None,
    ) -> None:
        root = Path(root).expanduser()
        if classes is None and (root / "classes.json").is_file():
            classes = read_classes(root / "classes.json")
        images = _by_name(root / "images")
        if not images:
            raise FileNotFoundError(
                f"{root / 'images'} holds no images; expected images/<name>.* and masks/<name>.*, but "
                f"{what_lies_in(root / 'images')}"
            )
        folders = _class_folders(root)
        several = len(classes) > 1 if classes is not None else task in ("multiclass", "multilabel")
        maps = folders == [root / "masks"] and (several or isinstance(classes, dict))
        self.case, places = places_of(root, list(images), patient_pattern)
        masks = _masks(root / "masks", images, folders)
        every = [SliceFiles(*places[name], (images[name],), masks[name]) for name in images]
        super().__init__(root, _sorted(every), names, cache_dir, decode=_label_maps if maps else None, rule=f"{maps}")
        if maps:
            if IGNORED in self._where and not self._where.keys() - {0, IGNORED}:
                raise ValueError(
                    f"{self._where[IGNORED]} and all others hold 0 and 255 alone, and label maps ignore 255; they "
                    "are masks of one class: name that one alone, or none"
                )
            self.labels = Labels.of_map(self._where, classes, task)
        else:
            self.labels = Labels.of_masks(len(folders), classes, task)
        channels = [shape[0] for shape in self.shapes]
        for files, number in zip(self.files, channels, strict=True):
            if number != channels[0]:
                raise ValueError(
                    f"{files.images[0]} has {number} channels and {self.files[0].images[0].name} {channels[0]}; "
                    "convert all images to gray or all to colour"
                )


def read_classes(path: Path) -> Classes:
    """The classes of a JSON file: ["background", "oedema"], {"oedema": 1}, {"whole": [1, 2]} or {"1": "oedema"}.

    Raises:
        ValueError: something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f'{path} is no JSON ({error}); expected ["background", "tumour", ...]') from error
    if isinstance(content, dict) and content and all(isinstance(name, str) for name in content.values()):
        if not all(value.isdecimal() for value in content) or len(set(content.values())) < len(content):
            raise ValueError(f'{path} has no value for each name; expected {{"0": "background", "1": "tumour"}}')
        return {name: int(value) for value, name in content.items()}
    if not isinstance(content, list | dict) or not content:
        raise ValueError(f'{path} holds no classes; expected ["background", "tumour", ...] or {{"tumour": 1, ...}}')
    return content


def _label_maps(every: Sequence[SliceFiles]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    for files in every:
        image = read_image(files.images[0])
        yield image, read_label_map(files.masks[0], image.shape[1:], files.images[0])


def _sorted(every: list[SliceFiles]) -> list[SliceFiles]:
    every = sorted(every, key=lambda files: (files.patient, files.slice))
    for first, second in pairwise(every):
        if first[:2] == second[:2]:
            raise ValueError(
                f"{first.images[0]} and {second.images[0].name} are both slice {first.slice} of {first.patient}"
            )
    return every


def _masks(masks: Path, images: dict[str, Path], folders: list[Path]) -> dict[str, tuple[Path, ...]]:
    """The masks of each image, one for each class."""
    classes = [_by_name(folder) for folder in folders]
    for folder, found in zip(folders, classes, strict=True):
        for name, path in images.items():
            if name not in found:
                raise FileNotFoundError(f"{path} has no mask; expected {folder / name}.* (any image format)")
        if alone := sorted(found.keys() - images.keys()):
            raise FileNotFoundError(f"{found[alone[0]]} is a mask without an image; expected images/{alone[0]}.*")
    if folders != [masks] and (loose := [path for path in find_images(masks) if path.parent == masks]):
        raise ValueError(f"{loose[0]} lies beside the folders of the classes; move it into the one of its class")
    return {name: tuple(found[name] for found in classes) for name in images}


def _class_folders(root: Path) -> list[Path]:
    """The folder of each class, or the one of all masks."""
    masks = root / "masks"
    folders = [path.name for path in subfolders(masks)] if masks.is_dir() else []
    if set(map(one_spelling, folders)) <= {one_spelling(path.name) for path in subfolders(root / "images")}:
        return [masks]  # folders of patients, or none
    expected = [str(number) for number in range(len(folders))]
    if set(folders) != set(expected):
        found = ", ".join(folders)
        raise FileNotFoundError(f"{masks} holds the folders {found}; expected 0, 1, ... one a class: rename them")
    return [masks / name for name in expected]


def _by_name(folder: Path) -> dict[str, Path]:
    """The images of a folder by their name in it, without suffix, sorted."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; expected images/<name>.* and masks/<name>.*")
    paths: dict[str, Path] = {}
    for path in find_images(folder):
        name = one_spelling((path.relative_to(folder).parent / name_of(path)).as_posix())
        if name in paths:
            raise ValueError(f"{path} and {paths[name].name} share a name; rename one with its mask")
        paths[name] = path
    return dict(sorted(paths.items()))
