"""The rules that every loss keeps, each tried on every loss."""

import inspect
import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from brainseg.losses import (
    BCEDiceLoss,
    BCELoss,
    BoundaryLoss,
    CEDiceLoss,
    CrossEntropyLoss,
    DiceFocalLoss,
    DiceLoss,
    FocalLoss,
    FocalTverskyLoss,
    GeneralizedDiceLoss,
    JaccardLoss,
    LovaszLoss,
    MCCLoss,
    SoftClDiceLoss,
    TverskyLoss,
    bce_dice_loss,
    bce_loss,
    boundary_loss,
    cross_entropy_loss,
    dice_loss,
    focal_loss,
    focal_tversky_loss,
    generalized_dice_loss,
    jaccard_loss,
    lovasz_loss,
    mcc_loss,
    soft_cldice_loss,
    tversky_loss,
)
from brainseg.losses.rules import Loss, reduce

LossFunction = Callable[..., Tensor]


def called(module: type[nn.Module]) -> LossFunction:
    """A class that has no function, as one."""

    def loss(logits: Tensor, target: Tensor, *, valid: Tensor | None = None, **arguments: Any) -> Tensor:
        found: Tensor = module(**arguments)(logits, target, valid=valid)
        return found

    called_with = list(inspect.signature(loss).parameters.values())[:-1]
    own = inspect.signature(module).parameters.values()
    loss.__signature__ = inspect.Signature([*called_with, *own])  # type: ignore[attr-defined]
    return loss


FUNCTIONS: dict[str, LossFunction] = {
    "dice": dice_loss,
    "bce": bce_loss,
    "cross_entropy": cross_entropy_loss,
    "focal": focal_loss,
    "bce_dice": bce_dice_loss,
    "ce_dice": called(CEDiceLoss),
    "dice_focal": called(DiceFocalLoss),
    "tversky": tversky_loss,
    "focal_tversky": focal_tversky_loss,
    "jaccard": jaccard_loss,
    "generalized_dice": generalized_dice_loss,
    "mcc": mcc_loss,
    "lovasz": lovasz_loss,
    "boundary": boundary_loss,
    "soft_cldice": soft_cldice_loss,
}
MULTICLASS = {
    "dice": dice_loss,
    "cross_entropy": cross_entropy_loss,
    "focal": focal_loss,
    "ce_dice": called(CEDiceLoss),
    "dice_focal": called(DiceFocalLoss),
    "tversky": tversky_loss,
    "focal_tversky": focal_tversky_loss,
    "jaccard": jaccard_loss,
    "generalized_dice": generalized_dice_loss,
    "mcc": mcc_loss,
    "lovasz": lovasz_loss,
    "boundary": boundary_loss,
    "soft_cldice": soft_cldice_loss,
}
OVERLAP = ("dice", "tversky", "focal_tversky", "jaccard", "generalized_dice", "mcc")
MODULES: dict[str, tuple[type[Loss], LossFunction, dict[str, Any]]] = {
    "dice": (
        DiceLoss,
        dice_loss,
        {"smooth": 2.0, "weight": [1.0, 3.0, 2.0], "from_probabilities": True},
    ),
    "bce": (
        BCELoss,
        bce_loss,
        {"label_smoothing": 0.25, "pos_weight": [1.0, 4.0, 0.5], "weight": [1.0, 3.0, 2.0]},
    ),
    "cross_entropy": (CrossEntropyLoss, cross_entropy_loss, {"label_smoothing": 0.25, "weight": [1.0, 3.0, 2.0]}),
    "focal": (FocalLoss, focal_loss, {"gamma": 1.0, "alpha": 0.25, "weight": [1.0, 3.0, 2.0]}),
    "bce_dice": (BCEDiceLoss, bce_dice_loss, {"bce_weight": 2.0, "dice_weight": 3.0, "smooth": 2.0}),
    "tversky": (
        TverskyLoss,
        tversky_loss,
        {"alpha": 0.4, "beta": 0.8, "smooth": 2.0, "weight": [1.0, 3.0, 2.0], "from_probabilities": True},
    ),
    "focal_tversky": (
        FocalTverskyLoss,
        focal_tversky_loss,
        {"alpha": 0.4, "beta": 0.8, "gamma": 2.0, "smooth": 2.0, "weight": [1.0, 3.0, 2.0], "from_probabilities": True},
    ),
    "jaccard": (
        JaccardLoss,
        jaccard_loss,
        {"smooth": 2.0, "weight": [1.0, 3.0, 2.0], "from_probabilities": True},
    ),
    "generalized_dice": (
        GeneralizedDiceLoss,
        generalized_dice_loss,
        {"smooth": 2.0, "from_probabilities": True},
    ),
    "mcc": (
        MCCLoss,
        mcc_loss,
        {"smooth": 2.0, "weight": [1.0, 3.0, 2.0], "from_probabilities": True},
    ),
    "lovasz": (
        LovaszLoss,
        lovasz_loss,
        {"smooth": 2.0, "classes": "present", "weight": [1.0, 3.0, 2.0], "from_probabilities": True},
    ),
    "boundary": (
        BoundaryLoss,
        boundary_loss,
        {"spacing": (0.5, 2.0), "weight": [1.0, 3.0, 2.0], "from_probabilities": True},
    ),
    "soft_cldice": (
        SoftClDiceLoss,
        soft_cldice_loss,
        {"iterations": 1, "smooth": 2.0, "weight": [1.0, 3.0, 2.0], "from_probabilities": True},
    ),
}
COMMON = {"include_background": False, "reduction": "none", "check_target": False}


