"""What `num_points` costs and brings by the side of the images: python mask_dino_points.py FOLDER (a minute of a core).

Writes points.csv into FOLDER: for each number of points the milliseconds of a training step of mask_dino_small, and for
each side the error of the mask and Dice losses, over draws, against those of very many points.
"""

import csv
import math
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from brainseg.data import phantom
from brainseg.models import QueryPredictions, create_model
from brainseg.models.mask_dino import SetCriterion, targets_from_masks

SIDES, POINTS, MANY = (64, 96, 128, 256), (196, 784, 3136, 12544), 112896
IMAGES, DRAWS = 4, 30


def main(folder: Path) -> None:
    torch.manual_seed(0)
    rows = []
    for points in POINTS:
        row = {"points": str(points), "ms": f"{1e3 * seconds(points):.0f}"}
        for side in SIDES:
            limit = [losses(side, MANY) for _ in range(5)]
            found = [losses(side, points) for _ in range(DRAWS)]
            for part in ("mask", "dice"):
                true = statistics.fmean(x[part] for x in limit)
                error = math.sqrt(statistics.fmean((x[part] / true - 1) ** 2 for x in found))
                row[f"{part}_{side}"] = f"{100 * error:.1f}"
        rows.append(row)
        print(row, flush=True)
    with (folder / "points.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def losses(side: int, points: int) -> dict[str, float]:
    """Of a query in each image whose mask is the lesion at a quarter of the side, a little beside it."""
    masks = lesions(side)
    beside = torch.roll(masks, (side // 32, side // 32), dims=(2, 3))
    likely = F.avg_pool2d(beside, 8, stride=4, padding=2)
    predictions = QueryPredictions(torch.zeros(IMAGES, 1, 1), 10 * likely - 5, torch.full((IMAGES, 1, 4), 0.5))
    criterion = SetCriterion(1, num_points=points, denoising="no")
    _, parts = criterion(predictions, targets_from_masks(masks))
    return {part: parts[f"loss_{part}"].item() for part in ("mask", "dice")}


def lesions(side: int) -> Tensor:
    return torch.stack([phantom(seed, size=side, lesion=True).mask for seed in range(IMAGES)])


def seconds(points: int) -> float:
    """Processor time of a training step of mask_dino_small, images of 128x128, the optimiser left out."""
    model = create_model("mask_dino_small", num_points=points).train()
    images, targets = torch.rand(IMAGES, 3, 128, 128), targets_from_masks(lesions(128))
    times = []
    for _ in range(6):
        start = time.process_time()
        total, _ = model(images, targets)
        total.backward()
        times.append(time.process_time() - start)
    return statistics.median(times[1:])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
