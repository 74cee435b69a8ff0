"""Dice of weights under faults of scans, other orders of channels, other units and other sizes.

    python docs/recipe/robustness.py runs/fold0

Of the patients that the run has not seen, slices by themselves; writes robustness.csv and robustness.png beside this
file, and goes on where an earlier call stopped. Every slice is faulty in every row; the faults are those of
brainseg.transforms, clipped to [0, 1] as a file would be.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import matplotlib as mpl
import torch
from matplotlib import pyplot as plt
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))
from docs.recipe.ship import SPEC
from docs.recipe.train import chosen_of

from brainseg.data import LGGSegmentation, lgg_root
from brainseg.inference import Predictor
from brainseg.metrics import DiceScore
from brainseg.models import SegmentationModel
from brainseg.report import read_rows, write_rows
from brainseg.transforms import (
    RandomBiasField,
    RandomBlur,
    RandomChannelCopy,
    RandomGamma,
    RandomGhosting,
    RandomLowResolution,
    RandomMotion,
    RandomRicianNoise,
    RandomSpikes,
    Resize,
    SelectChannels,
    Transform,
)

HERE = Path(__file__).parent
PRE, FLAIR, POST = 0, 1, 2
AT_ONCE = 16


FAULTS: dict[str, tuple[Callable[[float], Transform], tuple[float, float, float]]] = {
    "bias field": (lambda x: RandomBiasField((-x, x), p=1), (0.2, 0.5, 0.8)),
    "Rician noise": (lambda x: RandomRicianNoise((x, x), p=1), (0.02, 0.05, 0.1)),
    "ghosting": (lambda x: RandomGhosting((x, x), p=1), (0.2, 0.5, 0.8)),
    "motion": (lambda x: RandomMotion((-x, x), p=1), (0.02, 0.05, 0.1)),
    "spikes": (lambda x: RandomSpikes(1, (x, x), p=1), (0.05, 0.1, 0.3)),
    "low resolution": (lambda x: RandomLowResolution((x, x), p=1), (0.75, 0.5, 0.25)),
    "blur": (lambda x: RandomBlur((x, x), p=1), (0.5, 1.0, 2.0)),
    "gamma, darker": (lambda x: RandomGamma((x, x), p=1), (1.25, 1.5, 2.0)),
    "gamma, brighter": (lambda x: RandomGamma((1 / x, 1 / x), p=1), (1.25, 1.5, 2.0)),
}


class Condition(NamedTuple):
    """One row: what is done to images and masks, the images' own unit being [0, 1]."""

    fault: str
    strength: str
    change: Callable[[Tensor, Tensor, list[int]], tuple[Tensor, Tensor]]


def random_fault(transform: Transform) -> Callable[[Tensor, Tensor, list[int]], tuple[Tensor, Tensor]]:
    return lambda images, masks, seeds: transform(images, masks, seeds=seeds)


def of_images(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor, list[int]], tuple[Tensor, Tensor]]:
    return lambda images, masks, _: (change(images), masks)


