"""A training step beside what feeds it and what watches it: none of these should be what limits training."""

import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from brainseg.benchmark import Candidate, Case, Run
from brainseg.data import LGGSegmentation, Sample, lgg_root, write_phantoms
from brainseg.losses import BCEDiceLoss
from brainseg.models import create_model
from brainseg.training.scores import create_scores
from brainseg.transforms import Compose, ForegroundZScore, course_augmentation

BATCH = 8


def cases() -> list[Case]:
    """What `python -m benchmarks training` measures."""
    return [
        Case(
            f"A batch of {BATCH} slices, 256x256, UNeXt on the CPU",
            [
                Candidate("training step", training_step),
                Candidate("reading, from the cache", partial(read, batches_from_cache)),
                Candidate("reading, decoded by Pillow", partial(read, batches_decoded), "reading, from the cache"),
                Candidate("flips, turns, z-scores", augment),
                Candidate("Dice and IoU, 8 scores", score),
            ],
        )
    ]


@cache
def slices() -> LGGSegmentation:
    """The LGG slices, or phantoms of their size where they are not at hand."""
    if lgg_root().is_dir():
        return LGGSegmentation(lgg_root())
    root = Path(tempfile.mkdtemp())
    write_phantoms(root / "lgg", patients=4, slices=16)
    return LGGSegmentation(root / "lgg", cache_dir=root / "cache")


def forever(make: Callable[[], Iterator[Tensor]]) -> Iterator[Tensor]:
    while True:
        yield from make()


def batches_from_cache() -> Iterator[Tensor]:
    for batch in DataLoader(slices(), BATCH, drop_last=True):
        yield batch["image"]


def batches_decoded() -> Iterator[Tensor]:
    for batch in DataLoader(Decoded(slices()), BATCH, drop_last=True):
        yield batch["image"]


class Decoded(torch.utils.data.Dataset[Sample]):
    """The same items without the cache."""

    def __init__(self, dataset: LGGSegmentation) -> None:
        self.files = dataset.files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        files = self.files[index]
        with Image.open(files.images[0]) as image, Image.open(files.masks[0]) as mask:
            pixels = torch.from_numpy(np.asarray(image).astype(np.float32) / 255).permute(2, 0, 1)
            labels = torch.from_numpy((np.asarray(mask) > 0).astype(np.float32))[None]
        return {"image": pixels, "mask": labels, "patient": files.patient, "slice": files.slice}


def read(batches: Callable[[], Iterator[Tensor]]) -> Run:
    iterator = forever(batches)
    return Run(lambda: next(iterator))


def training_step() -> Run:
    torch.manual_seed(0)
    model, loss = create_model("unext").train(), BCEDiceLoss(batch=True, smooth=1.0)
    optimizer = torch.optim.AdamW(model.parameters())
    images, masks = _batch()

    def call() -> Tensor:
        value: Tensor = loss(model(images), masks)
        optimizer.zero_grad()
        torch.autograd.backward(value)
        optimizer.step()
        return value

    return Run(call)


def augment() -> Run:
    transform = Compose([course_augmentation(), ForegroundZScore()])
    images, masks = _batch()
    return Run(lambda: transform(images, masks)[0])


def score() -> Run:
    images, masks = _batch()
    logits, patients = images[:, :1] - 0.5, ["patient"] * BATCH

    def call() -> Tensor:
        scores = create_scores(["foreground"])
        scores.update(logits, masks, group=patients)
        return scores["dice_dataset"].rows[0]  # type: ignore[index]

    return Run(call)


def _batch() -> tuple[Tensor, Tensor]:
    samples = [slices()[index] for index in range(BATCH)]
    return torch.stack([s["image"] for s in samples]), torch.stack([s["mask"] for s in samples])