def of(loss: LossFunction, **arguments: Any) -> dict[str, Any]:
    """Those of the arguments that the loss has."""
    return {name: value for name, value in arguments.items() if name in inspect.signature(loss).parameters}


def every(losses: dict[str, LossFunction], argument: str = "logits", but: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    """Runs a test for each of the losses that have this argument; the honest exceptions have tests of their own."""
    having = {
        name: loss
        for name, loss in losses.items()
        if argument in inspect.signature(loss).parameters and name not in but
    }
    return pytest.mark.parametrize("loss", having.values(), ids=having)


every_loss = every(FUNCTIONS)
every_multiclass_loss = every(MULTICLASS)
every_overlap_loss = every({name: loss for name, loss in FUNCTIONS.items() if name in OVERLAP})
seeds = st.integers(0, 2**32 - 1)


def draw(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Logits and masks of this shape."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return logits.to(dtype), torch.rand(shape, generator=generator) < 0.3


def draw_classes(seed: int, *shape: int) -> tuple[Tensor, Tensor]:
    """Logits and class indices of this shape."""
    logits, _ = draw(seed, *shape)
    return logits, torch.randn(shape, generator=torch.Generator().manual_seed(seed + 1)).argmax(1)


def gradient(loss: LossFunction, logits: Tensor, target: Tensor, **arguments: Any) -> Tensor:
    logits = logits.clone().requires_grad_()
    loss(logits, target, **arguments).backward()
    assert logits.grad is not None
    return logits.grad


# --- the target's form decides ---


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_bool_and_a_floating_mask_are_the_same_target(loss: LossFunction, dtype: torch.dtype) -> None:
    logits, target = draw(0, 2, 3, 8, 6)
    assert torch.equal(loss(logits, target), loss(logits, target.to(dtype)))


@every_loss
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.uint16, torch.int32, torch.int64])
def test_with_one_channel_a_mask_needs_no_channel(loss: LossFunction, dtype: torch.dtype) -> None:
    logits, target = draw(0, 2, 1, 8, 6)
    assert torch.equal(loss(logits, target[:, 0].to(dtype)), loss(logits, target))


@every(MULTICLASS, "from_probabilities")
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int64])
def test_class_indices_are_the_masks_of_a_softmax(loss: LossFunction, dtype: torch.dtype) -> None:
    logits, target = draw_classes(0, 2, 3, 8, 6)
    masks = F.one_hot(target, 3).movedim(-1, 1).bool()
    expected = loss(logits.softmax(1), masks, from_probabilities=True)
    torch.testing.assert_close(loss(logits, target.to(dtype)), expected)


@every(FUNCTIONS, but=("boundary", "soft_cldice"))
def test_a_volume_is_an_image_with_more_pixels(loss: LossFunction) -> None:
    logits, target = draw(0, 2, 3, 4, 5, 6)
    torch.testing.assert_close(loss(logits, target), loss(logits.flatten(2, 3), target.flatten(2, 3)))


@every(MULTICLASS, but=("boundary", "soft_cldice"))
def test_a_volume_of_class_indices_is_an_image_with_more_pixels(loss: LossFunction) -> None:
    logits, target = draw_classes(0, 2, 3, 4, 5, 6)
    torch.testing.assert_close(loss(logits, target), loss(logits.flatten(2, 3), target.flatten(1, 2)))


