"""Masks and overlays of image files."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track
from torch import Tensor

from brainseg._whole import written_whole
from brainseg.data import find_images, read_image, to_unit_range
from brainseg.data.files import stem_of, what_lies_in
from brainseg.inference import Predictor
from brainseg.models import ModelSpec
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


RESULT = re.compile(r"_(mask(_\d+)?|labels|overlay)$")


def predict(
    model: Path,
    images: Sequence[Path],
    output: Path,
    *,
    threshold: float | None = None,
    channel: int | None = None,
) -> int:
    """Writes `<name>_mask.png` (0 and 255) and `<name>_overlay.png` for every image.

    With several classes that may overlap there is a mask for each, `<name>_mask_0.png` and so on; with classes that
    exclude each other one label map, `<name>_labels.png` (class 0 the background). Images in folders keep the path that
    they have there; masks and overlays, by the names that they get here, are left out.

    Args:
        model: folder of a run, or of weights that `save_pretrained` wrote, or a name of `list_weights()`.
        images: image files, and folders that are searched to any depth, by the rule of `brainseg.data.find_images`.
        output: folder of the results, made if absent.
        threshold: probability above which a pixel is foreground; None for that of the weights.
        channel: of the image, that overlays show; None for what the spec of the weights names.

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
        for name, pixels in _pictures(mask, predictor.spec).items():
            with written_whole(place.with_name(f"{place.name}_{name}.png")) as file:
                Image.fromarray(pixels).save(file)
        shown = brightened(tensor, predictor.spec.shown_channel if channel is None else channel)
        with written_whole(place.with_name(f"{place.name}_overlay.png")) as file:
            _overlay(shown, mask[predictor.spec.foreground.start :].numpy()).savefig(file)
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


def _pictures(mask: Tensor, spec: ModelSpec) -> dict[str, NDArray[np.uint8]]:
    """What is written of a mask (K, H, W), by the end of its name."""
    if spec.task == "multiclass":
        return {"labels": mask.byte().argmax(0).byte().numpy()}
    masks = (255 * mask.byte()).numpy()
    return {"mask": masks[0]} if len(masks) == 1 else {f"mask_{number}": each for number, each in enumerate(masks)}


def _overlay(image: NDArray[np.float32], masks: NDArray[np.bool_], pixels: int = 512) -> Figure:
    """The image with the outlines of its masks (K, H, W), its longer side this many pixels wide."""
    height, width = masks.shape[-2:]
    unit = pixels / max(height, width) / 100
    figure = Figure(figsize=(width * unit, height * unit), dpi=100)
    draw_outlines(figure.add_axes((0, 0, 1, 1)), image, prediction=masks)
    return figure
