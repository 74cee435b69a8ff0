"""Phantoms: in range, repeatable, and a lesion, bright in FLAIR, in a third of them."""

import pytest
import torch

from brainseg.data import phantom


def test_a_seed_draws_one_slice() -> None:
    first, again, other = phantom(3), phantom(3), phantom(4)
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.mask, again.mask)
    assert not torch.equal(first.image, other.image)


def test_drawing_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    phantom(0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("size", [32, 97, 256])
def test_shapes_types_and_ranges(size: int) -> None:
    image, mask = phantom(1, size=size, lesion=True)
    assert image.shape == (3, size, size)
    assert mask.shape == (1, size, size)
    assert image.dtype == mask.dtype == torch.float32
    assert 0 <= image.min() < image.max() <= 1
    assert set(mask.unique().tolist()) == {0.0, 1.0}


def test_about_a_third_has_a_lesion() -> None:
    share = sum(bool(phantom(seed, size=32).mask.any()) for seed in range(400)) / 400
    assert share == pytest.approx(1 / 3, abs=0.08)


@pytest.mark.parametrize("seed", range(20))
def test_a_lesion_is_bright_in_flair_and_there_when_asked_for(seed: int) -> None:
    image, mask = phantom(seed, lesion=True)
    flair, inside = image[1], mask[0] > 0
    assert inside.sum() > 200
    assert flair[inside].mean() > 1.3 * flair[~inside & (flair > 0.2)].mean()
    assert not phantom(seed, lesion=False).mask.any()


def test_too_small_a_size_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 32 pixels, got 31"):
        phantom(0, size=31)
