"""Masks and overlays of image files."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from brainseg._whole import written_whole
from brainseg.data import find_images, read_image, to_unit_range
from brainseg.data.files import stem_of, what_lies_in
from brainseg.inference import Predictor
from brainseg.visualization import draw_outlines


class PredictionError(ValueError):
    """Some images could not be predicted; the masks of all others are written.

    Attributes:
        reasons: what is wrong with each, with its path.
        done: number of the others.
    """

    def __init__(self, reasons: Sequence[str], done: int) -> None:
        super().__init__("; ".join(reasons))
        self.reasons, self.done = list(reasons), done


RESULT = re.compile(r"_(mask(_\d+)?|overlay)$")


def predict(model: Path, images: Sequence[Path], output: Path, *, threshold: float | None = None) -> int:
    """Writes `<name>_mask.png` (0 and 255) and `<name>_overlay.png` for every image.

    With several classes there is a mask for each, `<name>_mask_0.png` and so on. Images in folders keep the path that
    they have there; masks and overlays, by the names that they get here, are left out.

    Args:
        model: folder of a run, or of weights that `save_pretrained` wrote.
        images: image files, and folders that are searched to any depth, by the rule of `brainseg.data.find_images`.
        output: folder of the results, made if absent.
        threshold: probability above which a pixel is foreground; None for that of the weights.

    Returns:
        the number of images.

    Raises:
        FileNotFoundError: no such model, file or folder, or a folder without images.
        PredictionError: files that are no images, may not be read, or have channels or sides that the network does not
            take; raised after all others are predicted.
        ValueError: two images whose results would have one name.
        OSError: results cannot be written.
    """
    predictor = Predictor.from_pretrained(model, threshold=threshold)
    found = _find(images)
    reasons = []
    for target, path in track(found.items(), "Predicting", transient=True, disable=len(found) < 2):
        try:
            tensor = to_unit_range(read_image(path))
            mask = predictor(tensor)
        except (OSError, ValueError, MemoryError, RuntimeError) as error:  # torch's word for memory is the last
            reasons.append(str(error) if str(path) in str(error) else f"{path}: {error}")
            continue
        place = output / target
        place.parent.mkdir(parents=True, exist_ok=True)
        for number, channel in enumerate(mask.numpy()):
            suffix = "_mask" if len(mask) == 1 else f"_mask_{number}"
            with written_whole(place.with_name(f"{place.name}{suffix}.png")) as file:
                Image.fromarray(channel.astype(np.uint8) * 255).save(file)
        with written_whole(place.with_name(f"{place.name}_overlay.png")) as file:
            _overlay(tensor.numpy(), mask.any(0).numpy()).savefig(file)
    if reasons:
        raise PredictionError(reasons, len(found) - len(reasons))
    return len(found)


def _find(images: Sequence[Path]) -> dict[Path, Path]:
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


def _overlay(image: NDArray[np.float32], mask: NDArray[np.bool_], pixels: int = 512) -> Figure:
    """The image with the outline of its mask, its longer side this many pixels wide."""
    height, width = mask.shape
    unit = pixels / max(height, width) / 100
    figure = Figure(figsize=(width * unit, height * unit), dpi=100)
    draw_outlines(figure.add_axes((0, 0, 1, 1)), image, prediction=mask)
    return figure
