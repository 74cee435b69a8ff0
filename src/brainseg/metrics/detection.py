"""Scores of instances: each predicted object beside each true one."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainseg.checks import check_between, check_choice, check_count
from brainseg.metrics.functional.detection import average_precision, mask_iou, match_detections, match_segments
from brainseg.metrics.gathering import GatheredMetric
from brainseg.metrics.rules import Average, MetricResult, summarise


class InstancesLike(Protocol):
    """Predicted objects of an image, such as `brainseg.models.mask_dino.Instances`."""

    @property
    def scores(self) -> Tensor:
        """(r,)."""

    @property
    def classes(self) -> Tensor:
        """(r,) integers."""

    @property
    def masks(self) -> Tensor:
        """(r, H, W) bool."""


class InstanceMetric(GatheredMetric):
    """Base class of the metrics of instances: keeps a row of numbers for every image and class.

    Args:
        num_classes: K.
        average: "macro": one mean over the classes, "none": one value for each class.
        row_length: how many numbers a row has; the first two count true and predicted objects.
        options: of torchmetrics' Metric, such as sync_on_compute.
    """

    higher_is_better = True
    rows: list[Tensor]

    def __init__(self, num_classes: int, *, average: Average, row_length: int, **options: Any) -> None:
        super().__init__(**options)
        check_choice("average", average, Average)
        self.num_classes = check_count("num_classes", num_classes)
        self.average = average
        self._row_length = row_length
        self.add_state("rows", [], dist_reduce_fx="cat")  # (B, K, row_length)

    def extra_repr(self) -> str:
        return f"num_classes={self.num_classes}"

    def update(self, instances: Sequence[InstancesLike], targets: Sequence[Mapping[str, Tensor]]) -> None:
        """Measures the images of a batch.

        Args:
            instances: for each image `scores` (r,), `classes` (r,) and `masks` (r, H, W) bool, in any order.
            targets: for each image `labels` (n,) and `masks` (n, H, W), as Mask DINO's criterion takes them.

        Raises:
            ValueError: lists of different lengths, masks of different sizes or with other values than 0 and 1, classes
                out of range.
        """
        for name, images in (("instances", instances), ("targets", targets)):
            if not isinstance(images, list | tuple):
                raise ValueError(f"{name} must be a list with one entry for each image, got {type(images).__name__}")
        if len(instances) != len(targets):
            raise ValueError(
                f"got instances of {len(instances)} images and targets of {len(targets)}; give both of all"
            )
        rows = torch.zeros(len(targets), self.num_classes, self._row_length, dtype=torch.float64)
        pairs_of_images = list(zip(instances, targets, strict=True))
        checked = [self._checked(image, *pair) for image, pair in enumerate(pairs_of_images)]  # before any is kept
        for image, ((predicted, true), (classes, labels)) in enumerate(zip(pairs_of_images, checked, strict=True)):
            ious = mask_iou(predicted.masks.bool(), true["masks"].bool()).cpu().numpy()
            scores = predicted.scores.detach().double().cpu().numpy()
            for k in range(self.num_classes):
                own = np.flatnonzero(classes == k)
                own = own[np.argsort(-scores[own], kind="stable")]
                pairs = ious[np.ix_(own, labels == k)]
                rows[image, k, 0], rows[image, k, 1] = pairs.shape[1], len(own)
                rows[image, k, 2:] = torch.tensor(self._measure(k, scores[own], pairs), dtype=torch.float64)
        self.rows.append(rows.to(self.device))

    def _measure(self, k: int, scores: NDArray[np.float64], ious: NDArray[np.float64]) -> Sequence[float]:
        """The further numbers of a row, of an image's detections (r,) of class k, surest first, with IoUs (r, n)."""
        raise NotImplementedError

    def _values(self, rows: Tensor) -> Tensor:
        """The value of each class (K,) of all rows (B, K, row_length), NaN where it has none."""
        raise NotImplementedError

    def _blanks(self) -> dict[str, Tensor]:
        shape = (0, self.num_classes, self._row_length)
        return {"rows": torch.zeros(shape, dtype=torch.float64, device=self.device)}

    def _summarise(self) -> MetricResult:
        rows = self._joined("rows")
        true, predicted = rows[..., 0] > 0, rows[..., 1] > 0
        value = summarise(self._values(rows)[None], predicted[:1], true[:1], average=self.average).value
        counts = (true | predicted, ~(true | predicted), true & ~predicted, predicted & ~true)
        if self.average == "macro":
            return MetricResult(value.to(self.device), *(int(count.sum()) for count in counts))
        return MetricResult(value.to(self.device), *(tuple(count.sum(0).tolist()) for count in counts))

    def _checked(
        self, image: int, predicted: InstancesLike, true: Mapping[str, Tensor]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The classes of predicted and true objects; ValueError unless all of them can be."""
        if not isinstance(true, Mapping) or not {"labels", "masks"} <= set(true):
            raise ValueError(f"target {image} must have labels and masks; targets_from_masks makes targets")
        sides = {"instances": (predicted.classes, predicted.masks), "target": (true["labels"], true["masks"])}
        for name, (classes, masks) in sides.items():
            if classes.dim() != 1 or masks.dim() != 3 or len(masks) != len(classes):
                raise ValueError(
                    f"{name} of image {image} must have classes (n,) and masks (n, H, W), got {tuple(classes.shape)} "
                    f"and {tuple(masks.shape)}"
                )
            if classes.is_floating_point() or classes.dtype == torch.bool:
                raise ValueError(f"classes of the {name} of image {image} must be integers, got {classes.dtype}")
            if len(classes) and not (classes.min() >= 0 and classes.max() < self.num_classes):
                raise ValueError(
                    f"classes of the {name} of image {image} must lie in 0 to {self.num_classes - 1}, got "
                    f"{int(classes.min())} to {int(classes.max())}"
                )
            if masks.dtype != torch.bool and not ((masks == 0) | (masks == 1)).all():
                raise ValueError(f"masks of the {name} of image {image} must be bool or 0 and 1; use masks > 0.5")
        if predicted.scores.shape != predicted.classes.shape or predicted.scores.isnan().any():
            raise ValueError(f"instances of image {image} must have a score each, got {predicted.scores}")
        sizes = [tuple(masks.shape[1:]) for _, masks in sides.values() if len(masks)]
        if len(set(sizes)) > 1:
            raise ValueError(
                f"masks of image {image} are predicted in {sizes[0]} pixels and true in {sizes[1]}; "
                "instance_inference takes output_size"
            )
        return tuple(classes.cpu().numpy().astype(np.int64) for classes, _ in sides.values())  # type: ignore[return-value]


class MeanAveragePrecision(InstanceMetric):
    """COCO's average precision of masks: the mean over IoU thresholds, 101 recalls and classes.

    Equal to `pycocotools` (``iouType="segm"``, all areas) without crowds. The value of a class without true objects is
    not defined, and left out of the mean: what is predicted of it counts among the false alarms of `result()`.
    Detections of equal score count in the order in which they came.

    Args:
        num_classes: K.
        iou_thresholds: from which an object is found; 0.5, 0.55 to 0.95 by default.
        max_detections: of an image and class that count, the surest ones.
        average: "macro": the mean over the classes with objects, "none": one value for each class.
        options: of torchmetrics' Metric, such as sync_on_compute.

    Raises:
        ValueError: arguments out of range.

    Example:
        >>> from types import SimpleNamespace
        >>> mask = torch.tensor([[[1, 1, 0, 0]], [[0, 0, 0, 1]]], dtype=torch.bool)
        >>> found = SimpleNamespace(scores=torch.tensor([0.9, 0.8]), classes=torch.tensor([0, 0]), masks=mask)
        >>> metric = MeanAveragePrecision()
        >>> metric.update([found], [{"labels": torch.tensor([0]), "masks": mask[:1]}])
        >>> metric.compute()
        tensor(1.)
    """

    detections: list[Tensor]

    def __init__(
        self,
        num_classes: int = 1,
        *,
        iou_thresholds: Sequence[float] | None = None,
        max_detections: int = 100,
        average: Average = "macro",
        **options: Any,
    ) -> None:
        super().__init__(num_classes, average=average, row_length=2, **options)
        given = np.linspace(0.5, 0.95, 10) if iou_thresholds is None else iou_thresholds
        self.iou_thresholds = [check_between("each of iou_thresholds", float(value), 0, 1) for value in given]
        if not self.iou_thresholds:
            raise ValueError("iou_thresholds must be one number or more, got none")
        self.max_detections = check_count("max_detections", max_detections)
        self.add_state("detections", [], dist_reduce_fx="cat")  # (D, 2 + T): class, score, found at each threshold
        self._mark("matching", self.iou_thresholds, self.max_detections)

    def _measure(self, k: int, scores: NDArray[np.float64], ious: NDArray[np.float64]) -> Sequence[float]:
        scores, ious = scores[: self.max_detections], ious[: self.max_detections]
        found = match_detections(ious, np.array(self.iou_thresholds))
        kept = np.concatenate([np.full((len(scores), 1), k), scores[:, None], found], axis=1)
        self.detections.append(torch.from_numpy(kept).to(self.device))
        return []

    def _values(self, rows: Tensor) -> Tensor:
        kept = self._joined("detections").numpy()
        objects = rows[..., 0].sum(0).long().tolist()
        values = []
        for k in range(self.num_classes):
            own = kept[kept[:, 0] == k]
            values.append(average_precision(own[:, 1], own[:, 2:] > 0, objects[k]).mean())
        return torch.tensor(values, dtype=torch.float64)

    def _blanks(self) -> dict[str, Tensor]:
        shape = (0, 2 + len(self.iou_thresholds))
        return {**super()._blanks(), "detections": torch.zeros(shape, dtype=torch.float64, device=self.device)}


class PanopticQuality(InstanceMetric):
    """Panoptic quality (Kirillov et al. 2019, arXiv:1801.00868): IoU of the matches over the objects of both sides.

    Segments match above an IoU of 0.5. Of a class the value is the sum of the matches' IoUs over the number of matches,
    half of the predicted segments that match none and half of the true ones, over all images; classes of which nothing
    is predicted nor true are left out of the mean. Instances that overlap match one to one, the largest IoU first.

    Args:
        num_classes: K.
        average: "macro": the mean over the classes, "none": one value for each class.
        options: of torchmetrics' Metric, such as sync_on_compute.
    """

    def __init__(self, num_classes: int = 1, *, average: Average = "macro", **options: Any) -> None:
        super().__init__(num_classes, average=average, row_length=4, **options)
        self._mark("matching", "panoptic")

    def _measure(self, k: int, scores: NDArray[np.float64], ious: NDArray[np.float64]) -> Sequence[float]:  # noqa: ARG002
        matched = match_segments(ious)
        return [float(matched.sum()), len(matched)]

    def _values(self, rows: Tensor) -> Tensor:
        true, predicted, iou, matched = rows.sum(0).unbind(1)
        objects = matched + (true - matched) / 2 + (predicted - matched) / 2
        return torch.where(objects > 0, iou / objects.clamp(min=0.5), torch.nan)
