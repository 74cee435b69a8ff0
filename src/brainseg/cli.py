"""The command `brainseg`: each layer is imported when its command runs."""

import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def main() -> None:
    """Entry point of the command."""
    try:
        parser = _parser()
        options = parser.instantiate(parser.parse_args())
        COMMANDS[options.subcommand](options[options.subcommand])
    except ImportError as error:
        message = str(error) if "pip install" in str(error) else f"brainseg needs {error.name}: {INSTALL}"
        raise SystemExit(message) from error
    except (OSError, ValueError) as error:
        _stop(str(error))


INSTALL = 'pip install "brainseg-torch[train]"'


def _stop(message: str) -> NoReturn:
    """One line and exit code 2: what is wrong is the user's to change."""
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    raise SystemExit(2)


def _parser() -> "ArgumentParser":
    import yaml  # type: ignore[import-untyped]
    from jsonargparse import ActionConfigFile, ArgumentParser  # type: ignore[attr-defined]
    from jsonargparse.typing import PositiveInt

    from brainseg.training.config import CONFIGS, TrainConfig, shipped_configs

    class Parser(ArgumentParser):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(allow_abbrev=False, **arguments)

        def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # noqa: ARG002
            _stop(f"{message}; {self.prog.replace(' [options]', '')} --help shows what there is")

    class NamedConfig(ActionConfigFile):
        """A YAML file, or the name of a configuration that comes with the package."""

        def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
            shipped = values in shipped_configs() and not Path(values).is_file()
            path = CONFIGS / f"{values}.yaml" if shipped else Path(values)
            if not path.is_file():
                _stop(f"there is no configuration {values}; give a YAML file, or {' or '.join(shipped_configs())}")
            try:
                yaml.safe_load(path.read_text())
            except (ValueError, yaml.YAMLError) as error:
                _stop(f"{values} is no YAML: {error}")
            super().__call__(parser, cfg, str(path), option_string)  # type: ignore[no-untyped-call]

    parser = Parser(prog="brainseg", description="Segmentation of tumours on brain MRI slices.")
    commands = parser.add_subcommands(metavar="COMMAND")

    demo = Parser(description="Train UNeXt for about a minute on synthetic slices, evaluate it, and draw the outcome.")
    demo.add_argument("--output", type=Path, default=Path("demo"), help="folder of the run, replaced if there is one")
    commands.add_subcommand("demo", demo, help="train, evaluate and draw on synthetic slices")

    train = Parser(description="Train a network; the run's folder gets all that is needed to evaluate or resume it.")
    train.add_argument(
        "--config",
        action=NamedConfig,
        help=f"YAML file, or one of {', '.join(shipped_configs())}; options after it override it",
    )
    train.add_argument("--run", type=Path, help="folder of the run (default: runs/<time>)")
    train.add_argument("--resume", type=Path, help="folder of a run to go on with, by its own configuration")
    train.add_class_arguments(TrainConfig)
    commands.add_subcommand("train", train, help="train a network, or resume a run")

    evaluate = Parser(description="Score a run's best weights by patient, institution and overall, and draw cases.")
    evaluate.add_argument("run", type=Path, help="folder of the run")
    evaluate.add_argument("--part", choices=["train", "validation", "test"], default="validation", help="of the split")
    evaluate.add_argument("--split", type=Path, help="other JSON file of patients to evaluate on")
    evaluate.add_argument("--root", type=Path, help="folder of the data (default: that of the run)")
    evaluate.add_argument(
        "-o", "--output", type=Path, help="folder of tables and picture (default: RUN/evaluation/PART)"
    )
    commands.add_subcommand("evaluate", evaluate, help="score a run by patient")

    predict = Parser(description="Write masks and overlays of image files, or of all images in folders.")
    predict.add_argument("model", type=Path, help="folder of a run, or of weights that save_pretrained wrote")
    predict.add_argument("images", type=Path, nargs="+", help="image files and folders")
    predict.add_argument("-o", "--output", type=Path, required=True, help="folder for masks and overlays")
    predict.add_argument("--threshold", type=float, default=0.5, help="probability above which a pixel is foreground")
    commands.add_subcommand("predict", predict, help="segment image files")

    models = Parser(description="List the networks and what an image costs; training MiB: its kept activations.")
    models.add_argument("pattern", nargs="?", default="*", help="shell pattern of names")
    models.add_argument("--size", type=PositiveInt, default=256, help="side of the image in pixels")
    commands.add_subcommand("models", models, help="list the networks")
    return parser


def _demo(options: "Namespace") -> None:
    from brainseg.training.demo import demo

    demo(options.output)


def _train(options: "Namespace") -> None:
    from brainseg.training import TrainConfig, resume, train  # makes Lightning importable
    from brainseg.training.config import to_config
    from lightning.pytorch.utilities import rank_zero_only  # isort: skip

    config = to_config(options)
    if options.resume is not None:
        if config != TrainConfig() or options.run is not None:
            raise ValueError("--resume takes everything from the run's own config.yaml; leave the other options out")
        resume(options.resume)
        folder = options.resume
    else:
        folder = options.run or Path("runs") / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        train(config, folder)
    rank_zero_only(_say)(f"The run: {folder.resolve()}. Next: brainseg evaluate {folder}")


def _evaluate(options: "Namespace") -> None:
    from brainseg.training import evaluate

    evaluation = evaluate(options.run, part=options.part, split=options.split, root=options.root, output=options.output)
    evaluation.show()


def _predict(options: "Namespace") -> None:
    from brainseg.training.prediction import predict

    count = predict(options.model, options.images, options.output, threshold=options.threshold)
    _say(f"Masks and overlays of {count} images: {options.output.resolve()}")


def _models(options: "Namespace") -> None:
    import torch
    from rich.console import Console
    from rich.table import Table

    from brainseg.models import create_model, list_models, summary

    names = list_models(options.pattern)
    if not names:
        raise ValueError(f"no network is called {options.pattern}; there are {', '.join(list_models())}")
    table = Table("name", "class", title=f"One image of {options.size}x{options.size}")
    for header in ("parameters", "GMACs", "GFLOPs", "training MiB"):
        table.add_column(header, justify="right")
    for name in names:
        with torch.device("meta"):
            model = create_model(name)
        costs = summary(model, (options.size, options.size))
        counts = (f"{costs.parameters:,}", f"{costs.macs / 1e9:.4f}", f"{costs.flops / 1e9:.4f}")
        table.add_row(name, type(model).__name__, *counts, f"{costs.activation_bytes / 2**20:.1f}")
    Console().print(table)


def _say(text: str) -> None:
    from rich.console import Console

    Console(markup=False).print(text, soft_wrap=True, highlight=False)


COMMANDS: dict[str, Callable[["Namespace"], None]] = {
    "demo": _demo,
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "models": _models,
}
