"""`brainseg predict`."""

import sys
from pathlib import Path
from typing import Any

from brainseg.cli.output import say
from brainseg.cli.parser import Parser, add_memory_option

DEFAULT = "unext/lgg"


def parser() -> Parser:
    """Its options."""
    predict = Parser(description="Write masks and overlays of image files, or of all images in folders.")
    predict.add_argument(
        "inputs",
        type=Path,
        nargs="+",
        metavar="[MODEL] IMAGES",
        help="folder of a run, or of weights that save_pretrained wrote, or the name of weights that ship (default: "
        f"{DEFAULT}, trained on the LGG slices); then image files and folders",
    )
    predict.add_argument("-o", "--output", type=Path, required=True, help="folder for masks and overlays")
    predict.add_argument(
        "--threshold", type=float, help="probability above which a pixel is foreground (default: that of the weights)"
    )
    predict.add_argument(
        "--channel", type=int, help="of the image, from 0, that overlays show (default: what the weights name)"
    )
    add_memory_option(predict)
    return predict


def run(options: Any) -> None:
    """Runs it."""
    from brainseg.inference.files import PredictionError, predict

    model, images = _split(options.inputs)
    try:
        chosen = {"threshold": options.threshold, "channel": options.channel}
        count, reasons = predict(model, images, options.output, **chosen), []
    except PredictionError as error:
        count, reasons = error.done, error.reasons
    if count:
        say(f"Masks and overlays of {count} images: {options.output.resolve()}")
    for reason in reasons:
        sys.stderr.write(f"error: {' '.join(reason.split())}\n")
    if reasons:
        raise SystemExit(1)


def _split(inputs: list[Path]) -> tuple[Path, list[Path]]:
    """The model and the images: the first is a model if it can be one."""
    from brainseg.models import list_weights
    from brainseg.models.files import CONFIG

    first, *others = inputs
    if not first.exists():
        if first.as_posix() not in list_weights():
            raise FileNotFoundError(
                f"there is no model and no image {first}; give the folder of a run or of weights, weights that ship "
                f"({', '.join(list_weights())}), or images"
            )
    elif not any((first / part).is_file() for part in (CONFIG, f"best/{CONFIG}", "config.yaml")):
        return Path(DEFAULT), inputs
    if not others:
        raise ValueError(f"{first} is a model, and no images were given; name files or folders of images after it")
    return first, others
