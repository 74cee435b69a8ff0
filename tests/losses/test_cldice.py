"""Soft clDice against its algorithm in scipy, and on lines whose centre is known."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from brainseg.losses import soft_cldice_loss

seeds = st.integers(0, 2**32 - 1)


def skeleton(x: NDArray[np.float64], iterations: int) -> NDArray[np.float64]:
    """Algorithm 1 with scipy's erosion by a cross and dilation by a square, as if the image went on as it ends."""
    cross = ndimage.generate_binary_structure(x.ndim, 1)

    def part() -> NDArray[np.float64]:
        opened = ndimage.grey_dilation(
            ndimage.grey_erosion(x, footprint=cross, mode="nearest"), size=(3,) * x.ndim, mode="nearest"
        )
        return np.maximum(x - opened, 0)

    found = part()
    for _ in range(iterations):
        x = ndimage.grey_erosion(x, footprint=cross, mode="nearest")
        found = found + np.maximum((1 - found) * part(), 0)
    return found


def cldice(p: NDArray[np.float64], t: NDArray[np.float64], iterations: int, smooth: float) -> float:
    line_p, line_t = skeleton(p, iterations), skeleton(t, iterations)
    precision = ((line_p * t).sum() + smooth) / (line_p.sum() + smooth)
    sensitivity = ((line_t * p).sum() + smooth) / (line_t.sum() + smooth)
    return float(1 - 2 * precision * sensitivity / (precision + sensitivity))


def cross_shape() -> Tensor:
    """Two lines of 3 pixels that cross."""
    mask = torch.zeros(1, 1, 15, 15)
    mask[..., 6:9, :], mask[..., 6:9] = 1, 1
    return mask


@given(seed=seeds, iterations=st.integers(0, 4), volume=st.booleans())
def test_the_value_is_that_of_the_algorithm(seed: int, iterations: int, volume: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 2, 3, 5, 4) if volume else (2, 2, 7, 6)
    p, t = torch.rand((2, *shape), generator=generator, dtype=torch.float64)
    found = soft_cldice_loss(p, t, iterations=iterations, smooth=0.5, from_probabilities=True, reduction="none")
    for image in range(2):
        for c in range(2):
            expected = cldice(p[image, c].numpy(), t[image, c].numpy(), iterations, 0.5)
            assert found[image, c].item() == pytest.approx(expected)


def test_a_batch_pools_its_images() -> None:
    logits, target = torch.randn(3, 2, 8, 6), torch.rand(3, 2, 8, 6) < 0.4
    gap = torch.zeros(2, 2, 6, dtype=torch.bool)
    rows = [
        torch.cat([x for image in images for x in (image, gap.to(image.dtype))], 1)[None] for images in (logits, target)
    ]
    valid = (torch.arange(30) % 10 < 8)[:, None]
    found = soft_cldice_loss(logits, target, batch=True)
    torch.testing.assert_close(found, soft_cldice_loss(*rows, valid=valid))


def test_a_line_that_is_too_thick_costs_nothing_and_one_beside_it_all() -> None:
    target = torch.zeros(1, 1, 16, 16)
    target[..., 4, 2:14] = 1
    thick, beside = torch.zeros_like(target), torch.zeros_like(target)
    thick[..., 3:6, 2:14], beside[..., 10, 2:14] = 1, 1
    small = {"smooth": 1e-6, "from_probabilities": True}
    assert soft_cldice_loss(thick, target, **small).item() == pytest.approx(0, abs=1e-5)
    assert soft_cldice_loss(beside, target, **small).item() == pytest.approx(1, abs=1e-5)


def test_a_gap_costs_what_it_takes_from_the_centre_line() -> None:
    # Of 12 pixels of the target's line 4 are missed: sensitivity 8/12, precision 1.
    target = torch.zeros(1, 1, 9, 16)
    target[..., 4, 2:14] = 1
    broken = target.clone()
    broken[..., 6:10] = 0
    found = soft_cldice_loss(broken, target, smooth=1e-6, from_probabilities=True)
    assert found.item() == pytest.approx(1 - 2 * (8 / 12) / (1 + 8 / 12), rel=1e-4)


