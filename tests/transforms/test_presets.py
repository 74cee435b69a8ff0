"""Presets draw what their pages say."""

import torch

from brainseg.transforms import course_augmentation


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
