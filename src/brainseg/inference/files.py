"""Masks and overlays of image files."""

import re
from bisect import insort
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track
from torch import Tensor

from brainseg._whole import written_whole
from brainseg.data import find_images, read_image, to_unit_range
from brainseg.data.files import stem_of, what_lies_in
from brainseg.data.patients import natural_order
from brainseg.inference import Ensemble, Measures, Predictor, measure, postprocess
from brainseg.inference.backends import Backend
from brainseg.inference.components import voxel_volume
from brainseg.inference.page import prediction_page
from brainseg.inference.results import (
    LABELS,
    blank_overlay,
    by_kind,
    read_foreground,
    result_path,
    write_probabilities,
)
from brainseg.inference.volumes import find_scans, holds_volumes, predict_scan, show_scan
from brainseg.models import ModelSpec, Postprocessing
from brainseg.report import Pictures, check_pages, read_rows, write_page, write_rows
from brainseg.visualization import brightened, draw_outlines


class PredictionError(ValueError):
    """Some images could not be predicted; the masks of all others are written.

    Attributes:
        reasons: what is wrong with each, with its path.
        done: number of the others.
    """

    def __init__(self, reasons: Sequence[str], done: int) -> None:
        super().__init__("; ".join(reasons))
        self.reasons, self.done = list(reasons), done


RESULT = re.compile(r"_(mask(_\d+)?|labels|instances|overlay)$")
TABLE, PAGE = "volumes.csv", "report.html"