@every_loss
@pytest.mark.parametrize(
    ("logits", "target"),
    [
        (torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8, dtype=torch.int64)),
        (torch.zeros(2, 3, 8, 8), torch.zeros(2, 8, 8)),
        (torch.zeros(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.bool)),
        (torch.zeros(2, 1, 8, 8), torch.zeros(2, 8, 8)),
        (torch.zeros(2, 1, 8, 8), torch.zeros(2, 3, 8, 8)),
        (torch.zeros(2, 1, 8, 8), torch.zeros(1, 1, 8, 8)),
        (torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 8, 4)),
        (torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 8, 8, dtype=torch.complex64)),
    ],
)
def test_a_target_that_does_not_fit_is_refused_with_both_shapes(
    loss: LossFunction, logits: Tensor, target: Tensor
) -> None:
    with pytest.raises(ValueError, match=r"target of shape .* does not fit logits of shape") as error:
        loss(logits, target)
    assert str(tuple(target.shape)) in str(error.value)
    assert str(tuple(logits.shape)) in str(error.value)


@every_loss
def test_logits_without_their_channel_are_refused(loss: LossFunction) -> None:
    with pytest.raises(ValueError, match=r"logits of shape \(2, 8, 8\) are neither .* logits\[:, None\]"):
        loss(torch.zeros(2, 8, 8), torch.zeros(2, 8, 8))


@every_loss
def test_integer_logits_are_refused(loss: LossFunction) -> None:
    with pytest.raises(ValueError, match=r"logits must be floating point, got torch.int64"):
        loss(torch.zeros(2, 1, 8, 8, dtype=torch.int64), torch.zeros(2, 1, 8, 8))


# --- values ---


@every_loss
def test_a_mask_of_0_and_255_is_refused_with_the_way_out(loss: LossFunction) -> None:
    logits, target = draw(0, 2, 1, 8, 8)
    with pytest.raises(ValueError, match=r"values lie in \[0, 255\], expected \[0, 1\]; .* \(mask > 127\).float\(\)"):
        loss(logits, target * 255.0)
    with pytest.raises(ValueError, match=r"values lie in \[0, 255\], expected \[0, 1\]; .* \(mask > 127\).long\(\)"):
        loss(logits, target[:, 0] * 255)


@every_loss
@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan, math.inf])
def test_a_single_soft_value_out_of_range_is_refused(loss: LossFunction, value: float) -> None:
    logits, mask = draw(0, 2, 1, 8, 8)
    target = mask.float()
    target[1, 0, 7, 7] = value
    with pytest.raises(ValueError, match=r"expected \[0, 1\]"):
        loss(logits, target)


@every_multiclass_loss
@pytest.mark.parametrize("value", [-1, 3, 255])
def test_a_class_index_out_of_range_is_refused(loss: LossFunction, value: int) -> None:
    logits, target = draw_classes(0, 2, 3, 8, 8)
    target[1, 7, 7] = value
    with pytest.raises(ValueError, match=r"expected \[0, 2\]; .* needs ignore_index"):
        loss(logits, target)


@every_loss
def test_values_are_not_looked_at_where_that_is_asked_for(loss: LossFunction) -> None:
    logits, _ = draw(0, 2, 1, 8, 8)
    assert loss(logits, torch.full_like(logits, 2.0), check_target=False).isfinite()


@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan])
def test_probabilities_out_of_range_are_refused(value: float) -> None:
    p = torch.full((2, 1, 8, 8), 0.5)
    p[1, 0, 7, 7] = value
    with pytest.raises(ValueError, match=r"probabilities lie in .*, expected \[0, 1\]; leave out from_probabilities"):
        dice_loss(p, torch.zeros(2, 1, 8, 8), from_probabilities=True)


@pytest.mark.parametrize("loss", [*FUNCTIONS.values(), partial(dice_loss, from_probabilities=True)])
@pytest.mark.parametrize("check_target", [True, False])
def test_the_host_waits_at_most_once(loss: LossFunction, check_target: bool) -> None:
    class Waits(TorchFunctionMode):
        count = 0

        def __torch_function__(
            self, function: Any, _: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
        ) -> Any:
            names = {"item", "tolist", "cpu", "nonzero", "__bool__", "__float__", "__int__", "equal", "allclose"}
            self.count += getattr(function, "__name__", "") in names
            return function(*arguments, **(keywords or {}))

    logits, target = draw(0, 2, 1, 8, 8)
    with Waits() as waits:
        loss(logits.sigmoid(), target.float(), valid=target[:, 0], check_target=check_target)
    assert waits.count == check_target


# --- what is ignored ---


