"""`brainseg predict`."""

import sys
from pathlib import Path
from typing import Any

from brainseg.cli.output import say
from brainseg.cli.parser import Parser, add_memory_option

DEFAULT = "unext/lgg"
OF_MASKS = ("threshold", "tta", "windows", "patients", "probabilities", "sequences")
WEIGHTS = (".ckpt", ".pt", ".pth", ".safetensors", ".pt2", ".onnx")


def parser() -> Parser:
    """Its options."""
    predict = Parser(
        description="Write masks and overlays of image files, or of all in folders; and of NIfTI volumes, by case."
    )
    predict.add_argument(
        "inputs",
        type=Path,
        nargs="+",
        metavar="[MODEL ...] IMAGES",
        help="folder of a run, or of weights that save_pretrained wrote, hf-hub:org/name, or the name of weights that "
        f"ship (default: {DEFAULT}, trained on the LGG slices), of several the mean is taken; then image files, "
        "volumes and folders",
    )
    predict.add_argument("-o", "--output", type=Path, required=True, help="folder for masks and overlays")
    predict.add_argument(
        "--threshold", type=float, help="probability above which a pixel is foreground (default: that of the weights)"
    )
    predict.add_argument(
        "--channel", type=int, help="of the image, from 0, that overlays show (default: what the weights name)"
    )
    predict.add_argument("--tta", action="store_true", help="average over the eight turns and flips of each image")
    predict.add_argument(
        "--windows", action="store_true", help="see images larger than those of training window by window, not resized"
    )
    predict.add_argument(
        "--backend",
        choices=["torch", "compile", "onnxruntime"],
        default="torch",
        help="what computes: PyTorch; a program that it compiles, once for all calls; onnxruntime (default: torch)",
    )
    predict.add_argument(
        "--patients",
        action="store_true",
        help="the images of a folder are the slices of a patient, in the order of their numbers; what the weights "
        "say of smoothing and components, or one of the next options, is done to them together",
    )
    predict.add_argument("--smooth", action="store_true", help="average each slice of a patient with its neighbours")
    predict.add_argument("--keep-largest", action="store_true", help="keep the largest component of each patient alone")
    predict.add_argument("--min-volume", type=float, metavar="ML", help="remove a patient's components of fewer ml")
    predict.add_argument(
        "--spacing",
        type=float,
        nargs=3,
        metavar="MM",
        help="of slices, rows and columns, for millilitres in volumes.csv",
    )
    predict.add_argument(
        "--sequences",
        nargs="+",
        help="of volumes, the channels in their order (default: what the weights name)",
    )
    predict.add_argument(
        "--instances",
        action="store_true",
        help="of a network with queries (Mask DINO): the objects of each image, as a label map, a list and an overlay",
    )
    predict.add_argument(
        "--min-score", type=float, help="of instances: leave out those of a lower score (default: 0.5)"
    )
    predict.add_argument(
        "--devices",
        type=int,
        default=1,
        metavar="N",
        help="processes that share the images or patients: a GPU each, or the processor where there is none",
    )
    predict.add_argument("--probabilities", action="store_true", help="write <name>_probabilities.npy too")
    predict.add_argument("--skip-existing", action="store_true", help="go on where an earlier call stopped")
    add_memory_option(predict)
    return predict


def run(options: Any) -> None:
    """Runs it."""
    from brainseg.inference.files import PredictionError

    models, images = _split(options.inputs)
    written = "Label maps and overlays" if options.instances else "Masks and overlays"
    try:
        count, reasons = (_instances if options.instances else _masks)(models, images, options), []
    except PredictionError as error:
        count, reasons = error.done, error.reasons
    if count:
        say(f"{written} of {count} images: {options.output.resolve()}")
        if not options.instances:
            say(f"A page to look at: {options.output.resolve() / 'report.html'}")
    for reason in reasons:
        sys.stderr.write(f"error: {' '.join(reason.split())}\n")
    if reasons:
        raise SystemExit(1)


def _masks(models: list[Path], images: list[Path], options: Any) -> int:
    from brainseg.inference.files import predict
    from brainseg.models import Postprocessing

    if options.min_score is not None:
        raise ValueError("--min-score is of objects, with --instances; pixels have --threshold")
    chosen = {name: options[name] for name in ("channel", "spacing", "skip_existing", "backend", "devices", *OF_MASKS)}
    if options.smooth or options.keep_largest or options.min_volume is not None:
        chosen["postprocessing"] = Postprocessing(
            smooth=options.smooth,
            components="largest" if options.keep_largest else "all",
            min_volume=options.min_volume or 0.0,
        )
    return predict(models, images, options.output, **chosen)


def _instances(models: list[Path], images: list[Path], options: Any) -> int:
    from brainseg.inference.instances import predict_instances

    if len(models) > 1:
        raise ValueError(f"objects of several networks have no mean; name one of {', '.join(map(str, models))}")
    if options.devices != 1:
        raise ValueError("--devices shares masks alone; leave it out, or leave out --instances")
    if options.backend != "torch":
        raise ValueError(f"--backend {options.backend} computes masks alone; leave it out, or leave out --instances")
    given = [name for name in (*OF_MASKS, "smooth", "keep_largest", "min_volume") if options[name] not in (None, False)]
    if given:
        raise ValueError(f"--{given[0].replace('_', '-')} is of masks; leave it out, or leave out --instances")
    chosen = {name: options[name] for name in ("channel", "spacing", "skip_existing")}
    score = {} if options.min_score is None else {"min_score": options.min_score}
    return predict_instances(models[0], images, options.output, **chosen, **score)


def _split(inputs: list[Path]) -> tuple[list[Path], list[Path]]:
    """The models and the images: what comes first are models, as far as it can be."""
    from brainseg.models import hub, list_weights
    from brainseg.models.files import is_model

    if weights := [given for given in inputs if given.suffix.lower() in WEIGHTS]:
        raise ValueError(
            f"{weights[0]} is a file of weights; give the folder of its run, or one that save_pretrained wrote"
        )

    models: list[Path] = []
    for given in inputs:
        if given.exists():
            if not is_model(given):
                break
        elif given.as_posix() not in list_weights() and not hub.is_prefixed(given):
            raise FileNotFoundError(
                f"there is no model and no image {given}; give the folder of a run or of weights, weights that ship "
                f"({', '.join(list_weights())}), {hub.PREFIX}org/name, or images"
            )
        models.append(given)
    images = inputs[len(models) :]
    if not images:
        raise ValueError(f"{models[-1]} is a model, and no images were given; name files or folders of images after it")
    # The pictures that runs hold are no slices.
    for given in images:
        if found := [folder for folder in (given, *given.glob("*/")) if is_model(folder)]:
            raise ValueError(f"{found[0]} is a model, and stands where images do; name it first, images after it")
    return models or [Path(DEFAULT)], images
