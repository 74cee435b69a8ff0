"""Boundary loss and its distances against the pencil and against all pairs of pixels."""

import math
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from brainseg.losses import BoundaryLoss, boundary_loss, signed_distance

seeds = st.integers(0, 2**32 - 1)
DIAGONAL = math.hypot(4, 3)


def brute_force(mask: Tensor, spacing: tuple[float, ...]) -> Tensor:
    """Nearest pixel of the other side, over all pairs."""
    places = torch.cartesian_prod(*(torch.arange(side) * step for side, step in zip(mask.shape, spacing, strict=True)))
    pairs = torch.cdist(places[None].double(), places[None].double())[0]
    flat = mask.flatten()
    distance = torch.empty(flat.shape, dtype=torch.float64)
    distance[flat] = -pairs[flat][:, ~flat].min(1).values
    distance[~flat] = pairs[~flat][:, flat].min(1).values
    return distance.view(mask.shape).float()


@given(seed=seeds, volume=st.booleans())
def test_distances_are_those_to_the_nearest_pixel_of_the_other_side(seed: int, volume: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    spacing, sides = ((3.0, 0.5, 2.0), (3, 4, 5)) if volume else ((0.5, 2.0), (6, 5))
    masks = torch.rand(2, 2, *sides, generator=generator) < 0.4
    masks[..., 0], masks[..., 1] = True, False
    found = signed_distance(masks, spacing)
    for mask, distance in zip(masks.flatten(0, 1), found.flatten(0, 1), strict=True):
        torch.testing.assert_close(distance, brute_force(mask, spacing))


def test_distances_count_pixels_without_spacing() -> None:
    mask = torch.tensor([[[[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]])
    expected = torch.tensor([[[[-1.0, 1.0, 2.0], [1.0, math.sqrt(2), math.sqrt(5)]]]])
    torch.testing.assert_close(signed_distance(mask), expected)


def test_an_empty_mask_has_the_diagonal_everywhere_and_a_full_one_minus_it() -> None:
    masks = torch.stack([torch.zeros(1, 4, 3), torch.ones(1, 4, 3)])
    expected = torch.tensor([DIAGONAL, -DIAGONAL])[:, None, None, None].expand(2, 1, 4, 3)
    torch.testing.assert_close(signed_distance(masks), expected)
    torch.testing.assert_close(signed_distance(masks, (2.0, 2.0)), 2 * expected)


def test_the_loss_is_the_mean_of_distance_times_probability() -> None:
    p = torch.tensor([0.9, 0.2, 0.3, 0.4]).reshape(1, 1, 1, 4)
    target = torch.tensor([1.0, 1.0, 0.0, 0.0]).reshape(1, 1, 1, 4)
    assert boundary_loss(p.logit(), target).item() == pytest.approx((-2 * 0.9 - 0.2 + 0.3 + 2 * 0.4) / 4)
    assert boundary_loss(p.logit(), target, spacing=(1.0, 0.5)).item() == pytest.approx(-0.9 / 8)


@given(seed=seeds)
def test_no_prediction_is_better_than_the_perfect_one_which_is_negative(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(2, 1, 5, 4, generator=generator) < 0.4
    perfect = boundary_loss(target * 200.0 - 100, target, reduction="none")
    assert (perfect <= boundary_loss(torch.randn(2, 1, 5, 4, generator=generator), target, reduction="none")).all()
    depth = -signed_distance(target).clamp(max=0).mean((2, 3))
    torch.testing.assert_close(perfect, -depth)


def test_on_an_empty_image_it_is_the_diagonal_times_the_mean_probability() -> None:
    p = torch.tensor([0.5, 0.1])[:, None, None, None].expand(2, 1, 4, 3)
    found = boundary_loss(p.logit(), torch.zeros(2, 1, 4, 3), reduction="none")
    assert found.flatten().tolist() == pytest.approx([0.5 * DIAGONAL, 0.1 * DIAGONAL])


@pytest.mark.parametrize("include_background", [True, False])
def test_distances_may_come_with_the_target(include_background: bool) -> None:
    logits, indices = torch.randn(2, 3, 6, 5), torch.randint(3, (2, 6, 5))
    masks = F.one_hot(indices, 3).movedim(-1, 1).bool()
    distance = signed_distance(masks)
    loss = BoundaryLoss(include_background=include_background)
    for target in (indices, masks):
        torch.testing.assert_close(loss(logits, target, distance), loss(logits, target))


def test_ignored_pixels_are_on_neither_side() -> None:
    # Without its ignored pixel the left one is 2 from the target; the ignored one would be 1 from it.
    target = torch.tensor([0.0, math.nan, 1.0]).reshape(1, 1, 1, 3)
    valid = torch.tensor([True, False, True])
    found = boundary_loss(torch.zeros(1, 1, 1, 3), target, valid=valid[None])
    assert found.item() == pytest.approx((0.5 * 2 - 0.5 * 2) / 2)
    given = torch.tensor([5.0, math.nan, -1.0]).reshape(1, 1, 1, 3)
    assert boundary_loss(torch.zeros(1, 1, 1, 3), target, given, valid=valid[None]).item() == pytest.approx(1)


def test_compiled_with_given_distances_it_is_equal() -> None:
    torch.compiler.reset()
    logits, target = torch.randn(2, 1, 6, 5), torch.rand(2, 1, 6, 5) < 0.4
    compiled = torch.compile(boundary_loss, fullgraph=True, backend="aot_eager")
    distance = signed_distance(target)
    torch.testing.assert_close(compiled(logits, target, distance), boundary_loss(logits, target))


def test_without_scipy_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.ndimage", None)
    with pytest.raises(ImportError, match=r'signed distances need scipy: pip install "brainseg-torch\[metrics\]"'):
        signed_distance(torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize("masks", [torch.zeros(4, 4), torch.zeros(1, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.int64)])
def test_masks_of_another_form_are_refused(masks: Tensor) -> None:
    with pytest.raises(ValueError, match=r"masks of shape .*, expected \(B, K, H, W\) .* masks\[None\]"):
        signed_distance(masks)


@pytest.mark.parametrize("spacing", [(1.0,), (1.0, 1.0, 1.0), (1.0, 0.0), (1.0, math.nan)])
def test_spacing_that_does_not_fit_is_refused(spacing: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="spacing must be 2 positive numbers, one for each axis of the image"):
        boundary_loss(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), spacing=spacing)


def test_spacing_beside_a_distance_is_refused() -> None:
    x = torch.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match="spacing belongs to the distance, which is given"):
        boundary_loss(x, x, x, spacing=(1.0, 1.0))


def test_a_distance_that_does_not_fit_is_refused() -> None:
    x = torch.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match=r"distance of shape \(1, 4, 4\) does not fit logits of shape \(1, 1, 4, 4\)"):
        boundary_loss(x, x, x[0])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_its_distances_are_an_operator_that_compilers_may_trust(layout: torch.memory_format) -> None:
    masks = (torch.rand(2, 3, 8, 6) > 0.5).contiguous(memory_format=layout)
    torch.library.opcheck(torch.ops.brainseg.signed_distance.default, (masks, None, [1.0, 2.0]))
