"""Affine maps against torch, the pencil and a peer; elastic ones against the definition of their spline."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from brainseg._torchvision import make_importable
from brainseg.transforms import RandomAffine, RandomElastic
from brainseg.transforms.deformation import AffineParameters, ElasticParameters


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def affine(
    degrees: float = 0.0,
    scale: float = 1.0,
    shear: tuple[float, float] = (0.0, 0.0),
    translation: tuple[float, float] = (0.0, 0.0),
) -> AffineParameters:
    one = torch.ones(1)
    return AffineParameters(degrees * one, scale * one, torch.tensor([shear]), torch.tensor([translation]))


def blobs(*shape: int) -> Tensor:
    """Smooth images in [0, 1]."""
    noise = torch.rand(*shape, generator=generator())
    return torch.nn.functional.avg_pool2d(noise, 9, stride=1, padding=4)


@pytest.mark.parametrize("quarters", [-1, 1, 2, 3])
def test_a_turn_by_quarters_is_that_of_rot90(quarters: int) -> None:
    images, masks = torch.rand(1, 2, 9, 9), torch.randint(0, 9, (1, 9, 9))
    turned, moved = RandomAffine().apply(images, masks, affine(degrees=90.0 * quarters))
    assert moved is not None
    torch.testing.assert_close(turned, torch.rot90(images, quarters, (-2, -1)), atol=1e-5, rtol=0)
    assert torch.equal(moved, torch.rot90(masks, quarters, (-2, -1)))


def test_a_shift_by_pixels_moves_down_and_to_the_right_and_leaves_the_value_of_the_padding() -> None:
    images, masks = torch.rand(1, 1, 6, 7) + 1, torch.ones(1, 6, 7, dtype=torch.uint8)
    moved, moved_masks = RandomAffine(value=-3.0).apply(images, masks, affine(translation=(2.0, 1.0)))
    assert moved_masks is not None
    torch.testing.assert_close(moved[..., 2:, 1:], images[..., :-2, :-1])
    assert (moved[..., :2, :] == -3).all()
    assert moved_masks[:, 2:, 1:].all()
    assert not moved_masks[:, :2].any()


def test_an_enlarged_square_is_larger_by_the_factor() -> None:
    mask = torch.zeros(1, 1, 65, 65)
    mask[..., 22:43, 22:43] = 1
    _, larger = RandomAffine().apply(mask, mask, affine(scale=2.0))
    assert larger is not None
    assert larger.sum().item() == pytest.approx(4 * 21**2, rel=0.05)


@given(
    st.floats(-180, 180), st.floats(0.5, 2), st.tuples(st.floats(-30, 30), st.floats(-30, 30)),
    st.tuples(st.floats(-5, 5), st.floats(-5, 5)),
)  # fmt: skip
def test_it_is_that_of_torchvision(
    degrees: float, scale: float, shear: tuple[float, float], translation: tuple[float, float]
) -> None:
    make_importable()
    functional = pytest.importorskip("torchvision.transforms.functional")
    images = blobs(1, 2, 17, 24)
    ours, _ = RandomAffine().apply(images, None, affine(degrees, scale, shear, translation))
    # Its turn is clockwise, its shear leans the other way, and it names columns first.
    theirs = functional.affine(
        images,
        angle=-degrees,
        translate=[translation[1], translation[0]],
        scale=scale,
        shear=[-shear[1], -shear[0]],
        interpolation=functional.InterpolationMode.BILINEAR,
    )
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0)


def test_the_inverse_undoes_it_but_for_what_was_blended_or_lost() -> None:
    transform = RandomAffine(degrees=(-40, 40), shear=(-10, 10), p=1.0)
    images = blobs(8, 1, 64, 64)
    parameters = transform.draw(images.shape, generator())
    moved, _ = transform.apply(images, None, parameters)
    back, _ = transform.apply(moved, None, transform.inverse(parameters))
    inner = (..., slice(20, 44), slice(20, 44))
    assert (back[inner] - images[inner]).abs().max() < 0.04
    assert (moved[inner] - images[inner]).abs().max() > 0.1
    assert transform.inverse(transform.inverse(parameters)) == parameters


@pytest.mark.parametrize(
    "transform", [RandomAffine(p=0.5, value=2.0), RandomElastic((0.1, 0.12), p=0.5)], ids=["affine", "elastic"]
)
def test_a_sample_that_is_not_chosen_stays_to_rounding(transform: Any) -> None:
    images, masks = torch.rand(64, 1, 24, 20), torch.randint(0, 99, (64, 24, 20))
    moved, moved_masks = transform(images, masks, generator=generator())
    same = (moved_masks == masks).flatten(1).all(1)
    assert 16 < same.sum() < 48
    torch.testing.assert_close(moved[same], images[same], atol=1e-5, rtol=0)


def test_draws_fill_their_ranges_and_no_more() -> None:
    transform = RandomAffine(degrees=(-20, 10), scale=(0.8, 1.5), shear=(0, 7), translation=(-0.1, 0.2), p=1.0)
    drawn = transform.draw((20_000, 1, 50, 100), generator())
    for values, low, high in (
        (drawn.degrees, -20, 10),
        (drawn.scale, 0.8, 1.5),
        (drawn.shear, 0, 7),
        (drawn.translation[:, 0], -5, 10),
        (drawn.translation[:, 1], -10, 20),
    ):
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high + 1e-5
        assert values.mean().item() == pytest.approx((low + high) / 2, abs=0.02 * (high - low))
    chosen = RandomAffine(p=0.3).draw((20_000, 1, 50, 100), generator()).degrees != 0
    assert chosen.float().mean().item() == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("transform", [RandomAffine(p=1.0), RandomElastic(p=1.0)], ids=["affine", "elastic"])
@pytest.mark.parametrize("shape", [(48, 48), (40, 64)])
def test_a_mask_painted_into_the_image_stays_under_itself_to_a_pixel(transform: Any, shape: tuple[int, int]) -> None:
    masks = blobs(16, 1, *shape) > 0.5
    images, moved = transform(masks.float(), masks, generator=generator())
    grown = torch.nn.functional.max_pool2d(moved.float(), 3, stride=1, padding=1) > 0
    shrunk = torch.nn.functional.max_pool2d((~moved).float(), 3, stride=1, padding=1) == 0
    assert (grown | (images < 0.5)).all()
    assert (~shrunk | (images > 0.5)).all()


def test_soft_masks_move_as_images_do() -> None:
    images = blobs(4, 2, 24, 24)
    for transform in (RandomAffine(p=1.0, soft_masks=True), RandomElastic(p=1.0, soft_masks=True)):
        moved, soft = transform(images, images.clone(), generator=generator())
        assert torch.equal(moved, soft)
        _, flat = transform(images, images[:, 0], generator=generator())
        assert torch.equal(flat, moved[:, 0])
        with pytest.raises(ValueError, match=r"soft masks are floating point, got torch.uint8"):
            transform(images, images.to(torch.uint8), generator=generator())


def test_labels_of_64_bits_stay_exact() -> None:
    labels = torch.randint(2**40, 2**41, (1, 9, 9))
    _, turned = RandomAffine().apply(torch.zeros(1, 1, 9, 9), labels, affine(degrees=90.0))
    assert turned is not None
    assert torch.equal(turned, torch.rot90(labels, 1, (-2, -1)))


@pytest.mark.parametrize(("padding", "expected"), [("border", [0, 0, 0, 1, 2]), ("reflection", [2, 1, 0, 0, 1])])
def test_beyond_the_border_lies_what_was_asked_for(padding: Any, expected: list[int]) -> None:
    row = torch.arange(5.0).expand(1, 1, 5, 5)
    shift = 2.0 if padding == "border" else 3.0
    transform = RandomAffine(padding=padding)
    moved, labels = transform.apply(row, row.long(), affine(translation=(0.0, shift)))
    assert labels is not None
    torch.testing.assert_close(moved[0, 0, 2], torch.tensor(expected, dtype=torch.float32))
    assert labels[0, 0, 2].tolist() == expected


def spline(t: float) -> float:
    """The uniform cubic B-spline, by the recursion of de Boor, centred at 0."""

    def basis(order: int, left: float) -> float:
        if order == 0:
            return float(left <= t < left + 1)
        return (t - left) / order * basis(order - 1, left) + (left + order + 1 - t) / order * basis(order - 1, left + 1)

    return basis(3, -2.0)


@pytest.mark.parametrize(("height", "width", "cells"), [(8, 8, 2), (5, 9, 3), (7, 4, 1)])
def test_the_field_is_the_spline_of_its_control_points(height: int, width: int, cells: int) -> None:
    points = torch.randn(1, 2, cells + 3, cells + 3, dtype=torch.float64, generator=generator())
    warp = RandomElastic(cells=cells).warp(ElasticParameters(points), (1, 1, height, width))
    expected = np.zeros((2, height, width))
    for i in range(height):
        for j in range(width):
            u, v = (i + 0.5) * cells / height, (j + 0.5) * cells / width
            for k in range(cells + 3):
                for m in range(cells + 3):
                    expected[:, i, j] += spline(u - (k - 1)) * spline(v - (m - 1)) * points[0, :, k, m].numpy()
    np.testing.assert_allclose(warp.steps[0][0].numpy(), expected, atol=1e-12)


def test_control_points_that_move_alike_shift_the_image() -> None:
    images = torch.rand(1, 1, 12, 12)
    parameters = ElasticParameters(torch.tensor([2.0, -1.0])[None, :, None, None].expand(1, 2, 7, 7))
    moved, _ = RandomElastic(padding="border").apply(images, None, parameters)
    torch.testing.assert_close(moved[..., :-2, 1:], images[..., 2:, :-1], atol=1e-5, rtol=0)


@given(seed=st.integers(0, 2**32 - 1), cells=st.integers(1, 8))
def test_at_its_largest_displacement_nothing_folds(seed: int, cells: int) -> None:
    transform = RandomElastic(displacement=(0.48 / cells, 0.48 / cells), cells=cells, p=1.0)
    size = 12 * cells
    field = transform.warp(transform.draw((1, 1, size, size), generator(seed)), (1, 1, size, size)).steps[0][0].double()
    down, right = field.diff(dim=1)[:, :, :-1], field.diff(dim=2)[:, :-1]
    jacobian = (1 + down[0]) * (1 + right[1]) - right[0] * down[1]
    assert (jacobian > 0).all()
    assert field.abs().max() <= 0.48 / cells * size


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RandomAffine(degrees=(10, -10)), "degrees must be a lowest and a highest number"),
        (lambda: RandomAffine(scale=(0.0, 1.0)), "scale must be a lowest and a highest number"),
        (lambda: RandomAffine(shear=(-90, 0)), "shear must be a lowest and a highest number, above -90 below 90"),
        (lambda: RandomAffine(translation=(0, math.nan)), "translation must be"),
        (lambda: RandomAffine(degrees=30), "degrees must be a lowest and a highest number, got 30"),
        (lambda: RandomAffine(padding="zeros"), "padding must be one of 'constant', 'border', 'reflection'"),
        (lambda: RandomAffine(value=math.inf), "value must be a finite number"),
        (lambda: RandomAffine(p=1.5), "p must be a probability"),
        (lambda: RandomElastic(cells=0), "cells must be a positive number"),
        (
            lambda: RandomElastic(displacement=(0.0, 0.2)),
            "displacement must be a lowest and a highest number, from 0 up to 0.12",
        ),
        (lambda: RandomElastic(displacement=(-0.1, 0.1)), "displacement must be a lowest and a highest number, from 0"),
    ],
)
def test_arguments_out_of_range_are_named(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
