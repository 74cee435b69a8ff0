"""Average precision and panoptic quality beside literal loops and COCO's own code."""

import math
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from brainseg.metrics import MeanAveragePrecision, PanopticQuality
from brainseg.models.mask_dino import Instances, targets_from_masks

CLASSES, SIDE = 3, 24
Image = tuple[Any, dict[str, Tensor]]


def image(generator: np.random.Generator, most: int = 6) -> Image:
    """True rectangles, and predicted ones that are some of these moved a little, of another class, or anywhere."""
    boxes = [rectangle(generator) for _ in range(generator.integers(0, most))]
    labels = generator.integers(0, CLASSES, len(boxes))
    found, classes = [], []
    for box, label in zip(boxes, labels, strict=True):
        for _ in range(generator.integers(0, 3)):
            found.append(np.clip(box + generator.integers(-2, 3, 4), 0, SIDE))
            classes.append(label if generator.random() < 0.8 else generator.integers(0, CLASSES))
    for _ in range(generator.integers(0, 3)):
        found.append(rectangle(generator))
        classes.append(generator.integers(0, CLASSES))
    scores = generator.random(len(found))
    instances = SimpleNamespace(
        scores=torch.from_numpy(scores), classes=torch.tensor(classes, dtype=torch.long), masks=drawn(found)
    )
    return instances, {"labels": torch.from_numpy(labels), "masks": drawn(boxes)}


def rectangle(generator: np.random.Generator) -> Any:
    y, x = generator.integers(0, SIDE - 4, 2)
    height, width = generator.integers(2, 12, 2)
    return np.array([y, x, min(y + height, SIDE), min(x + width, SIDE)])


def drawn(boxes: list[Any]) -> Tensor:
    masks = torch.zeros(len(boxes), SIDE, SIDE, dtype=torch.bool)
    for mask, (top, left, bottom, right) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return masks


def images(seed: int, count: int = 12) -> list[Image]:
    generator = np.random.default_rng(seed)
    found = [image(generator) for _ in range(count)]
    nothing = SimpleNamespace(scores=torch.zeros(0), classes=torch.zeros(0).long(), masks=drawn([]))
    found.append((nothing, found[0][1]))  # nothing predicted
    found.append((found[1][0], {"labels": torch.zeros(0).long(), "masks": drawn([])}))  # nothing there
    found.append((nothing, {"labels": torch.zeros(0).long(), "masks": drawn([])}))
    return found


def measured(metric: Any, data: list[Image]) -> Any:
    metric.update([predicted for predicted, _ in data], [true for _, true in data])
    return metric.compute()


def iou(a: Tensor, b: Tensor) -> float:
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 0.0


def literal_average_precision(data: list[Image], k: int, threshold: float) -> float:
    rows, objects = [], 0
    for predicted, true in data:
        own = [m for m, label in zip(true["masks"], true["labels"], strict=True) if label == k]
        objects += len(own)
        taken: set[int] = set()
        order = sorted(range(len(predicted.scores)), key=lambda i: -float(predicted.scores[i]))
        for i in order:
            if predicted.classes[i] != k:
                continue
            overlaps = {j: iou(predicted.masks[i], m) for j, m in enumerate(own) if j not in taken}
            best = max(overlaps, key=lambda j: (overlaps[j], j), default=None)
            hit = best is not None and overlaps[best] >= threshold
            if best is not None and hit:
                taken.add(best)
            rows.append((float(predicted.scores[i]), hit))
    if objects == 0:
        return math.nan
    rows.sort(key=lambda row: -row[0])
    curve, right = [], 0
    for number, (_, hit) in enumerate(rows, start=1):
        right += hit
        curve.append((right / objects, right / number))
    at = [max((p for r, p in curve if r >= recall), default=0.0) for recall in np.linspace(0, 1, 101)]
    return sum(at) / 101


