"""Generalised Dice against the pencil, its formula in numpy, and Dice."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from brainseg.losses import dice_loss, generalized_dice_loss


def test_the_value_is_that_of_the_formula() -> None:
    # Halves everywhere: of 4 pixels the first class has 4, the second 1; weights 1 and 4^2.
    target = torch.tensor([[[[1.0, 1.0, 1.0, 1.0]], [[1.0, 0.0, 0.0, 0.0]]]])
    found = generalized_dice_loss(torch.zeros(1, 2, 1, 4), target)
    assert found.item() == pytest.approx(1 - (2 * (2 + 16 * 0.5) + 1) / (6 + 16 * 3 + 1))


def test_an_empty_class_has_the_weight_of_the_smallest_other() -> None:
    # Of 4 pixels the classes have 4, 2 and 0; weights 1, 4 and 4.
    target = torch.tensor([[[[1.0, 1.0, 1.0, 1.0]], [[1.0, 1.0, 0.0, 0.0]], [[0.0, 0.0, 0.0, 0.0]]]])
    found = generalized_dice_loss(torch.zeros(1, 3, 1, 4), target)
    assert found.item() == pytest.approx(1 - (2 * (2 + 4 * 1) + 1) / (6 + 4 * 4 + 4 * 2 + 1))


@given(seed=st.integers(0, 2**32 - 1), batch=st.booleans())
def test_with_little_smoothing_it_is_the_formula_of_the_paper(seed: int, batch: bool) -> None:
    generator = np.random.default_rng(seed)
    logits = 2 * generator.standard_normal((3, 4, 5, 6))
    target = (generator.random(logits.shape) < np.array([0.9, 0.5, 0.2, 0.1])[:, None, None]).astype(np.float64)
    target[:, :, 0, 0] = 1
    p = 1 / (1 + np.exp(-logits))
    axes = (0, 2, 3) if batch else (2, 3)
    weight = 1 / target.sum(axes) ** 2
    expected = 1 - 2 * (weight * (p * target).sum(axes)).sum(-1) / (weight * (p + target).sum(axes)).sum(-1)
    tensors = torch.from_numpy(logits), torch.from_numpy(target)
    found = generalized_dice_loss(*tensors, smooth=1e-12, batch=batch, reduction="none")
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@given(seed=st.integers(0, 2**32 - 1), batch=st.booleans(), share=st.sampled_from([0.0, 0.2, 1.0]))
def test_with_one_class_it_is_dice(seed: int, batch: bool, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits, target = torch.randn(3, 1, 6, 5, generator=generator), torch.rand(3, 1, 6, 5, generator=generator) < share
    found = generalized_dice_loss(logits, target, batch=batch)
    torch.testing.assert_close(found, dice_loss(logits, target, batch=batch))


def test_if_all_classes_are_empty_it_falls_to_0_with_the_predicted_mass_of_all() -> None:
    # s = 1: mass / (mass + 1).
    masses = (1000, 10, 1, 0.1)
    logits = torch.stack([torch.full((2, 100, 100), mass / 2e4, dtype=torch.float64).logit() for mass in masses])
    found = generalized_dice_loss(logits, torch.zeros(4, 2, 100, 100), reduction="none")
    assert found.tolist() == pytest.approx([mass / (mass + 1) for mass in masses])


def test_a_small_class_weighs_as_much_as_a_large_one() -> None:
    # Of each class one half is missed: the sizes are 4 and 16384 pixels, the shares of the loss 4096 to 1.
    target = torch.zeros(1, 2, 128, 128, dtype=torch.bool)
    target[0, 0, :2, :2], target[0, 1] = True, True
    logits = torch.where(target, 100.0, -100.0)
    small, large = logits.clone(), logits.clone()
    small[0, 0, 0] = -100
    large[0, 1, :64] = -100
    of_small = generalized_dice_loss(small, target, smooth=1e-6)
    of_large = generalized_dice_loss(large, target, smooth=1e-6)
    # Weighted sizes: 2 * 4 and 2 * 16384 / 4096**2, of which a quarter is lost.
    assert of_small.item() == pytest.approx(1 - (4 + 2 / 1024) / (6 + 2 / 1024), rel=1e-4)
    assert of_large.item() == pytest.approx(1 - (8 + 1 / 1024) / (8 + 1.5 / 1024), rel=1e-2)


def test_none_gives_one_number_an_image() -> None:
    logits, target = torch.randn(3, 2, 6, 4), torch.rand(3, 2, 6, 4)
    assert generalized_dice_loss(logits, target, reduction="none").shape == (3,)
    assert generalized_dice_loss(logits, target, reduction="none", batch=True).shape == ()
    large = (x.movedim(0, 1).flatten(1, 2)[None] for x in (logits, target))
    torch.testing.assert_close(generalized_dice_loss(logits, target, batch=True), generalized_dice_loss(*large))


@pytest.mark.parametrize("mass", [0.0, 1e-6, 1e-3, 0.9])
def test_a_soft_mask_of_less_than_a_pixel_hides_no_error_of_the_others(mass: float) -> None:
    target = torch.zeros(1, 2, 64, 64)
    target[0, 0, :32], target[0, 1, 0, 0] = 1, mass
    logits = torch.where(target[:, :1] > 0.5, -20.0, 20.0).repeat(1, 2, 1, 1)
    logits[0, 1] = -20
    # All of the large class is wrong, and nothing is predicted of the small one.
    assert generalized_dice_loss(logits, target) > 0.999


def test_classes_of_the_smallest_and_the_largest_size_are_finite() -> None:
    target = torch.zeros(1, 3, 1024, 1024)
    target[0, 0], target[0, 1, 0, 0] = 1, 1e-6
    logits = torch.zeros(1, 3, 1024, 1024, requires_grad=True)
    found = generalized_dice_loss(logits, target)
    found.backward()
    assert found.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