@every_loss
@pytest.mark.parametrize("shape", [(2, 8, 6), (2, 1, 8, 6), (2, 3, 8, 6), (1, 8, 6), (8, 6), (1, 1, 8, 1)])
def test_pixels_that_are_not_valid_might_as_well_be_cut_off(loss: LossFunction, shape: tuple[int, ...]) -> None:
    logits, target = draw(0, 2, 3, 8, 6)
    valid = torch.ones(shape, dtype=torch.bool)
    valid[..., 5:, :] = False
    expected = loss(logits[..., :5, :], target[..., :5, :])
    torch.testing.assert_close(loss(logits, target, valid=valid), expected)


@every_loss
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
@pytest.mark.parametrize("ignore_index", [-100, 2, 255])
def test_pixels_of_the_ignored_index_might_as_well_be_cut_off(
    loss: LossFunction, dtype: torch.dtype, ignore_index: int
) -> None:
    logits, target = draw(0, 2, 1, 8, 6)
    expected = loss(logits[..., :5, :], target[..., :5, :])
    holey = target[:, 0].to(dtype)
    valid = torch.ones(2, 8, 6, dtype=torch.bool)
    if dtype == torch.uint8 and ignore_index < 0:
        valid[:, 5:] = False
    else:
        holey[:, 5:] = ignore_index
    torch.testing.assert_close(loss(logits, holey, ignore_index=ignore_index, valid=valid), expected)


def test_an_index_that_uint8_cannot_hold_does_not_wrap() -> None:
    target = torch.full((1, 4, 4), 156, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"lie in \[156, 156\]"):
        dice_loss(torch.zeros(1, 2, 4, 4), target, ignore_index=-100)


@every_multiclass_loss
@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("include_background", [True, False])
def test_ignored_pixels_of_class_indices_might_as_well_be_cut_off(
    loss: LossFunction, batch: bool, include_background: bool
) -> None:
    arguments = of(loss, batch=batch, include_background=include_background)
    logits, target = draw_classes(0, 2, 3, 8, 6)
    expected = loss(logits[..., :5, :], target[:, :5], **arguments)
    valid = (torch.arange(8) < 5)[None, :, None]
    torch.testing.assert_close(loss(logits, target, valid=valid, **arguments), expected)
    target[:, 5:] = 255
    torch.testing.assert_close(loss(logits, target, ignore_index=255, **arguments), expected)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_nan_in_ignored_pixels_changes_neither_value_nor_gradient(loss: LossFunction, dtype: torch.dtype) -> None:
    logits, mask = draw(0, 2, 3, 8, 6, dtype=dtype)
    target = mask.to(dtype)
    valid = torch.rand(2, 3, 8, 6) < 0.7
    clean = loss(logits, target, valid=valid), gradient(loss, logits, target, valid=valid)
    logits[~valid], target[~valid] = math.nan, math.nan
    dirty = loss(logits, target, valid=valid), gradient(loss, logits, target, valid=valid)
    assert torch.equal(dirty[0], clean[0])
    assert torch.equal(dirty[1], clean[1])
    assert not dirty[1][~valid].any()


@every_multiclass_loss
def test_nan_logits_in_pixels_of_the_ignored_index_change_nothing(loss: LossFunction) -> None:
    logits, target = draw_classes(0, 2, 3, 8, 6)
    target[:, 5:] = -1
    clean = gradient(loss, logits, target, ignore_index=-1)
    logits[:, 1, 5:] = math.nan
    assert torch.equal(gradient(loss, logits, target, ignore_index=-1), clean)


@every_loss
@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_if_nothing_is_left_the_loss_and_its_gradient_are_zero(loss: LossFunction, batch: bool, reduction: str) -> None:
    logits, target = draw(0, 2, 3, 8, 6)
    valid = torch.zeros(1, 1, 1, dtype=torch.bool)
    arguments = of(loss, batch=batch, reduction=reduction)
    found = loss(logits.fill_(math.nan).requires_grad_(), target, valid=valid, **arguments)
    found.sum().backward()
    assert not found.any()
    assert logits.grad is not None
    assert not logits.grad.any()


@every_loss
def test_an_image_that_is_ignored_as_a_whole_is_left_out_of_the_mean(loss: LossFunction) -> None:
    logits, target = draw(0, 3, 2, 8, 6)
    valid = torch.tensor([True, False, True])[:, None, None]
    torch.testing.assert_close(loss(logits, target, valid=valid), loss(logits[::2], target[::2]))


@pytest.mark.parametrize("shape", [(2, 8, 6), (1, 2, 6, 8), (3, 1, 6, 8), (1, 1, 1, 1, 1)])
def test_valid_that_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"valid of shape .* does not fit .* expected bool"):
        dice_loss(torch.zeros(2, 3, 6, 8), torch.zeros(2, 3, 6, 8), valid=torch.ones(shape, dtype=torch.bool))