def literal_panoptic_quality(data: list[Image], k: int) -> float:
    total, right, wrong, missed = 0.0, 0, 0, 0
    for predicted, true in data:
        left = {i: m for i, m in enumerate(predicted.masks) if predicted.classes[i] == k}
        own = {j: m for j, m in enumerate(true["masks"]) if true["labels"][j] == k}
        pairs = sorted(((iou(a, b), i, j) for i, a in left.items() for j, b in own.items()), key=lambda p: -p[0])
        for overlap, i, j in pairs:
            if overlap > 0.5 and i in left and j in own:
                total, right = total + overlap, right + 1
                del left[i], own[j]
        wrong, missed = wrong + len(left), missed + len(own)
    objects = right + wrong / 2 + missed / 2
    return total / objects if objects else math.nan


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_that_of_literal_loops(seed: int) -> None:
    data = images(seed)
    expected = [
        np.mean([literal_average_precision(data, k, t) for t in np.linspace(0.5, 0.95, 10)]) for k in range(CLASSES)
    ]
    found = measured(MeanAveragePrecision(CLASSES, average="none"), data)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    assert measured(MeanAveragePrecision(CLASSES), data).item() == pytest.approx(np.mean(expected), abs=1e-6)
    half = [literal_average_precision(data, k, 0.5) for k in range(CLASSES)]
    found = measured(MeanAveragePrecision(CLASSES, iou_thresholds=[0.5], average="none"), data)
    np.testing.assert_allclose(found.numpy(), half, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_panoptic_quality_is_that_of_literal_loops(seed: int) -> None:
    data = images(seed)
    expected = [literal_panoptic_quality(data, k) for k in range(CLASSES)]
    found = measured(PanopticQuality(CLASSES, average="none"), data)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    assert measured(PanopticQuality(CLASSES), data).item() == pytest.approx(np.mean(expected), abs=1e-6)


@pytest.mark.parametrize(("seed", "ties", "most"), [(0, False, 100), (1, False, 2), (2, True, 100), (3, True, 3)])
def test_average_precision_is_that_of_pycocotools(seed: int, ties: bool, most: int) -> None:
    pytest.importorskip("pycocotools")
    data = images(seed)
    if ties:
        for predicted, _ in data:
            predicted.scores = (predicted.scores * 4).round() / 4
    expected = coco_average_precision(data, most)
    found = measured(MeanAveragePrecision(CLASSES, max_detections=most, average="none"), data)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def coco_average_precision(data: list[Image], most: int) -> list[float]:
    from pycocotools import mask
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def encoded(pixels: Tensor) -> Any:
        return mask.encode(np.asfortranarray(pixels.numpy().astype(np.uint8)))

    truth, detections = COCO(), []
    annotations = []
    for number, (predicted, true) in enumerate(data, start=1):
        for pixels, label in zip(true["masks"], true["labels"].tolist(), strict=True):
            entry = {"image_id": number, "category_id": label + 1, "id": len(annotations) + 1, "iscrowd": 0}
            annotations.append({**entry, "segmentation": encoded(pixels), "area": int(pixels.sum())})
        detections += [
            {"image_id": number, "category_id": int(k) + 1, "segmentation": encoded(pixels), "score": float(score)}
            for pixels, k, score in zip(predicted.masks, predicted.classes, predicted.scores, strict=True)
        ]
    truth.dataset = {
        "info": {},
        "images": [{"id": number + 1, "height": SIDE, "width": SIDE} for number in range(len(data))],
        "categories": [{"id": k + 1, "name": str(k)} for k in range(CLASSES)],
        "annotations": annotations,
    }
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(detections), "segm")
    evaluation.params.maxDets = [most]
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, 0]  # thresholds, recalls, classes
    return [math.nan if (p := precision[:, :, k]).min() < 0 else float(p.mean()) for k in range(CLASSES)]


@pytest.mark.parametrize("metric", [MeanAveragePrecision, PanopticQuality])
def test_batches_and_their_order_change_nothing(metric: Any) -> None:
    data = images(5)
    together, apart = metric(CLASSES), metric(CLASSES)
    expected = measured(together, data)
    for predicted, true in reversed(data):
        apart.update([predicted], [true])
    torch.testing.assert_close(apart.compute(), expected)
    assert together.result()[1:] == apart.result()[1:]


