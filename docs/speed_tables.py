"""Writes the tables of docs/speed.md, each between the comment that names it and the next `end`.

    python docs/speed_tables.py

What they show are results of `python -m benchmarks speed growth` and of `python -m benchmarks.shares`.
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from docs.blocks import with_blocks

PAGE = Path(__file__).parent / "speed.md"
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
MISSING = "not measured"

KEPT = "freed memory kept"
INFERENCE = [
    ("as it is", "`model.eval()` under `torch.inference_mode()`"),
    (KEPT, "`keep_freed_memory()`; `brainseg predict` does it"),
    (f"{KEPT}, channels_last", "network and images in `torch.channels_last`"),
    (f"{KEPT}, optimized", "`optimize(model)`: batch norms folded, channels_last"),
    (f"{KEPT}, optimized, compiled", '`optimize(model, compile=True)`, `Predictor(model, backend="compile")`'),
    (f"{KEPT}, optimized, bfloat16", "`optimize(model).bfloat16()`"),
    ("onnxruntime", '`export(optimize(model), "model.onnx")`, run by onnxruntime'),
]
BESIDE = [
    ("MONAI UNet", "16 to 256 channels, two residual units, as it comes"),
    ("as it is", "`unext`"),
    ("optimized", "`optimize(model)`"),
    ("optimized, compiled", "`optimize(model, compile=True)`"),
    ("onnxruntime", '`export(optimize(model), "model.onnx")`'),
]
STEPS: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "training": (
        "Training step, batch 8",
        [
            ("as it is", "a plain loop of PyTorch"),
            (KEPT, "`keep_freed_memory()`; `brainseg train` does it"),
            (f"{KEPT}, channels_last", "network and images in `torch.channels_last`"),
            (f"{KEPT}, channels_last, bfloat16", "and `torch.autocast`; `brainseg train --precision bf16-mixed`"),
            (f"{KEPT}, compiled", "`torch.compile` in place of the last two"),
        ],
    ),
    "inference": ("Inference, batch 1,", INFERENCE),
    "batches": ("Inference, batch 8,", INFERENCE),
    "beside_one": ("Beside MONAI's UNet, batch 1,", BESIDE),
    "beside_eight": ("Beside MONAI's UNet, batch 8,", BESIDE),
    "beside_step": (
        "Beside MONAI's UNet, training step",
        [BESIDE[0], BESIDE[1], ("channels_last", "network and images in `torch.channels_last`")],
    ),
    "memory": (
        "Memory of a training step",
        [
            ("batch 8", "as it is"),
            (f"batch 8, {KEPT}", "what `keep_freed_memory()` costs"),
            ("batch 8, checkpointed", "`model.set_grad_checkpointing()`: equal gradients"),
            ("batch 8, bfloat16", "`--precision bf16-mixed`"),
            ("batch 8, bfloat16, checkpointed", "both"),
            ("batch 2", "`--data.batch_size 2`, another course of training"),
            ("batch 8, unext_small", "`--model.name unext_small`, another network"),
        ],
    ),
    "large": (
        "Memory of an inference",
        [
            ("as it is", "1024x1024, `model.eval()` under `torch.inference_mode()`"),
            (KEPT, "what `keep_freed_memory()` costs"),
            ("optimized", "`optimize(model)`"),
            ("bfloat16", "`model.bfloat16()` and images likewise"),
            ("512x512", "a quarter of the pixels: `spec.image_size`"),
            ("unext_small", "another network"),
        ],
    ),
}


def draw(name: str) -> str:
    """The table of a block of the page."""
    if name == "where":
        return where()
    if name == "growth":
        return growth()
    if name == "shares":
        return shares()
    return steps(*STEPS[name])


def read(subject: str) -> dict[str, Any]:
    path = RESULTS / f"{subject}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def where() -> str:
    if not (report := read("speed")):
        return f"Where: {MISSING} yet."
    place = report["environment"]
    return f"Measured {place['date']}: {place['cpu']}, {place['threads']} threads, torch {place['versions']['torch']}."


def steps(title: str, rows: list[tuple[str, str]]) -> str:
    """Time as a part of that of the first row, and the memory of a call."""
    tables = [table for table in read("speed").get("tables", []) if table["title"].startswith(title)]
    measured = {row["name"]: row for table in tables for row in table["rows"]}
    lines = ["| step | how | time | peak MiB |", "|---|---|---:|---:|"]
    for name, how in rows:
        row = measured.get(name, {})
        ratio, peak = row.get("ratio"), row.get("peak_mib")
        time = MISSING if ratio is None else "{:.2f} ({:.2f} to {:.2f})".format(ratio, *row["ratio_quartiles"])
        lines.append(f"| {name} | {how} | {time} | {MISSING if peak is None else f'{peak:.0f}'} |")
    return "\n".join(lines)


def growth() -> str:
    """The slopes, by the report's own figures."""
    from brainseg.benchmark import find_growth

    lines = ["| network | against | where | slope |", "|---|---|---|---:|"]
    found = find_growth(read("growth").get("tables", []))
    lines += [f"| {one.name} | {one.against} | {one.where} | {one.slope:.2f} |" for one in found]
    return "\n".join(lines if found else [*lines, f"| | | | {MISSING} |"])


def shares() -> str:
    """The network's part of a validation and an evaluation."""
    lines = ["| | slices | s | network |", "|---|---:|---:|---:|"]
    rows = read("shares").get("rows", [])
    for row in rows:
        seconds = row["seconds"]
        share = seconds["network"] / seconds["all"]
        lines.append(f"| {row['name']} | {row['slices']} | {seconds['all']:.1f} | {share:.0%} |")
    return "\n".join(lines if rows else [*lines, f"| validation, evaluate | 600 | | {MISSING} |"])


def with_tables(page: str) -> str:
    """The page with every table as it comes out now."""
    return with_blocks(page, lambda name, _: draw(name))


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