def test_class_indices_are_valid_in_all_classes_or_in_none() -> None:
    target, valid = torch.zeros(2, 6, 8, dtype=torch.int64), torch.ones(2, 3, 6, 8, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"valid of shape \(2, 3, 6, 8\) .* or \(2, 1, 6, 8\)"):
        dice_loss(torch.zeros(2, 3, 6, 8), target, valid=valid)


def test_valid_that_is_no_mask_is_refused() -> None:
    with pytest.raises(ValueError, match=r"torch.float32 does not fit .* expected bool, True where pixels count"):
        dice_loss(torch.zeros(2, 1, 6, 8), torch.zeros(2, 1, 6, 8), valid=torch.ones(2, 6, 8))


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_ignore_index_is_refused_where_the_target_has_no_indices(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=f"ignore_index needs an integer target, got {dtype}; mark"):
        dice_loss(torch.zeros(2, 1, 6, 8), torch.zeros(2, 1, 6, 8, dtype=dtype), ignore_index=255)


# --- background and classes ---


@every_loss
def test_without_the_background_its_masks_might_as_well_be_cut_off(loss: LossFunction) -> None:
    logits, target = draw(0, 2, 3, 8, 6)
    for valid in (None, target[:, 0], target.roll(1, 0)):
        cut = valid[:, 1:] if valid is not None and valid.ndim == 4 else valid
        expected = loss(logits[:, 1:], target[:, 1:], valid=cut)
        torch.testing.assert_close(loss(logits, target, valid=valid, include_background=False), expected)


@every_loss
def test_leaving_out_the_only_channel_is_refused(loss: LossFunction) -> None:
    with pytest.raises(ValueError, match="include_background=False leaves nothing of logits with one channel"):
        loss(torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 8, 8), include_background=False)


@every_loss
@given(seed=seeds, classes=st.integers(1, 4), batch=st.integers(1, 4))
def test_the_order_of_images_and_of_classes_does_not_matter(
    loss: LossFunction, seed: int, classes: int, batch: int
) -> None:
    logits, target = draw(seed, batch, classes, 5, 4)
    generator = torch.Generator().manual_seed(seed)
    images, channels = torch.randperm(batch, generator=generator), torch.randperm(classes, generator=generator)
    shuffled = loss(logits[images][:, channels], target[images][:, channels])
    torch.testing.assert_close(shuffled, loss(logits, target))


@every_multiclass_loss
@given(seed=seeds, classes=st.integers(2, 4))
def test_the_order_of_exclusive_classes_does_not_matter(loss: LossFunction, seed: int, classes: int) -> None:
    logits, target = draw_classes(seed, 2, classes, 5, 4)
    channels = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(loss(logits[:, channels], channels.argsort()[target]), loss(logits, target))


# --- reduction ---


@every(FUNCTIONS, "reduction")
@given(seed=seeds, classes=st.integers(1, 3), batch=st.booleans())
def test_mean_and_sum_are_those_of_none(loss: LossFunction, seed: int, classes: int, batch: bool) -> None:
    logits, target = draw(seed, 3, classes, 5, 4)
    pooled = of(loss, batch=batch)
    each = loss(logits, target, reduction="none", **pooled)
    torch.testing.assert_close(loss(logits, target, **pooled), each.mean())
    torch.testing.assert_close(loss(logits, target, reduction="sum", **pooled), each.sum())


@every(FUNCTIONS, "reduction")
@given(seed=seeds, split=st.integers(1, 3))
def test_the_losses_of_images_do_not_depend_on_the_split_into_batches(
    loss: LossFunction, seed: int, split: int
) -> None:
    logits, target = draw(seed, 4, 2, 5, 4)
    parts = [loss(logits[cut], target[cut], reduction="none") for cut in (slice(split), slice(split, None))]
    torch.testing.assert_close(loss(logits, target, reduction="none"), torch.cat(parts))


@every(FUNCTIONS, "reduction")
def test_an_unknown_reduction_is_refused(loss: LossFunction) -> None:
    with pytest.raises(ValueError, match="reduction must be one of 'mean', 'sum', 'none', got 'average'"):
        loss(torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 8, 8), reduction="average")


