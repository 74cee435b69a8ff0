"""NIfTI volumes in, NIfTI volumes out: masks in the grid of the images, and how large they are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray

from brainseg._whole import written_whole
from brainseg.data import to_unit_range
from brainseg.data.files import VOLUMES, find_volumes, one_spelling, volume_name
from brainseg.data.nifti import Axis, Grid, Spacing, read_voxels, stretch_of
from brainseg.data.volumes import DESCRIPTION, LABEL, NUMBERED, Description, common_grid, in_16_bits
from brainseg.inference.components import postprocess
from brainseg.inference.measures import Measures, measure
from brainseg.inference.predictor import Predictor
from brainseg.inference.results import RESULT, by_kind, read_foreground, write_probabilities
from brainseg.models import ModelSpec, Postprocessing
from brainseg.report import Pictures
from brainseg.visualization import brightened

AT_ONCE = 8  # slices that the network sees


class Scan(NamedTuple):
    """The volumes of a patient.

    Attributes:
        name: of the patient.
        images: a file for each channel of the network, in its order.
    """

    name: str
    images: tuple[Path, ...]


def holds_volumes(path: Path) -> bool:
    """Whether a path is a NIfTI volume, or a folder with some."""
    return bool(find_volumes(path)) if path.is_dir() else path.name.lower().endswith(VOLUMES)


def find_scans(given: Path, sequences: Sequence[str] | None, channels: int | None) -> list[Scan]:
    """The patients of a volume, of a case's folder, of a folder of such folders, or of nnU-Net's imagesTs.

    Args:
        given: a file, which is a patient of one channel, or a folder: files called `<case>_<sequence>.nii.gz` in a
            folder `<case>`; labels, `<case>_seg.nii.gz`, are left out. Or nnU-Net's, `<case>_0000.nii.gz` and so on,
            whose channels are named by the `dataset.json` in it or above it, or else come in the network's order.
            What is called as our results, `<case>_mask.nii.gz`, is left out unless a sequence names it.
        sequences: names of the channels, in their order, capitals or not; None for all, in alphabetical order.
        channels: how many the network takes, if it says so.

    Raises:
        FileNotFoundError: a sequence is missing, or there is nothing but labels and masks.
        ValueError: other numbers of sequences than the network takes, or two files of one.
    """
    if given.is_file():
        return [Scan(volume_name(given), _checked(given, (given,), sequences, channels))]
    found = find_volumes(given)
    paths = [path for path in found if not _is_result(path, sequences or ())]
    if all(path.parent == given and NUMBERED.fullmatch(_name_in(given, path)) for path in paths):
        cases = _numbered(given, paths, sequences or ())
    else:
        cases = _named(paths)
    if not cases:
        raise FileNotFoundError(
            f"{given} holds labels and masks alone, such as {found[0].name}; give the folder of the images"
        )
    scans = []
    for folder, volumes in cases.items():
        wanted = sorted(volumes) if sequences is None else [name.lower() for name in sequences]
        if missing := [name for name in wanted if name not in volumes]:
            raise FileNotFoundError(
                f"{folder} has no sequence {missing[0]}; expected {folder.name}_{missing[0]}.nii.gz beside "
                f"{', '.join(path.name for path in volumes.values())}, or name the sequences in the network's order"
            )
        images = tuple(volumes[name] for name in wanted)
        scans.append(Scan(one_spelling(folder.name), _checked(folder, images, sequences, channels)))
    return scans


def _is_result(path: Path, sequences: Sequence[str]) -> bool:
    """Whether a volume is called as an earlier call's result, and is none of the sequences."""
    return bool(RESULT.search(volume_name(path))) and _sequence(path) not in {name.lower() for name in sequences}


def _named(paths: Sequence[Path]) -> dict[Path, dict[str, Path]]:
    """The sequences of each case by name, without labels."""
    cases: dict[Path, dict[str, Path]] = {}
    for path in paths:
        sequence = _sequence(path)
        if sequence == LABEL:
            continue
        volumes = cases.setdefault(path.parent, {})
        if sequence in volumes:
            raise ValueError(f"{volumes[sequence]} and {path.name} are one sequence; keep one of them")
        volumes[sequence] = path
    return cases


def _numbered(folder: Path, paths: Sequence[Path], sequences: Sequence[str]) -> dict[Path, dict[str, Path]]:
    """The same of nnU-Net's layout."""
    description = next((path for path in (folder / DESCRIPTION, folder.parent / DESCRIPTION) if path.is_file()), None)
    names = sequences if description is None else Description(description).sequences
    cases: dict[Path, dict[str, Path]] = {}
    for path in paths:
        case, _, number = volume_name(path).rpartition("_")
        name = names[int(number)].lower() if int(number) < len(names) else number
        cases.setdefault(folder / case, {})[name] = path
    return cases


def _sequence(path: Path) -> str:
    return _name_in(path.parent, path).lstrip("_-").lower()


def _name_in(folder: Path, path: Path) -> str:
    return volume_name(path).removeprefix(one_spelling(folder.name))


