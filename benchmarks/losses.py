"""Losses: value and gradient of a batch, beside every peer that computes the same."""

from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._harness import Candidate, Case, Run
from brainseg import losses
from brainseg._torchvision import make_importable

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BINARY, CLASSES = (16, 1, 256, 256), (8, 4, 512, 512)
SMOOTH: dict[str, Any] = {"smooth_nr": 1.0, "smooth_dr": 1.0}
Build = Callable[[], nn.Module]


def cases() -> list[Case]:
    """What `python -m benchmarks losses` measures; the first row of a case is ours without a look at the values."""
    dice, jaccard = partial(monai, "DiceLoss", **SMOOTH), partial(monai, "DiceLoss", jaccard=True, **SMOOTH)
    tversky: dict[str, Any] = {"alpha": 0.3, "beta": 0.7}
    return [
        case("Dice per image", BINARY, partial(losses.DiceLoss), {"MONAI": partial(dice, BINARY)}),
        case("Dice of the batch", BINARY, partial(losses.DiceLoss, batch=True), {"smp": smp("DiceLoss", smooth=1.0)}),
        case("Dice per image", CLASSES, partial(losses.DiceLoss), {"MONAI": partial(dice, CLASSES)}),
        case("Jaccard per image", BINARY, partial(losses.JaccardLoss), {"MONAI": partial(jaccard, BINARY)}),
        case(
            "Tversky per image",
            BINARY,
            partial(losses.TverskyLoss, **tversky),
            {"MONAI": partial(monai, "TverskyLoss", BINARY, **tversky, **SMOOTH)},
        ),
        case(
            "binary cross-entropy",
            BINARY,
            partial(losses.BCELoss),
            {"torch": nn.BCEWithLogitsLoss, "smp": smp("SoftBCEWithLogitsLoss", mode=None)},
        ),
        case("cross-entropy", CLASSES, partial(losses.CrossEntropyLoss), {"torch": nn.CrossEntropyLoss}),
        case(
            "focal",
            BINARY,
            partial(losses.FocalLoss, gamma=2.0, alpha=None),
            {
                "MONAI": partial(monai, "FocalLoss", BINARY, sigmoid=None, gamma=2.0),
                "smp": smp("FocalLoss", gamma=2.0),
            },
        ),
        case("Lovász per image", BINARY, partial(losses.LovaszLoss), {"smp": smp("LovaszLoss", per_image=True)}),
        case(
            "Lovász of the batch",
            CLASSES,
            partial(losses.LovaszLoss, batch=True, classes="present"),
            {"smp": smp("LovaszLoss", mode="multiclass")},
            tolerance=0.05,  # differences of neighbouring float32 values near 1, over two million pixels, in smp
        ),
        case("MCC", BINARY, partial(losses.MCCLoss, batch=True), {}),  # smp's gradient is NaN at this size
    ]


def case(
    title: str,
    shape: tuple[int, ...],
    ours: Callable[..., nn.Module],
    peers: dict[str, Build],
    *,
    tolerance: float = 1e-3,
) -> Case:
    """Value and gradient of ours, and of the peers that must give the same gradient."""
    return Case(
        f"{title}, {'x'.join(map(str, shape))}",
        [
            Candidate("brainseg", partial(run, shape, partial(ours, check_target=False))),
            Candidate("brainseg, values checked", partial(run, shape, ours), equal_to="brainseg"),
            *(
                Candidate(name, partial(run, shape, peer), equal_to="brainseg", tolerance=tolerance)
                for name, peer in peers.items()
            ),
        ],
    )


def run(shape: tuple[int, ...], build: Build) -> Run:
    loss = build()
    logits, target = batch(shape)

    def call() -> Tensor:
        logits.grad = None
        loss(logits, target).backward()
        assert logits.grad is not None
        return logits.grad

    return Run(call)


@cache
def batch(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Logits that are mostly right, and masks (one channel) or class indices of discs.

    All candidates read the same memory: two tensors may differ by 5 % in time by where they happen to lie.
    """
    generator = torch.Generator().manual_seed(0)
    images, channels, height, width = shape
    rows, columns = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    distance = torch.hypot(rows - 0.45, columns - 0.55).expand(images, -1, -1)
    radii = 0.1 + 0.2 * torch.rand(images, 1, 1, generator=generator)
    noise = 2 * torch.randn(shape, generator=generator)
    if channels == 1:
        target = (distance < radii)[:, None].float()
        return (noise + 3 * target - 1.5).to(DEVICE).requires_grad_(), target.to(DEVICE)
    classes = torch.stack([distance < radii * k for k in (0.4, 0.7, 1.0)]).sum(0)
    masks = nn.functional.one_hot(classes, channels).movedim(-1, 1)
    return (noise + 3 * masks).to(DEVICE).requires_grad_(), classes.to(DEVICE)


def monai(name: str, shape: tuple[int, ...], **arguments: Any) -> nn.Module:
    activation = {"sigmoid": True} if shape[1] == 1 else {"softmax": True, "to_onehot_y": True}
    given = {key: value for key, value in {**activation, **arguments}.items() if value is not None}
    loss: nn.Module = getattr(import_module("monai.losses"), name)(**given)
    return loss if shape[1] == 1 else WithChannel(loss)


class WithChannel(nn.Module):
    """MONAI wants a channel before class indices."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        value: Tensor = self.loss(logits, target[:, None])
        return value


def smp(name: str, *, mode: str | None = "binary", **arguments: Any) -> Build:
    def build() -> nn.Module:
        make_importable()
        given = arguments if mode is None else {"mode": mode, **arguments}
        loss: nn.Module = getattr(import_module("segmentation_models_pytorch.losses"), name)(**given)
        return loss

    return build
