"""Writes the tables of docs/models/*.md, each between the comment that names it and the next `end`.

    python docs/model_tables.py

What a table shows is counted by `summary`, or read from the tables of runs and benchmarks that the repository keeps.
"""

import csv
import json
import sys
from functools import cache
from pathlib import Path

import torch
import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))
from docs.blocks import with_blocks

from brainseg.models import ModelSummary, ResUNet, SegmentationModel, UNet, create_model, list_models, summary

PAGES = Path(__file__).parent / "models"
RUNS = PAGES / "runs"
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
GRADIENT = "with those of the gradient"
COSTS = "parameters | GMACs | GFLOPs | training memory"


def stages(name: str) -> str:
    """The boxes of a network in the order of the data."""
    counted = count(name)
    rows = [
        f"| `{s.name}` | {'x'.join(map(str, s.shape or ()))} | {s.parameters:,} | {s.macs / 1e6:,.2f} |"
        for s in counted.stages
    ]
    total = f"| all | | {counted.parameters:,} | {counted.macs / 1e6:,.2f} |"
    return "\n".join(["| box | output | parameters | MMACs |", "|---|---|---:|---:|", *rows, total])


def variants(pattern: str) -> str:
    """The registered networks of a family, and what one image of 256x256 costs."""
    models = {name: build(name) for name in list_models(pattern)}
    rows = [
        f"| `{name}` | {', '.join(map(str, model.config['channels']))} | {costs(count(name))} |"
        for name, model in models.items()
    ]
    return "\n".join([f"| name | channels | {COSTS} |", "|---|---|---:|---:|---:|---:|", *rows])


def resunets(_: str | None) -> str:
    """What the two choices of ResUNet cost."""
    choices = [(down, up) for down in ("stride", "pool") for up in ("bilinear", "transposed")]
    with torch.device("meta"):
        rows = [f"| `{d}` | `{u}` | {costs(summary(ResUNet(downsample=d, upsample=u)))} |" for d, u in choices]  # type: ignore[arg-type]
    return "\n".join([f"| downsample | upsample | {COSTS} |", "|---|---|---:|---:|---:|---:|", *rows])


def encoders(names: str) -> str:
    """UNets on backbones of timm."""
    rows = []
    for name in names.split():
        with torch.device("meta"):
            model = UNet(encoder=name)
        strides = ", ".join(str(info["reduction"]) for info in model.feature_info)
        rows.append(
            f"| `{name}` | {strides} | {', '.join(map(str, model.config['channels']))} | {costs(summary(model))} |"
        )
    header = f"| encoder | strides | channels of the decoder | {COSTS} |"
    return "\n".join([header, "|---|---|---|---:|---:|---:|---:|", *rows])


def networks(pattern: str | None) -> str:
    """Every registered network, or those that match a pattern."""
    rows = []
    for name in list_models(pattern or "*"):
        checkpointed = count(name, checkpointing=True).activation_bytes / 2**20
        rows.append(f"| `{name}` | {costs(count(name))} ({checkpointed:.0f}) | {time_ratio(name)} |")
    return "\n".join([f"| name | {COSTS} | time |", "|---|---:|---:|---:|---:|---:|", *rows])


def runs(_: str | None) -> str:
    """Runs of the same recipe with several networks."""
    rows = []
    models = {folder: read_costs(folder) for folder in RUNS.iterdir() if folder.is_dir()}
    for folder, model in sorted(models.items(), key=lambda run: run[1].macs):
        scores = json.loads((folder / "summary.json").read_text())
        low, high = (scores[f"its 95 % interval, {end}"] for end in ("from", "to"))
        dice = f"{scores['mean patient Dice']:.3f} ({low:.3f} to {high:.3f}) | {scores['median patient Dice']:.3f}"
        rows.append(f"| {folder.name} | {model.parameters:,} | {model.macs / 1e9:.4f} | {dice} |")
    return "\n".join(
        ["| network | parameters | GMACs at 128x128 | Dice | median |", "|---|---:|---:|---:|---:|", *rows]
    )


