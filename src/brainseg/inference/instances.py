"""Objects of image files: a label map, a list and an overlay of each."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from brainseg._whole import check_folder, written_whole
from brainseg.checks import check_between
from brainseg.data import read_image, to_unit_range
from brainseg.data.nifti import stretch_of
from brainseg.inference.components import voxel_volume
from brainseg.inference.files import PredictionError, check_there, find_places
from brainseg.inference.foreign import find_queries
from brainseg.inference.predictor import Predictor
from brainseg.inference.results import blank_overlay, result_path
from brainseg.inference.settings import check_settings, settings_of, write_settings
from brainseg.inference.volumes import holds_volumes
from brainseg.models.mask_dino import Instances
from brainseg.visualization import brightened, draw_instances

LABEL_MAP = "instances"


def predict_instances(
    model: Path,
    images: Sequence[Path],
    output: Path,
    *,
    min_score: float = 0.5,
    channel: int | None = None,
    spacing: Sequence[float] | None = None,
    skip_existing: bool = False,
) -> int:
    """Writes `<name>_instances.png`, `<name>_instances.json` and `<name>_overlay.png` for every image.

    The picture has the number of the object at each of its pixels, 0 where there is none and the surest one where some
    overlap. The list has for each object, surest first, `id` (that number), `class`, `score`, `box` (corners x0, y0,
    x1, y1 in pixels), `pixels` and, with a spacing, `ml`.

    Args:
        model: folder of a run or of weights, or a name of `list_weights()`; a network with queries (Mask DINO).
        images: as for `brainseg.inference.files.predict`, but no volumes.
        output: folder of the results, made if absent.
        min_score: objects of a lower score are left out.
        channel: of the image, that overlays show; None for what the spec of the weights names.
        spacing: of slices, rows and columns in mm.
        skip_existing: leave images alone whose results are there, made with the same weights and options.

    Returns:
        the number of images.

    Raises:
        FileNotFoundError: no such model, file or folder, or a folder without images.
        PredictionError: files that are no images, or that the network does not take; raised after all others are done.
        ValueError: a network without queries, volumes, two images whose results would have one name, numbers that are
            none, or results to go on from that were made with other weights or options.
        FileExistsError: a file is in the place of the output.
        OSError: results cannot be written.
    """
    check_there(images)
    check_folder(output)
    if volumes := [path for path in images if holds_volumes(path)]:
        raise ValueError(f"{volumes[0]} is a volume, and instances are those of image files; predict it without them")
    check_between("min_score", min_score, 0, 1)
    ml_of_pixel = None if spacing is None else voxel_volume(spacing) / 1000
    stretch = stretch_of(spacing)
    predictor = Predictor.from_pretrained(model)
    find_queries(predictor.model)  # refused before anything is done
    shown_channel = predictor.spec.shown_channel if channel is None else channel
    places, reasons, done = find_places(images), [], 0
    settings = settings_of(predictor, min_score=min_score, spacing=spacing)
    overlays = [result_path(output / target, "overlay") for target in places]
    if skip_existing and any(map(Path.is_file, overlays)):
        check_settings(output, settings)
    elif not skip_existing:
        for overlay in overlays:  # which would say that an image is done
            overlay.unlink(missing_ok=True)
    for target, path in track(places.items(), "Predicting", transient=True, disable=len(places) < 2):
        place = output / target
        if not result_path(place, "overlay").is_file():
            try:
                image = to_unit_range(read_image(path))
                found = predictor.instances(image, min_score=min_score, stretch=stretch)
                assert isinstance(found, Instances)  # of one image
                shown = brightened(image, shown_channel)
            except (OSError, ValueError, MemoryError, RuntimeError) as error:  # torch's word for memory is the last
                reasons.append(str(error) if str(path) in str(error) else f"{path}: {error}")
                continue
            write_settings(output, settings)
            place.parent.mkdir(parents=True, exist_ok=True)
            _write(place, shown, found, predictor.spec.class_names, ml_of_pixel)
        done += 1
    if reasons:
        raise PredictionError(reasons, done)
    return done


def _write(
    place: Path, shown: NDArray[np.float32], found: Instances, names: Sequence[str], ml_of_pixel: float | None
) -> None:
    """Last of all, since it says that the others are there, the overlay."""
    with written_whole(result_path(place, LABEL_MAP)) as file:
        Image.fromarray(_label_map(found)).save(file)
    with written_whole(place.with_name(f"{place.name}_{LABEL_MAP}.json")) as file:
        file.write_text(json.dumps(_rows(found, names, ml_of_pixel), indent=1) + "\n", encoding="utf-8")
    with written_whole(result_path(place, "overlay")) as file:
        figure, axes = blank_overlay(*found.masks.shape[1:])
        draw_instances(axes, shown, found, names)
        figure.savefig(file)


def _label_map(found: Instances) -> NDArray[np.uint8]:
    """(H, W): the number of the first object that has a pixel; there are at most 100."""
    labels = np.zeros(found.masks.shape[1:], dtype=np.uint8)
    for number in range(len(found), 0, -1):
        labels[found.masks[number - 1].numpy()] = number
    return labels


def _rows(found: Instances, names: Sequence[str], ml_of_pixel: float | None) -> list[dict[str, Any]]:
    rows = []
    each = zip(found.classes.tolist(), found.scores.tolist(), found.boxes.tolist(), found.masks, strict=True)
    for number, (k, score, box, mask) in enumerate(each, start=1):
        pixels = int(mask.sum())
        corners = [round(value, 2) for value in box]
        row = {"id": number, "class": names[k], "score": round(score, 4), "box": corners, "pixels": pixels}
        rows.append(row if ml_of_pixel is None else {**row, "ml": round(pixels * ml_of_pixel, 6)})
    return rows