def test_what_is_wider_than_the_iterations_reach_has_no_line() -> None:
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 10:22, 10:22] = 1
    nothing = torch.zeros_like(mask)
    for iterations, found in ((4, False), (6, True)):
        loss = soft_cldice_loss(nothing, mask, iterations=iterations, from_probabilities=True)
        assert (loss > 0.1) == found


def test_it_is_not_monotone_in_single_pixels() -> None:
    # A false line three pixels wide and long has no centre line at its end; one pixel shorter it has.
    target = torch.zeros(1, 1, 1, 3)
    found = [torch.tensor(x)[None, None, None] for x in ([1.0, 1.0, 1.0], [0.0, 1.0, 1.0])]
    before, after = (soft_cldice_loss(x, target, from_probabilities=True).item() for x in found)
    assert (before, after) == (0, pytest.approx(1 / 3))


@pytest.mark.parametrize("batch", [True, False])
def test_a_false_line_in_a_batch_without_any_is_pushed_down(batch: bool) -> None:
    logits = torch.full((8, 1, 64, 64), -4.0)
    logits[..., 30, :] = 1
    logits.requires_grad_()
    soft_cldice_loss(logits, torch.zeros(8, 1, 64, 64), batch=batch).backward()
    assert logits.grad is not None
    assert (logits.grad[..., 30, :] > 0).all()


@pytest.mark.parametrize("batch", [True, False])
def test_a_missed_line_is_pulled_up(batch: bool) -> None:
    target = torch.zeros(8, 1, 64, 64)
    target[..., 30, :] = 1
    logits = torch.full((8, 1, 64, 64), -4.0, requires_grad=True)
    soft_cldice_loss(logits, target, batch=batch).backward()
    assert logits.grad is not None
    assert (logits.grad[..., 30, :] < 0).all()


def test_without_tumour_it_falls_to_0_as_the_line_vanishes() -> None:
    p = torch.tensor([0.9, 0.5, 0.1, 0.01, 0.0])[:, None, None, None] * torch.nn.functional.pad(
        torch.ones(5, 1, 1, 9), (3, 3, 4, 4)
    )
    found = soft_cldice_loss(p, torch.zeros(5, 1, 9, 15), from_probabilities=True, reduction="none")[:, 0].tolist()
    assert found == sorted(found, reverse=True)
    assert found[-1] == 0
    assert found[0] > 0.5


def test_a_flat_image_has_no_centre_line() -> None:
    logits = torch.full((1, 1, 8, 8), -1.0)
    assert soft_cldice_loss(logits, torch.zeros(1, 1, 8, 8)) == 0
    assert soft_cldice_loss(logits, torch.ones(1, 1, 8, 8)) == 0


def test_equal_pixels_share_the_gradient() -> None:
    # The picture of a cross is symmetric, and so is its gradient.
    logits = (cross_shape() * 6 - 3).requires_grad_()
    soft_cldice_loss(logits, cross_shape().roll(1, -1)).backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, logits.grad.flip(-2))


@given(seed=seeds, iterations=st.integers(0, 3))
def test_the_gradient_is_that_of_the_value(seed: int, iterations: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, 1, 5, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.rand(1, 1, 5, 4, generator=generator) < 0.5
    assert torch.autograd.gradcheck(lambda x: soft_cldice_loss(x, target, iterations=iterations), logits)


@given(seed=seeds, batch=st.booleans())
def test_it_lies_between_0_and_1(seed: int, batch: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits, target = 4 * torch.randn(2, 2, 6, 5, generator=generator), torch.rand(2, 2, 6, 5, generator=generator)
    found = soft_cldice_loss(logits, target, batch=batch, reduction="none")
    assert (found >= -1e-6).all()
    assert (found <= 1 + 1e-6).all()


def test_a_negative_number_of_iterations_is_refused() -> None:
    with pytest.raises(ValueError, match="iterations must be a number from 0, got -1"):
        soft_cldice_loss(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), iterations=-1)