def test_the_weighted_mean_is_that_of_cross_entropy() -> None:
    loss, weight = torch.tensor([[0.2, 0.4], [0.6, 0.8]]), torch.tensor([1.0, 3.0])
    mean = (0.2 + 3 * 0.4 + 0.6 + 3 * 0.8) / 8
    assert reduce(loss, weight=weight, reduction="mean").item() == pytest.approx(mean)
    counted = torch.tensor([[True, False], [True, True]])
    mean = (0.2 + 0.6 + 3 * 0.8) / 5
    assert reduce(loss, weight=weight, counted=counted, reduction="mean").item() == pytest.approx(mean)


# --- precision ---


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_types_are_computed_in_float32(loss: LossFunction, dtype: torch.dtype) -> None:
    logits, target = draw(0, 2, 2, 64, 64, dtype=dtype)
    found, expected = loss(logits, target.to(dtype)), loss(logits.float(), target)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    assert torch.equal(gradient(loss, logits, target), gradient(loss, logits.float(), target).to(dtype))


@every_loss
def test_float64_stays_float64(loss: LossFunction) -> None:
    logits, target = draw(0, 2, 2, 64, 64)
    assert loss(logits, target.float()).dtype == torch.float64
    assert loss(logits, target).item() == pytest.approx(loss(logits.float(), target).item(), rel=1e-6)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_does_not_change_the_loss(loss: LossFunction, dtype: torch.dtype) -> None:
    logits, target = draw(0, 2, 1, 64, 64, dtype=dtype)
    expected = loss(logits, target)
    with torch.autocast("cpu", dtype):
        assert torch.equal(loss(logits, target), expected)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("tumour", ["none", "half", "all"])
