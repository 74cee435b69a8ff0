"""`brainseg benchmark`."""

import sys
from pathlib import Path
from typing import Any

from jsonargparse.typing import PositiveFloat, PositiveInt

from brainseg.cli.output import say
from brainseg.cli.parser import Parser, add_memory_option

NAMES = (
    "networks of ours (shell patterns too; all if none is named), timm/NAME, smp/ARCHITECTURE[/ENCODER], monai/CLASS, "
    "or package.module:callable for any nn.Module"
)


def parser() -> Parser:
    """Its options."""
    benchmark = Parser(
        description="Measure networks side by side: parameters, GMACs, latency, images a second, peak memory, and the "
        "ratio to the first row. Options that take a list, as 1,8,32, measure every combination."
    )
    benchmark.add_argument("names", nargs="*", metavar="NAME", help=NAMES)
    benchmark.add_argument("--device", default="cpu", metavar="LIST", help="cpu, cuda, cuda:1")
    benchmark.add_argument("--batch", default="1", metavar="LIST", help="images a call")
    benchmark.add_argument("--size", default="256", metavar="LIST", help="height and width in pixels")
    benchmark.add_argument("--dtype", default="float32", metavar="LIST", help="float32, tf32, bfloat16, float16")
    benchmark.add_argument("--mode", default="inference", metavar="LIST", help="inference, training")
    benchmark.add_argument("--layout", default="contiguous", metavar="LIST", help="contiguous, channels_last")
    benchmark.add_argument("--in-channels", type=PositiveInt, default=3, help="channels of the images")
    benchmark.add_argument("--optimize", action="store_true", help="rows more, of brainseg.inference.optimize")
    benchmark.add_argument("--compile", action="store_true", help="rows more, of torch.compile")
    benchmark.add_argument("--cuda-graph", action="store_true", help="rows more, of CUDA graphs")
    benchmark.add_argument(
        "--tolerance", type=PositiveFloat, help="all networks must give what the first gives, to this part of it"
    )
    benchmark.add_argument("--threads", type=PositiveInt, help="of the processor (default: PyTorch's)")
    benchmark.add_argument("--seconds", type=PositiveFloat, default=30.0, help="for the rounds of a table")
    benchmark.add_argument("--quick", action="store_true", help="two rounds and no memory, to see that it runs")
    benchmark.add_argument("-o", "--output", type=Path, help="folder for benchmark.json, .md and .svg")
    add_memory_option(benchmark)
    return benchmark


def run(options: Any) -> None:
    """Runs it."""
    import torch
    from rich.console import Console

    from brainseg.benchmark import Grid, create_report, failures, markdown, write_report
    from brainseg.benchmark.plots import create_figure

    sys.path.insert(0, str(Path.cwd()))  # as for python -m: modules of the folder that one is in
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    grid = Grid(
        options.names,
        devices=_words("device", options.device),
        batches=_counts("batch", options.batch),
        sizes=_counts("size", options.size),
        dtypes=_words("dtype", options.dtype),  # type: ignore[arg-type]
        modes=_words("mode", options.mode),  # type: ignore[arg-type]
        layouts=_words("layout", options.layout),  # type: ignore[arg-type]
        in_channels=options.in_channels,
        optimize=options.optimize,
        compile=options.compile,
        cuda_graph=options.cuda_graph,
        tolerance=options.tolerance,
    )
    if options.output is not None:  # what would keep the results from being written is told before they are measured
        create_figure()
        options.output.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True, markup=False)
    report = create_report(
        "benchmark",
        grid.cases,
        quick=options.quick,
        seconds=options.seconds,
        keep_freed_memory=options.keep_freed_memory,
        announce=lambda title: console.print(title, highlight=False),
    )
    say(markdown(report))
    if options.output is not None:
        say(f"Figures, tables and plots: {write_report(report, options.output).resolve().parent}")
    failed = failures(report)
    if failed:
        raise SystemExit("\n".join(failed))


def _words(name: str, text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise ValueError(f"--{name} takes words with commas between them, got {text!r}")
    return words


def _counts(name: str, text: str) -> list[int]:
    words = _words(name, text)
    if not all(word.isascii() and word.isdigit() for word in words):
        raise ValueError(f"--{name} takes positive integers with commas between them, as 1,8,32, got {text!r}")
    return [int(word) for word in words]