def predict(
    model: Path | Sequence[Path],
    images: Sequence[Path],
    output: Path,
    *,
    threshold: float | None = None,
    channel: int | None = None,
    tta: bool = False,
    windows: bool = False,
    backend: Backend = "torch",
    patients: bool = False,
    postprocessing: Postprocessing | None = None,
    spacing: Sequence[float] | None = None,
    probabilities: bool = False,
    skip_existing: bool = False,
    sequences: Sequence[str] | None = None,
) -> int:
    """Writes `<name>_mask.png` (0 and 255) and `<name>_overlay.png` for every image, `volumes.csv` and `report.html`.

    With several classes that may overlap there is a mask for each, `<name>_mask_0.png` and so on; with classes that
    exclude each other one label map, `<name>_labels.png` (class 0 the background). Images in folders keep the path that
    they have there; masks and overlays, by the names that they get here, are left out. The table has a row of
    `Measures` for each class of each image, or of each patient; the page shows it with all slices.

    NIfTI volumes become NIfTI volumes (`predict_scan`): files, folders of a case, or folders of such.

    Args:
        model: folder of a run, or of weights that `save_pretrained` wrote, or a name of `list_weights()`; of several
            the mean of their logits is taken.
        images: image files, and folders that are searched to any depth, by the rule of `brainseg.data.find_images`;
            volumes, and folders that hold some (`find_scans`).
        output: folder of the results, made if absent.
        threshold: probability above which a pixel is foreground; None for that of the weights.
        channel: of the image, that overlays show; None for what the spec of the weights names.
        tta: as for `Predictor`.
        windows: as for `Predictor`.
        backend: as for `Predictor`.
        patients: the images of one folder are the slices of a patient, in the order of the numbers in their names, and
            `postprocessing` is done to them together.
        postprocessing: None for that of the weights.
        spacing: of slices, rows and columns in mm, for millilitres and millimetres.
        probabilities: write `<name>_probabilities.npy` too, (K, H, W) float32, before any postprocessing.
        skip_existing: leave images alone whose overlays are there, volumes that are in the table, and keep their rows.
        sequences: of volumes, the network's channels in their order; None for those that the weights name.

    Returns:
        the number of images and volumes.

    Raises:
        FileNotFoundError: no such model, file or folder, or a folder without images.
        PredictionError: files that are no images, may not be read, or have channels or sides that the network does not
            take, and patients one of whose slices is such a file; raised after all others are predicted.
        ValueError: two images whose results would have one name, or arguments that do not fit each other.
        OSError: results cannot be written.
    """
    volumes = [path for path in images if holds_volumes(path)]
    images = [path for path in images if path not in volumes]
    if postprocessing is not None and not patients and images:
        raise ValueError("postprocessing is done to the slices of a patient together; predict with patients=True")
    if spacing is not None:
        voxel_volume(spacing)  # refused before anything is done
    check_pages()
    predictor = _open(model, threshold=threshold, tta=tta, windows=windows, backend=backend)
    scans = _scans(find_places(images), by_folder=patients)
    spec = predictor.spec
    named = spec.channel_names if sequences is None else sequences
    patients_of_volumes = [scan for path in volumes for scan in find_scans(path, named, predictor.in_channels)]
    _check_names([*scans, *(scan.name for scan in patients_of_volumes)])
    table = _Table(output / TABLE, keep=skip_existing)
    reasons, hidden, done = [], list[str](), 0
    shown_channel = spec.shown_channel if channel is None else channel
    stretch = 1.0 if spacing is None else spacing[1] / spacing[2]
    with Pictures() as pictures:
        for name, slices in track(scans.items(), "Predicting", transient=True, disable=len(scans) < 2):
            if skip_existing and all(result_path(output / target, "overlay").is_file() for target in slices):
                hidden += _show(pictures, name, slices, output, spec, shown_channel, stretch)
                done += len(slices)
                continue
            tensors, likely, problems = _predict(slices.values(), predictor)
            reasons += problems
            if problems:
                continue
            steps = postprocessing if patients else Postprocessing()
            masks = postprocess(torch.stack(likely), spec, steps=steps, spacing=spacing)
            for target, image, mask, each in zip(slices, tensors, masks, likely, strict=True):
                place = output / target
                place.parent.mkdir(parents=True, exist_ok=True)
                if probabilities:
                    write_probabilities(each, place)
                shown = brightened(image, shown_channel)
                _write(place, shown, mask, spec)
                found = mask[spec.foreground.start :].numpy()
                pictures.add(name, _label(target, name), shown, found, stretch=stretch)
            table.replace(name, measure(masks, spec, patient=name, spacing=spacing))
            done += len(slices)
        for scan in track(patients_of_volumes, "Predicting", transient=True, disable=len(patients_of_volumes) < 2):
            if skip_existing and table.holds(scan.name):
                try:
                    show_scan(pictures, scan, output, spec, shown_channel)
                except (OSError, ValueError) as error:
                    hidden.append(str(error))
            else:
                output.mkdir(parents=True, exist_ok=True)
                chosen: dict[str, Any] = {"postprocessing": postprocessing, "probabilities": probabilities}
                try:
                    rows = predict_scan(predictor, scan, output, pictures=pictures, channel=shown_channel, **chosen)
                    table.replace(scan.name, rows)
                except (ValueError, MemoryError, RuntimeError) as error:
                    reasons.append(f"{scan.images[0].parent}: {error}")
                    continue
            done += 1
        if measures := table.measures():
            case = "patient" if patients or patients_of_volumes else "image"
            names = [spec.class_names[k] for k in spec.foreground]
            notes = [*(f"Not predicted: {reason}" for reason in reasons), *(f"Not shown: {text}" for text in hidden)]
            page = prediction_page(f"{output.resolve().name}: predictions", measures, names, case=case, notes=notes)
            write_page(page, pictures, output / PAGE)
    if reasons:
        raise PredictionError(reasons, done)
    return done


class _Table:
    """The rows of volumes.csv, written anew whenever a patient is done; a patient's row is written last of all."""

    def __init__(self, path: Path, *, keep: bool) -> None:
        self.path = path
        self.rows: dict[str, list[Measures]] = {}
        if keep and path.is_file():
            for row in read_rows(path):
                self.rows.setdefault(row["patient"], []).append(_measures(row, path))
        self.patients = sorted(self.rows, key=natural_order)

    def holds(self, patient: str) -> bool:
        return patient in self.rows

    def replace(self, patient: str, rows: Sequence[Measures]) -> None:
        if patient not in self.rows:
            insort(self.patients, patient, key=natural_order)
        self.rows[patient] = list(rows)
        write_rows([row._asdict() for row in self.measures()], self.path)

    def measures(self) -> list[Measures]:
        """All rows, in the order of the table."""
        return [row for patient in self.patients for row in self.rows[patient]]


def _measures(row: Mapping[str, str], path: Path) -> Measures:
    try:
        return Measures(**{name: kind(row[name]) for name, kind in Measures.__annotations__.items()})
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is no table of this version: {error}; predict without --skip-existing, or to another folder"
        ) from error


