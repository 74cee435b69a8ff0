"""Draws of a batch and of its samples, chains of transforms, and the errors of both."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from brainseg.transforms import (
    Compose,
    Normalize,
    RandomAffine,
    RandomBlur,
    RandomElastic,
    RandomFlip,
    RandomRotate90,
    RandomTranspose,
    Resize,
    SelectChannels,
)
from brainseg.transforms.base import Transform


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class NoiseParameters:
    field: Tensor


class Noise(Transform):
    """A transform whose parameters are as large as the images."""

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> NoiseParameters:
        return NoiseParameters(torch.randn(*batch_shape, generator=generator, device=generator.device))

    def _transform(
        self, images: Tensor, masks: Tensor | None, parameters: NoiseParameters, /
    ) -> tuple[Tensor, Tensor | None]:
        return images + parameters.field, masks


def test_every_sample_gets_a_draw_of_its_own() -> None:
    image = torch.rand(1, 1, 8, 8)
    results = Compose([RandomRotate90(p=1), RandomFlip(p=1)])(image.expand(64, -1, -1, -1), generator=generator())
    assert len({tuple(result.flatten().tolist()) for result in results}) == 8


def test_the_next_draw_of_a_generator_is_another() -> None:
    source = generator()
    first, second = (RandomRotate90(p=1).draw((64, 1, 8, 8), source) for _ in range(2))
    assert not torch.equal(first.turns, second.turns)


def test_neighbouring_flips_turns_and_transpositions_are_what_they_are_one_by_one() -> None:
    parts = [RandomTranspose(), RandomRotate90(p=1), RandomFlip(), RandomRotate90(p=1), RandomTranspose()]
    compose = Compose(parts)
    for width in (7, 9):
        images, masks = torch.rand(64, 1, 7, width), torch.randint(0, 9, (64, 7, width))
        parameters = compose.draw(images.shape, generator())
        one_by_one = images, masks
        for part, drawn in zip(parts, parameters.parts, strict=True):
            one_by_one = part.apply(*one_by_one, drawn)
        for ours, theirs in zip(compose.apply(images, masks, parameters), one_by_one, strict=True):
            assert torch.equal(ours, theirs)


def test_parts_between_flips_see_the_flipped_image() -> None:
    scale = torch.rand(8, 1, 4, 4)
    compose = Compose([RandomFlip(p=1), Noise(), RandomFlip(p=1)])
    parameters = compose.draw(scale.shape, generator())
    first, noise, last = parameters.parts
    expected = RandomFlip().apply(RandomFlip().apply(scale, None, first)[0] + noise.field, None, last)[0]
    assert torch.equal(compose.apply(scale, None, parameters)[0], expected)


@pytest.mark.parametrize("width", [6, 9])
def test_the_inverse_of_a_chain_undoes_it_and_is_undone_by_its_own(width: int) -> None:
    compose = Compose([RandomRotate90(), Compose([RandomFlip(), RandomTranspose()]), RandomRotate90()])
    images, masks = torch.rand(32, 2, 6, width), torch.randint(0, 9, (32, 6, width))
    parameters = compose.draw(images.shape, generator())
    inverse = compose.inverse(parameters)
    moved = compose.apply(images, masks, parameters)
    back = compose.apply(*moved, inverse)
    again = compose.apply(*back, compose.inverse(inverse))
    assert torch.equal(back[0], images)
    assert torch.equal(back[1], masks)
    assert torch.equal(again[0], moved[0])


def test_what_has_no_inverse_says_so() -> None:
    compose = Compose([RandomFlip(), Normalize([0.5], [0.5])])
    with pytest.raises(NotImplementedError, match="Normalize has no inverse"):
        compose.inverse(compose.draw((1, 1, 4, 4), generator()))


def test_a_part_draws_for_the_shape_that_reaches_it() -> None:
    compose = Compose([Resize((6, 5)), SelectChannels((0, 1)), Noise()])
    parameters = compose.draw((4, 3, 8, 8), generator())
    assert parameters.parts[-1].field.shape == (4, 2, 6, 5)
    assert compose(torch.rand(4, 3, 8, 8), seeds=range(4)).shape == (4, 2, 6, 5)


def test_no_part_at_all_changes_nothing() -> None:
    images, masks = torch.rand(2, 1, 4, 4), torch.zeros(2, 4, 4)
    assert Compose([])(images, masks) == (images, masks)


def test_the_parts_of_a_chain_must_be_transforms() -> None:
    with pytest.raises(TypeError, match=r"Compose takes transforms, got \{'name': 'RandomFlip'\}; create_transform"):
        Compose([{"name": "RandomFlip"}])


def test_a_transform_shows_how_it_was_built() -> None:
    assert repr(Compose([RandomRotate90()])).split() == [
        "Compose(", "(transforms):", "ModuleList(", "(0):", "RandomRotate90(p=0.5)", ")", ")",
    ]  # fmt: skip


def test_seeds_are_drawn_one_by_one_as_a_generator_of_that_seed_draws() -> None:
    images = torch.zeros(3, 1, 4, 4)
    expected = torch.cat([Noise()(images[:1], generator=generator(seed)) for seed in (5, 6, 5)])
    assert torch.equal(Noise()(images, seeds=[5, 6, 5]), expected)


def test_seeds_must_be_as_many_as_the_images() -> None:
    with pytest.raises(ValueError, match="got 3 seeds for 2 images; give one integer a sample"):
        RandomFlip()(torch.rand(2, 1, 4, 4), seeds=[1, 2, 3])


def test_seeds_and_a_generator_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="seeds and a generator were given; give one of them"):
        RandomFlip()(torch.rand(2, 1, 4, 4), seeds=[1, 2], generator=generator())


def test_arrays_are_neither_images_nor_masks() -> None:
    images = torch.rand(2, 1, 4, 4)
    for given in [(images.numpy(),), (images, images.numpy())]:
        with pytest.raises(TypeError, match=r"RandomFlip takes tensors, got ndarray; use torch.from_numpy"):
            RandomFlip()(*given)


def test_a_generator_of_another_device_is_refused() -> None:
    with pytest.raises(ValueError, match="the generator is on cpu and the images are on meta; make it with"):
        RandomFlip()(torch.rand(2, 1, 4, 4, device="meta"), generator=generator())


def test_autocast_leaves_places_and_values_as_they_are() -> None:
    chain = Compose([RandomAffine((20, 20), p=1), RandomElastic(p=1), RandomBlur(p=1)])
    images, labels = torch.rand(2, 1, 64, 64), torch.randint(0, 5, (2, 1, 64, 64))
    parameters = chain.draw(images.shape, generator())
    expected = chain.apply(images, labels, parameters)
    with torch.autocast("cpu", torch.bfloat16):
        found = chain.apply(images, labels, parameters)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
