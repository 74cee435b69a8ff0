"""Metrics: surface distances beside MONAI's, and overlap scores beside the training step that they watch."""

from collections.abc import Callable
from functools import cache, partial
from importlib import import_module

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.training import slices, training_step
from brainseg.benchmark import Candidate, Case, Run
from brainseg.data import lgg_root, phantom
from brainseg.metrics import DiceScore, IoU
from brainseg.metrics.functional import surface_metrics

IMAGES = 16
VOLUME = (155, 240, 240)
Pair = Callable[[], tuple[Tensor, Tensor]]


def cases() -> list[Case]:
    """What `python -m benchmarks metrics` measures."""
    masks: dict[str, Pair] = {
        f"{IMAGES} phantoms of {side}x{side}": partial(phantoms, side) for side in (256, 64, 128, 512, 1024)
    }
    masks[f"a volume of {'x'.join(map(str, VOLUME))}"] = volume
    if lgg_root().is_dir():
        masks[f"{IMAGES} LGG slices with tumour"] = lgg_slices
    return [
        *(
            Case(
                f"HD95, ASSD and NSD, {title}",
                [
                    Candidate("brainseg", partial(ours, pair)),
                    Candidate("MONAI", partial(monai, pair), "brainseg", 1e-5),
                ],
            )
            for title, pair in masks.items()
        ),
        Case(
            "Dice and IoU of a batch of 8 slices of 256x256, UNeXt on the CPU",
            [Candidate("training step", training_step), Candidate("Dice and IoU", overlap)],
        ),
    ]


def ours(pair: Pair) -> Run:
    prediction, target = pair()
    return Run(lambda: torch.stack(surface_metrics(prediction, target, percentile=95, tolerance=1.0)[:3], -1))


def monai(pair: Pair) -> Run:
    metrics = import_module("monai.metrics")
    prediction, target = pair()
    both = {"y_pred": prediction, "y": target, "include_background": True}

    def call() -> Tensor:
        values = (
            metrics.compute_hausdorff_distance(percentile=95, **both),
            metrics.compute_average_surface_distance(symmetric=True, **both),
            metrics.compute_surface_dice(class_thresholds=[1.0], **both),
        )
        return torch.stack(values, -1).float()

    return Run(call)


def overlap() -> Run:
    from torchmetrics import MetricCollection  # after brainseg.metrics, which makes its torchvision importable

    samples = [slices()[index] for index in range(8)]
    masks = torch.stack([sample["mask"] for sample in samples])
    logits, patients = 4 * masks - 2, [sample["patient"] for sample in samples]
    scores = MetricCollection({"dice": DiceScore(), "iou": IoU()})
    scores.update(logits, masks, group=patients)  # the first update finds out what the two share

    def call() -> Tensor:
        scores.reset()
        scores.update(logits, masks, group=patients)
        return masks

    return Run(call)


@cache
def phantoms(side: int) -> tuple[Tensor, Tensor]:
    return predicted(torch.stack([phantom(seed, size=side, lesion=True).mask for seed in range(IMAGES)]))


@cache
def lgg_slices() -> tuple[Tensor, Tensor]:
    data = slices()
    masks = (data[index]["mask"] for index in range(len(data)))
    tumours = (mask for mask in masks if mask.any())
    return predicted(torch.stack([mask for mask, _ in zip(tumours, range(IMAGES), strict=False)]))


@cache
def volume() -> tuple[Tensor, Tensor]:
    """Three balls that overlap, such as a glioma fills."""
    axes = torch.meshgrid(*(torch.arange(side) for side in VOLUME), indexing="ij")
    balls = [((70, 110, 100), 30), ((85, 140, 120), 24), ((60, 100, 130), 18)]
    distance = torch.stack(
        [
            torch.stack([a - place for a, place in zip(axes, at, strict=True)]).float().norm(dim=0) / radius
            for at, radius in balls
        ]
    )
    target = (distance < 1).any(0)[None, None]
    return target.roll((2, -3, 1), (2, 3, 4)), target


def predicted(masks: Tensor) -> tuple[Tensor, Tensor]:
    """A prediction, the mask a pixel larger and moved, and the mask."""
    larger = F.max_pool2d(masks, 3, stride=1, padding=1)
    return larger.roll((2, -1), (2, 3)).bool(), masks.bool()
