"""Writes what other libraries answer beside what this one does into overlap.md and surface.md.

    python docs/metrics/peers.py

It needs MONAI, torchmetrics and segmentation_models_pytorch: pip install "brainseg-torch[benchmark]". Each table stands
between the comment that names it and the next `end`; the first columns, ours, need nothing of that.
"""

import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from brainseg._torchvision import make_importable
from brainseg.metrics import DiceScore, HausdorffDistance

FOLDER = Path(__file__).parent
PEERS = ("MONAI", "torchmetrics", "segmentation_models_pytorch")


@dataclass(frozen=True)
class Sample:
    """Slices that are scored together.

    Attributes:
        prediction: (B, 1, H, W) bool.
        target: likewise.
        batches: the sizes of the batches in which they come, each a run of its own; empty for one batch of all.
        spacing: mm of (row, column).
    """

    prediction: Tensor
    target: Tensor
    batches: tuple[int, ...] = ()
    spacing: tuple[float, float] = (1.0, 1.0)

    def runs(self) -> list[list[tuple[Tensor, Tensor]]]:
        """For each size of a batch the pairs of prediction and target."""
        return [
            list(zip(self.prediction.split(size), self.target.split(size), strict=True))
            for size in self.batches or (len(self.target),)
        ]


Scorer = Callable[[list[tuple[Tensor, Tensor]], Sample], float]


def rectangle(rows: tuple[int, int], columns: tuple[int, int], size: tuple[int, int] = (20, 20)) -> Tensor:
    """A slice (1, 1, H, W), true from the first row and column up to, and without, the last."""
    mask = torch.zeros(1, 1, *size, dtype=torch.bool)
    mask[..., slice(*rows), slice(*columns)] = True
    return mask


SQUARE = rectangle((6, 10), (4, 8))
NOTHING, FULL = torch.zeros_like(SQUARE), torch.ones_like(SQUARE)
WIDE, HIGH = rectangle((4, 6), (2, 4), (10, 20)), rectangle((2, 4), (4, 6), (20, 10))

SAMPLES = {
    "both masks empty": Sample(NOTHING, NOTHING),
    "missed: nothing predicted of a 4x4 square": Sample(NOTHING, SQUARE),
    "false alarm: a 4x4 square on an empty slice": Sample(SQUARE, NOTHING),
    "equal": Sample(SQUARE, SQUARE),
    "a 4x4 square, predicted one column to the side": Sample(SQUARE.roll(1, -1), SQUARE),
    "10x20 image, a 2x2 square predicted 12 columns away": Sample(WIDE.roll(12, -1), WIDE),
    "20x10 image, a 2x2 square predicted 12 rows away": Sample(HIGH.roll(12, -2), HIGH),
    "a target of 10 columns that touches three borders, all predicted": Sample(FULL, rectangle((0, 20), (0, 10))),
    "full against full": Sample(FULL, FULL),
    "mean of two: one equal, one found 3 columns to the side": Sample(
        torch.cat([SQUARE, SQUARE.roll(3, -1)]), torch.cat([SQUARE, SQUARE])
    ),
    "mean of two: one equal, one missed": Sample(torch.cat([SQUARE, NOTHING]), torch.cat([SQUARE, SQUARE])),
    "mean of two: one equal, one false alarm": Sample(torch.cat([SQUARE, SQUARE]), torch.cat([SQUARE, NOTHING])),
    "pixels of 3 mm x 0.5 mm, predicted one row and four columns away": Sample(
        SQUARE.roll((1, 4), (-2, -1)), SQUARE, spacing=(3.0, 0.5)
    ),
    "mean of four in batches of 1 / 2 / 4: equal, both empty, missed, one column to the side": Sample(
        torch.cat([SQUARE, NOTHING, NOTHING, SQUARE.roll(1, -1)]),
        torch.cat([SQUARE, NOTHING, SQUARE, SQUARE]),
        batches=(1, 2, 4),
    ),
}


def our_dice(batches: list[tuple[Tensor, Tensor]], _: Sample) -> float:
    metric = DiceScore()
    for prediction, target in batches:
        metric.update(prediction, target)
    return metric.compute().item()


def our_hausdorff(percentile: float) -> Scorer:
    def score(batches: list[tuple[Tensor, Tensor]], sample: Sample) -> float:
        metric = HausdorffDistance(percentile=percentile, spacing=sample.spacing)
        for prediction, target in batches:
            metric.update(prediction, target)
        return metric.compute().item()

    return score


