"""Losses: value and gradient of a batch, beside every peer that computes the same."""

from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from brainseg import losses
from brainseg._torchvision import make_importable
from brainseg.benchmark import Candidate, Case, Run

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BINARY, CLASSES = (16, 1, 256, 256), (8, 4, 512, 512)
Build = Callable[[], nn.Module]


def cases() -> list[Case]:
    """What `python -m benchmarks losses` measures; the first row of a case is ours without a look at the values."""
    return [*overlap(BINARY), *overlap(CLASSES), *others()]


def overlap(shape: tuple[int, ...]) -> list[Case]:
    mode = "binary" if shape == BINARY else "multiclass"
    smooth, twice, none = ({"smooth_nr": s, "smooth_dr": s} for s in (1.0, 2.0, 1e-12))
    weights: dict[str, Any] = {"alpha": 0.3, "beta": 0.7}
    dice_ce: dict[str, Any] = {"smooth_nr": 1.0, "smooth_dr": 1.0, "batch": True}
    of_monai = partial(partial, monai, shape=shape)
    return [
        case("Dice per image", shape, losses.DiceLoss, {"MONAI": of_monai("DiceLoss", **smooth)}),
        case(
            "Dice of the batch",
            shape,
            partial(losses.DiceLoss, batch=True),
            {"MONAI": of_monai("DiceLoss", batch=True, **smooth), "smp": smp("DiceLoss", mode=mode, smooth=1.0)},
        ),
        case(
            "generalised Dice",
            shape,
            partial(losses.GeneralizedDiceLoss, smooth=1e-12),
            {"MONAI": of_monai("GeneralizedDiceLoss", **none)},
        ),
        case("Jaccard per image", shape, losses.JaccardLoss, {"MONAI": of_monai("DiceLoss", jaccard=True, **twice)}),
        case(
            "Jaccard of the batch",
            shape,
            partial(losses.JaccardLoss, batch=True),
            {"smp": smp("JaccardLoss", mode=mode, smooth=1.0)},
            tolerance=5e-3,  # smp's in float32 is 2e-3 off its own in float64, ours 7e-7
        ),
        case(
            "Tversky per image",
            shape,
            partial(losses.TverskyLoss, **weights),
            {"MONAI": of_monai("TverskyLoss", **weights, **smooth)},
        ),
        case(
            "cross-entropy + Dice",
            shape,
            partial(losses.CEDiceLoss, dice_weight=1.0, ce_weight=1.0),
            {"MONAI": of_monai("DiceCELoss", **dice_ce)},
        ),
    ]


def others() -> list[Case]:
    binary_lovasz, class_lovasz = losses.LovaszLoss, partial(losses.LovaszLoss, classes="present", batch=True)
    return [
        case(
            "binary cross-entropy",
            BINARY,
            losses.BCELoss,
            {"torch": nn.BCEWithLogitsLoss, "smp": smp("SoftBCEWithLogitsLoss", mode=None)},
        ),
        case("cross-entropy", CLASSES, losses.CrossEntropyLoss, {"torch": nn.CrossEntropyLoss}),
        case(
            "focal",
            BINARY,
            losses.FocalLoss,
            {
                "MONAI": partial(monai, "FocalLoss", shape=BINARY, sigmoid=None, gamma=2.0),
                "smp": smp("FocalLoss", gamma=2.0),
                "kornia": kornia("BinaryFocalLossWithLogits", alpha=None, gamma=2.0, reduction="mean"),
            },
        ),
        case(
            "focal",
            CLASSES,
            losses.FocalLoss,
            {
                "MONAI": mean_of_classes(
                    partial(monai, "FocalLoss", shape=CLASSES, softmax=None, use_softmax=True, gamma=2.0)
                ),
                "kornia": mean_of_classes(kornia("FocalLoss", alpha=None, gamma=2.0, reduction="mean")),
            },
        ),
        case(
            "Lovász per image",
            BINARY,
            binary_lovasz,
            {"smp": smp("LovaszLoss", per_image=True), "kornia": kornia("LovaszHingeLoss")},
        ),
        case(
            "Lovász of the batch",
            CLASSES,
            class_lovasz,
            {"smp": smp("LovaszLoss", mode="multiclass")},
            tolerance=0.05,  # differences of neighbouring float32 values near 1, over two million pixels, in smp
        ),
        case(
            "MCC",
            BINARY,
            partial(losses.MCCLoss, smooth=1e-12),
            {"MONAI": partial(monai, "MCCLoss", shape=BINARY, smooth_dr=0.0)},  # smp's gradient is NaN at this size
        ),
        case(
            "soft clDice",
            BINARY,
            losses.SoftClDiceLoss,
            {"MONAI": partial(monai, "SoftclDiceLoss", shape=BINARY, iter_=3, smooth=1e-12)},
            tolerance=5e-3,  # MONAI smooths the harmonic mean once more
        ),
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
        device=DEVICE,
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


def monai(name: str, *, shape: tuple[int, ...], **arguments: Any) -> nn.Module:
    activation = {"sigmoid": True} if shape[1] == 1 else {"softmax": True, "to_onehot_y": True}
    given = {key: value for key, value in {**activation, **arguments}.items() if value is not None}
    loss: nn.Module = getattr(import_module("monai.losses"), name)(**given)
    return loss if shape[1] == 1 else Adapted(loss, lambda target: target[:, None])


def smp(name: str, *, mode: str | None = "binary", **arguments: Any) -> Build:
    def build() -> nn.Module:
        make_importable()
        given = arguments if mode is None else {"mode": mode, **arguments}
        loss: nn.Module = getattr(import_module("segmentation_models_pytorch.losses"), name)(**given)
        return loss

    return build


def kornia(name: str, **arguments: Any) -> Build:
    def build() -> nn.Module:
        make_importable()
        loss: nn.Module = getattr(import_module("kornia.losses"), name)(**arguments)
        return Adapted(loss, lambda target: target[:, 0].long()) if name == "LovaszHingeLoss" else loss

    return build


def mean_of_classes(build: Build) -> Build:
    """The mean of MONAI and kornia counts the zeros of the classes that a pixel is not of."""
    return lambda: Adapted(build(), scale=CLASSES[1])


class Adapted(nn.Module):
    """A peer that wants the target in another form, or whose value is a part of ours."""

    def __init__(
        self, loss: nn.Module, form: Callable[[Tensor], Tensor] = lambda target: target, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.loss, self.form, self.scale = loss, form, scale

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        value: Tensor = self.loss(logits, self.form(target))
        return value * self.scale
