"""Evaluates runs on the LGG data and writes docs/results.md from what came out.

    python docs/results.py runs/course runs/course_fixed runs/default

Of each run docs/runs keeps what says how it went: its configuration, tables and picture. Without arguments the page is
written again from these.
"""

import csv
import json
import shutil
import sys
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from brainseg.data import read_split
from brainseg.inference import Predictor
from brainseg.metrics import DiceScore, IoU
from brainseg.training import evaluate, read_config
from brainseg.training.datasets import open_part

HERE = Path(__file__).parent
RUNS = HERE / "runs"
BATCHES = (1, 8, 16, 99, 1000)
COLUMNS = ("train_loss", "val_loss", "val_iou_batch", "val_dice_patient", "val_dice_dataset", "val_dice_slice")


def keep(run: Path) -> None:
    """Evaluates a run and copies its tables and picture to docs/runs."""
    evaluation = evaluate(run)
    folder = RUNS / run.name
    folder.mkdir(parents=True, exist_ok=True)
    for path in (run / "config.yaml", run / "metrics.csv", *evaluation.folder.iterdir()):
        shutil.copy(path, folder / path.name)
    shutil.copy(run / "best" / "metrics.json", folder / "best.json")
    (folder / "batches.json").write_text(json.dumps(by_batch_size(run), indent=1) + "\n")


def by_batch_size(run: Path) -> dict[str, list[float]]:
    """The published IoU and Dice of the same predictions, batched in several ways."""
    predictor, config = Predictor.from_pretrained(run), read_config(run / "config.yaml")
    dataset = open_part(config.data, read_split(run / "split.json"), "validation")
    masks = [
        (predictor.logits(batch["image"]).cpu() > 0, batch["mask"] > 0) for batch in DataLoader(dataset, batch_size=16)
    ]
    found, true = (torch.cat(parts) for parts in zip(*masks, strict=True))
    scores = {}
    for size in BATCHES:
        iou, dice = IoU(aggregation="batch"), DiceScore(aggregation="batch")
        for prediction, target in zip(found.split(size), true.split(size), strict=True):
            iou.update(prediction, target)
            dice.update(prediction, target)
        scores["all" if size == BATCHES[-1] else str(size)] = [iou.compute().item(), dice.compute().item()]
    return scores


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def table(header: list[str], body: list[list[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def epochs(run: str) -> str:
    body = [
        [row["epoch"], f"{float(row['lr']):.2e}", *(f"{float(row[name]):.3f}" for name in COLUMNS)]
        for row in rows(RUNS / run / "metrics.csv")
    ]
    return table(["epoch", "lr", *COLUMNS], body)


def overall(runs: list[str]) -> str:
    summaries = [json.loads((RUNS / run / "summary.json").read_text()) for run in runs]
    best = [json.loads((RUNS / run / "best.json").read_text())["epoch"] for run in runs]
    body = [["best epoch", *map(str, best)]]
    for name, first in summaries[0].items():
        shown = "{:.3f}" if isinstance(first, float) else "{}"
        body.append([name, *(shown.format(summary[name]) for summary in summaries)])
    return table(["", *runs], body)


def patients(runs: list[str]) -> str:
    tables = [rows(RUNS / run / "patients.csv") for run in runs]
    body = [
        [row["patient"], row["slices"], row["tumour_slices"], *(f"{float(t[i]['dice']):.3f}" for t in tables)]
        for i, row in enumerate(tables[0])
    ]
    return table(["patient", "slices", "with tumour", *runs], body)


def batches(runs: list[str]) -> str:
    scores = [json.loads((RUNS / run / "batches.json").read_text()) for run in runs]
    body = [[size, *(f"{score[size][0]:.3f} / {score[size][1]:.3f}" for score in scores)] for size in scores[0]]
    return table(["slices in a batch", *runs], body)


def page(runs: list[str]) -> str:
    text = (HERE / "results.in.md").read_text()
    parts = {"overall": overall(runs), "patients": patients(runs), "batches": batches(runs)}
    parts["epochs"] = "\n\n".join(
        f"### `{run}`\n\n{epochs(run)}\n\n![True outlines green, predicted ones red: best, median and worst patient of "
        f"{run}](runs/{run}/cases.png)"
        for run in runs
    )
    for name, part in parts.items():
        text = text.replace(f"<!-- {name} -->", part)
    return text


if __name__ == "__main__":
    for run in map(Path, sys.argv[1:]):
        keep(run)
    names = sorted(path.name for path in RUNS.iterdir() if path.is_dir())
    (HERE / "results.md").write_text(page(names))