def zeroed(channels: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    kept = torch.tensor([channel not in channels for channel in (PRE, FLAIR, POST)])[:, None, None]
    return lambda images: images * kept


def conditions() -> list[Condition]:
    """What is measured; the first is the images as they are."""
    rows = [Condition("none", "", of_images(lambda images: images))]
    for name, (make, strengths) in FAULTS.items():
        rows += [Condition(name, f"{strength:g}", random_fault(make(strength))) for strength in strengths]
    missing = {
        "post": RandomChannelCopy(FLAIR, (POST,), p=1),
        "pre": RandomChannelCopy(FLAIR, (PRE,), p=1),
        "pre and post": RandomChannelCopy(FLAIR, (PRE, POST), p=1),
    }
    rows += [Condition("missing, FLAIR repeated", what, random_fault(copy)) for what, copy in missing.items()]
    blank = {"post": (POST,), "pre": (PRE,), "pre and post": (PRE, POST), "FLAIR": (FLAIR,)}
    rows += [Condition("missing, black", what, of_images(zeroed(channels))) for what, channels in blank.items()]
    orders = {
        "post, FLAIR, pre": (2, 1, 0),
        "FLAIR, pre, post": (1, 0, 2),
        "pre three times": (0, 0, 0),
        "post three times": (2, 2, 2),
    }
    rows += [Condition("channels", order, of_images(SelectChannels(channels))) for order, channels in orders.items()]
    rows.append(Condition("unit", "12 bits of 16", of_images(lambda images: images * (4095 / 65535))))
    rows.append(Condition("unit", "brightest at 1/4", of_images(lambda images: images / 4)))
    for side in (128, 192, 320, 512):
        rows.append(
            Condition("size", f"{side}x{side}", lambda images, masks, _, side=side: Resize(side)(images, masks))
        )
    cut = slice(24, -24)
    rows.append(
        Condition("size", "cut to 208x208", lambda images, masks, _: (images[..., cut, cut], masks[..., cut, cut]))
    )
    return rows


def score(predictor: Predictor, root: Path, patients: list[str], condition: Condition) -> DiceScore:
    metric = DiceScore(aggregation="patient")
    for number, patient in enumerate(patients):
        data = LGGSegmentation(root, [patient])
        for few in torch.arange(len(data)).split(AT_ONCE):
            samples = [data[int(i)] for i in few]
            images = torch.stack([sample["image"] for sample in samples])
            masks = torch.stack([sample["mask"] for sample in samples]).bool()
            seeds = [1000 * number + int(i) for i in few]
            images, masks = condition.change(images, masks, seeds)
            found = predictor(images.clamp(0, 1))
            metric.update(found, masks, group=[patient] * len(samples))
    return metric


def draw(rows: list[dict[str, str | float]], path: Path) -> None:
    """Mean Dice of each row, those of a fault together, with the interval over patients."""
    mpl.use("agg")
    figure, axes = plt.subplots(figsize=(8, 0.21 * len(rows) + 0.6), layout="constrained")
    faults = list(dict.fromkeys(row["fault"] for row in rows))
    places = range(len(rows))
    means = [float(row["mean"]) for row in rows]
    below = [float(row["mean"]) - float(row["lower"]) for row in rows]
    above = [float(row["upper"]) - float(row["mean"]) for row in rows]
    colors = [f"C{faults.index(row['fault']) % 10}" for row in rows]
    axes.barh(places, means, color=colors, alpha=0.75)
    axes.errorbar(means, places, xerr=[below, above], fmt="none", ecolor="0.25", elinewidth=0.9)
    axes.axvline(means[0], color="0.25", linewidth=0.9, linestyle=":")
    axes.set_yticks(places, [f"{row['fault']} {row['strength']}" for row in rows], fontsize=7.5)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("Dice, mean over patients with 95 % interval")
    axes.margins(y=0.005)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of train.py, of a fold")
    parser.add_argument("--root", type=Path, default=lgg_root(), help="folder of the patients' folders")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of table and plot")
    arguments = parser.parse_args()

    fold = chosen_of(arguments.run)["fold"]
    patients = json.loads((HERE / "folds.json").read_text())["folds"][fold]
    model = SegmentationModel.from_pretrained(arguments.run / "weights")
    predictor = Predictor(model, spec=SPEC)
    path = arguments.output / "robustness.csv"
    rows: list[dict[str, str | float]] = [*read_rows(path)] if path.exists() else []
    for condition in conditions()[len(rows) :]:
        metric = score(predictor, arguments.root, patients, condition)
        mean = fmean(case.value for case in metric.per_case())
        lower, upper = metric.confidence_interval()
        change = mean - float(rows[0]["mean"]) if rows else 0.0
        numbers = {"mean": mean, "lower": lower, "upper": upper, "change": change}
        rows.append(
            {"fault": condition.fault, "strength": condition.strength}
            | {name: round(value, 4) for name, value in numbers.items()}
        )
        print(*rows[-1].values(), flush=True)
        write_rows(rows, path)
    draw(rows, arguments.output / "robustness.png")


if __name__ == "__main__":
    main()
