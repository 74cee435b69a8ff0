"""Slices decoded once into one file, which every process maps into its memory."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, NotRequired, Self, TypedDict

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from brainseg.data.decode import read_image, read_mask, to_unit_range
from brainseg.data.files import one_spelling
from brainseg.data.labels import Labels, Target, Task
from brainseg.data.nifti import Spacing, stretch_of

LAYOUT = 5  # of the files in the cache, and of how they are decoded; another one is another cache


class SliceFiles(NamedTuple):
    """Where a slice lies.

    Attributes:
        patient: spelled as `one_spelling` does.
        slice: its number.
        images: its image; of a volume the file of each sequence.
        masks: a mask for each class, or one label map.
    """

    patient: str
    slice: int
    images: tuple[Path, ...]
    masks: tuple[Path, ...]


# The image (C, H, W) of each slice, and its masks (K, H, W), 0 and 1, or its label map (H, W).
Decode = Callable[[Sequence[SliceFiles]], Iterator[tuple[NDArray[Any], NDArray[Any]]]]


class Sample(TypedDict):
    """One slice.

    Attributes:
        image: (C, H, W) float32 in [0, 1], channels as stored.
        mask: (K, H, W) float32, 0 or 1; (H, W) int64, numbers of classes and 255 where ignored, if the data set's task
            is "multiclass".
        valid: (1, H, W) bool, False where pixels are ignored; only where label maps ignore some and the task is
            another.
        patient: name of the patient, or of the file where patients are unknown.
        slice: number of the slice.
    """

    image: Tensor
    mask: Tensor
    valid: NotRequired[Tensor]
    patient: str
    slice: int


class SliceDataset(Dataset[Sample]):
    """Slices behind a memory-mapped cache of decoded pixels; the base of the data sets here.

    The cache lies in a folder of its own under `cache_dir`, named by a checksum of all files' names, sizes and times,
    so that a changed data set gets a new one. It is built under a lock and moved into place whole: processes that
    start together decode once. It can be deleted whenever nothing runs.

    Attributes:
        root: the folder of the data.
        files: the slices of this data set, in the order of its items.
        patients: their patients, sorted.
        channel_names: of the images' channels; None where nothing names them.
        case: what `patients` are: "patient", or "image" where patients are not known and each image counts as one.
        labels: which stored values make which class; that of all masks as they are, unless a data set says more.
    """

    channel_names: tuple[str, ...] | None = None
    case: Literal["patient", "image"] = "patient"

    def __init__(
        self,
        root: Path,
        every: Sequence[SliceFiles],
        patients: Sequence[str] | None,
        cache_dir: str | Path | None,
        *,
        decode: Decode | None = None,
        rule: str = "",
    ) -> None:
        self.root = root
        names = {files.patient for files in every}
        wanted = names if patients is None else set(map(one_spelling, patients))
        if unknown := sorted(wanted - names):
            raise ValueError(
                f"{root} holds no patient {unknown[0]!r} ({len(unknown)} of {len(wanted)} wanted are unknown); "
                f"it holds {len(names)}, such as {min(names)!r}: check the split"
            )
        self._rows = [row for row, files in enumerate(every) if files.patient in wanted]
        self.files = [every[row] for row in self._rows]
        self.patients = sorted(wanted)
        self.labels = Labels.of_masks(len(every[0].masks))
        place = default_cache_dir() if cache_dir is None else Path(cache_dir).expanduser()
        self._cache = _prepare(root, every, place, decode or _pictures, rule)
        entries = json.loads((self._cache / "index.json").read_text())["entries"]
        self._entries = [entries[row] for row in self._rows]
        # Which file holds each stored value first, of all slices, chosen or not.
        self._where: dict[int, Path] = {}
        for files, entry in zip(every, entries, strict=True):
            for value in entry["values"]:
                self._where.setdefault(value, files.masks[0])

    def only(self, slices: Sequence[tuple[str, int]]) -> Self:
        """The data set of these slices, by patient and number, in this order.

        Raises:
            ValueError: a slice that is not there.
        """
        places = {files[:2]: i for i, files in enumerate(self.files)}
        if unknown := [key for key in slices if key not in places]:
            patient, number = unknown[0]
            raise ValueError(
                f"{self.root} holds no slice {number} of {patient!r} ({len(unknown)} of {len(slices)} wanted are "
                "unknown): check the split"
            )
        part, chosen = copy(self), [places[key] for key in slices]
        for name in ("_rows", "files", "_entries"):
            setattr(part, name, [getattr(self, name)[i] for i in chosen])
        part.patients = sorted({patient for patient, _ in slices})
        return part

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        files, entry = self.files[index], self._entries[index]
        return {
            "image": to_unit_range(self._read(entry["image"])),
            **self._target(index),
            "patient": files.patient,
            "slice": files.slice,
        }

    def _target(self, index: int) -> Target:
        try:
            return self.labels.encode(self._read(self._entries[index]["mask"]))
        except ValueError as error:
            raise ValueError(f"{self.files[index].masks[0]}: {error}") from error

    @property
    def task(self) -> Task:
        """What the masks mean: one class, classes that may overlap, or classes that exclude each other."""
        return self.labels.task

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the K classes."""
        return self.labels.class_names

    @property
    def num_classes(self) -> int:
        """Number of classes, K: channels of masks, or of the logits that class numbers need."""
        return len(self.class_names)

    @property
    def has_foreground(self) -> list[bool]:
        """Whether any class (but the background) is in every item's mask, without reading it."""
        return [self.labels.has_foreground(entry["values"]) for entry in self._entries]

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """(C, H, W) of every item's image."""
        return [tuple(entry["image"]["shape"]) for entry in self._entries]

    @property
    def spacings(self) -> Sequence[Spacing | None]:
        """Of every item the distance of slices, rows and columns in mm; None of image files, which do not say."""
        return [None] * len(self)

    @property
    def stretches(self) -> list[float]:
        """Of every item the height of a pixel over its width; 1 where that is not known."""
        return [stretch_of(spacing) for spacing in self.spacings]

    @cached_property
    def _pixels(self) -> NDArray[np.uint8]:
        return np.memmap(self._cache / "pixels.bin", mode="r", dtype=np.uint8)

    def __getstate__(self) -> dict[str, Any]:
        # A pickled map would carry all pixels to each worker; they map the file themselves.
        return {key: value for key, value in self.__dict__.items() if key != "_pixels"}

    def _read(self, place: dict[str, Any]) -> NDArray[Any]:
        dtype, start = np.dtype(place["dtype"]), place["offset"]
        size = int(np.prod(place["shape"])) * dtype.itemsize
        pixels: NDArray[Any] = self._pixels[start : start + size].view(dtype).reshape(place["shape"])
        return pixels


