"""Transforms: a training augmentation of a batch with its masks, beside kornia and albumentations."""

from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brainseg._torchvision import make_importable
from brainseg.benchmark import Candidate, Case, Run
from brainseg.data import phantom
from brainseg.transforms import (
    Compose,
    RandomAffine,
    RandomBrightness,
    RandomContrast,
    RandomElastic,
    RandomFlip,
    RandomGamma,
    RandomGaussianNoise,
    RandomRotate90,
    Transform,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
IMAGES, SIDE = 16, 256


def cases() -> list[Case]:
    """What `python -m benchmarks transforms` measures; draws differ, so that results are not compared."""
    size = f"{IMAGES}x3x{SIDE}x{SIDE} with masks"
    return [
        Case(
            f"flip, affine, elastic, noise, brightness, contrast, gamma, {size}",
            [
                Candidate("brainseg", partial(ours, strong())),
                Candidate("brainseg, compiled", partial(compiled, strong())),
                Candidate("kornia", partial(kornia, strong_of_kornia)),
                Candidate("albumentations, one thread, uint8", albumentations),
            ],
            device=DEVICE,
            images=IMAGES,
        ),
        Case(
            f"flips and quarter turns, {size}",
            [
                Candidate("brainseg", partial(ours, Compose([RandomFlip(p=1.0), RandomRotate90(p=1.0)]))),
                Candidate("kornia", partial(kornia, turns_of_kornia)),
            ],
            device=DEVICE,
            images=IMAGES,
        ),
        *(
            Case(
                f"{type(transform).__name__}, {size}",
                [Candidate("brainseg", partial(ours, transform))],
                quick=False,
                device=DEVICE,
                images=IMAGES,
            )
            for transform in strong().transforms
            if isinstance(transform, Transform)
        ),
    ]


def strong() -> Compose:
    return Compose(
        [
            RandomFlip(p=1.0),
            RandomAffine(degrees=(-15, 15), scale=(0.9, 1.1), translation=(-0.05, 0.05), p=1.0),
            RandomElastic(p=1.0),
            RandomGaussianNoise(p=1.0),
            RandomBrightness(p=1.0),
            RandomContrast(p=1.0),
            RandomGamma(p=1.0),
        ]
    )


def ours(transform: Transform) -> Run:
    images, masks = batch()
    return Run(lambda: transform(images, masks)[0])


def compiled(transform: Transform) -> Run:
    images, masks = batch()
    generator = torch.Generator(images.device)
    apply: Any = torch.compile(transform.apply, fullgraph=True)

    def call() -> Tensor:
        moved: Tensor = apply(images, masks, transform.draw(images.shape, generator))[0]
        return moved

    return Run(call)


def strong_of_kornia(k: Any) -> list[Any]:
    return [
        k.RandomHorizontalFlip(p=1.0),
        k.RandomAffine(degrees=15.0, translate=(0.05, 0.05), scale=(0.9, 1.1), p=1.0),
        k.RandomElasticTransform(p=1.0),
        k.RandomGaussianNoise(std=0.05, p=1.0),
        k.RandomBrightness((0.75, 1.25), p=1.0),
        k.RandomContrast((0.75, 1.25), p=1.0),
        k.RandomGamma((0.7, 1.5), p=1.0),
    ]


def turns_of_kornia(k: Any) -> list[Any]:
    return [
        k.RandomHorizontalFlip(p=0.5),
        k.RandomVerticalFlip(p=0.5),
        k.RandomRotation90(times=(0, 3), resample="nearest", p=1.0),
    ]


def kornia(parts: Callable[[Any], list[Any]]) -> Run:
    make_importable()
    module = import_module("kornia.augmentation")
    augment = module.AugmentationSequential(*parts(module), data_keys=["input", "mask"])
    images, masks = batch()
    return Run(lambda: augment(images, masks)[0])


def albumentations() -> Run:
    a = import_module("albumentations")
    import_module("cv2").setNumThreads(1)
    augment = a.Compose(
        [
            a.HorizontalFlip(p=1.0),
            a.Affine(rotate=(-15, 15), scale=(0.9, 1.1), translate_percent=(-0.05, 0.05), p=1.0),
            a.ElasticTransform(alpha=40, sigma=20, p=1.0),
            a.GaussNoise(std_range=(0.01, 0.1), p=1.0),
            a.RandomBrightnessContrast(p=1.0),
            a.RandomGamma(p=1.0),
        ]
    )
    images, masks = batch()
    pictures = [np.ascontiguousarray((255 * x).byte().permute(1, 2, 0).cpu().numpy()) for x in images]
    outlines = [x[0].byte().cpu().numpy() for x in masks]

    def call() -> Tensor:
        results = [augment(image=x, mask=y) for x, y in zip(pictures, outlines, strict=True)]
        return torch.from_numpy(np.stack([result["image"] for result in results]))

    return Run(call)


@cache
def batch() -> tuple[Tensor, Tensor]:
    slices = [phantom(seed, size=SIDE, lesion=True) for seed in range(IMAGES)]
    images, masks = (torch.stack(x) for x in zip(*slices, strict=True))
    return images.to(DEVICE), masks.to(DEVICE)
