"""Losses against MONAI, segmentation_models_pytorch and kornia, where their definitions agree."""

import pytest
import torch
from torch import Tensor

from brainseg._torchvision import make_importable
from brainseg.losses import (
    CEDiceLoss,
    DiceFocalLoss,
    bce_loss,
    dice_loss,
    focal_loss,
    focal_tversky_loss,
    generalized_dice_loss,
    jaccard_loss,
    lovasz_loss,
    mcc_loss,
    soft_cldice_loss,
    tversky_loss,
)

make_importable()


def draw(*shape: int) -> tuple[Tensor, Tensor]:
    """Logits and masks."""
    logits = 3 * torch.randn(shape, dtype=torch.float64)
    return logits, (torch.rand(shape, dtype=torch.float64) < 0.3).double()


def test_bce_is_that_of_smp() -> None:
    smp = pytest.importorskip("segmentation_models_pytorch.losses")
    logits, target = draw(2, 3, 8, 6)
    # Its factor is what each of the two outcomes gets, half of ours.
    pos_weight = torch.tensor([1.0, 4.0, 0.5], dtype=torch.float64)
    peer = smp.SoftBCEWithLogitsLoss(smooth_factor=0.1, pos_weight=pos_weight.view(3, 1, 1), ignore_index=None)
    found = bce_loss(logits, target, label_smoothing=0.2, pos_weight=pos_weight)
    torch.testing.assert_close(found, peer(logits, target))


@pytest.mark.parametrize("alpha", [None, 0.25])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_is_that_of_monai(alpha: float | None, gamma: float) -> None:
    monai = pytest.importorskip("monai.losses")
    # MONAI computes in float32.
    logits, target = (x.float() for x in draw(2, 3, 8, 6))
    peer = monai.FocalLoss(gamma=gamma, alpha=alpha)
    torch.testing.assert_close(focal_loss(logits, target, gamma=gamma, alpha=alpha), peer(logits, target))
    indices = logits.roll(1, 0).argmax(1)
    peer = monai.FocalLoss(gamma=gamma, alpha=alpha, use_softmax=True, to_onehot_y=True)
    # Its mean is over the zeros of the other classes too.
    torch.testing.assert_close(
        focal_loss(logits, indices, gamma=gamma, alpha=alpha), 3 * peer(logits, indices[:, None])
    )


@pytest.mark.parametrize("alpha", [None, 0.25])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
@pytest.mark.parametrize("soft", [False, True])
def test_focal_is_that_of_smp(alpha: float | None, gamma: float, soft: bool) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch.losses")
    logits, target = draw(2, 1, 8, 6)
    target = target.roll(1, 0).clamp(0.1, 0.8) if soft else target
    peer = smp.FocalLoss(mode="binary", alpha=alpha, gamma=gamma)
    torch.testing.assert_close(focal_loss(logits, target, gamma=gamma, alpha=alpha), peer(logits, target))


@pytest.mark.parametrize("alpha", [None, 0.25])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_is_that_of_kornia(alpha: float | None, gamma: float) -> None:
    kornia = pytest.importorskip("kornia.losses")
    logits, target = draw(2, 3, 8, 6)
    found = focal_loss(logits, target, gamma=gamma, alpha=alpha, reduction="none")
    torch.testing.assert_close(found, kornia.binary_focal_loss_with_logits(logits, target, alpha=alpha, gamma=gamma))
    indices = logits.roll(1, 0).argmax(1)
    found = focal_loss(logits, indices, gamma=gamma, alpha=alpha, reduction="none")
    torch.testing.assert_close(found, kornia.focal_loss(logits, indices, alpha=alpha, gamma=gamma).sum(1))


def test_ce_dice_is_that_of_monai() -> None:
    monai = pytest.importorskip("monai.losses")
    logits, _ = draw(2, 3, 8, 6)
    indices = logits.roll(1, 0).argmax(1)
    weights = {"lambda_ce": 0.5, "lambda_dice": 2.0}
    smooth = {"smooth_nr": 1.0, "smooth_dr": 1.0, "batch": True}
    peer = monai.DiceCELoss(softmax=True, to_onehot_y=True, **smooth, **weights)
    found = CEDiceLoss(ce_weight=0.5, dice_weight=2.0)(logits, indices)
    torch.testing.assert_close(found, peer(logits, indices[:, None]), check_dtype=False)


def test_dice_focal_is_that_of_monai() -> None:
    monai = pytest.importorskip("monai.losses")
    logits, target = (x.float() for x in draw(2, 3, 8, 6))
    smooth = {"smooth_nr": 1.0, "smooth_dr": 1.0, "batch": True}
    peer = monai.DiceFocalLoss(sigmoid=True, gamma=2.0, alpha=0.25, lambda_focal=20.0, **smooth)
    torch.testing.assert_close(DiceFocalLoss(alpha=0.25)(logits, target), peer(logits, target))


@pytest.mark.parametrize("batch", [False, True])
def test_dice_is_that_of_monai(batch: bool) -> None:
    monai = pytest.importorskip("monai.losses")
    logits, target = draw(2, 3, 8, 6)
    peer = monai.DiceLoss(sigmoid=True, smooth_nr=1.0, smooth_dr=1.0, batch=batch)
    torch.testing.assert_close(dice_loss(logits, target, batch=batch), peer(logits, target))


@pytest.mark.parametrize("batch", [False, True])
def test_jaccard_is_that_of_monai(batch: bool) -> None:
    monai = pytest.importorskip("monai.losses")
    logits, target = draw(2, 3, 8, 6)
    # It doubles intersection and union, but not what it adds to them.
    peer = monai.DiceLoss(sigmoid=True, jaccard=True, smooth_nr=2.0, smooth_dr=2.0, batch=batch)
    torch.testing.assert_close(jaccard_loss(logits, target, batch=batch), peer(logits, target))


