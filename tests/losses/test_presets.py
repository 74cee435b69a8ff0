"""The sums with defaults of our own."""

from typing import Any

import pytest
import torch
from torch import nn

from brainseg import losses
from brainseg.losses import (
    CEDiceLoss,
    DeepSupervisionLoss,
    DiceFocalLoss,
    bce_dice_loss,
    cross_entropy_loss,
    dice_loss,
    focal_loss,
)

PRESETS = [CEDiceLoss, DiceFocalLoss]
SHARED: list[dict[str, Any]] = [
    {},
    {"weight": [1.0, 3.0, 2.0]},
    {"include_background": False},
    {"ignore_index": 2},
]


@pytest.mark.parametrize("shared", SHARED)
def test_ce_dice_is_the_sum_of_the_two(shared: dict[str, Any]) -> None:
    logits, target = torch.randn(2, 3, 6, 5), torch.randint(3, (2, 6, 5))
    ce, dice = cross_entropy_loss(logits, target, **shared), dice_loss(logits, target, batch=True, **shared)
    total, parts = CEDiceLoss(**shared).parts(logits, target)
    torch.testing.assert_close(total, ce + dice)
    torch.testing.assert_close(parts, {"ce": ce, "dice": dice})
    loss = CEDiceLoss(ce_weight=2.0, dice_weight=0.5, label_smoothing=0.1, smooth=3.0, batch=False, **shared)
    ce = cross_entropy_loss(logits, target, label_smoothing=0.1, **shared)
    torch.testing.assert_close(loss(logits, target), 2 * ce + 0.5 * dice_loss(logits, target, smooth=3.0, **shared))


@pytest.mark.parametrize("shared", SHARED)
def test_dice_focal_is_the_sum_of_the_two(shared: dict[str, Any]) -> None:
    logits, target = torch.randn(2, 3, 6, 5), torch.randint(3, (2, 6, 5))
    dice, focal = dice_loss(logits, target, batch=True, **shared), focal_loss(logits, target, **shared)
    total, parts = DiceFocalLoss(**shared).parts(logits, target)
    torch.testing.assert_close(total, dice + 20 * focal)
    torch.testing.assert_close(parts, {"dice": dice, "focal": focal})
    loss = DiceFocalLoss(dice_weight=2.0, focal_weight=0.5, gamma=1.0, alpha=0.3, smooth=3.0, batch=False, **shared)
    focal = focal_loss(logits, target, gamma=1.0, alpha=0.3, **shared)
    torch.testing.assert_close(loss(logits, target), 2 * dice_loss(logits, target, smooth=3.0, **shared) + 0.5 * focal)


@pytest.mark.parametrize("preset", PRESETS)
def test_an_empty_batch_costs_its_mass_and_no_longer_1(preset: type[CEDiceLoss | DiceFocalLoss]) -> None:
    # m / (m + 1) of 8 images with a mass of 1/8 pixel each; the published definition is still at 1.
    logits = torch.full((8, 1, 16, 16), 1 / 8 / 256, dtype=torch.float64).logit()
    target = torch.zeros(8, 1, 16, 16)
    _, parts = preset().parts(logits, target)
    assert parts["dice"].item() == pytest.approx(1 / 2)
    assert bce_dice_loss(logits, target, bce_weight=0).item() > 0.9999


@pytest.mark.parametrize("preset", PRESETS)
def test_a_false_positive_in_an_empty_slice_costs_as_much_as_one_beside_a_tumour(
    preset: type[CEDiceLoss | DiceFocalLoss],
) -> None:
    target = torch.zeros(2, 1, 16, 16)
    target[0, 0, :4, :4] = 1
    logits = torch.full((2, 1, 16, 16), -1.0, requires_grad=True)
    preset()(logits, target).backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad[1, 0, 8, 8], logits.grad[0, 0, 8, 8])


@pytest.mark.parametrize("preset", PRESETS)
def test_with_deep_supervision_its_parts_sum_to_the_total(preset: type[CEDiceLoss | DiceFocalLoss]) -> None:
    logits = [torch.randn(2, 1, 8 // s, 8 // s) for s in (1, 2, 4)]
    inner = preset()
    total, parts = DeepSupervisionLoss(inner).parts(logits, (torch.rand(2, 1, 8, 8) < 0.3).float())
    torch.testing.assert_close(sum(inner.weights[name] * part for name, part in parts.items()), total)


@pytest.mark.parametrize(
    "name", [name for name in losses.__all__ if name.endswith("Loss") and name != "DeepSupervisionLoss"]
)
def test_every_class_that_builds_without_arguments_takes_binary_masks(name: str) -> None:
    loss: nn.Module = getattr(losses, name)()
    logits = torch.randn(2, 1, 32, 32, requires_grad=True)
    target = torch.zeros(2, 1, 32, 32)
    target[0, :, 8:20, 8:20] = 1
    for mask in (target, target.bool()):
        value = loss(logits, mask)
        assert value.shape == ()
        assert value.isfinite()
    DeepSupervisionLoss(loss)([logits, logits[..., ::2, ::2]], target).backward()
    assert logits.grad is not None
    assert logits.grad.any()