def test_counts_are_of_images_and_summed_over_classes() -> None:
    square, nothing = drawn([np.array([2, 2, 9, 9])]), drawn([])
    one = SimpleNamespace(scores=torch.ones(1), classes=torch.tensor([1]), masks=square)
    none = SimpleNamespace(scores=torch.ones(0), classes=torch.zeros(0).long(), masks=nothing)
    there = {"labels": torch.tensor([1]), "masks": square}
    absent = {"labels": torch.zeros(0).long(), "masks": nothing}
    # One object of two is found, the other detection is wrong: of equal score, so that the right one counts first.
    for metric, value in ((MeanAveragePrecision, 51 / 101), (PanopticQuality, 1 / 2)):
        kept = metric(2)
        kept.update([one, none, one, none], [there, there, absent, absent])
        result = kept.result()
        assert result[1:] == (3, 5, 1, 1)
        assert result.value.item() == pytest.approx(value)
    each = PanopticQuality(2, average="none")
    each.update([one, none], [there, there])
    with pytest.warns(UserWarning, match="no case to average"):
        result = each.result()
    assert result.cases == (0, 2)


def test_a_class_without_objects_is_left_out_of_the_precision_and_costs_the_quality() -> None:
    square = drawn([np.array([2, 2, 9, 9])])
    both = SimpleNamespace(scores=torch.ones(2), classes=torch.tensor([0, 1]), masks=square.repeat(2, 1, 1))
    there = {"labels": torch.tensor([0]), "masks": square}
    assert measured(MeanAveragePrecision(2), [(both, there)]).item() == pytest.approx(1)
    assert measured(PanopticQuality(2), [(both, there)]).item() == pytest.approx(0.5)


@pytest.mark.parametrize("metric", [MeanAveragePrecision, PanopticQuality])
def test_nothing_at_all_is_no_number(metric: Any) -> None:
    with pytest.warns(UserWarning, match="no case to average"):
        assert metric().result().value.isnan()


def test_instances_and_targets_of_mask_dino_are_taken_as_they_are() -> None:
    masks = torch.zeros(1, 2, 32, 32)
    masks[0, 0, 4:12, 4:12] = masks[0, 1, 20:30, 1:9] = 1
    (target,) = targets_from_masks(masks)
    found = Instances(torch.tensor([0.9, 0.8]), target["labels"], torch.rand(2, 4), target["masks"])
    for metric in (MeanAveragePrecision(2), PanopticQuality(2)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            metric.update([found], [target])
        assert metric.compute().item() == pytest.approx(1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": torch.tensor([3])}, "must lie in 0 to 2, got 3 to 3"),
        ({"classes": torch.tensor([0.0])}, "must be integers, got torch.float32"),
        ({"masks": torch.ones(1, 8, 8, dtype=torch.bool)}, r"predicted in \(8, 8\) pixels and true in \(24, 24\)"),
        ({"masks": torch.full((1, SIDE, SIDE), 0.5)}, "must be bool or 0 and 1"),
        ({"masks": torch.ones(SIDE, SIDE)}, r"masks \(n, H, W\)"),
        ({"scores": torch.tensor([math.nan])}, "must have a score each"),
        ({"scores": torch.ones(2)}, "must have a score each"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_kept(changes: dict[str, Any], message: str) -> None:
    square = drawn([np.array([2, 2, 9, 9])])
    sound = {"scores": torch.ones(1), "classes": torch.tensor([0]), "masks": square}
    target = {"labels": torch.tensor([0]), "masks": square}
    metric = MeanAveragePrecision(CLASSES)
    with pytest.raises(ValueError, match=message):
        metric.update([SimpleNamespace(**sound), SimpleNamespace(**{**sound, **changes})], [target, target])
    assert metric.rows == []
    assert metric.detections == []


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="got instances of 1 images and targets of 0"):
        PanopticQuality().update([SimpleNamespace()], [])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="targets must be a list with one entry for each image, got dict"):
        PanopticQuality().update([], {})  # type: ignore[arg-type]
