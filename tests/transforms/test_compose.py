"""Chains that interpolate once, one of several transforms, and one with a probability."""

from typing import Any

import pytest
import torch
from torch import Tensor

from brainseg.transforms import (
    Compose,
    ForegroundCrop,
    Normalize,
    OneOf,
    RandomAffine,
    RandomApply,
    RandomCrop,
    RandomElastic,
    RandomFlip,
    RandomRotate90,
    RandomTranspose,
    Rescale,
    Transform,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(*shape: int) -> Tensor:
    noise = torch.rand(*shape, generator=generator())
    return torch.nn.functional.avg_pool2d(noise, 15, stride=1, padding=7)


def one_by_one(compose: Compose, images: Tensor, parameters: Any) -> Tensor:
    for part, drawn in zip(compose.transforms, parameters.parts, strict=True):
        assert isinstance(part, Transform)
        images = part.apply(images, None, drawn)[0]
    return images


CHAINS = {
    "flip, affine": [RandomFlip(p=1), RandomAffine(p=1)],
    "affine, turn, affine": [RandomAffine(p=1), RandomRotate90(p=1), RandomAffine(p=1, shear=(-5, 5))],
    "flip, affine, elastic": [RandomFlip(), RandomAffine(p=1), RandomElastic(p=1)],
    "elastic, affine, turn": [RandomElastic(p=1), RandomAffine(p=1), RandomRotate90(p=1)],
    "elastic, elastic": [RandomElastic(p=1), RandomElastic(p=1, cells=3)],
    "crop, affine": [RandomCrop((50, 60)), RandomAffine(p=1)],
    "affine, crop, elastic": [RandomAffine(p=1), RandomCrop((50, 60)), RandomElastic(p=1)],
}


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
@pytest.mark.parametrize("width", [72, 80])
def test_a_chain_is_what_its_parts_do_but_for_what_is_lost_at_the_border(chain: list[Transform], width: int) -> None:
    compose = Compose(chain)
    images = blobs(8, 1, 72, width)
    parameters = compose.draw(images.shape, generator())
    fused, expected = compose.apply(images, None, parameters)[0], one_by_one(compose, images, parameters)
    assert fused.shape == expected.shape == compose.output_shape(images.shape)
    inner = (..., slice(18, -18), slice(18, -18))
    # Each interpolation blurs: the chain is as sharp as one of them.
    assert (fused[inner] - expected[inner]).abs().max() < 0.03


@pytest.mark.parametrize("name", ["flip, affine, elastic", "affine, crop, elastic"])
def test_a_chain_interpolates_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    sample = torch.nn.functional.grid_sample
    monkeypatch.setattr("torch.nn.functional.grid_sample", lambda *a, **k: calls.append(1) or sample(*a, **k))
    images = blobs(2, 1, 72, 72)
    Compose(CHAINS[name])(images, images > 0.5, generator=generator())
    assert len(calls) == 2  # the images, and the masks


def test_a_shift_and_its_opposite_lose_nothing() -> None:
    images, masks = torch.rand(2, 1, 16, 16), torch.randint(0, 9, (2, 16, 16))
    there, back = (
        RandomAffine((0, 0), (1, 1), (0, 0), (0.5, 0.5), p=1),
        RandomAffine((0, 0), (1, 1), (0, 0), (-0.5, -0.5), p=1),
    )
    moved, labels = Compose([there, back])(images, masks)
    torch.testing.assert_close(moved, images, atol=1e-5, rtol=0)
    assert torch.equal(labels, masks)


def test_parts_that_pad_differently_are_not_one() -> None:
    dark, bright = (RandomAffine((0, 0), (1, 1), (0, 0), (0.5, 0.5), p=1, value=value) for value in (0.0, 1.0))
    moved = Compose([dark, bright])(torch.full((1, 1, 8, 8), 0.5))
    assert (moved[..., :4, :] == 1).all()
    assert (moved[..., 4:, 4:] == 0).all()


def test_flips_and_crops_without_an_interpolation_are_exact() -> None:
    compose = Compose([RandomFlip(p=1), RandomCrop((5, 4)), RandomTranspose(p=1), RandomRotate90(p=1)])
    images = torch.rand(32, 1, 9, 9)
    parameters = compose.draw(images.shape, generator())
    assert torch.equal(compose.apply(images, None, parameters)[0], one_by_one(compose, images, parameters))


def test_the_inverse_of_a_chain_with_an_affine_map_undoes_it() -> None:
    compose = Compose([RandomRotate90(p=1), RandomAffine(p=1), RandomFlip(p=1)])
    images = blobs(8, 1, 64, 64)
    parameters = compose.draw(images.shape, generator())
    back = compose.apply(*compose.apply(images, None, parameters), compose.inverse(parameters))[0]
    inner = (..., slice(12, -12), slice(12, -12))
    assert (back[inner] - images[inner]).abs().max() < 0.02


def test_a_foreground_crop_sees_the_masks_that_come_before_it() -> None:
    masks = torch.zeros(64, 1, 64, 64, dtype=torch.bool)
    masks[..., 30:34, 30:34] = True
    shift = RandomAffine((0, 0), (1, 1), (0, 0), (-0.4, 0.4), p=1)
    _, seen = Compose([shift, ForegroundCrop(9, p=1.0), RandomFlip()])(masks.float(), masks, generator=generator())
    assert seen.flatten(1).any(1).all()


def test_one_of_several_is_chosen_for_each_sample_by_weight() -> None:
    images = torch.ones(20_000, 1, 1, 1)
    choice = OneOf(
        [Rescale((0, 1), (0, 2)), Rescale((0, 1), (0, 3)), Rescale((0, 1), (0, 4))], weights=[5, 0, 3], p=0.8
    )
    found = choice(images, generator=generator()).flatten()
    shares = {value: (found == value).float().mean().item() for value in (1.0, 2.0, 3.0, 4.0)}
    assert shares == pytest.approx({1.0: 0.2, 2.0: 0.5, 3.0: 0.0, 4.0: 0.3}, abs=0.02)


def test_what_is_chosen_is_what_the_part_does_to_image_and_mask() -> None:
    images, masks = torch.rand(64, 2, 6, 6), torch.randint(0, 9, (64, 6, 6))
    choice = OneOf([RandomFlip(["horizontal"], p=1), RandomTranspose(p=1)], p=0.7)
    parameters = choice.draw(images.shape, generator())
    found, labels = choice.apply(images, masks, parameters)
    assert labels is not None
    for i, chosen in enumerate(parameters.chosen.tolist()):
        for ours, given in ((found[i], images[i]), (labels[i], masks[i])):
            assert torch.equal(ours, [given.flip(-1), given.mT, given][chosen])


def test_a_transform_is_applied_to_a_share_of_the_samples() -> None:
    images = torch.ones(20_000, 1, 1, 1)
    found = RandomApply(Compose([Rescale((0, 1), (0, 2)), Normalize([0.0], [0.5])]), p=0.3)(
        images, generator=generator()
    )
    assert set(found.unique().tolist()) == {1.0, 4.0}
    assert (found == 4).float().mean().item() == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("transform", [RandomApply(RandomCrop(4)), OneOf([RandomCrop(4), RandomFlip()])])
def test_parts_that_change_the_shape_are_refused(transform: Transform) -> None:
    with pytest.raises(ValueError, match=r"keeps samples of one shape, .* crop, resize or pad outside of it"):
        transform(torch.rand(2, 1, 8, 8))


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: OneOf([]), ValueError, "weights must be one number from 0 for each of 0 transforms"),
        (lambda: OneOf([RandomFlip()], weights=[1, 2]), ValueError, "weights must be one number from 0"),
        (lambda: OneOf([RandomFlip()], weights=[0]), ValueError, "weights must be one number from 0"),
        (lambda: OneOf([RandomFlip()], weights=[-1]), ValueError, "weights must be one number from 0"),
        (lambda: OneOf([torch.nn.Identity()]), TypeError, r"OneOf takes transforms, got Identity\(\)"),
        (lambda: RandomApply(torch.nn.Identity()), TypeError, r"RandomApply takes transforms, got Identity\(\)"),
        (lambda: RandomApply(RandomFlip(), p=-0.1), ValueError, "p must be a probability"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(build: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()
