"""`brainseg predict`."""

import sys
from pathlib import Path
from typing import Any

from brainseg.cli.output import say
from brainseg.cli.parser import Parser, add_memory_option


def parser() -> Parser:
    """Its options."""
    predict = Parser(description="Write masks and overlays of image files, or of all images in folders.")
    predict.add_argument("model", type=Path, help="folder of a run, or of weights that save_pretrained wrote")
    predict.add_argument("images", type=Path, nargs="+", help="image files and folders")
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

    try:
        chosen = {"threshold": options.threshold, "channel": options.channel}
        count, reasons = predict(options.model, options.images, options.output, **chosen), []
    except PredictionError as error:
        count, reasons = error.done, error.reasons
    if count:
        say(f"Masks and overlays of {count} images: {options.output.resolve()}")
    for reason in reasons:
        sys.stderr.write(f"error: {' '.join(reason.split())}\n")
    if reasons:
        raise SystemExit(1)