def training(_: str | None) -> str:
    """The epochs of the run of mask_dino_lgg, as its metrics.csv has them."""
    folder = PAGES.parent / "runs" / "mask_dino_small"
    with (folder / "metrics.csv").open() as file:
        epochs = list(csv.DictReader(file))
    columns = ["train_loss", *(f"train_loss_{part}" for part in ("class", "mask", "dice", "box", "giou")), "val_loss"]
    columns += ["val_dice_patient", "val_dice_dataset", "val_map"]
    rows = [
        f"| {int(float(row['epoch']))} | {' | '.join(f'{float(row[name]):.3f}' for name in columns)} |"
        for row in epochs
    ]
    header = f"| epoch | {' | '.join(f'`{name}`' for name in columns)} |\n|---:|{'---:|' * len(columns)}"
    scores = json.loads((folder / "summary.json").read_text())
    low, high = (scores[f"its 95 % interval, {end}"] for end in ("from", "to"))
    best = max(epochs, key=lambda row: float(row["val_dice_patient"]))
    objects = ", ".join(f"{name} {scores[name]:.3f}" for name in ("mask AP", "mask AP50", "mask AP75"))
    found = (
        f"By the weights of epoch {best['epoch']}, the best of {len(epochs)}, `brainseg evaluate` finds on the "
        f"{scores['patients']} validation patients a pooled Dice of {scores['pooled Dice']:.3f} and a mean patient "
        f"Dice of {scores['mean patient Dice']:.3f} ({low:.3f} to {high:.3f}); of {scores['objects']} objects "
        f"{objects}, and with a score from 0.5 a panoptic quality of {scores['PQ, score from 0.5']:.3f}. One seed."
    )
    return "\n".join([header, *rows, "", found])


def speed(_: str | None) -> str:
    """What `python -m benchmarks mask_dino` measured: ours beside a plain rendering of the formulas."""
    report = json.loads((RESULTS / "mask_dino.json").read_text())
    lines = ["| | plain, ms | here, ms | times as fast | peak, MiB |", "|---|---:|---:|---:|---:|"]
    for table in report["tables"]:
        plain, ours = table["rows"]
        low, high = (1 / ratio for ratio in reversed(ours["ratio_quartiles"]))
        known = [row["peak_mib"] for row in (plain, ours)]
        peaks = "not measured" if None in known else " to ".join(f"{peak:.0f}" for peak in known)
        lines.append(
            f"| {table['title']} | {plain['median_ms']:.0f} | {ours['median_ms']:.0f} | {1 / ours['ratio']:.2f} "
            f"({low:.2f} to {high:.2f}) | {peaks} |"
        )
    where = report["environment"]
    plain, ours = (row["facts"] for row in report["tables"][0]["rows"])
    return "\n".join(
        [
            *lines,
            "",
            f"Measured {where['date']}: {where['cpu']}, {where['threads']} thread, torch {where['versions']['torch']}. "
            f"The criterion makes {ours['calls']:,.0f} calls of torch that compute something, the plain one "
            f"{plain['calls']:,.0f}; with the backward pass {ours[GRADIENT]:,.0f} and {plain[GRADIENT]:,.0f}.",
        ]
    )


def read_costs(folder: Path) -> ModelSummary:
    """Of one image of the size that the run saw."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    with torch.device("meta"):
        model = create_model(config["model"]["name"], **config["model"]["arguments"])
    return summary(model, config["data"]["image_size"])


def time_ratio(name: str) -> str:
    """Median of one inference over that of unext, where both were measured side by side."""
    for table in json.loads((RESULTS / "models.json").read_text())["tables"]:
        times = {row["name"]: row["median_ms"] for row in table["rows"]}
        if table["title"].startswith("Inference") and {name, "unext"} <= times.keys():
            return f"{times[name] / times['unext']:.2f}"
    return ""


def build(name: str) -> SegmentationModel:
    with torch.device("meta"):
        return create_model(name)


@cache
def count(name: str, side: int = 256, *, checkpointing: bool = False) -> ModelSummary:
    model = build(name)
    model.set_grad_checkpointing(checkpointing)
    return summary(model, (side, side))


def costs(counted: ModelSummary) -> str:
    memory = f"{counted.activation_bytes / 2**20:.0f} MiB"
    return f"{counted.parameters:,} | {counted.macs / 1e9:.4f} | {counted.flops / 1e9:.4f} | {memory}"


TABLES = {
    function.__name__: function for function in (stages, variants, resunets, encoders, networks, runs, training, speed)
}


def with_tables(page: str) -> str:
    """The page with every table as it comes out now."""
    return with_blocks(page, lambda name, argument: TABLES[name](argument))


if __name__ == "__main__":
    for path in sorted(PAGES.glob("*.md")):
        path.write_text(with_tables(path.read_text()))