def predict_scan(
    predictor: Predictor,
    scan: Scan,
    output: Path,
    *,
    postprocessing: Postprocessing | None = None,
    probabilities: bool = False,
    pictures: Pictures | None = None,
    channel: int | None = None,
) -> list[Measures]:
    """Writes `<case>_mask.nii.gz` in the grid and with the header of the first image, and measures what was found.

    With several classes that may overlap there is a mask for each, `<case>_mask_0.nii.gz` and so on; with classes that
    exclude each other one label map, `<case>_labels.nii.gz`, of the spec's `label_values`.

    Args:
        predictor: of slices along `predictor.spec.axis`.
        scan: the patient.
        output: an existing folder.
        postprocessing: None for that of the weights.
        probabilities: write `<case>_probabilities.npy` too, (S, K, H, W) float32.
        pictures: that the slices are added to, all of one brightness.
        channel: that they show, as for `brightened`.

    Returns:
        a row for each class but the background.

    Raises:
        ValueError: volumes that cannot be read, or of different grids.
        OSError: results cannot be written.
    """
    spec, axis = predictor.spec, predictor.spec.axis
    grid, slices = _read(scan, axis)
    parts = np.array_split(slices, -(-len(slices) // AT_ONCE))
    spacing = grid.spacing(axis)
    stretch = stretch_of(spacing)
    likely = torch.cat([predictor.probabilities(to_unit_range(few), stretch=stretch) for few in parts])
    masks = postprocess(likely, spec, steps=postprocessing, spacing=spacing)
    if probabilities:
        write_probabilities(likely, output / scan.name)
    for kind, volume in by_kind(masks, spec).items():
        _write(grid.from_slices(volume, axis), scan.images[0], volume_path(output, scan, kind))
    if pictures is not None:
        _show(pictures, scan.name, slices, masks[:, spec.foreground.start :].numpy(), channel, spacing)
    return measure(masks, spec, patient=scan.name, spacing=spacing)


def volume_path(output: Path, scan: Scan, kind: str) -> Path:
    """What is written of a patient: `<case>_<kind>.nii.gz`."""
    return output / f"{scan.name}_{kind}.nii.gz"


def show_scan(pictures: Pictures, scan: Scan, output: Path, spec: ModelSpec, channel: int | None) -> None:
    """Adds the slices of a patient and the masks that `predict_scan` wrote to the output.

    Raises:
        FileNotFoundError: a mask is not there.
        ValueError: volumes that cannot be read.
    """
    axis = spec.axis
    grid, slices = _read(scan, axis)

    def read(kind: str) -> NDArray[Any]:
        return grid.to_slices(read_voxels(volume_path(output, scan, kind)), axis)

    masks = read_foreground(read, spec)
    _show(pictures, scan.name, slices, masks, channel, grid.spacing(axis))


def _read(scan: Scan, axis: Axis) -> tuple[Grid, NDArray[np.uint16]]:
    """The grid, and slices (S, C, H, W)."""
    try:
        grid = common_grid(scan.images)
        return grid, np.stack([grid.to_slices(in_16_bits(read_voxels(path)), axis) for path in scan.images], axis=1)
    except OSError as error:  # which is of results, wherever else it is raised
        raise ValueError(str(error)) from error


def _show(
    pictures: Pictures,
    patient: str,
    slices: NDArray[np.uint16],
    masks: NDArray[np.bool_],
    channel: int | None,
    spacing: Spacing,
) -> None:
    """Adds slices (S, C, H, W) with their masks (S, K, H, W), numbered from 0."""
    # One below the other they are one picture, so that the ends of the head stay as dark as they are.
    height = slices.shape[2]
    column = brightened(rearrange(to_unit_range(slices), "s c h w -> c (s h) w"), channel)
    for number, mask in enumerate(masks):
        shown = column[..., number * height : (number + 1) * height, :]
        pictures.add(patient, number, shown, mask, stretch=stretch_of(spacing))


def _checked(
    given: Path, images: tuple[Path, ...], sequences: Sequence[str] | None, channels: int | None
) -> tuple[Path, ...]:
    if sequences is not None and len(images) != len(sequences):
        raise ValueError(f"{given} is one volume, and {len(sequences)} sequences were named; give the case's folder")
    if channels is not None and len(images) != channels:
        raise ValueError(
            f"{given} has {len(images)} sequence{'s' * (len(images) != 1)} ({', '.join(x.name for x in images)}); "
            f"this network was trained on {channels} channel{'s' * (channels != 1)}: name the sequences in its order"
        )
    return images


def _write(voxels: NDArray[Any], like: Path, path: Path) -> None:
    import nibabel

    image: Any = nibabel.load(like)
    affine, header = image.affine, image.header.copy()
    header.set_data_dtype(voxels.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"], header["cal_max"] = 0, 0  # the window of the image, not of its mask
    image = nibabel.Nifti1Image(np.ascontiguousarray(voxels), affine, header)  # type: ignore[no-untyped-call]
    with written_whole(path) as partial:
        image.to_filename(partial)
