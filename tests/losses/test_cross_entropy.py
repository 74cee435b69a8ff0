"""Cross-entropy against the pencil and torch."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from brainseg.losses import CrossEntropyLoss, bce_loss, cross_entropy_loss

seeds = st.integers(0, 2**32 - 1)


def draw(seed: int, *shape: int) -> tuple[Tensor, Tensor]:
    """Logits and class indices."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return logits, torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)


def test_the_value_is_that_of_the_formula() -> None:
    p = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4]])
    found = cross_entropy_loss(p.log().T.reshape(1, 3, 1, 2), torch.tensor([[[0, 2]]]))
    assert found.item() == pytest.approx(-(math.log(0.7) + math.log(0.4)) / 2)


@given(
    seed=seeds,
    classes=st.integers(2, 5),
    label_smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    weighted=st.booleans(),
    ignore_index=st.sampled_from([None, 0, 255, -100]),
    volume=st.booleans(),
)
def test_it_is_that_of_torch(
    seed: int, classes: int, label_smoothing: float, weighted: bool, ignore_index: int | None, volume: bool
) -> None:
    logits, target = draw(seed, 2, classes, *([3] * volume), 5, 4)
    if ignore_index is not None:
        target[:, :2] = ignore_index
    weight = torch.arange(1.0, classes + 1, dtype=torch.float64) if weighted else None
    in_torch = {"label_smoothing": label_smoothing, "weight": weight} | (
        {} if ignore_index is None else {"ignore_index": ignore_index}
    )
    for reduction in ("mean", "sum", "none"):
        found = cross_entropy_loss(
            logits,
            target,
            label_smoothing=label_smoothing,
            weight=weight,
            ignore_index=ignore_index,
            reduction=reduction,
        )
        torch.testing.assert_close(found, F.cross_entropy(logits, target, reduction=reduction, **in_torch))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weight", [None, [1.0, 3.0, 2.0]])
def test_invalid_pixels_are_those_of_an_ignored_index(label_smoothing: float, weight: list[float] | None) -> None:
    logits, target = draw(0, 2, 3, 5, 4)
    valid = torch.rand(2, 5, 4) < 0.5
    arguments: dict[str, Any] = {"label_smoothing": label_smoothing, "weight": weight}
    for reduction in ("mean", "sum", "none"):
        found = cross_entropy_loss(logits, target, valid=valid, reduction=reduction, **arguments)
        holey = target.masked_fill(~valid, 7)
        torch.testing.assert_close(
            found, cross_entropy_loss(logits, holey, ignore_index=7, reduction=reduction, **arguments)
        )
    column = torch.tensor([True, False, True, True])
    torch.testing.assert_close(
        cross_entropy_loss(logits, target, valid=column.expand(1, 4), **arguments),
        cross_entropy_loss(logits[..., column], target[..., column], **arguments),
    )


@given(seed=seeds, label_smoothing=st.floats(0, 1), weighted=st.booleans())
def test_masks_have_the_cross_entropy_of_their_sigmoids(seed: int, label_smoothing: float, weighted: bool) -> None:
    logits, _ = draw(seed, 2, 3, 5, 4)
    target = draw(seed + 1, 2, 3, 5, 4)[0].sigmoid()
    arguments: dict[str, Any] = {"label_smoothing": label_smoothing, "weight": [1.0, 3.0, 2.0] if weighted else None}
    for reduction in ("mean", "sum", "none"):
        found = cross_entropy_loss(logits, target, reduction=reduction, **arguments)
        assert torch.equal(found, bce_loss(logits, target, reduction=reduction, **arguments))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_one_channel_is_the_softmax_over_0_and_the_logit(label_smoothing: float) -> None:
    logits, _ = draw(0, 2, 1, 5, 4)
    target = torch.rand(2, 5, 4) < 0.3
    both = torch.cat([torch.zeros_like(logits), logits], dim=1)
    expected = cross_entropy_loss(both, target.long(), label_smoothing=label_smoothing)
    for mask in (target, target.long(), target[:, None], target[:, None].float()):
        torch.testing.assert_close(cross_entropy_loss(logits, mask, label_smoothing=label_smoothing), expected)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weight", [None, [4.0, 3.0, 2.0]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_the_background_class_0_has_the_weight_0(
    label_smoothing: float, weight: list[float] | None, dtype: torch.dtype
) -> None:
    logits, target = draw(0, 2, 3, 5, 4)
    without = torch.tensor([0.0, *(weight or [1.0, 1.0, 1.0])[1:]], dtype=dtype)
    for reduction in ("mean", "sum", "none"):
        found = cross_entropy_loss(
            logits.to(dtype),
            target,
            weight=weight,
            label_smoothing=label_smoothing,
            include_background=False,
            reduction=reduction,
        )
        expected = F.cross_entropy(
            logits.to(dtype), target, without, label_smoothing=label_smoothing, reduction=reduction
        )
        torch.testing.assert_close(found, expected)


