"""Binary cross-entropy against the pencil, torch and the softmax over two classes."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from brainseg.losses import BCELoss, bce_loss, cross_entropy_loss

seeds = st.integers(0, 2**32 - 1)


def draw(seed: int, *shape: int) -> tuple[Tensor, Tensor]:
    """Logits and soft masks."""
    generator = torch.Generator().manual_seed(seed)
    logits, target = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return 3 * logits, target.sigmoid()


def test_the_value_is_that_of_the_formula() -> None:
    logits = torch.tensor([0.9, 0.2, 0.3]).logit().reshape(1, 1, 1, 3)
    found = bce_loss(logits, torch.tensor([[[[1.0, 0.0, 0.25]]]]))
    third = -(0.25 * math.log(0.3) + 0.75 * math.log(0.7))
    assert found.item() == pytest.approx((-math.log(0.9) - math.log(0.8) + third) / 3)


@given(seed=seeds, v=st.floats(0, 10), label_smoothing=st.floats(0, 1))
def test_it_is_the_formula_naively(seed: int, v: float, label_smoothing: float) -> None:
    logits, target = draw(seed, 2, 1, 5, 4)
    p = 1 / (1 + np.exp(-logits.numpy()))
    t = (1 - label_smoothing) * target.numpy() + label_smoothing / 2
    expected = -(v * t * np.log(p) + (1 - t) * np.log(1 - p))
    found = bce_loss(logits, target, pos_weight=[v], label_smoothing=label_smoothing, reduction="none")
    torch.testing.assert_close(found, torch.from_numpy(expected))
    assert bce_loss(logits, target, pos_weight=[v], label_smoothing=label_smoothing).item() == pytest.approx(
        expected.mean()
    )


@given(seed=seeds, label_smoothing=st.floats(0, 1))
def test_a_sigmoid_is_the_softmax_over_the_class_and_its_absence(seed: int, label_smoothing: float) -> None:
    logits, target = draw(seed, 2, 1, 5, 4)
    indices = (target > 0.5).long()[:, 0]
    both = torch.cat([torch.zeros_like(logits), logits], dim=1)
    torch.testing.assert_close(
        bce_loss(logits, indices, label_smoothing=label_smoothing),
        F.cross_entropy(both, indices, label_smoothing=label_smoothing),
    )


def test_a_missed_pixel_costs_pos_weight_times_as_much_in_its_class() -> None:
    # At 0 each pixel costs log 2.
    target = torch.tensor([1.0, 0.0]).expand(1, 2, 3, 2)
    found = bce_loss(torch.zeros(1, 2, 3, 2), target, pos_weight=[1.0, 5.0], reduction="none") / math.log(2)
    torch.testing.assert_close(found, torch.tensor([[1.0, 1.0], [5.0, 1.0]])[None, :, None].expand(1, 2, 3, 2))


def test_classes_are_weighted_as_cross_entropy_weights_them() -> None:
    logits, target = draw(0, 2, 3, 5, 4)
    weight = torch.tensor([1.0, 2.0, 5.0])
    each = bce_loss(logits, target, reduction="none")
    weighted = each * weight[:, None, None]
    torch.testing.assert_close(bce_loss(logits, target, weight=weight, reduction="none"), weighted)
    torch.testing.assert_close(bce_loss(logits, target, weight=weight, reduction="sum"), weighted.sum())
    torch.testing.assert_close(bce_loss(logits, target, weight=weight), weighted.mean() / weight.double().mean())
    valid = torch.rand(2, 3, 5, 4) < 0.5
    torch.testing.assert_close(
        bce_loss(logits, target, weight=weight, valid=valid),
        weighted[valid].sum() / weight[:, None, None].expand(2, 3, 5, 4)[valid].double().sum(),
    )


@pytest.mark.parametrize("sides", [(5, 4), (3, 5, 4)])
def test_without_the_background_the_other_classes_keep_their_weights(sides: tuple[int, ...]) -> None:
    logits, target = draw(0, 2, 3, *sides)
    found = bce_loss(logits, target, weight=[9.0, 2.0, 5.0], pos_weight=[9.0, 3.0, 4.0], include_background=False)
    expected = bce_loss(logits[:, 1:], target[:, 1:], weight=[2.0, 5.0], pos_weight=[3.0, 4.0])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("arguments", [{}, {"label_smoothing": 0.25}, {"pos_weight": [2.0, 0.5]}])
def test_one_number_a_pixel_is_0_where_ignored(arguments: dict[str, Any]) -> None:
    logits, target = draw(0, 2, 2, 5, 4)
    valid = torch.rand(2, 5, 4) < 0.5
    found = bce_loss(logits, target, valid=valid, reduction="none", **arguments)
    expected = bce_loss(logits, target, reduction="none", **arguments)
    assert found.shape == (2, 2, 5, 4)
    torch.testing.assert_close(found, torch.where(valid[:, None], expected, 0.0))


@given(seed=seeds)
def test_it_is_never_negative(seed: int) -> None:
    logits, target = draw(seed, 2, 2, 5, 4)
    assert (bce_loss(10 * logits.float(), target.float(), reduction="none") >= 0).all()


def test_with_smoothing_the_perfect_mask_costs_something() -> None:
    # The least is at the smoothed target: there the entropy of (0.9, 0.1) is left.
    target = torch.tensor([[[[1.0, 0.0]]]])
    entropy = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    logits = torch.tensor([[[[0.9, 0.1]]]]).logit().requires_grad_()
    least = bce_loss(logits, target, label_smoothing=0.2)
    least.backward()
    assert least.item() == pytest.approx(entropy)
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-6
    assert bce_loss(200 * target - 100, target, label_smoothing=0.2).item() == pytest.approx(10)


@pytest.mark.parametrize("arguments", [{"label_smoothing": 0.3}, {"pos_weight": [2.0, 0.5], "weight": [1.0, 3.0]}])
def test_the_gradient_is_that_of_the_value(arguments: dict[str, Any]) -> None:
    logits, target = draw(0, 2, 2, 3, 2)
    assert torch.autograd.gradcheck(lambda x: bce_loss(x, target, **arguments), logits.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_mistake_of_the_largest_logits_costs_their_size(dtype: torch.dtype) -> None:
    logits = torch.tensor([1e4, -1e4], dtype=dtype).expand(1, 1, 1024, 2)
    found = bce_loss(logits, torch.tensor([False, True]).expand(1, 1, 1024, 2))
    assert found.item() == pytest.approx(1e4, rel=5e-3)


def test_compiled_in_one_graph_every_argument_is_equal() -> None:
    torch.compiler.reset()
    logits, target = draw(0, 2, 2, 5, 4)
    loss = BCELoss(label_smoothing=0.2, pos_weight=[2.0, 0.5], weight=[1.0, 3.0])
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits, target), loss(logits, target))


def test_the_weights_move_with_the_module() -> None:
    loss = BCELoss(weight=[1.0, 3.0], pos_weight=[1.0, 3.0]).to("meta")
    assert {buffer.device.type for buffer in loss.buffers()} == {"meta"}


def test_class_indices_are_refused() -> None:
    with pytest.raises(ValueError, match=r"target of shape \(2, 4, 4\) has class indices, .* give a floating or bool"):
        bce_loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pos_weight": [1.0]}, r"pos_weight of shape \(1,\), expected one number a class: \(2,\)"),
        ({"label_smoothing": 1.5}, r"label_smoothing must lie in \[0, 1\], got 1.5"),
        ({"label_smoothing": -0.1}, r"label_smoothing must lie in \[0, 1\], got -0.1"),
        ({"label_smoothing": math.nan}, r"label_smoothing must lie in \[0, 1\], got nan"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    logits, target = draw(0, 2, 2, 5, 4)
    for loss in (bce_loss,) if "pos_weight" in arguments else (bce_loss, cross_entropy_loss):
        with pytest.raises(ValueError, match=message):
            loss(logits, target, **arguments)
