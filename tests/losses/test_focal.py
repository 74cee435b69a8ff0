"""Focal loss against the pencil, the paper's formula in numpy, and its limits."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from brainseg.losses import FocalLoss, bce_loss, cross_entropy_loss, focal_loss

seeds = st.integers(0, 2**32 - 1)
gammas = st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.0, 3.7])


def draw(seed: int, *shape: int) -> tuple[Tensor, Tensor]:
    """Logits and masks."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return logits, torch.rand(shape, generator=generator) < 0.3


def draw_classes(seed: int, *shape: int) -> tuple[Tensor, Tensor]:
    logits, _ = draw(seed, *shape)
    return logits, torch.randn(shape, generator=torch.Generator().manual_seed(seed + 1)).argmax(1)


def test_the_value_is_that_of_the_formula() -> None:
    # A hit at 0.9 and a false positive at 0.2, with the paper's gamma and alpha.
    logits = torch.tensor([[[[0.9, 0.2]]]]).logit()
    found = focal_loss(logits, torch.tensor([[[[1.0, 0.0]]]]), alpha=0.25, reduction="none")
    expected = [-0.25 * 0.1**2 * math.log(0.9), -0.75 * 0.2**2 * math.log(0.8)]
    assert found.flatten().tolist() == pytest.approx(expected)


@given(seed=seeds, gamma=gammas, alpha=st.floats(0, 1))
def test_it_is_the_paper_s_formula(seed: int, gamma: float, alpha: float) -> None:
    logits, target = draw(seed, 2, 3, 5, 4)
    p, t = 1 / (1 + np.exp(-logits.numpy())), target.numpy()
    p_t, alpha_t = np.where(t, p, 1 - p), np.where(t, alpha, 1 - alpha)
    expected = -alpha_t * (1 - p_t) ** gamma * np.log(p_t)
    found = focal_loss(logits, target, gamma=gamma, alpha=alpha, reduction="none")
    torch.testing.assert_close(found, torch.from_numpy(expected))
    assert focal_loss(logits, target, gamma=gamma, alpha=alpha).item() == pytest.approx(expected.mean())


@given(seed=seeds, gamma=gammas, alpha=st.none() | st.floats(0, 1))
def test_of_class_indices_it_is_the_formula_with_the_softmax(seed: int, gamma: float, alpha: float | None) -> None:
    logits, target = draw_classes(seed, 2, 3, 5, 4)
    odds = np.exp(logits.numpy())
    p_t = np.take_along_axis(odds / odds.sum(1, keepdims=True), target.numpy()[:, None], 1)[:, 0]
    alpha_t = 1 if alpha is None else np.where(target.numpy() > 0, alpha, 1 - alpha)
    expected = -alpha_t * (1 - p_t) ** gamma * np.log(p_t)
    found = focal_loss(logits, target, gamma=gamma, alpha=alpha, reduction="none")
    torch.testing.assert_close(found, torch.from_numpy(expected))


@pytest.mark.parametrize("alpha", [None, 0.25])
def test_a_sigmoid_is_the_softmax_over_0_and_the_logit(alpha: float | None) -> None:
    logits, target = draw(0, 2, 1, 5, 4)
    both = torch.cat([torch.zeros_like(logits), logits], dim=1)
    torch.testing.assert_close(
        focal_loss(both, target[:, 0].long(), alpha=alpha), focal_loss(logits, target, alpha=alpha)
    )


def test_without_focus_it_is_the_cross_entropy() -> None:
    logits, target = draw(0, 2, 3, 5, 4)
    torch.testing.assert_close(focal_loss(logits, target, gamma=0), bce_loss(logits, target))
    logits, indices = draw_classes(0, 2, 3, 5, 4)
    weight = [1.0, 3.0, 2.0]
    torch.testing.assert_close(
        focal_loss(logits, indices, gamma=0, weight=weight), cross_entropy_loss(logits, indices, weight=weight)
    )


@given(seed=seeds, gamma=gammas)
def test_it_lies_between_0_and_the_cross_entropy(seed: int, gamma: float) -> None:
    logits, target = (x.float() for x in draw(seed, 2, 3, 5, 4))
    found = focal_loss(10 * logits, target, gamma=gamma, reduction="none")
    assert (found >= 0).all()
    assert (found <= bce_loss(10 * logits, target, reduction="none")).all()


@pytest.mark.parametrize("gamma", [0.5, 2.0])
@pytest.mark.parametrize("t", [0.1, 0.5, 0.8])
def test_with_a_soft_target_it_is_least_at_the_target(gamma: float, t: float) -> None:
    logits = torch.linspace(-8, 8, 2001, dtype=torch.float64)
    found = focal_loss(logits.reshape(1, 1, 1, -1), torch.full((1, 1, 1, 2001), t), gamma=gamma, reduction="none")
    assert logits[found.argmin()].sigmoid().item() == pytest.approx(t, abs=2e-3)


