"""Anyone's images and masks in two folders."""

from collections.abc import Sequence
from pathlib import Path

from brainseg.data.cache import SliceDataset, SliceFiles
from brainseg.data.files import find_images, name_of, subfolders, what_lies_in


class ImageMaskFolder(SliceDataset):
    """Images and their masks, matched by name: `images/<name>.*` with `masks/<name>.*`.

    With several classes the masks lie in `masks/0/<name>.*`, `masks/1/<name>.*`, one folder a class. Items are
    `Sample`s sorted by name: image (C, H, W) float32 in [0, 1], gray (C = 1) or colour (C = 3), mask (K, H, W), patient
    the file's name without its extension, slice 0. So each image counts as a patient of its own: where several are of
    one patient, draw the split by patient and give the `names` of each part.

    Args:
        root: the folder that holds `images` and `masks`; what counts as an image is said at `find_images`. Names match
            however Unicode spells their accents.
        names: the names to use, without extension; None for all.
        cache_dir: where decoded images are kept; the user's cache folder by default.

    Raises:
        FileNotFoundError: no such folders, no images, or an image without its mask (or a mask without its image).
        ValueError: unknown or doubled names, gray images beside colour ones, or files that cannot be used, by name.
    """

    def __init__(
        self, root: str | Path, names: Sequence[str] | None = None, *, cache_dir: str | Path | None = None
    ) -> None:
        root = Path(root).expanduser()
        super().__init__(root, _index(root), names, cache_dir)
        channels = [shape[0] for shape in self.shapes]
        for files, number in zip(self.files, channels, strict=True):
            if number != channels[0]:
                raise ValueError(
                    f"{files.image} has {number} channels and {self.files[0].image.name} {channels[0]}; "
                    "convert all images to gray or all to colour"
                )


def _index(root: Path) -> list[SliceFiles]:
    images = _by_name(root / "images")
    if not images:
        raise FileNotFoundError(
            f"{root / 'images'} holds no images; expected images/<name>.* and masks/<name>.*, but "
            f"{what_lies_in(root / 'images')}"
        )
    classes = _class_folders(root / "masks")
    masks = [_by_name(folder) for folder in classes]
    for folder, found in zip(classes, masks, strict=True):
        for name, path in images.items():
            if name not in found:
                raise FileNotFoundError(f"{path} has no mask; expected {folder / name}.* (any image format)")
        if alone := sorted(found.keys() - images.keys()):
            raise FileNotFoundError(f"{found[alone[0]]} is a mask without an image; expected images/{alone[0]}.*")
    for path in [] if len(classes) == 1 and classes[0].name == "masks" else find_images(root / "masks"):
        if path.parent not in classes:
            raise ValueError(f"{path} lies beside the folders of the classes; move it into the one of its class")
    return [SliceFiles(name, 0, path, tuple(found[name] for found in masks)) for name, path in images.items()]


def _class_folders(masks: Path) -> list[Path]:
    folders = [path.name for path in subfolders(masks)] if masks.is_dir() else []
    expected = [str(number) for number in range(len(folders))]
    if set(folders) != set(expected):
        found = ", ".join(folders)
        raise FileNotFoundError(f"{masks} holds the folders {found}; expected 0, 1, ... one a class: rename them")
    return [masks / name for name in expected] or [masks]


def _by_name(folder: Path) -> dict[str, Path]:
    """The images of a folder by name without extension, sorted."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; expected images/<name>.* and masks/<name>.*")
    paths: dict[str, Path] = {}
    for path in find_images(folder):
        if path.parent != folder:
            raise ValueError(f"{path} lies in a folder of its own; move it to {folder}")
        if (name := name_of(path)) in paths:
            raise ValueError(f"{path} and {paths[name].name} share a name; rename one with its mask")
        paths[name] = path
    return dict(sorted(paths.items()))