@pytest.mark.parametrize("batch", [False, True])
def test_tversky_is_that_of_monai(batch: bool) -> None:
    monai = pytest.importorskip("monai.losses")
    logits, target = draw(2, 3, 8, 6)
    weights = {"alpha": 0.2, "beta": 0.9}
    peer = monai.TverskyLoss(sigmoid=True, smooth_nr=1.0, smooth_dr=1.0, batch=batch, **weights)
    torch.testing.assert_close(tversky_loss(logits, target, batch=batch, **weights), peer(logits, target))


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("empty", [False, True])
def test_generalized_dice_is_that_of_monai(batch: bool, empty: bool) -> None:
    monai = pytest.importorskip("monai.losses")
    # Its weights are those of the paper as they are: only with little smoothing are the two the same.
    logits, target = draw(2, 3, 8, 6)
    target[:, 1] *= not empty
    peer = monai.GeneralizedDiceLoss(sigmoid=True, smooth_nr=1e-12, smooth_dr=1e-12, batch=batch)
    found = generalized_dice_loss(logits, target, smooth=1e-12, batch=batch)
    # Weights in float32.
    torch.testing.assert_close(found, peer(logits, target), rtol=1e-6, atol=0)


@pytest.mark.parametrize("batch", [False, True])
def test_mcc_is_that_of_monai(batch: bool) -> None:
    monai = pytest.importorskip("monai.losses")
    if not hasattr(monai, "MCCLoss"):
        pytest.skip("this MONAI has no MCCLoss")
    logits, target = draw(2, 3, 8, 6)
    peer = monai.MCCLoss(sigmoid=True, smooth_dr=0.0, batch=batch)
    torch.testing.assert_close(mcc_loss(logits, target, smooth=1e-12, batch=batch), peer(logits, target))


def test_jaccard_is_that_of_smp() -> None:
    smp = pytest.importorskip("segmentation_models_pytorch.losses")
    logits, target = draw(2, 3, 8, 6)
    peer = smp.JaccardLoss(mode="multilabel", smooth=1.0)
    torch.testing.assert_close(jaccard_loss(logits, target, batch=True), peer(logits, target))


def test_tversky_is_that_of_smp() -> None:
    smp = pytest.importorskip("segmentation_models_pytorch.losses")
    logits, target = draw(2, 3, 8, 6)
    weights = {"alpha": 0.2, "beta": 0.9}
    peer = smp.TverskyLoss(mode="multilabel", smooth=1.0, **weights)
    torch.testing.assert_close(tversky_loss(logits, target, batch=True, **weights), peer(logits, target))
    # Its exponent is gamma, not 1 / gamma.
    peer = smp.TverskyLoss(mode="binary", smooth=1.0, gamma=0.75, **weights)
    found = focal_tversky_loss(logits[:, :1], target[:, :1], gamma=4 / 3, batch=True, **weights)
    torch.testing.assert_close(found, peer(logits[:, :1], target[:, :1]))


def test_mcc_is_that_of_smp() -> None:
    smp = pytest.importorskip("segmentation_models_pytorch.losses")
    logits, target = draw(2, 1, 8, 6)
    # It takes probabilities.
    peer = smp.MCCLoss(eps=0)(logits.sigmoid(), target)
    torch.testing.assert_close(mcc_loss(logits, target, smooth=1e-12, batch=True), peer)


@pytest.mark.parametrize("batch", [False, True])
def test_lovasz_is_that_of_smp(batch: bool) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch.losses")
    # It mixes dtypes where logits are float64.
    logits, target = (x.float() for x in draw(3, 1, 8, 6))
    target[0] = 0
    peer = smp.LovaszLoss(mode="binary", per_image=not batch)
    torch.testing.assert_close(lovasz_loss(logits, target, batch=batch), peer(logits, target))
    logits, _ = draw(3, 4, 8, 6)
    indices = logits.roll(1, 0)[:, :3].argmax(1)
    # Each image has the same classes: its mean over classes is within each image.
    peer = smp.LovaszLoss(mode="multiclass", per_image=not batch)
    found = lovasz_loss(logits.float(), indices, batch=batch, classes="present")
    torch.testing.assert_close(found, peer(logits.float(), indices))


def test_lovasz_is_that_of_kornia() -> None:
    kornia = pytest.importorskip("kornia.losses")
    logits, target = draw(3, 1, 8, 6)
    target[0] = 0
    torch.testing.assert_close(lovasz_loss(logits, target), kornia.lovasz_hinge_loss(logits, target[:, 0].long()))
    logits, _ = draw(3, 4, 8, 6)
    indices = logits.roll(1, 0)[:, :3].argmax(1)
    torch.testing.assert_close(lovasz_loss(logits, indices), kornia.lovasz_softmax_loss(logits, indices))


@pytest.mark.parametrize("shape", [(2, 1, 12, 9), (2, 1, 5, 7, 6)])
def test_soft_cldice_is_that_of_monai(shape: tuple[int, ...]) -> None:
    monai = pytest.importorskip("monai.losses")
    logits, target = draw(*shape)
    # It adds a third constant to the denominator of the harmonic mean.
    peer = monai.SoftclDiceLoss(iter_=2, smooth=1e-12, sigmoid=True)
    torch.testing.assert_close(soft_cldice_loss(logits, target, iterations=2), peer(logits, target))
