"""Presets draw what their pages say."""

import pytest
import torch

from brainseg.transforms import course_augmentation, strong_augmentation


def test_the_course_turns_half_of_the_samples_and_flips_half() -> None:
    turned, flipped = course_augmentation().draw((20_000, 3, 8, 8), torch.Generator().manual_seed(0)).parts
    turns = torch.bincount(turned.turns) / 20_000
    flips = torch.bincount(flipped.horizontal + 2 * flipped.vertical.long()) / 20_000
    # Four standard errors of a share of 1/2 are 0.014.
    torch.testing.assert_close(turns, torch.tensor([5 / 8, 1 / 8, 1 / 8, 1 / 8]), atol=0.014, rtol=0)
    torch.testing.assert_close(flips, torch.tensor([1 / 2, 1 / 6, 1 / 6, 1 / 6]), atol=0.014, rtol=0)


def test_the_course_s_turn_and_flip_are_independent() -> None:
    turned, flipped = course_augmentation().draw((20_000, 3, 8, 8), torch.Generator().manual_seed(0)).parts
    both = (turned.turns > 0) & (flipped.horizontal | flipped.vertical)
    assert abs(both.float().mean().item() - 3 / 16) < 0.011  # four standard errors


def test_the_strong_one_interpolates_once_and_keeps_what_it_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    sample = torch.nn.functional.grid_sample
    monkeypatch.setattr("torch.nn.functional.grid_sample", lambda *a, **k: calls.append(1) or sample(*a, **k))
    images, masks = torch.rand(32, 3, 48, 40), torch.randint(0, 3, (32, 48, 40))
    moved, labels = strong_augmentation()(images, masks, generator=torch.Generator().manual_seed(0))
    assert len(calls) == 2  # the images, and the masks
    assert (moved.shape, moved.dtype) == (images.shape, images.dtype)
    assert moved.isfinite().all()
    assert (labels.shape, labels.dtype) == (masks.shape, masks.dtype)
    assert set(labels.unique().tolist()) <= {0, 1, 2}


def test_the_strong_one_works_on_the_stated_shares() -> None:
    flip, affine, *_, gamma = strong_augmentation().draw((20_000, 1, 8, 8), torch.Generator().manual_seed(0)).parts
    shares = [
        (x != neutral).float().mean().item()
        for x, neutral in ((flip.horizontal, False), (affine.degrees, 0), (gamma.gamma, 1))
    ]
    assert shares == pytest.approx([0.5, 0.2, 0.3], abs=0.014)