def test_extreme_logits_of_a_large_image_are_finite(loss: LossFunction, dtype: torch.dtype, tumour: str) -> None:
    side = 512  # more pixels than float16 counts
    logits = torch.full((1, 1, side, side), 1e4, dtype=dtype)
    logits[..., ::2] *= -1
    logits[..., 0] = 0.5
    target = torch.zeros(1, 1, side, side, dtype=torch.bool)
    target[..., : {"none": 0, "half": side // 2, "all": side}[tumour], :] = True
    found = gradient(loss, logits, target)
    assert loss(logits, target).isfinite()
    assert found.isfinite().all()


@every_multiclass_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_extreme_logits_of_exclusive_classes_are_finite(loss: LossFunction, dtype: torch.dtype) -> None:
    logits = torch.full((1, 2, 512, 512), 1e4, dtype=dtype)
    logits[:, 0, ::2] *= -1
    target = torch.zeros(1, 512, 512, dtype=torch.uint8)
    assert loss(logits, target).isfinite()
    assert gradient(loss, logits, target).isfinite().all()


@every_loss
@pytest.mark.parametrize("arguments", [{}, {"batch": True}, {"valid": torch.eye(3, 2) == 0}])
def test_the_gradient_is_that_of_the_value(loss: LossFunction, arguments: dict[str, Any]) -> None:
    logits, target = draw(0, 2, 2, 3, 2)
    soft = torch.where(target, 0.75, 0.0)
    for t in (target, soft):
        assert torch.autograd.gradcheck(partial(loss, target=t, **of(loss, **arguments)), logits.requires_grad_())


@every_loss
def test_the_second_derivative_is_that_of_the_gradient(loss: LossFunction) -> None:
    logits, target = draw(0, 2, 2, 3, 2)
    assert torch.autograd.gradgradcheck(partial(loss, target=target), logits.requires_grad_())


@pytest.mark.parametrize(
    "name", ["dice", "tversky", "focal_tversky", "jaccard", "mcc", "bce", "cross_entropy", "focal"]
)
def test_a_soft_target_has_its_gradient_too(name: str) -> None:
    logits, _ = draw(0, 2, 2, 3, 2)
    target = draw(1, 2, 2, 3, 2)[0].sigmoid().requires_grad_()
    assert torch.autograd.gradcheck(partial(FUNCTIONS[name], logits), target)


@every_multiclass_loss
def test_the_gradient_through_the_softmax_is_that_of_the_value(loss: LossFunction) -> None:
    logits, target = draw_classes(0, 1, 3, 3, 2)
    for arguments in ({}, {"include_background": False, "ignore_index": 0}):
        call = partial(loss, target=target, **arguments)
        assert torch.autograd.gradcheck(call, logits.requires_grad_())
        assert torch.autograd.gradgradcheck(call, logits)


# --- right is better than wrong ---


@every(FUNCTIONS, but=("boundary",))
@given(seed=seeds, batch=st.booleans())
def test_the_perfect_mask_costs_nothing(loss: LossFunction, seed: int, batch: bool) -> None:
    _, target = draw(seed, 2, 3, 5, 4)
    target[0, 0] = False
    assert loss(target * 200.0 - 100, target, **of(loss, batch=batch)).item() == pytest.approx(0, abs=1e-6)


@every(FUNCTIONS, but=("soft_cldice",))
@given(seed=seeds, batch=st.booleans())
def test_a_wrong_pixel_that_turns_right_never_makes_it_worse(loss: LossFunction, seed: int, batch: bool) -> None:
    logits, target = draw(seed, 2, 2, 4, 3)
    pixel = seed % target.numel()
    better = logits.clone()
    better.view(-1)[pixel] = logits.view(-1)[pixel].abs() * (1 if target.view(-1)[pixel] else -1)
    pooled = of(loss, batch=batch)
    assert loss(better, target, **pooled) <= loss(logits, target, **pooled) + 1e-12


@every(FUNCTIONS, but=("lovasz", "soft_cldice"))
@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_false_positives_on_a_batch_without_tumour_are_pushed_down(
    loss: LossFunction, batch: bool, dtype: torch.dtype
) -> None:
    logits = torch.full((8, 1, 256, 256), -1.0, dtype=dtype)
    assert (gradient(loss, logits, torch.zeros(8, 1, 256, 256), **of(loss, batch=batch)) > 0).all()


@every(FUNCTIONS, but=("soft_cldice",))
@pytest.mark.parametrize("batch", [True, False])
def test_misses_on_a_batch_that_is_all_tumour_are_pushed_up(loss: LossFunction, batch: bool) -> None:
    logits = torch.full((8, 1, 256, 256), -1.0)
    assert (gradient(loss, logits, torch.ones(8, 1, 256, 256), **of(loss, batch=batch)) < 0).all()


@every(FUNCTIONS, "gather", but=("soft_cldice",))
@pytest.mark.parametrize("batch", [True, False])
def test_without_tumour_it_falls_to_0_as_the_false_positives_vanish(loss: LossFunction, batch: bool) -> None:
    target = torch.zeros(2, 1, 64, 64, dtype=torch.float64)
    found = [loss(torch.full_like(target, x), target, **of(loss, batch=batch)) for x in (0.0, -4.0, -8.0, -16.0, -40.0)]
    assert all(later < earlier for earlier, later in pairwise(found))
    assert found[-1] < 1e-6


@every_overlap_loss
@given(seed=seeds, batch=st.booleans(), soft=st.booleans())
def test_an_overlap_loss_lies_in_its_range(loss: LossFunction, seed: int, batch: bool, soft: bool) -> None:
    logits, target = draw(seed, 2, 3, 6, 5, dtype=torch.float32)
    found = loss(logits, torch.where(target, 0.6, 0.0) if soft else target, batch=batch, reduction="none")
    # A correlation may be negative.
    assert (found >= -1e-6).all()
    assert (found <= (2 if loss is mcc_loss else 1) + 1e-6).all()


@every(FUNCTIONS, "gather")
@pytest.mark.parametrize("smooth", [0, -1.0, math.nan, math.inf])
def test_no_smoothing_is_refused(loss: LossFunction, smooth: float) -> None:
    with pytest.raises(ValueError, match="smooth must be a positive number, got"):
        loss(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), smooth=smooth)


# --- layouts ---


@every_loss
@pytest.mark.parametrize("batch", [True, False])
def test_the_layout_in_memory_does_not_matter(loss: LossFunction, batch: bool) -> None:
    logits, target = draw(0, 3, 4, 6, 5, dtype=torch.float32)
    last = [x.contiguous(memory_format=torch.channels_last) for x in (logits, target)]
    pooled = of(loss, batch=batch)
    for x, t in (last, (last[0], target), (logits, last[1]), (logits.mT.contiguous().mT, target)):
        torch.testing.assert_close(loss(x, t, **pooled), loss(logits, target, **pooled))
        torch.testing.assert_close(gradient(loss, x, t, **pooled), gradient(loss, logits, target, **pooled))


@every_multiclass_loss
def test_the_layout_of_exclusive_classes_does_not_matter(loss: LossFunction) -> None:
    logits, target = draw_classes(0, 3, 4, 6, 5)
    last = logits.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(loss(last, target), loss(logits, target))
    torch.testing.assert_close(gradient(loss, last, target), gradient(loss, logits, target))


# --- compiled ---


@every_loss
@pytest.mark.parametrize("backend", [pytest.param("eager", marks=pytest.mark.slow), "aot_eager"])
def test_compiled_in_one_graph_it_is_equal(loss: LossFunction, backend: str) -> None:
    torch.compiler.reset()
    logits, target = draw(0, 2, 3, 8, 6, dtype=torch.float32)
    logits.requires_grad_()
    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    arguments = {"valid": torch.rand(2, 8, 6) < 0.9, "include_background": False, **of(loss, iterations=2)}
    found, expected = (function(logits, target, **arguments) for function in (compiled, loss))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in (found, expected)))