def _check_names(names: Sequence[str]) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"two of the inputs are called {twice[0]} and would share their results; predict them apart")


def _write(place: Path, shown: NDArray[np.float32], mask: Tensor, spec: ModelSpec) -> None:
    """The masks of an image, and last, since it says that all others are there, the overlay."""
    for kind, values in by_kind(mask, spec).items():
        pixels = values if kind == LABELS else 255 * values
        with written_whole(result_path(place, kind)) as file:
            Image.fromarray(pixels).save(file)
    with written_whole(result_path(place, "overlay")) as file:
        figure, axes = blank_overlay(mask.shape[-2], mask.shape[-1])
        draw_outlines(axes, shown, prediction=mask[spec.foreground.start :].numpy())
        figure.savefig(file)


def _open(model: Path | Sequence[Path], **arguments: Any) -> Predictor:
    if isinstance(model, str | Path):
        return Predictor.from_pretrained(model, **arguments)
    if len(model) == 1:
        return Predictor.from_pretrained(model[0], **arguments)
    return Ensemble.from_folders(model, **arguments)


def _predict(paths: Iterable[Path], predictor: Predictor) -> tuple[list[Tensor], list[Tensor], list[str]]:
    """Images (C, H, W) and probabilities (K, H, W) of a scan, and what is wrong with those that cannot be predicted."""
    images: list[Tensor] = []
    likely: list[Tensor] = []
    reasons: list[str] = []
    for path in paths:
        try:
            image = to_unit_range(read_image(path))
            if images and image.shape != images[0].shape:
                raise ValueError(
                    f"its shape {tuple(image.shape)} is not that of the slices before it, {tuple(images[0].shape)}; "
                    "those of a patient have one, predict others without patients"
                )
            likely.append(predictor.probabilities(image))
            images.append(image)
        except (OSError, ValueError, MemoryError, RuntimeError) as error:  # torch's word for memory is the last
            reasons.append(str(error) if str(path) in str(error) else f"{path}: {error}")
    return images, likely, reasons


def _label(target: Path, name: str) -> str:
    """What a slice is called beside its patient, whose name it often repeats."""
    return target.name.removeprefix(f"{Path(name).name}_")


def _show(
    pictures: Pictures,
    name: str,
    slices: Mapping[Path, Path],
    output: Path,
    spec: ModelSpec,
    channel: int | None,
    stretch: float,
) -> list[str]:
    """Adds slices and the masks that an earlier call wrote of them; returns why some cannot be shown."""
    problems = []
    for target, path in slices.items():

        def read(kind: str, place: Path = output / target) -> NDArray[Any]:
            pixels: NDArray[Any] = read_image(result_path(place, kind))[0]
            return pixels

        try:
            shown = brightened(to_unit_range(read_image(path)), channel)
            pictures.add(name, _label(target, name), shown, read_foreground(read, spec), stretch=stretch)
        except (OSError, ValueError) as error:
            problems.append(f"{path}: {error}")
    return problems


def _scans(found: Mapping[Path, Path], *, by_folder: bool) -> dict[str, dict[Path, Path]]:
    """What is predicted together, by its name in the table: each image by itself, or the slices of each folder."""
    scans: dict[str, dict[Path, Path]] = {}
    for target, path in sorted(found.items(), key=lambda item: natural_order(item[0].as_posix())):
        folder = target.parent.as_posix() if target.parent.name else path.absolute().parent.name
        scans.setdefault(folder if by_folder else target.as_posix(), {})[target] = path
    return scans


def find_places(images: Sequence[Path]) -> dict[Path, Path]:
    """Where the results of each image go, without suffix, below the output folder."""
    found: dict[Path, Path] = {}
    for given in images:
        if given.is_dir():
            paths = [path for path in find_images(given) if not RESULT.search(stem_of(path))]
            if not paths:
                raise FileNotFoundError(
                    f"{given} holds no images: {what_lies_in(given)} (files called *_mask and *_overlay are left out)"
                )
        elif given.is_file():
            paths = [given]
        else:
            raise FileNotFoundError(f"there is no file or folder {given}")
        for path in paths:
            target = (path.relative_to(given) if given.is_dir() else Path(path.name)).with_name(stem_of(path))
            if target in found and found[target] != path:
                raise ValueError(f"{path} and {found[target]} would share the name {target}; predict them apart")
            found[target] = path
    return found