def monai_dice(batches: list[tuple[Tensor, Tensor]], _: Sample) -> float:
    from monai.metrics import DiceMetric

    metric = DiceMetric(include_background=True)
    for prediction, target in batches:
        metric(prediction.float(), target.float())
    return metric.aggregate().item()


def monai_hausdorff(percentile: float | None) -> Scorer:
    def score(batches: list[tuple[Tensor, Tensor]], sample: Sample) -> float:
        from monai.metrics import HausdorffDistanceMetric

        metric = HausdorffDistanceMetric(include_background=True, percentile=percentile)
        for prediction, target in batches:
            metric(prediction.float(), target.float(), spacing=sample.spacing)
        return metric.aggregate().item()

    return score


def torchmetrics_dice(batches: list[tuple[Tensor, Tensor]], _: Sample) -> float:
    from torchmetrics.segmentation import DiceScore as Metric

    metric = Metric(num_classes=1, include_background=True)
    for prediction, target in batches:
        metric.update(prediction.long(), target.long())
    return metric.compute().item()


def torchmetrics_hausdorff(batches: list[tuple[Tensor, Tensor]], sample: Sample) -> float:
    from torchmetrics.segmentation import HausdorffDistance as Metric

    metric = Metric(num_classes=1, include_background=True, spacing=list(sample.spacing))
    for prediction, target in batches:
        metric.update(prediction.long(), target.long())
    return metric.compute().item()


def smp_dice(batches: list[tuple[Tensor, Tensor]], _: Sample) -> float:
    from segmentation_models_pytorch.metrics import f1_score, get_stats

    stats = [get_stats(prediction.long(), target.long(), mode="binary") for prediction, target in batches]
    return f1_score(*(torch.cat(counts) for counts in zip(*stats, strict=True)), reduction="micro-imagewise").item()


COLUMNS: dict[str, dict[str, Scorer]] = {
    "overlap": {
        "here": our_dice,
        "MONAI": monai_dice,
        "torchmetrics": torchmetrics_dice,
        "smp": smp_dice,
    },
    "surface": {
        "HD here": our_hausdorff(100),
        "MONAI": monai_hausdorff(None),
        "torchmetrics": torchmetrics_hausdorff,
        "HD95 here": our_hausdorff(95),
        "MONAI HD95": monai_hausdorff(95),
    },
}
OURS = {"overlap": ("here",), "surface": ("HD here", "HD95 here")}
LEFT_OUT = {"overlap": ("pixels of 3 mm x 0.5 mm, predicted one row and four columns away",), "surface": ()}


def column(table: str, title: str) -> dict[str, str]:
    """What a column of a table says of every sample."""
    return {
        name: " / ".join(answer(COLUMNS[table][title], run, sample) for run in sample.runs())
        for name, sample in SAMPLES.items()
        if name not in LEFT_OUT[table]
    }


def answer(scorer: Scorer, batches: list[tuple[Tensor, Tensor]], sample: Sample) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            value = scorer(batches, sample)
        except (RuntimeError, ValueError, IndexError):
            return "error"
    return "NaN" if math.isnan(value) else f"{value:.3f}"


def draw_table(table: str) -> str:
    """The table, and the versions that gave it."""
    columns = {title: column(table, title) for title in COLUMNS[table]}
    names = next(iter(columns.values()))
    rows = [f"| {name} | {' | '.join(cells[name] for cells in columns.values())} |" for name in names]
    return "\n".join(
        [f"| slices | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns), *rows, "", describe_versions()]
    )


def describe_versions() -> str:
    return f"By {', '.join(f'{peer} {version(peer)}' for peer in PEERS)}, on the CPU."


def read_table(page: str, table: str) -> dict[str, dict[str, str]]:
    """What the page says, by column and sample."""
    lines = [line for line in _block(page, table)[2].splitlines() if line.startswith("|")]
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {title: {row[0]: row[place] for row in rows} for place, title in enumerate(header) if place}


def _block(page: str, table: str) -> re.Match[str]:
    found = re.search(rf"(<!-- {table} -->\n)(.*?)(<!-- end -->)", page, re.DOTALL)
    if found is None:
        raise ValueError(f"the page has no table between <!-- {table} --> and <!-- end -->")
    return found


def main() -> None:
    make_importable()
    for table in COLUMNS:
        path = FOLDER / f"{table}.md"
        page = path.read_text()
        block = _block(page, table)
        path.write_text(f"{page[: block.end(1)]}{draw_table(table)}\n{page[block.start(3) :]}")


if __name__ == "__main__":
    main()