@pytest.mark.slow
@every_loss
def test_compiled_without_a_gradient_it_is_equal(loss: LossFunction) -> None:
    torch.compiler.reset()
    logits, target = draw(0, 2, 3, 8, 6, dtype=torch.float32)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits, target), loss(logits, target))


@every_multiclass_loss
def test_compiled_on_class_indices_it_is_equal(loss: LossFunction) -> None:
    torch.compiler.reset()
    logits, target = draw_classes(0, 2, 3, 8, 6)
    target[:, :2] = 255
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    arguments = of(loss, ignore_index=255, weight=torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(compiled(logits, target, **arguments), loss(logits, target, **arguments))


# --- modules ---


@pytest.mark.parametrize(("module", "function", "arguments"), MODULES.values(), ids=MODULES)
def test_a_module_calls_its_function_with_every_argument(
    module: type[Loss], function: LossFunction, arguments: dict[str, Any]
) -> None:
    logits, target = draw(0, 2, 3, 8, 6)
    logits = logits.sigmoid()
    valid = target[:, 0]
    assert torch.equal(module()(logits, target), function(logits, target))
    for batch in (True, False):
        given_to_both = {**COMMON, **arguments, **of(function, batch=batch)}
        found = module(**given_to_both)(logits, target * 1.5, valid=valid)
        assert torch.equal(found, function(logits, target * 1.5, valid=valid, **given_to_both))
    integers = torch.full((2, 8, 6), 7)
    assert module(ignore_index=7)(logits[:, :1], integers) == 0


@pytest.mark.parametrize("name", MODULES)
def test_a_module_shows_its_arguments_and_saves_none(name: str) -> None:
    module, _, arguments = MODULES[name]
    loss = module(**arguments)
    assert loss.state_dict() == {}
    for argument, value in arguments.items():
        assert f"{argument}={value!r}" in repr(loss)


# --- what nothing and nonsense give ---


@every_loss
@pytest.mark.parametrize("arguments", [{}, {"batch": True}, {"weight": [1.0, 2.0, 3.0]}])
def test_a_batch_without_images_costs_nothing(loss: LossFunction, arguments: dict[str, Any]) -> None:
    logits = torch.zeros(0, 3, 4, 4, requires_grad=True)
    found = loss(logits, torch.zeros(0, 3, 4, 4), **of(loss, **arguments))
    assert found == 0 or loss is FUNCTIONS["mcc"]
    found.backward()


@pytest.mark.parametrize("weight", [[-1.0, 1.0], [math.nan, 1.0], [math.inf, 1.0]])
def test_weights_are_numbers_from_0(weight: list[float]) -> None:
    logits, target = draw(0, 2, 2, 3, 2)
    for build in (
        lambda: dice_loss(logits, target, weight=weight),
        lambda: DiceLoss(weight=torch.tensor(weight)),
        lambda: BCELoss(pos_weight=weight),
    ):
        with pytest.raises(ValueError, match="eight must be numbers from 0"):
            build()


def test_an_ignored_index_that_is_no_integer_is_refused() -> None:
    logits, target = draw_classes(0, 1, 3, 3, 2)
    with pytest.raises(ValueError, match=r"ignore_index must be an integer, got 1\.5"):
        dice_loss(logits, target, ignore_index=1.5)  # type: ignore[arg-type]


def test_a_module_refuses_an_unknown_reduction_when_it_is_built() -> None:
    with pytest.raises(ValueError, match="reduction must be one of 'mean', 'sum', 'none', got 'avg'"):
        DiceLoss(reduction="avg")  # type: ignore[arg-type]


def test_a_list_of_logits_is_for_deep_supervision() -> None:
    logits, target = draw(0, 2, 2, 3, 2)
    with pytest.raises(TypeError, match="logits must be a tensor, got list; DeepSupervisionLoss takes a list of them"):
        dice_loss([logits], target)  # type: ignore[arg-type]


def test_a_share_is_one_number() -> None:
    logits, target = draw(0, 2, 2, 3, 2)
    with pytest.raises(ValueError, match=r"alpha must lie in \[0, 1\], got \[0.1, 0.9\]"):
        focal_loss(logits, target, alpha=[0.1, 0.9])  # type: ignore[arg-type]
