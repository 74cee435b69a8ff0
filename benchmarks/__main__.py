"""python -m benchmarks [models] [--quick] [--output FOLDER]."""

import argparse
from pathlib import Path

import torch

from benchmarks._harness import benchmark

SUBJECTS = ("models",)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures this library beside its peers.")
    parser.add_argument("subjects", nargs="*", choices=[*SUBJECTS, []], help="all of them if none is named")
    parser.add_argument("--quick", action="store_true", help="two rounds, to see that everything runs")
    parser.add_argument("--threads", type=int, default=2, help="threads on the CPU (2)")
    results = Path(__file__).with_name("results")
    parser.add_argument("--output", type=Path, default=results, help="folder of the results (benchmarks/results)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for subject in arguments.subjects or SUBJECTS:
        print(benchmark(subject, quick=arguments.quick, output=arguments.output).read_text())
