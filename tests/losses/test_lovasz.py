"""Lovász losses against the definition of the Lovász extension, pixel by pixel."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from brainseg.losses import LovaszLoss, lovasz_loss

seeds = st.integers(0, 2**32 - 1)


def jaccard_loss_of(wrong: NDArray[np.bool_], mask: NDArray[np.bool_], smooth: float) -> float:
    """1 - IoU of the mask that has these pixels wrong."""
    predicted = mask ^ wrong
    both, either = (predicted & mask).sum() + smooth, (predicted | mask).sum() + smooth
    return 1 - float(both / either) if either else 0.0


def extension(errors: NDArray[np.float64], mask: NDArray[np.bool_], smooth: float = 0.0) -> float:
    """The Lovász extension of the Jaccard loss: pixels become wrong one by one, from the largest error."""
    total, before, wrong = 0.0, 0.0, np.zeros_like(mask)
    for pixel in np.argsort(-errors, kind="stable"):
        wrong[pixel] = True
        after = jaccard_loss_of(wrong, mask, smooth)
        total, before = total + errors[pixel] * (after - before), after
    return total


def draw(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand((), generator=generator)
    return 2 * torch.randn(shape, generator=generator, dtype=dtype), torch.rand(shape, generator=generator) < share


@given(seed=seeds, smooth=st.sampled_from([0.0, 0.5, 10.0]), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_of_masks_it_is_the_extension_at_the_hinge(seed: int, smooth: float, dtype: torch.dtype) -> None:
    logits, target = draw(seed, 3, 2, 3, 4, dtype=dtype)
    target[0, 0] = False
    found = lovasz_loss(logits, target, smooth=smooth, reduction="none")
    errors = (1 - logits * (2.0 * target - 1)).clamp(min=0).flatten(2).double().numpy()
    for image in range(3):
        for c in range(2):
            expected = extension(errors[image, c], target[image, c].flatten().numpy(), smooth)
            assert found[image, c].item() == pytest.approx(expected, rel=1e-5)


@given(seed=seeds, smooth=st.sampled_from([0.0, 0.5, 10.0]), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_of_class_indices_it_is_the_extension_at_the_softmax(seed: int, smooth: float, dtype: torch.dtype) -> None:
    logits, _ = draw(seed, 2, 3, 3, 4, dtype=dtype)
    target = draw(seed + 1, 2, 3, 3, 4)[0].argmax(1)
    found = lovasz_loss(logits, target, smooth=smooth, batch=True, reduction="none")
    p = logits.softmax(1).double().numpy()
    for c in range(3):
        mask = (target == c).flatten().numpy()
        expected = extension(np.abs(mask - p[:, c].flatten()), mask, smooth)
        assert found[c].item() == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert (found >= 0).all()
    assert (found <= 1 + 1e-6).all()


def test_the_value_is_that_of_the_pencil() -> None:
    # Errors 1.5 of a miss, 1.2 and 0.4 of false positives, of a mask of 2: the Jaccard loss grows 1/2, 2/3, 3/4.
    logits = torch.tensor([-0.5, 2.0, 0.2, -0.6, -3.0]).reshape(1, 1, 1, 5)
    target = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0]).reshape(1, 1, 1, 5)
    assert lovasz_loss(logits, target).item() == pytest.approx(1.5 / 2 + 1.2 / 6 + 0.4 / 12)


@given(seed=seeds, smooth=st.sampled_from([0.0, 1.0]))
def test_for_logits_of_1_it_is_twice_the_jaccard_loss(seed: int, smooth: float) -> None:
    logits, target = draw(seed, 1, 1, 5, 4)
    expected = jaccard_loss_of(((logits > 0) != target).flatten().numpy(), target.flatten().numpy(), smooth)
    assert lovasz_loss(logits.sign(), target, smooth=smooth).item() == pytest.approx(2 * expected)


@given(seed=seeds, batch=st.booleans(), smooth=st.sampled_from([0.0, 1.0]))
def test_float32_and_float64_agree_in_value_and_gradient(seed: int, batch: bool, smooth: float) -> None:
    logits, target = draw(seed, 3, 2, 6, 5)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        x = logits.float().to(dtype).requires_grad_()
        lovasz_loss(x, target, batch=batch, smooth=smooth).backward()
        assert x.grad is not None
        gradients.append(x.grad.double())
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-9)


@given(seed=seeds, batch=st.booleans(), smooth=st.sampled_from([0.0, 1.0]), form=st.sampled_from(["masks", "indices"]))
def test_one_row_at_a_time_or_all_at_once(seed: int, batch: bool, smooth: float, form: str) -> None:
    logits, target = draw(seed, 3, 2, 6, 5, dtype=torch.float32)
    target = target if form == "masks" else target[:, 0].long()
    found = []
    for few in (0, 2**12):
        x = logits.clone().requires_grad_()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("brainseg.losses.lovasz.FEW", few)
            loss = lovasz_loss(x, target, batch=batch, smooth=smooth, reduction="none")
        loss.sum().backward()
        assert x.grad is not None
        found.append((loss.detach(), x.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-7)


def test_a_logit_beyond_the_margin_has_no_gradient() -> None:
    logits = torch.tensor([1.01, 0.99, -1.01, -0.99]).reshape(1, 1, 1, 4).requires_grad_()
    lovasz_loss(logits, torch.tensor([True, True, False, False]).reshape(1, 1, 1, 4)).backward()
    assert logits.grad is not None
    assert (logits.grad.flatten() != 0).tolist() == [False, True, False, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_on_an_empty_mask_it_is_the_largest_error(dtype: torch.dtype) -> None:
    logits = torch.tensor([0.5, 3.0, -0.5, -2.0], dtype=dtype).reshape(1, 1, 2, 2).requires_grad_()
    found = lovasz_loss(logits, torch.zeros(1, 1, 2, 2))
    found.backward()
    assert found.item() == pytest.approx(4)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad.flatten(), torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=dtype))


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_with_smoothing_every_false_positive_on_an_empty_batch_is_pushed_down(batch: bool, dtype: torch.dtype) -> None:
    logits = torch.zeros(8, 1, 256, 256, dtype=dtype).requires_grad_()
    lovasz_loss(logits, torch.zeros(8, 1, 256, 256), smooth=1.0, batch=batch).backward()
    assert logits.grad is not None
    assert (logits.grad > 0).all()


def test_it_falls_to_0_as_false_positives_reach_the_margin() -> None:
    x = torch.tensor([1.0, 0.0, -0.5, -0.9, -1.0])
    found = lovasz_loss(x[:, None, None, None].expand(5, 1, 4, 4), torch.zeros(5, 1, 4, 4), reduction="none")
    assert found[:, 0].tolist() == pytest.approx([2, 1, 0.5, 0.1, 0])


def test_steps_of_large_masks_are_not_lost_in_rounding() -> None:
    # All of n pixels missed by the same error 1: each has the gradient 1 / n.
    side = 1024
    logits = torch.zeros(1, 1, side, side, requires_grad=True)
    lovasz_loss(logits, torch.ones(1, 1, side, side)).backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.full_like(logits, -1 / side**2), rtol=1e-5, atol=0)


def test_present_leaves_empty_masks_out_of_the_mean() -> None:
    logits, target = torch.randn(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64)
    target[1, 0, 0] = 2
    every = lovasz_loss(logits, target, reduction="none")
    expected = (every[0, 0] + every[1, 0] + every[1, 2]) / 3
    torch.testing.assert_close(lovasz_loss(logits, target, classes="present"), expected)
    assert lovasz_loss(logits, torch.zeros(2, 3, 4, 4), classes="present") == 0


def test_soft_masks_are_those_above_one_half() -> None:
    logits, target = torch.randn(2, 1, 4, 4), torch.rand(2, 1, 4, 4)
    target[0, 0, 0] = 0.5
    assert torch.equal(lovasz_loss(logits, target), lovasz_loss(logits, target > 0.5))


def test_of_probabilities_the_errors_are_differences() -> None:
    p, target = torch.rand(1, 1, 3, 4, dtype=torch.float64), torch.rand(1, 1, 3, 4) < 0.5
    expected = extension((target.double() - p).abs().flatten().numpy(), target.flatten().numpy())
    assert lovasz_loss(p, target, from_probabilities=True).item() == pytest.approx(expected)


def test_without_a_positive_error_there_is_nothing_to_sort() -> None:
    target = torch.rand(2, 1, 4, 4) < 0.5
    logits = (target * 4.0 - 2).requires_grad_()
    found = lovasz_loss(logits, target)
    found.backward()
    assert found == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("smooth", [-1.0, math.nan, math.inf])
def test_smoothing_that_is_no_number_of_pixels_is_refused(smooth: float) -> None:
    with pytest.raises(ValueError, match="smooth must be a number of pixels from 0, got"):
        lovasz_loss(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), smooth=smooth)


def test_unknown_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="classes must be one of 'all', 'present', got 'some'"):
        LovaszLoss(classes="some")(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))  # type: ignore[arg-type]
