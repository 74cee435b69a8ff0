"""python -m benchmarks [SUBJECT ...] [--quick] [--output FOLDER]; --help lists the subjects."""

import argparse
import sys
from importlib import import_module
from pathlib import Path

import torch

from brainseg.benchmark import create_report, failures, write_report

SUBJECTS = ("models", "losses", "metrics", "transforms", "training", "growth", "speed", "mask_dino")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures this library beside its peers.")
    parser.add_argument("subjects", nargs="*", choices=[*SUBJECTS, []], help="all of them if none is named")
    parser.add_argument("--quick", action="store_true", help="two rounds, to see that everything runs")
    parser.add_argument("--seconds", type=float, default=150, help="for the rounds of a table (150)")
    parser.add_argument("--threads", type=int, default=2, help="threads on the CPU (2)")
    parser.add_argument(
        "--keep-freed-memory",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep freed memory for the next call, as brainseg's commands do",
    )
    parser.add_argument(
        "--output", type=Path, help="folder of the results (benchmarks/results; quick: build/benchmarks)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    here = Path(__file__).parent
    output = arguments.output or (here.parent / "build" / "benchmarks" if arguments.quick else here / "results")
    failed = []
    for subject in arguments.subjects or SUBJECTS:
        report = create_report(
            subject,
            import_module(f"benchmarks.{subject}").cases,
            quick=arguments.quick,
            seconds=arguments.seconds,
            keep_freed_memory=arguments.keep_freed_memory,
        )
        print(write_report(report, output).read_text())
        failed += failures(report)
    sys.exit("\n".join(failed) or None)
