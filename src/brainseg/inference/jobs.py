"""A patient's files: predicted, written and drawn."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from brainseg._whole import written_whole
from brainseg.data import read_image, to_unit_range
from brainseg.data.nifti import stretch_of
from brainseg.inference.components import postprocess
from brainseg.inference.measures import Measures, measure
from brainseg.inference.predictor import Predictor
from brainseg.inference.results import (
    LABELS,
    blank_overlay,
    by_kind,
    read_foreground,
    result_path,
    write_probabilities,
)
from brainseg.inference.volumes import Scan, predict_scan, show_scan
from brainseg.models import ModelSpec, Postprocessing
from brainseg.report import Pictures
from brainseg.visualization import brightened, draw_outlines


class Job(NamedTuple):
    """What is predicted together.

    Attributes:
        name: in the table.
        files: volumes; or images, by where their results go, without suffix, below the output folder.
        done: an earlier call has predicted it, and it is drawn alone.
    """

    name: str
    files: Scan | Mapping[Path, Path]
    done: bool


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How, for all jobs alike.

    Attributes:
        output: folder of the results.
        spec: of the network.
        channel: of the image, that pictures show.
        of_images: what is done to the slices of a job of images.
        of_volumes: what is done to volumes.
        spacing: of images.
        probabilities: write them too.
    """

    output: Path
    spec: ModelSpec
    channel: int | None
    of_images: Postprocessing | None
    of_volumes: Postprocessing | None
    spacing: tuple[float, ...] | None
    probabilities: bool


class Outcome(NamedTuple):
    """What came of a job.

    Attributes:
        rows: of the table; none where an earlier call had written them, or nothing could be predicted.
        reasons: why not.
        hidden: why pictures are missing on the page.
        predicted: number of images or patients that are done.
    """

    rows: list[Measures]
    reasons: list[str]
    hidden: list[str]
    predicted: int


def do(job: Job, predictor: Predictor, manner: Manner, pictures: Pictures) -> Outcome:
    """Does a job, and adds its slices to the pictures.

    Raises:
        OSError: results cannot be written.
    """
    if isinstance(job.files, Scan):
        return _volumes(job, job.files, predictor, manner, pictures)
    return _images(job, job.files, predictor, manner, pictures)


def _volumes(job: Job, scan: Scan, predictor: Predictor, manner: Manner, pictures: Pictures) -> Outcome:
    if job.done:
        try:
            show_scan(pictures, scan, manner.output, manner.spec, manner.channel)
        except (OSError, ValueError) as error:
            return Outcome([], [], [str(error)], 1)
        return Outcome([], [], [], 1)
    manner.output.mkdir(parents=True, exist_ok=True)
    chosen: dict[str, Any] = {"postprocessing": manner.of_volumes, "probabilities": manner.probabilities}
    try:
        rows = predict_scan(predictor, scan, manner.output, pictures=pictures, channel=manner.channel, **chosen)
    except (ValueError, MemoryError, RuntimeError) as error:
        return Outcome([], [f"{scan.images[0].parent}: {error}"], [], 0)
    return Outcome(rows, [], [], 1)


def _images(job: Job, slices: Mapping[Path, Path], predictor: Predictor, manner: Manner, pictures: Pictures) -> Outcome:
    stretch = stretch_of(manner.spacing)
    if job.done:
        return Outcome([], [], _show(pictures, job.name, slices, manner, stretch), len(slices))
    tensors, likely, reasons = _predict(slices.values(), predictor, stretch)
    if reasons:
        return Outcome([], reasons, [], 0)
    masks = postprocess(torch.stack(likely), manner.spec, steps=manner.of_images, spacing=manner.spacing)
    for target, image, mask, each in zip(slices, tensors, masks, likely, strict=True):
        place = manner.output / target
        place.parent.mkdir(parents=True, exist_ok=True)
        if manner.probabilities:
            write_probabilities(each, place)
        shown = brightened(image, manner.channel)
        _write(place, shown, mask, manner.spec)
        found = mask[manner.spec.foreground.start :].numpy()
        pictures.add(job.name, _label(target, job.name), shown, found, stretch=stretch)
    rows = measure(masks, manner.spec, patient=job.name, spacing=manner.spacing)
    return Outcome(rows, [], [], len(slices))


def _predict(
    paths: Iterable[Path], predictor: Predictor, stretch: float
) -> tuple[list[Tensor], list[Tensor], list[str]]:
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
            likely.append(predictor.probabilities(image, stretch=stretch))
            images.append(image)
        except (OSError, ValueError, MemoryError, RuntimeError) as error:  # torch's word for memory is the last
            reasons.append(str(error) if str(path) in str(error) else f"{path}: {error}")
    return images, likely, reasons


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


def _label(target: Path, name: str) -> str:
    """What a slice is called beside its patient, whose name it often repeats."""
    return target.name.removeprefix(f"{Path(name).name}_")


def _show(
    pictures: Pictures,
    name: str,
    slices: Mapping[Path, Path],
    manner: Manner,
    stretch: float,
) -> list[str]:
    """Adds slices and the masks that an earlier call wrote of them; returns why some cannot be shown."""
    problems = []
    for target, path in slices.items():

        def read(kind: str, place: Path = manner.output / target) -> NDArray[Any]:
            pixels: NDArray[Any] = read_image(result_path(place, kind))[0]
            return pixels

        try:
            shown = brightened(to_unit_range(read_image(path)), manner.channel)
            pictures.add(name, _label(target, name), shown, read_foreground(read, manner.spec), stretch=stretch)
        except (OSError, ValueError) as error:
            problems.append(f"{path}: {error}")
    return problems
