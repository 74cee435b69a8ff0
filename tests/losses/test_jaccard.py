"""Jaccard against the pencil and a count of pixels."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from brainseg.losses import dice_loss, jaccard_loss


def logit(*p: float) -> Tensor:
    return torch.tensor(p, dtype=torch.float64).logit().reshape(1, 1, 1, -1)


def test_the_value_is_that_of_the_formula() -> None:
    # 1 - (0.9 + 0.2 + 1) / (0.9 + 0.2 + 0.3 + 2 - 0.9 - 0.2 + 1)
    found = jaccard_loss(logit(0.9, 0.2, 0.3), torch.tensor([[[[1.0, 1.0, 0.0]]]]))
    assert found.item() == pytest.approx(1 - 2.1 / 3.3)


def test_soft_targets_enter_with_their_values() -> None:
    # 1 - (0.5 * 0.25 + 2) / (0.5 + 0.25 - 0.5 * 0.25 + 2)
    found = jaccard_loss(logit(0.5), torch.full((1, 1, 1, 1), 0.25), smooth=2)
    assert found.item() == pytest.approx(1 - 2.125 / 2.625)


@given(seed=st.integers(0, 2**32 - 1), smooth=st.floats(1e-5, 10))
def test_for_hard_masks_it_is_one_minus_intersection_over_union(seed: int, smooth: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    predicted, target = (torch.rand(2, 1, 1, 6, 5, generator=generator) < 0.4).unbind()
    both, either = (predicted & target).sum().item(), (predicted | target).sum().item()
    found = jaccard_loss(torch.where(predicted, 100.0, -100.0).double(), target, smooth=smooth)
    assert found.item() == pytest.approx(1 - (both + smooth) / (either + smooth), abs=1e-9)


@given(seed=st.integers(0, 2**32 - 1), batch=st.booleans())
def test_it_follows_from_dice(seed: int, batch: bool) -> None:
    # J = D / (2 - D) of the similarities, where Dice is smoothed twice as much.
    generator = torch.Generator().manual_seed(seed)
    logits, target = torch.randn(2, 3, 6, 5, generator=generator), torch.rand(2, 3, 6, 5, generator=generator)
    similarity = 1 - dice_loss(logits, target, smooth=2.0, batch=batch, reduction="none")
    found = jaccard_loss(logits, target, smooth=1.0, batch=batch, reduction="none")
    torch.testing.assert_close(found, 1 - similarity / (2 - similarity))


def test_on_an_empty_image_it_falls_to_0_with_the_predicted_mass() -> None:
    # s = 1: mass / (mass + 1).
    masses = (1000, 10, 1, 0.1)
    logits = torch.stack([torch.full((1, 100, 100), mass / 1e4, dtype=torch.float64).logit() for mass in masses])
    found = jaccard_loss(logits, torch.zeros(4, 1, 100, 100), reduction="none")
    assert found[:, 0].tolist() == pytest.approx([mass / (mass + 1) for mass in masses])
