"""Dice against the pencil and a count of pixels."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from brainseg.losses import DiceLoss, dice_loss


def logit(*p: float) -> Tensor:
    return torch.tensor(p, dtype=torch.float64).logit().reshape(1, 1, 1, -1)


def test_the_value_is_that_of_the_formula() -> None:
    # 1 - (2 * (0.9 + 0.2) + 1) / (0.9 + 0.2 + 0.3 + 2 + 1)
    found = dice_loss(logit(0.9, 0.2, 0.3), torch.tensor([[[[1.0, 1.0, 0.0]]]]))
    assert found.item() == pytest.approx(1 - 3.2 / 4.4)


def test_soft_targets_enter_with_their_values() -> None:
    # 1 - (2 * 0.5 * 0.25 + 2) / (0.5 + 0.25 + 2)
    found = dice_loss(logit(0.5), torch.full((1, 1, 1, 1), 0.25), smooth=2)
    assert found.item() == pytest.approx(1 - 2.25 / 2.75)


def test_each_mask_of_each_image_counts_alike() -> None:
    # Probabilities of one half: 1 - (n + 1) / (2 + n + 1) with n of 4 pixels in the mask.
    target = torch.zeros(2, 2, 2, 2)
    target[0, 1], target[1, 0, 0], target[1, 1, 0, 0] = 1, 1, 1
    each = dice_loss(torch.zeros(2, 2, 2, 2), target, reduction="none")
    torch.testing.assert_close(each, torch.tensor([[2 / 3, 2 / 7], [2 / 5, 2 / 4]]))
    assert dice_loss(torch.zeros(2, 2, 2, 2), target).item() == pytest.approx(each.mean().item())


def test_a_batch_pools_the_pixels_of_its_images_for_each_class() -> None:
    target = torch.zeros(2, 2, 2, 2)
    target[0, 1], target[1, 0, 0], target[1, 1, 0, 0] = 1, 1, 1
    found = dice_loss(torch.zeros(2, 2, 2, 2), target, batch=True, reduction="none")
    torch.testing.assert_close(found, torch.tensor([1 - 3 / 7, 1 - 6 / 10]))


@given(seed=st.integers(0, 2**32 - 1), smooth=st.floats(1e-5, 10))
def test_for_hard_masks_it_is_one_minus_the_dice_of_the_counts(seed: int, smooth: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    predicted, target = (torch.rand(2, 1, 1, 6, 5, generator=generator) < 0.4).unbind()
    both, either = (predicted & target).sum().item(), predicted.sum().item() + target.sum().item()
    found = dice_loss(torch.where(predicted, 100.0, -100.0).double(), target, smooth=smooth)
    assert found.item() == pytest.approx(1 - (2 * both + smooth) / (either + smooth), abs=1e-9)


@given(seed=st.integers(0, 2**32 - 1), batch=st.booleans())
def test_it_lies_between_0_and_1(seed: int, batch: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits, target = 5 * torch.randn(2, 3, 6, 5, generator=generator), torch.rand(2, 3, 6, 5, generator=generator)
    found = dice_loss(logits, target, batch=batch, reduction="none")
    assert (found >= 0).all()
    assert (found <= 1).all()


def test_on_an_empty_image_it_falls_to_0_with_the_predicted_mass() -> None:
    # s = 1: mass / (mass + 1).
    masses = (1000, 10, 1, 0.1)
    logits = torch.stack([torch.full((1, 100, 100), mass / 1e4, dtype=torch.float64).logit() for mass in masses])
    found = dice_loss(logits, torch.zeros(4, 1, 100, 100), reduction="none")
    assert found[:, 0].tolist() == pytest.approx([mass / (mass + 1) for mass in masses])


def test_the_gradient_on_an_empty_image_is_exact_in_float32() -> None:
    # d/dx of mass / (mass + s) is s * p * (1 - p) / (mass + s)^2.
    logits = torch.zeros(1, 1, 256, 256, requires_grad=True)
    dice_loss(logits, torch.zeros(1, 1, 256, 256), smooth=1e-5).backward()
    assert logits.grad is not None
    assert logits.grad[0, 0, 0, 0].item() == pytest.approx(1e-5 / 4 / (2**15 + 1e-5) ** 2, rel=1e-4)


def test_classes_are_weighted_as_cross_entropy_weights_them() -> None:
    target = torch.tensor([[[0, 0, 0, 2]]])
    weight = torch.tensor([1.0, 2.0, 5.0])
    each = dice_loss(torch.zeros(1, 3, 1, 4), target, reduction="none")
    expected = [1 - (2 * n / 3 + 1) / (4 / 3 + n + 1) for n in (3, 0, 1)]
    assert each[0].tolist() == pytest.approx(expected)
    found = {
        reduction: dice_loss(torch.zeros(1, 3, 1, 4), target, weight=weight, reduction=reduction)
        for reduction in ("mean", "sum", "none")
    }
    torch.testing.assert_close(found["none"], each * weight)
    torch.testing.assert_close(found["sum"], (each * weight).sum())
    torch.testing.assert_close(found["mean"], (each * weight).sum() / 8)


@pytest.mark.parametrize("weight", [[1.0, 2.0, 5.0], torch.tensor([1, 2, 5]), (1, 2, 5)])
@pytest.mark.parametrize("integer", [True, False])
def test_without_the_background_the_other_classes_keep_their_weights(weight: Tensor, integer: bool) -> None:
    logits = torch.randn(2, 3, 4, 4)
    indices = torch.randint(3, (2, 4, 4))
    target = indices if integer else torch.rand(2, 3, 4, 4)
    each = dice_loss(logits, target, reduction="none")[:, 1:]
    found = dice_loss(logits, target, weight=weight, include_background=False)
    torch.testing.assert_close(found, (each * torch.tensor([2.0, 5.0])).sum() / 14)
    assert dice_loss(logits, target, weight=weight, include_background=False, reduction="none").shape == (2, 2)


def test_probabilities_are_taken_as_they_are() -> None:
    logits, target = torch.randn(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    indices = torch.randint(3, (2, 4, 4))
    torch.testing.assert_close(dice_loss(logits.sigmoid(), target, from_probabilities=True), dice_loss(logits, target))
    torch.testing.assert_close(
        dice_loss(logits.softmax(1), indices, from_probabilities=True), dice_loss(logits, indices)
    )


@pytest.mark.parametrize("weight", [[1.0], [[1.0, 2.0, 3.0]], 1.0])
def test_weights_that_are_not_one_a_class_are_refused(weight: list[float]) -> None:
    with pytest.raises(ValueError, match=r"weight of shape .*, expected one number a class: \(3,\)"):
        dice_loss(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4), weight=weight)


def test_the_weight_moves_with_the_module() -> None:
    loss = DiceLoss(weight=[1.0, 3.0]).to("meta")
    assert loss.weight is not None
    assert loss.weight.device.type == "meta"
