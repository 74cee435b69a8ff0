"""Tversky and focal Tversky against the pencil, a count of pixels, and the losses they become."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from brainseg.losses import dice_loss, focal_tversky_loss, jaccard_loss, tversky_loss


def logit(*p: float) -> Tensor:
    return torch.tensor(p, dtype=torch.float64).logit().reshape(1, 1, 1, -1)


def test_the_value_is_that_of_the_formula() -> None:
    # Hits 0.9 + 0.2, false positives 0.3, misses 0.1 + 0.8.
    found = tversky_loss(logit(0.9, 0.2, 0.3), torch.tensor([[[[1.0, 1.0, 0.0]]]]), alpha=0.25, beta=0.5)
    assert found.item() == pytest.approx(1 - 2.1 / (2.1 + 0.25 * 0.3 + 0.5 * 0.9))


def test_alpha_weighs_false_positives_and_beta_misses() -> None:
    target = torch.tensor([[[[1.0, 0.0]]]])
    false_positive, miss = torch.tensor([[[[100.0, 100.0]]]]), torch.tensor([[[[-100.0, -100.0]]]])
    assert tversky_loss(false_positive, target, alpha=3, beta=5).item() == pytest.approx(1 - 2 / (2 + 3))
    assert tversky_loss(miss, target, alpha=3, beta=5).item() == pytest.approx(1 - 1 / (1 + 5))


def test_the_defaults_are_those_of_the_paper() -> None:
    logits, target = torch.randn(2, 1, 6, 5), torch.rand(2, 1, 6, 5)
    assert torch.equal(tversky_loss(logits, target), tversky_loss(logits, target, alpha=0.3, beta=0.7))
    focal = focal_tversky_loss(logits, target, reduction="none")
    torch.testing.assert_close(focal, tversky_loss(logits, target, reduction="none") ** 0.75)


@given(seed=st.integers(0, 2**32 - 1), alpha=st.floats(0.01, 5), beta=st.floats(0.01, 5), smooth=st.floats(1e-5, 10))
def test_for_hard_masks_it_is_the_index_of_the_counts(seed: int, alpha: float, beta: float, smooth: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    predicted, target = (torch.rand(2, 1, 1, 6, 5, generator=generator) < 0.4).unbind()
    hits, false, missed = (x.sum().item() for x in (predicted & target, predicted & ~target, target & ~predicted))
    logits = torch.where(predicted, 100.0, -100.0).double()
    found = tversky_loss(logits, target, alpha=alpha, beta=beta, smooth=smooth)
    expected = 1 - (hits + smooth) / (hits + alpha * false + beta * missed + smooth)
    assert found.item() == pytest.approx(expected, abs=1e-9)
    focal = focal_tversky_loss(logits, target, alpha=alpha, beta=beta, gamma=2.0, smooth=smooth)
    assert focal.item() == pytest.approx(math.sqrt(expected), abs=1e-6)


@given(seed=st.integers(0, 2**32 - 1), batch=st.booleans())
def test_with_equal_weights_it_is_dice_or_jaccard(seed: int, batch: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits, target = torch.randn(2, 3, 6, 5, generator=generator), torch.rand(2, 3, 6, 5, generator=generator)
    halves = tversky_loss(logits, target, alpha=0.5, beta=0.5, batch=batch)
    torch.testing.assert_close(halves, dice_loss(logits, target, smooth=2.0, batch=batch))
    ones = tversky_loss(logits, target, alpha=1, beta=1, batch=batch)
    torch.testing.assert_close(ones, jaccard_loss(logits, target, batch=batch))
    torch.testing.assert_close(focal_tversky_loss(logits, target, gamma=1), tversky_loss(logits, target))


def test_on_an_empty_image_it_falls_to_0_with_the_predicted_mass() -> None:
    # s = 1, alpha = 0.3: 0.3 * mass / (0.3 * mass + 1).
    masses = (1000, 10, 1, 0.1)
    logits = torch.stack([torch.full((1, 100, 100), mass / 1e4, dtype=torch.float64).logit() for mass in masses])
    expected = [0.3 * mass / (0.3 * mass + 1) for mass in masses]
    found = tversky_loss(logits, torch.zeros(4, 1, 100, 100), reduction="none")
    assert found[:, 0].tolist() == pytest.approx(expected)
    found = focal_tversky_loss(logits, torch.zeros(4, 1, 100, 100), reduction="none")
    assert found[:, 0].tolist() == pytest.approx([x**0.75 for x in expected])


def test_the_exponent_is_one_over_gamma_of_each_mask() -> None:
    target = torch.tensor([[[[1.0, 0.0]], [[1.0, 0.0]]]])
    logits = torch.tensor([[[[100.0, 100.0]], [[-100.0, -100.0]]]])
    found = focal_tversky_loss(logits, target, alpha=3, beta=5, gamma=3)
    assert found.item() == pytest.approx(((3 / 5) ** (1 / 3) + (5 / 6) ** (1 / 3)) / 2)


@pytest.mark.parametrize("gamma", [1.0, 4 / 3, 3.0])
@pytest.mark.parametrize("value", [100.0, 1e4, 12.0])
def test_the_gradient_at_the_right_mask_is_finite(gamma: float, value: float) -> None:
    target = torch.rand(2, 1, 64, 64) < 0.3
    logits = torch.where(target, value, -value).requires_grad_()
    focal_tversky_loss(logits, target, gamma=gamma).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", ["alpha", "beta", "gamma"])
@pytest.mark.parametrize("value", [0, -0.5, math.nan, math.inf])
def test_weights_and_exponents_that_are_not_positive_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a positive number, got"):
        focal_tversky_loss(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), **{name: value})