def test_without_the_background_an_image_of_nothing_else_costs_0() -> None:
    logits = torch.randn(2, 3, 5, 4, requires_grad=True)
    loss = cross_entropy_loss(logits, torch.zeros(2, 5, 4, dtype=torch.int64), include_background=False)
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_none_gives_one_number_a_pixel() -> None:
    logits, target = draw(0, 2, 3, 5, 4)
    assert cross_entropy_loss(logits, target, reduction="none").shape == (2, 5, 4)
    assert cross_entropy_loss(logits, logits.sigmoid(), reduction="none").shape == (2, 3, 5, 4)
    assert cross_entropy_loss(logits[:, :1], target > 0, reduction="none").shape == (2, 1, 5, 4)


def test_with_smoothing_the_perfect_mask_costs_something() -> None:
    # Of two classes at 0 and 100: e / 2 times 100.
    target = torch.tensor([[[0, 1]]])
    logits = 100.0 * F.one_hot(target, 2).movedim(-1, 1)
    assert cross_entropy_loss(logits, target, label_smoothing=0.2).item() == pytest.approx(10)


@given(seed=seeds, label_smoothing=st.floats(0, 1))
def test_it_is_never_negative(seed: int, label_smoothing: float) -> None:
    logits, target = draw(seed, 2, 3, 5, 4)
    found = cross_entropy_loss(10 * logits.float(), target, label_smoothing=label_smoothing, reduction="none")
    assert (found >= 0).all()


@given(seed=seeds)
def test_a_larger_logit_of_the_true_class_never_makes_it_worse(seed: int) -> None:
    logits, target = draw(seed, 2, 3, 5, 4)
    better = logits + F.one_hot(target, 3).movedim(-1, 1)
    worse = cross_entropy_loss(logits, target, reduction="none")
    assert (cross_entropy_loss(better, target, reduction="none") <= worse).all()


def test_the_gradient_with_every_argument_is_that_of_the_value() -> None:
    logits, target = draw(0, 2, 3, 3, 2)
    loss = CrossEntropyLoss(label_smoothing=0.3, weight=[1.0, 3.0, 2.0], ignore_index=0)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits.requires_grad_())


def test_compiled_in_one_graph_every_argument_is_equal() -> None:
    torch.compiler.reset()
    logits, target = draw(0, 2, 3, 5, 4)
    loss = CrossEntropyLoss(label_smoothing=0.2, weight=[1.0, 3.0, 2.0], include_background=False, ignore_index=2)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits, target), loss(logits, target))


def test_shares_out_of_range_are_refused_for_class_indices_too() -> None:
    logits, target = draw(0, 2, 3, 5, 4)
    with pytest.raises(ValueError, match=r"label_smoothing must lie in \[0, 1\], got 2"):
        cross_entropy_loss(logits, target, label_smoothing=2)


def test_an_unknown_reduction_is_refused_for_class_indices_too() -> None:
    logits, target = draw(0, 2, 3, 5, 4)
    with pytest.raises(ValueError, match="reduction must be one of 'mean', 'sum', 'none', got 'average'"):
        cross_entropy_loss(logits, target, weight=[1.0, 1.0, 1.0], reduction="average")  # type: ignore[arg-type]
