"""Trains a tiny Mask DINO on phantoms with 0 to 6 lesions: python mask_dino_phantoms.py FOLDER (8 minutes of a core).

Writes into FOLDER the course of the training, with scores on other phantoms, what least scores find and miss at its
end, beside the components of the semantic mask, and a picture.
"""

import csv
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from brainseg.data import phantom
from brainseg.metrics import MeanAveragePrecision, PanopticQuality
from brainseg.metrics.functional.detection import mask_iou
from brainseg.models import MaskDINO
from brainseg.models.mask_dino import Instances, Target, instance_inference, semantic_logits, targets_from_masks
from brainseg.transforms import course_augmentation
from brainseg.visualization import draw_instances, draw_outlines

SIDE, STEPS, BATCH, EVERY = 96, 900, 8, 100
LESIONS, MIN_PIXELS = 7, 10
PARTS = ("class", "mask", "dice", "box", "giou")


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    start = time.process_time()
    images, masks = phantoms(0, 100 * LESIONS)
    others, truth = phantoms(10_000, 12 * LESIONS)
    targets = objects(truth)
    model = MaskDINO(
        backbone="small",
        channels=(16, 32, 64, 128),
        hidden_dim=64,
        conv_dim=64,
        mask_dim=64,
        num_queries=20,
        encoder_layers=2,
        decoder_layers=2,
        num_points=784,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-4, total_steps=STEPS, pct_start=0.1)
    augment, course, recent = course_augmentation(), [], []
    for step in range(1, STEPS + 1):
        chosen = torch.randint(len(images), (BATCH,))
        seen, of_seen = augment(images[chosen], masks[chosen])
        total, parts = model.train()(seen, objects(of_seen))
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        recent.append(torch.stack([total.detach(), *(parts[f"loss_{name}"] for name in PARTS)]))
        if step == 1 or step % EVERY == 0:
            losses = dict(zip(("total", *PARTS), torch.stack(recent).mean(0).tolist(), strict=True))
            found, _ = predict(model, others)
            course.append({"step": step, **losses, **scores(found, targets)})
            recent.clear()
            write(folder / "course.csv", course)
            print(f"{time.process_time() - start:.0f} s", course[-1], flush=True)
    found, semantic = predict(model, others)
    table = {"all": found, **{f"{least:g}": least_score(found, least) for least in (0.1, 0.3, 0.5, 0.7, 0.9)}}
    table["components"] = semantic
    write(
        folder / "thresholds.csv",
        [{"min_score": k, **counts(x, targets), **scores(x, targets)} for k, x in table.items()],
    )
    picture(others, truth, least_score(found, 0.5)).savefig(folder / "cases.png", dpi=80)
    print(f"{time.process_time() - start:.0f} s in all")


def phantoms(first: int, number: int) -> tuple[Tensor, Tensor]:
    """Images (n, 3, H, W) and masks (n, 1, H, W), with 0 to 6 lesions in turns."""
    drawn = [phantom(first + i, size=SIDE, lesion=i % LESIONS) for i in range(number)]
    return torch.stack([x.image for x in drawn]), torch.stack([x.mask for x in drawn])


def objects(masks: Tensor) -> list[Target]:
    return targets_from_masks(masks, components=True, min_pixels=MIN_PIXELS)


@torch.no_grad()
def predict(model: MaskDINO, images: Tensor) -> tuple[list[Instances], list[Instances]]:
    """The queries' objects, and the components of the semantic masks with the mean of their probabilities as scores."""
    found, components = [], []
    for few in torch.split(images, BATCH):
        predictions = model.eval().forward_queries(few)
        found += instance_inference(predictions)
        likely = semantic_logits(predictions).sigmoid()
        for probability, target in zip(likely, objects(likely), strict=True):
            own = target["masks"]
            sure = (probability * own).sum((1, 2)) / own.sum((1, 2))
            components.append(Instances(sure, target["labels"], target["boxes"], own))
    return found, components


def least_score(found: Sequence[Instances], least: float) -> list[Instances]:
    return [each[each.scores >= least] for each in found]


def scores(found: Sequence[Instances], targets: Sequence[Target]) -> dict[str, float]:
    metrics = {
        "map": MeanAveragePrecision(),
        "ap50": MeanAveragePrecision(iou_thresholds=[0.5]),
        "pq": PanopticQuality(),
    }
    for metric in metrics.values():
        metric.update(found, targets)
    return {name: float(metric.compute()) for name, metric in metrics.items()}


def counts(found: Sequence[Instances], targets: Sequence[Target]) -> dict[str, int]:
    """Lesions with an object of an IoU above 0.5, those without, and objects without a lesion."""
    hits = missed = false = 0
    for each, target in zip(found, targets, strict=True):
        matched = mask_iou(each.masks, target["masks"]) > 0.5
        hits += int(matched.any(0).sum())
        missed += int((~matched.any(0)).sum())
        false += int((~matched.any(1)).sum())
    return {"found": hits, "missed": missed, "false": false}


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: f"{x:.4g}" if isinstance(x, float) else x for name, x in row.items()})


def picture(images: Tensor, masks: Tensor, found: Sequence[Instances]) -> Figure:
    figure = Figure((14, 4.2), layout="constrained")
    for lesions, (above, below) in enumerate(figure.subplots(2, LESIONS).T):
        draw_outlines(above, images[lesions, 1], masks[lesions])
        draw_instances(below, images[lesions, 1], found[lesions], ["lesion"])
        above.set_title(f"{len(objects(masks[lesions : lesions + 1])[0]['labels'])} lesions")
    return figure


if __name__ == "__main__":
    main(Path(sys.argv[1]))
