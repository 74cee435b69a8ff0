"""Trains `mask_dino_small` with its own criterion on LGG slices of half the side: python mask_dino_training.py FOLDER.

Writes the course of the training and, of the validation patients, Dice and a picture into FOLDER.
"""

import json
import sys
import time
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch.utils.data import DataLoader, WeightedRandomSampler

from brainseg.data import LGGSegmentation, lgg_root, read_split
from brainseg.metrics import DiceScore
from brainseg.models import create_model
from brainseg.models.mask_dino import targets_from_masks
from brainseg.transforms import ForegroundZScore, Resize, course_augmentation
from brainseg.visualization import draw_outlines

SIDE, STEPS, BATCH = 128, 1500, 8


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    root = lgg_root()
    split = read_split(root / "split.json")
    training, validation = LGGSegmentation(root, split["train"]), LGGSegmentation(root, split["validation"])
    resize, normalize, augment = Resize((SIDE, SIDE)), ForegroundZScore(), course_augmentation()

    # Slices with and without tumour equally often: an image without objects teaches the classes alone.
    with_tumour = torch.tensor([bool(training[i]["mask"].any()) for i in range(len(training))])
    share = with_tumour.float().mean()
    weights = torch.where(with_tumour, 0.5 / share, 0.5 / (1 - share))
    loader = DataLoader(training, BATCH, sampler=WeightedRandomSampler(weights.tolist(), STEPS * BATCH))

    model = create_model("mask_dino_small", in_channels=3, num_classes=1).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-4, total_steps=STEPS, pct_start=0.1)
    course, recent, start = [], [], time.monotonic()
    for step, batch in enumerate(loader, start=1):
        images, masks = augment(*resize(batch["image"], batch["mask"]))
        targets = targets_from_masks(masks)
        total, parts = model.criterion(model.forward_queries(normalize(images), targets), targets)
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        recent.append(torch.stack([total.detach(), *(parts[f"loss_{name}"] for name in ("class", "mask", "dice"))]))
        if step % 100 == 0:
            values = torch.stack(recent).mean(0).tolist()
            course.append({"step": step, **dict(zip(("total", "class", "mask", "dice"), values, strict=True))})
            recent.clear()
            print(f"{time.monotonic() - start:.0f} s", course[-1], flush=True)

    model.eval()
    scores = {name: DiceScore(aggregation=name) for name in ("patient", "dataset")}
    shown = []
    with torch.no_grad():
        for batch in DataLoader(validation, BATCH):
            images, masks = resize(batch["image"], batch["mask"])
            logits = model(normalize(images))
            for score in scores.values():
                score.update(logits, masks, group=batch["patient"], slice_index=batch["slice"])
            largest = int(masks.sum(dim=(1, 2, 3)).argmax())
            shown.append((images[largest], masks[largest, 0] > 0, logits[largest, 0] > 0))
    result = {f"dice_{name}": float(score.compute()) for name, score in scores.items()}
    result |= {"seconds": round(time.monotonic() - start), "steps": STEPS, "batch": BATCH, "side": SIDE}
    (folder / "result.json").write_text(json.dumps({**result, "course": course}, indent=1) + "\n")
    print(result)
    figure = Figure((12, 6), layout="constrained")
    for axes, (image, target, prediction) in zip(
        figure.subplots(2, 4).flat, shown[:: max(1, len(shown) // 8)], strict=False
    ):
        draw_outlines(axes, image, target, prediction)
    figure.savefig(folder / "cases.png", dpi=80)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
