"""Matthews' correlation against the pencil, the correlation of numpy, and the limits of empty and full targets."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from brainseg.losses import mcc_loss


def logit(*p: float) -> Tensor:
    return torch.tensor(p, dtype=torch.float64).logit().reshape(1, 1, 1, -1)


def gradient(logits: Tensor, target: Tensor) -> Tensor:
    logits = logits.clone().requires_grad_()
    mcc_loss(logits, target).backward()
    assert logits.grad is not None
    return logits.grad


def test_the_value_is_that_of_the_formula() -> None:
    # Of 4 pixels: hits 0.9 + 0.2, false positives 0.3 + 0.4, misses 0.1 + 0.8, the rest 0.7 + 0.6; s = 1.
    found = mcc_loss(logit(0.9, 0.2, 0.3, 0.4), torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]]]))
    a, b, c, d = 1.1 + 1, 0.7, 0.9, 1.3 + 1
    expected = 1 - (a * d - b * c) / math.sqrt((a + b) * (a + c) * (d + b) * (d + c))
    assert found.item() == pytest.approx(expected)


@given(seed=st.integers(0, 2**32 - 1), batch=st.booleans())
def test_for_hard_masks_it_is_one_minus_their_correlation(seed: int, batch: bool) -> None:
    generator = np.random.default_rng(seed)
    predicted, target = generator.random((2, 3, 2, 9, 7)) < 0.4
    logits = torch.from_numpy(np.where(predicted, 100.0, -100.0))
    found = mcc_loss(logits, torch.from_numpy(target), smooth=1e-9, batch=batch, reduction="none")
    rows = [x.swapaxes(0, 1).reshape(2, -1) if batch else x.reshape(6, -1) for x in (predicted, target)]
    expected = [1 - np.corrcoef(p, t)[0, 1] for p, t in zip(*rows, strict=True)]
    np.testing.assert_allclose(found.flatten(), expected, atol=1e-8)


def test_the_opposite_mask_costs_nearly_2_and_no_correlation_1() -> None:
    target = torch.rand(1, 1, 64, 64) < 0.5
    assert mcc_loss(torch.where(target, -100.0, 100.0), target).item() == pytest.approx(2, abs=1e-3)
    assert mcc_loss(torch.zeros(1, 1, 64, 64), target).item() == pytest.approx(1, abs=1e-3)


@given(seed=st.integers(0, 2**32 - 1))
def test_tumour_and_background_may_change_places(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits, target = torch.randn(2, 1, 6, 5, generator=generator), torch.rand(2, 1, 6, 5, generator=generator)
    torch.testing.assert_close(mcc_loss(-logits, 1 - target), mcc_loss(logits, target))


@pytest.mark.parametrize("mass", [5000, 100, 1, 0.01])
@pytest.mark.parametrize("full", [False, True])
def test_an_empty_and_a_full_target_cost_what_the_wrong_mass_costs(mass: float, full: bool) -> None:
    n = 10_000
    wrong = torch.full((1, 1, 100, 100), mass / n, dtype=torch.float64).logit()
    found = mcc_loss(-wrong if full else wrong, torch.full_like(wrong, float(full)))
    assert found.item() == pytest.approx(1 - math.sqrt((n - mass + 1) / ((mass + 1) * (n + 1))))


@pytest.mark.parametrize("background", [0, 1, 3])
def test_the_gradient_of_misses_on_a_nearly_full_target_is_exact_in_float32(background: int) -> None:
    target = torch.ones(1, 1, 1024, 1024)
    target[0, 0, 0, :background] = 0
    logits = torch.full_like(target, -1.0)
    expected = gradient(logits.double(), target)
    found = gradient(logits, target).double()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


def test_the_gradient_of_false_positives_on_an_empty_target_is_exact_in_float32() -> None:
    target, logits = torch.zeros(1, 1, 1024, 1024), torch.full((1, 1, 1024, 1024), -1.0)
    found = gradient(logits, target).double()
    torch.testing.assert_close(found, gradient(logits.double(), target), rtol=1e-4, atol=0)


def test_a_constant_prediction_of_a_large_image_is_finite() -> None:
    target = torch.zeros(1, 1, 1024, 1024)
    target[..., :100, :100] = 1
    for value in (-1e4, 1e4):
        logits = torch.full_like(target, value)
        assert mcc_loss(logits, target).isfinite()
        assert gradient(logits, target).isfinite().all()
