"""The scores that a run logs and an evaluation reports."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from brainseg.metrics import (
    AverageSurfaceDistance,
    BoundaryIoU,
    ConfusionCounts,
    DiceScore,
    HausdorffDistance,
    IoU,
    LesionDetection,
    MeanAverageSurfaceDistance,
    NormalizedSurfaceDice,
    Precision,
    Recall,
)
from brainseg.metrics.rules import Aggregation
from brainseg.models import ModelSpec

AGGREGATIONS: tuple[Aggregation, ...] = get_args(Aggregation)
TOLERANCE = 2.0
"""Pixels within which a boundary is right, and the width of the rim of boundary IoU."""
BY_SLICE = {
    "hd95": "HD95, pixels",
    "assd": "ASSD, pixels",
    "masd": "MASD, pixels",
    "nsd": f"NSD within {TOLERANCE:g} pixels",
    "boundary_iou": f"boundary IoU, {TOLERANCE:g} pixels wide",
    "lesion_f1": "lesion F1",
    "false_lesions": "false lesions",
}
"""Those of `create_details` that score slices, and what they are called in tables."""
IGNORED = 255
"""Number of a class in targets whose pixels do not count."""


class ClassDice(DiceScore):
    """Mean Dice score of one of several classes.

    Args:
        num_classes: K.
        index: of the class.
        options: those of `DiceScore`.
    """

    def __init__(self, num_classes: int, *, index: int, **options: Any) -> None:
        super().__init__(num_classes, average="none", **options)
        self.index = index

    def compute(self) -> Tensor:
        return super().compute()[self.index]


def create_scores(
    class_names: Sequence[str], *, aggregations: Sequence[Aggregation] = AGGREGATIONS, prefix: str = ""
) -> MetricCollection:
    """Dice and IoU under names such as `dice_patient`, and of several classes the Dice of each, see `named`.

    Args:
        class_names: of those that are scored.
        aggregations: the cases that means run over.
        prefix: before each name.
    """
    classes = len(class_names)
    scores: dict[str, Metric | MetricCollection] = {
        f"{name}_{over}": score(classes, aggregation=over)
        for name, score in (("dice", DiceScore), ("iou", IoU))
        for over in aggregations
    }
    if classes > 1 and "patient" in aggregations:
        for index in range(classes):
            scores[f"dice_patient_{index}"] = ClassDice(classes, index=index, aggregation="patient")
    return MetricCollection(scores, prefix=prefix)


def named(scores: MetricCollection, class_names: Sequence[str]) -> dict[str, Metric]:
    """The scores of `create_scores`, those of a class by its name: `dice_patient_core`.

    A collection itself takes no names with a point.
    """
    by_name = {}
    for key, metric in scores.items():
        name = key
        if isinstance(metric, ClassDice):
            name = f"{key.removesuffix(str(metric.index))}{class_names[metric.index]}"
        by_name[name] = metric
    return by_name


def create_details(num_classes: int) -> MetricCollection:
    """What an evaluation reports beside Dice and IoU.

    Of patients sensitivity and precision, of slices `BY_SLICE` and the pixels that all follows from. Distances are in
    pixels, since image files know no spacing.
    """
    return MetricCollection(
        {
            "recall": Recall(num_classes, aggregation="patient"),
            "precision": Precision(num_classes, aggregation="patient"),
            "hd95": HausdorffDistance(num_classes, percentile=95),
            "assd": AverageSurfaceDistance(num_classes),
            "masd": MeanAverageSurfaceDistance(num_classes),
            "nsd": NormalizedSurfaceDice(num_classes, tolerance=TOLERANCE),
            "boundary_iou": BoundaryIoU(num_classes, width=TOLERANCE),
            "lesion_f1": LesionDetection(num_classes, measure="f1"),
            "false_lesions": LesionDetection(num_classes, measure="false_positives"),
            "pixels": ConfusionCounts(num_classes),
        }
    )


def scored_names(spec: ModelSpec) -> list[str]:
    """Names of the classes that are scored: all but the background of "multiclass"."""
    return [spec.class_names[k] for k in spec.foreground]


def scored_masks(spec: ModelSpec, masks: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor | None]:
    """What was found and what is true, of the classes of `scored_names`.

    Args:
        spec: of the network.
        masks: what was found, of all its classes, bool (B, K, H, W), as `ModelSpec.masks` has it.
        batch: of `brainseg.data.Sample`s.

    Returns:
        found: bool (B, C, H, W).
        true: likewise.
        valid: which pixels count, (B, 1, H, W); None if all do.

    Raises:
        ValueError: masks of other classes than the network's.
    """
    mask: Tensor = batch["mask"]
    classes = torch.tensor(spec.foreground, device=mask.device)
    found = masks[:, spec.foreground.start :]
    if mask.dim() == 3:  # numbers of classes
        valid = mask[:, None] != IGNORED
        _check_numbers(spec, mask[valid[:, 0]])
        return found, mask[:, None] == classes[:, None, None], valid
    if mask.shape[1] not in (spec.num_classes, len(classes)):
        raise ValueError(
            f"slices have {mask.shape[1]} mask(s), and the network's class(es) are {', '.join(spec.class_names)}; "
            "give data of these"
        )
    return found, mask[:, -len(classes) :] > 0, batch.get("valid")


def _check_numbers(spec: ModelSpec, numbers: Tensor) -> None:
    """ValueError unless these are numbers of the network's classes."""
    if spec.task != "multiclass":
        raise ValueError(
            f"slices hold numbers of classes, of which each pixel has one, and the network's task is {spec.task!r}; "
            "give masks, one a class, or a network of task 'multiclass'"
        )
    if numbers.numel() and (highest := int(numbers.max())) >= spec.num_classes:
        raise ValueError(
            f"slices hold class {highest}, and the network's classes are 0 to {spec.num_classes - 1} "
            f"({', '.join(spec.class_names)}); give data of these"
        )