@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("t", [0.0, 0.5, 1.0])
def test_value_and_gradient_are_finite_and_right_for_any_logit(gamma: float, dtype: torch.dtype, t: float) -> None:
    values = [s * v for v in (1e4, 1e3, 104, 100, 89, 88, 50, 30, 17, 16, 5, 1, 1e-3) for s in (1, -1)] + [0.0]
    logits = torch.tensor(values, dtype=dtype).reshape(1, 1, 1, -1).requires_grad_()
    loss = focal_loss(logits, torch.full(logits.shape, t), gamma=gamma, reduction="none")
    loss.sum().backward()
    assert logits.grad is not None
    assert loss.isfinite().all()
    assert logits.grad.isfinite().all()
    if t != 0.5:
        # Of a mistake m, (1 - p_t)^g c with c = log(1 + e^m) and 1 - p_t = 1 / (1 + e^-m), in double precision.
        m = logits.detach().double() * (1 if t == 0 else -1)
        c, error = F.softplus(m, threshold=50), m.sigmoid()
        log_error = -F.softplus(-m, threshold=50)
        slope = (gamma * log_error).exp() * (gamma * (1 - error) * c + error) * (1 if t == 0 else -1)
        torch.testing.assert_close(loss.double(), (gamma * log_error).exp() * c, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(logits.grad.double(), slope, rtol=1e-2, atol=1e-3 if gamma < 1 else 1e-5)


@pytest.mark.parametrize("gamma", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_of_exclusive_classes_it_is_finite_for_any_logit(gamma: float, dtype: torch.dtype) -> None:
    values = [s * v for v in (1e4, 104, 89, 17, 1, 0) for s in (1, -1)]
    logits = torch.tensor([[x, y] for x in values for y in values], dtype=dtype).T.reshape(1, 2, 1, -1)
    for label in (0, 1):
        x = logits.clone().requires_grad_()
        loss = focal_loss(x, torch.full((1, 1, logits.shape[-1]), label), gamma=gamma)
        loss.backward()
        assert loss.isfinite()
        assert x.grad is not None
        assert x.grad.isfinite().all()


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_the_gradient_is_that_of_the_value(gamma: float) -> None:
    logits, target = draw(0, 2, 2, 3, 2)
    loss = FocalLoss(gamma=gamma, alpha=0.25, weight=[1.0, 3.0])
    for t in (target, torch.where(target, 0.75, 0.1)):
        assert torch.autograd.gradcheck(lambda x, t=t: loss(x, t), logits.requires_grad_())
    logits, indices = draw_classes(0, 2, 2, 3, 2)
    assert torch.autograd.gradcheck(lambda x: loss(x, indices), logits.requires_grad_())


def test_classes_are_weighted_as_cross_entropy_weights_them() -> None:
    logits, target = draw_classes(0, 2, 3, 5, 4)
    weight = torch.tensor([1.0, 2.0, 5.0])
    each = focal_loss(logits, target, reduction="none")
    assert each.shape == (2, 5, 4)
    torch.testing.assert_close(focal_loss(logits, target, weight=weight, reduction="none"), each * weight[target])
    torch.testing.assert_close(
        focal_loss(logits, target, weight=weight), (each * weight[target]).sum() / weight[target].sum()
    )
    torch.testing.assert_close(
        focal_loss(logits, target, include_background=False), each[target > 0].sum() / (target > 0).sum()
    )


@pytest.mark.parametrize("integer", [True, False])
def test_one_number_a_pixel_is_0_where_ignored(integer: bool) -> None:
    logits, target = draw_classes(0, 2, 3, 5, 4) if integer else draw(0, 2, 3, 5, 4)
    valid = torch.rand(2, 5, 4) < 0.5
    found = focal_loss(logits, target, valid=valid, reduction="none")
    expected = focal_loss(logits, target, reduction="none")
    torch.testing.assert_close(found, expected * (valid if integer else valid[:, None]))


def test_compiled_in_one_graph_every_argument_is_equal() -> None:
    torch.compiler.reset()
    logits, target = draw_classes(0, 2, 3, 5, 4)
    loss = FocalLoss(gamma=0.5, alpha=0.3, weight=[1.0, 3.0, 2.0], ignore_index=2)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits, target), loss(logits, target))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gamma": -1.0}, "gamma must be a number from 0, got -1.0"),
        ({"gamma": math.nan}, "gamma must be a number from 0, got nan"),
        ({"gamma": math.inf}, "gamma must be a number from 0, got inf"),
        ({"alpha": 1.5}, r"alpha must lie in \[0, 1\], got 1.5"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        focal_loss(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), **arguments)
