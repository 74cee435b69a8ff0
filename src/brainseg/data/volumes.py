"""Anyone's NIfTI volumes, slice by slice."""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from brainseg._names import no_such
from brainseg.checks import check_choice
from brainseg.data.cache import SliceDataset, SliceFiles
from brainseg.data.files import find_volumes, one_spelling, subfolders, volume_name, what_lies_in
from brainseg.data.labels import IGNORED, Classes, Labels, Task
from brainseg.data.nifti import Axis, Grid, Spacing, read_grid, read_voxels

LABEL = "seg"
DESCRIPTION = "dataset.json"
NUMBERED = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
"""Names of nnU-Net's images."""


class Case(NamedTuple):
    """A patient's volumes.

    Attributes:
        name: of the patient.
        images: the file of each sequence.
        label: the file of the label map.
    """

    name: str
    images: tuple[Path, ...]
    label: Path


class VolumeDataset(SliceDataset):
    """NIfTI volumes (.nii, .nii.gz) as slices, sequences as channels.

    Two layouts are read. BraTS: a folder for each case, at any depth, with `<case>/<case>_<sequence>.nii.gz` and
    `<case>/<case>_seg.nii.gz` (or with hyphens). nnU-Net: `imagesTr/<case>_0000.nii.gz`, `labelsTr/<case>.nii.gz` and
    `dataset.json`, which names the sequences and classes.

    Items are `Sample`s sorted by case and slice. Slices are cut along an axis of the head, not of the file, and stand
    upright (`Grid.to_slices`); they count from 0. Images are (C, H, W) float32 in [0, 1]. Voxels of 8 bits are divided
    by 255, as pixels of image files are; of other volumes 0 (or the lowest value, if that is below) becomes 0 and the
    highest 1, in 65,536 steps.

    Args:
        root: the folder of the cases, or of `imagesTr`, `labelsTr` and `dataset.json`.
        patients: names of the cases to use; None for all.
        sequences: names of the channels, in their order, capitals or not; None for all that the first case has, in
            alphabetical order, or in that of `dataset.json`.
        labels: value, or values, of each class; names of the values 0, 1, ...; or None for every value that occurs, or
            for what `dataset.json` says. Several values make regions, which may overlap:
            {"whole tumour": [1, 2, 4], "core": [1, 4], "enhancing": [4]}.
        axis: "axial", "coronal" or "sagittal".
        task: "multiclass", "multilabel" or "binary"; None for what the labels are, as at `ImageMaskFolder`.
        cache_dir: where decoded slices are kept; the user's cache folder by default.

    Attributes:
        channel_names: the sequences.
        axis: along which slices are cut.

    Raises:
        FileNotFoundError: no such root, no cases in it, or a case without a sequence or its label.
        ValueError: volumes with a broken header, of another shape or in another place than those they belong to,
            unknown patients or sequences, label values that no class has, or files that cannot be used, by name.
    """

    def __init__(
        self,
        root: str | Path,
        patients: Sequence[str] | None = None,
        *,
        sequences: Sequence[str] | None = None,
        labels: Classes | None = None,
        axis: Axis = "axial",
        task: Task | None = None,
        cache_dir: str | Path | None = None,
    ) -> None:
        check_choice("axis", axis, get_args(Axis))
        if sequences is not None and (isinstance(sequences, str) or len(set(sequences)) < max(1, len(sequences))):
            raise ValueError(f"sequences must be names that differ, such as ['flair', 't1ce'], got {sequences!r}")
        root = Path(root).expanduser()
        if not root.is_dir():
            raise FileNotFoundError(f"there is no folder {root}; give the one that holds the cases")
        ignored = IGNORED
        if (root / "imagesTr").is_dir():
            description = Description(root / DESCRIPTION)
            self.channel_names, cases = _nnunet_cases(root, description, sequences)
            labels, ignored = labels if labels is not None else description.labels, description.ignored
        else:
            self.channel_names, cases = _brats_cases(root, sequences, cache_dir)
        self.axis: Axis = axis
        self._grids = {case.name: common_grid([*case.images, case.label]) for case in cases}
        every = [
            SliceFiles(case.name, number, case.images, (case.label,))
            for case in sorted(cases)
            for number in range(self._grids[case.name].count(axis))
        ]
        rule = f"volumes {axis}"
        super().__init__(root, every, patients, cache_dir, decode=self._decode, rule=rule)
        self.labels = Labels.of_map(self._where, labels, task, ignored)

    @property
    def spacings(self) -> list[Spacing]:
        """Of every item the distance of neighbouring slices, rows and columns in mm."""
        known = {name: grid.spacing(self.axis) for name, grid in self._grids.items()}
        return [known[files.patient] for files in self.files]

    def _decode(self, every: Sequence[SliceFiles]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        for name, slices in groupby(every, key=lambda files: files.patient):
            files = next(slices)
            grid = self._grids[name]
            images = [grid.to_slices(in_16_bits(read_voxels(path)), self.axis) for path in files.images]
            labels = grid.to_slices(_label_map(files.masks[0]), self.axis)
            for number, label in enumerate(labels):
                yield np.stack([image[number] for image in images]), label


class Description:
    """What dataset.json of nnU-Net says, of its first and second version."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"there is no {path}; nnU-Net's layout needs it for names of channels and classes")
        try:
            content = json.loads(path.read_text(encoding="utf-8-sig"))
            channels = content.get("channel_names") or content["modality"]
            self.sequences = [str(channels[str(number)]) for number in range(len(channels))]
            named = content["labels"]
            if all(isinstance(name, str) for name in named.values()):  # of the first version
                named = {name: int(value) for value, name in named.items()}
            self.ending = str(content.get("file_ending", ".nii.gz"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f'{path} does not describe a data set ({error!r}); expected {{"channel_names": {{"0": ...}}, "labels": '
                '{"background": 0, ...}}'
            ) from error
        self.ignored = IGNORED if "ignore" not in named else int(named["ignore"])
        self.labels: Classes = {name: value for name, value in named.items() if name != "ignore"}


def _nnunet_cases(
    root: Path, description: Description, sequences: Sequence[str] | None
) -> tuple[tuple[str, ...], list[Case]]:
    if description.ending.lower() not in (".nii", ".nii.gz"):
        raise ValueError(f"{root} holds {description.ending} files, expected .nii or .nii.gz; convert them")
    wanted = tuple(description.sequences if sequences is None else sequences)
    lower = [name.lower() for name in description.sequences]
    if unknown := [name for name in wanted if name.lower() not in lower]:
        raise ValueError(f"{root / 'dataset.json'}: {no_such('sequence', unknown[0], description.sequences)}")
    channels: dict[str, dict[int, Path]] = {}
    for path in find_volumes(root / "imagesTr"):
        match = NUMBERED.fullmatch(volume_name(path))
        if match is None:
            raise ValueError(f"{path} is not called <case>_0000.nii.gz, <case>_0001.nii.gz, ...; rename it")
        channels.setdefault(match["case"], {})[int(match["channel"])] = path
    labels = (
        {volume_name(path): path for path in find_volumes(root / "labelsTr")} if (root / "labelsTr").is_dir() else {}
    )
    if not channels:
        raise FileNotFoundError(f"{root / 'imagesTr'} holds no volumes: {what_lies_in(root / 'imagesTr')}")
    cases = []
    for case, found in channels.items():
        for number in range(len(description.sequences)):
            if number not in found:
                raise FileNotFoundError(f"{root / 'imagesTr' / case}_{number:04}{description.ending} is missing")
        if case not in labels:
            raise FileNotFoundError(f"{root / 'labelsTr' / case}{description.ending} is missing")
        cases.append(Case(case, tuple(found[lower.index(name.lower())] for name in wanted), labels[case]))
    if alone := sorted(labels.keys() - channels.keys()):
        raise FileNotFoundError(f"{labels[alone[0]]} is a label without its images; copy them again")
    return wanted, cases


def _brats_cases(
    root: Path, sequences: Sequence[str] | None, cache_dir: str | Path | None
) -> tuple[tuple[str, ...], list[Case]]:
    found: dict[Path, dict[str, Path]] = {}
    for path in find_volumes(root):
        name = one_spelling(path.parent.name)
        sequence = volume_name(path).removeprefix(name)
        if path.parent == root:
            raise ValueError(
                f"{path} lies in no case's folder; give the folder that holds those, such as {root.parent}"
            )
        if sequence[:1] not in ("_", "-") or len(sequence) < 2:
            raise ValueError(f"{path} is no volume of the case {name}; expected {name}_<sequence>.nii.gz: rename it")
        volumes = found.setdefault(path.parent, {})
        if (key := sequence[1:].lower()) in volumes:
            raise ValueError(f"{volumes[key]} and {path.name} are one sequence; keep one of them")
        volumes[key] = path
    if not found:
        raise FileNotFoundError(
            f"{root} holds no volumes: expected <case>/<case>_<sequence>.nii.gz and <case>/<case>_seg.nii.gz, or "
            f"nnU-Net's imagesTr and labelsTr, but {what_lies_in(root)}"
        )
    for folder in subfolders(root, cache_dir):
        if not any(path.is_relative_to(folder) for path in found):
            raise FileNotFoundError(
                f"{folder} holds no volumes, {what_lies_in(folder)}; copy them again, or move it away"
            )
    first = next(iter(found.values()))
    wanted = tuple(sorted(first.keys() - {LABEL}) if sequences is None else sequences)
    if not wanted:
        raise FileNotFoundError(f"{next(iter(found))} has no sequence beside its label; copy its images")
    cases: dict[str, Case] = {}
    for folder, volumes in found.items():
        name = one_spelling(folder.name)
        for sequence in (*wanted, LABEL):
            if sequence.lower() not in volumes:
                kind = "label" if sequence == LABEL else "sequence"
                raise FileNotFoundError(
                    f"{folder} has no {kind} {sequence}; expected {name}_{sequence}.nii.gz beside "
                    f"{', '.join(path.name for path in sorted(volumes.values()))}"
                )
        if name in cases:
            raise ValueError(f"{folder} and {cases[name].label.parent} are one case; keep one of them, or rename it")
        cases[name] = Case(name, tuple(volumes[sequence.lower()] for sequence in wanted), volumes[LABEL])
    return wanted, list(cases.values())


def common_grid(paths: Sequence[Path]) -> Grid:
    """The grid of a case, which all its volumes must share."""
    first, *others = paths
    grid = read_grid(first)
    for path in others:
        other = read_grid(path)
        if other.shape != grid.shape:
            raise ValueError(
                f"{path} has {_size(other.shape)} voxels and {first.name} {_size(grid.shape)}; resample one "
                "to the other"
            )
        # A twentieth of a voxel: what tools round off is far below.
        if (distance := grid.distance(other)) > 0.05 * min(grid.spacing("axial")):
            raise ValueError(
                f"{path} lies up to {distance:.3g} mm away from {first.name} by its header; resample one to "
                "the other, or repair its affine"
            )
    return grid


def in_16_bits(voxels: NDArray[Any]) -> NDArray[np.uint16]:
    """What a network sees of a volume: 0, or the lowest value if that is below, to 0, and the highest to 65535.

    Of 8 bits 255 is the highest: a slice has the same values in a volume as in an image file.
    """
    if voxels.dtype == np.uint8:
        return voxels.astype(np.uint16) * 257
    low, high = min(0.0, float(voxels.min())), float(voxels.max())
    if high <= low:
        return np.zeros(voxels.shape, np.uint16)
    scaled = (voxels.astype(np.float64) - low) * (65535 / (high - low))
    return np.rint(scaled).astype(np.uint16)


def _label_map(path: Path) -> NDArray[Any]:
    voxels = read_voxels(path)
    if voxels.min() < 0 or voxels.max() > 65535 or (voxels.dtype.kind == "f" and (voxels != np.rint(voxels)).any()):
        raise ValueError(
            f"{path} holds values of {voxels.min():g} to {voxels.max():g}, expected whole numbers from 0 to 65535; "
            "save it as a label map, not interpolated"
        )
    return voxels.astype(np.uint8 if voxels.max() < 256 else np.uint16)


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