def default_cache_dir() -> Path:
    """The user's cache folder for decoded slices."""
    try:
        from platformdirs import user_cache_path
    except ImportError as error:
        raise ImportError('caching slices needs platformdirs: pip install "brainseg-torch[data]"') from error
    return user_cache_path("brainseg") / "slices"


def _prepare(root: Path, every: Sequence[SliceFiles], cache_dir: Path, decode: Decode, rule: str) -> Path:
    """The folder of the cache, built if it is not there."""
    try:
        from filelock import FileLock
    except ImportError as error:
        raise ImportError('caching slices needs filelock: pip install "brainseg-torch[data]"') from error
    folder = cache_dir.absolute() / _checksum(root, every, rule)
    if _is_sound(folder):
        return folder
    with _named(cache_dir):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not _is_sound(folder):
                shutil.rmtree(folder, ignore_errors=True)
                partial = folder.with_suffix(".partial")
                shutil.rmtree(partial, ignore_errors=True)  # of a killed process
                partial.mkdir()
                try:
                    _build(root, every, partial, decode)
                    partial.replace(folder)
                except BaseException:
                    shutil.rmtree(partial, ignore_errors=True)
                    raise
    return folder


@contextmanager
def _named(cache_dir: Path) -> Iterator[None]:
    """A full disk names no file and a read-only one a passing one: the error names the folder that can be changed."""
    try:
        yield
    except OSError as error:
        cache = cache_dir.absolute()
        place = cache if error.filename is None else Path(error.filename).absolute()
        if error.errno is None or not (place.is_relative_to(cache) or cache.is_relative_to(place)):
            raise  # of a slice, which it names
        reason = f"the cache {cache_dir} cannot be written ({error.strerror}); make room, or give another cache_dir"
        raise type(error)(error.errno, reason) from error


def _is_sound(folder: Path) -> bool:
    """Whether the cache is there, and as long as it says: a copy or a full disk may have cut it."""
    try:
        index = json.loads((folder / "index.json").read_text())
        return bool((folder / "pixels.bin").stat().st_size == index["bytes"])
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _checksum(root: Path, every: Sequence[SliceFiles], rule: str) -> str:
    digest = hashlib.sha256(b"%d\0%s\0%s\0" % (LAYOUT, os.fsencode(root.resolve()), rule.encode()))
    for path in dict.fromkeys(path for files in every for path in (*files.images, *files.masks)):
        status = path.stat()
        name = os.fsencode(path.relative_to(root))
        digest.update(b"%s\0%d\0%d\0" % (name, status.st_size, status.st_mtime_ns))
    return digest.hexdigest()[:32]


def _pictures(every: Sequence[SliceFiles]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    for files in every:
        image = read_image(files.images[0])
        yield image, np.stack([read_mask(path, image.shape[1:], files.images[0]) for path in files.masks])


def _build(root: Path, every: Sequence[SliceFiles], folder: Path, decode: Decode) -> None:
    try:
        from rich.console import Console
        from rich.progress import track
    except ImportError as error:
        raise ImportError('decoding slices needs rich: pip install "brainseg-torch[data]"') from error
    entries = []
    console = Console(stderr=True)
    with (folder / "pixels.bin").open("wb") as file:
        decoded = track(decode(every), f"Decoding {root.name}", total=len(every), console=console, transient=True)
        for image, mask in decoded:
            values = np.unique(mask) if mask.ndim == 2 else np.flatnonzero(mask.any((1, 2)))
            places: dict[str, Any] = {"values": values.tolist()}
            for name, array in (("image", image), ("mask", mask)):
                file.write(b"\0" * (-file.tell() % array.itemsize))  # a map is read at multiples of its type's size
                places[name] = {"offset": file.tell(), "shape": array.shape, "dtype": array.dtype.str}
                file.write(np.ascontiguousarray(array).tobytes())
            entries.append(places)
        index = {"bytes": file.tell(), "entries": entries}
    (folder / "index.json").write_text(json.dumps(index))
