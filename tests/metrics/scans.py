"""Synthetic slices of three patients, and a program that scores them in two processes.

`python -m tests.metrics.scans FOLDER` lets them meet through a file in the folder, where each writes RANK.json.
"""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed
from torch.multiprocessing import start_processes

from brainseg import metrics

PATIENTS = ["TCGA_HT_7694", "TCGA_CS_4941", "Zoë"]
METRICS: list[tuple[str, dict[str, Any]]] = [
    ("DiceScore", {}),
    ("IoU", {"aggregation": "patient"}),
    ("DiceScore", {"aggregation": "dataset"}),
    ("VolumeDifference", {"aggregation": "patient", "spacing": (5.0, 1.0, 1.0)}),
    ("HausdorffDistance", {"percentile": 95}),
    ("NormalizedSurfaceDice", {"aggregation": "patient", "tolerance": 1.0, "spacing": (2.0, 1.0, 0.5)}),
    ("BoundaryIoU", {"aggregation": "patient", "width": 1.5, "spacing": (2.0, 1.0, 0.5)}),
    ("ClDiceScore", {}),
    ("LesionDetection", {"iou_threshold": 0.2, "measure": "lesion_dice"}),
    ("LesionDetection", {"aggregation": "patient", "measure": "false_positives"}),
]


class Slices(NamedTuple):
    """Predictions and targets (N, K, 8, 8) and the patients and places of N slices."""

    prediction: Tensor
    target: Tensor
    group: list[str]
    index: list[int]

    def batch(self, rows: Iterable[int]) -> "Slices":
        rows = list(rows)
        names, places = [self.group[i] for i in rows], [self.index[i] for i in rows]
        return Slices(self.prediction[rows], self.target[rows], names, places)


def slices(count: int = 22, num_classes: int = 1, seed: int = 0) -> Slices:
    """Masks that overlap, the first ones the same for every count; every fourth target, fifth prediction is empty."""
    generator = torch.Generator().manual_seed(seed)
    random = torch.stack([torch.rand(2, num_classes, 8, 8, generator=generator) for _ in range(count)])
    target, noise = random[:, 0] > 0.8, random[:, 1] > 0.9
    target[::4] = False
    prediction = target ^ noise
    prediction[::5] = False
    return Slices(prediction, target, [PATIENTS[i % 3] for i in range(count)], [i // 3 for i in range(count)])


def update(metric: Any, batch: Slices) -> None:
    metric.update(batch.prediction, batch.target, group=batch.group, slice_index=batch.index)


def report(metric: Any) -> dict[str, Any]:
    """What a metric tells, as JSON values."""
    result = metric.result()
    return {
        "compute": metric.compute().tolist(),
        "result": [result.value.tolist(), *result[1:]],
        "table": [[case.patient, case.slice, [str(value) for value in case.values]] for case in metric.per_case()],
    }


def run(rank: int, folder: str) -> None:
    data = slices(23)
    shares = {
        "unequal": [[range(12, 17), range(5), range(17, 22)], [range(5, 12)]],
        "without data": [[], [range(22)]],
    }
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    reports: dict[str, Any] = {}
    for name, batches in shares.items():
        for i, (metric, options) in enumerate(METRICS):
            gathered = getattr(metrics, metric)(**options)
            for rows in batches[rank]:
                update(gathered, data.batch(rows))
            reports[f"{name} {i}"] = report(gathered)
            # What was gathered is given back: the same again, after one more slice on one side.
            if rank == 1:
                update(gathered, data.batch([22]))
            gathered.sync()
            reports[f"{name} {i} later"] = gathered.result().value.item()
            gathered.unsync()
            assert gathered.result().value.item() == reports[f"{name} {i} later"]
    alone = metrics.DiceScore(sync_on_compute=False)
    update(alone, data.batch(range(rank, 22, 2)))
    reports["alone"] = report(alone)
    Path(folder, f"{rank}.json").write_text(json.dumps(reports))
    distributed.destroy_process_group()


if __name__ == "__main__":
    # Copies of this process, so that both have imported what they need.
    start_processes(run, args=sys.argv[1:], nprocs=2, start_method="fork")
