"""Prints the table of relative errors to the authors' code that the README shows.

python docs/golden_table.py ../shared/goldens
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.goldens.reference import build, error, output, read
from tests.models import test_resunet, test_unet, test_unext

if __name__ == "__main__":
    print("| golden | output | float64 | float32 | authors' code in float32 |")
    print("|---|---|---:|---:|---:|")
    rows = [(name, module.record_stages) for module in (test_unext, test_unet, test_resunet) for name in module.NAMES]
    for name, record_stages in rows:
        golden = read(Path(sys.argv[1]), name)
        errors = []
        for dtype in (torch.float64, torch.float32):
            model, image = build(golden, dtype)
            with torch.no_grad():
                logits, stages = record_stages(model, image)
            worst = max(error(stages[stage], reference) for stage, reference in golden["stages"].items())
            errors.append(f"{error(output(logits, golden), golden['output']):.1e} (worst stage {worst:.1e})")
        float32 = golden["float32_max_abs_error"]
        theirs = float32["output"] / float32["output_max_abs"]
        shape = "x".join(map(str, golden["output"]["shape"]))
        print(f"| `{name}` | {shape} | {errors[0]} | {errors[1]} | {theirs:.1e} |")
