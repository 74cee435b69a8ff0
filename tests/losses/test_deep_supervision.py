"""Deep supervision: which levels, upsampled how, weighted how."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from brainseg.losses import BCEDiceLoss, DeepSupervisionLoss, DiceLoss, bce_dice_loss, dice_loss
from brainseg.models import UNeXt


class Record(nn.Module):
    """Keeps what it is called with, and costs 1, 10, 100, ..."""

    def __init__(self) -> None:
        super().__init__()
        self.logits: list[Tensor] = []

    def forward(self, logits: Tensor, _: Tensor) -> Tensor:
        self.logits.append(logits)
        return torch.tensor(10.0 ** (len(self.logits) - 1))


def levels(*sides: int, count: int = 3) -> list[Tensor]:
    return [torch.randn(2, 2, *(-(-side // 2**i) for side in sides)) for i in range(count)]


def upsampled(x: NDArray[np.float64], stride: int, size: int, axis: int) -> NDArray[np.float64]:
    """Linear interpolation between pixel centres along one axis, constant beyond the outer centres."""
    centres = (np.arange(size) + 0.5) / stride - 0.5
    return np.apply_along_axis(lambda line: np.interp(centres, np.arange(len(line)), line), axis, x)


@pytest.mark.parametrize("sides", [(16, 12), (13, 10), (5, 9, 6)])
def test_each_level_is_upsampled_linearly_by_its_stride_and_cropped(sides: tuple[int, ...]) -> None:
    record, logits = Record(), levels(*sides)
    DeepSupervisionLoss(record)(logits, torch.zeros(2, 2, *sides))
    for i, (found, x) in enumerate(zip(record.logits, logits, strict=True)):
        expected = x.double().numpy()
        for axis, side in enumerate(sides, start=2):
            expected = upsampled(expected, 2**i, side, axis)
        torch.testing.assert_close(found.double(), torch.from_numpy(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("strides", [(1, 4), (1, 4, 8), (1, 2, 8), (1, 16)])
def test_strides_may_be_left_out(strides: tuple[int, ...]) -> None:
    record, logits = Record(), [torch.randn(2, 2, -(-33 // s), -(-20 // s)) for s in strides]
    DeepSupervisionLoss(record)(logits, torch.zeros(2, 2, 33, 20))
    for found, x, stride in zip(record.logits, logits, strides, strict=True):
        expected = upsampled(upsampled(x.double().numpy(), stride, 33, 2), stride, 20, 3)
        torch.testing.assert_close(found.double(), torch.from_numpy(expected), rtol=1e-5, atol=1e-6)


def test_the_weights_halve_and_sum_to_1() -> None:
    found = DeepSupervisionLoss(Record())(levels(8, 8), torch.zeros(2, 2, 8, 8))
    assert found.item() == pytest.approx((4 * 1 + 2 * 10 + 1 * 100) / 7)


def test_given_weights_are_used_as_they_are() -> None:
    found = DeepSupervisionLoss(Record(), weights=[3, 0, 0.5])(levels(8, 8), torch.zeros(2, 2, 8, 8))
    assert found.item() == pytest.approx(3 + 50)


def test_a_single_tensor_passes_as_it_is() -> None:
    logits, target = torch.randn(2, 1, 9, 7), torch.rand(2, 1, 9, 7)
    loss = DeepSupervisionLoss(BCEDiceLoss(), weights=[0.5, 0.5])
    assert torch.equal(loss(logits, target), bce_dice_loss(logits, target))
    assert torch.equal(loss.parts(logits, target)[0], bce_dice_loss(logits, target))


@pytest.mark.parametrize("target", [torch.randint(2, (2, 9, 7)), torch.rand(2, 2, 9, 7)], ids=["indices", "masks"])
def test_class_indices_and_masks_fit_alike(target: Tensor) -> None:
    logits = levels(9, 7, count=1)
    torch.testing.assert_close(DeepSupervisionLoss(DiceLoss())(logits, target), dice_loss(logits[0], target))


def test_half_types_are_upsampled_in_float32() -> None:
    record, logits = Record(), [x.half() for x in levels(8, 8)]
    DeepSupervisionLoss(record)(logits, torch.zeros(2, 2, 8, 8))
    assert record.logits[2].dtype == torch.float32


def test_a_tumour_of_one_pixel_reaches_every_level() -> None:
    target = torch.zeros(1, 1, 32, 32)
    target[0, 0, 3, 5] = 1
    logits = [torch.full((1, 1, 32 // 2**i, 32 // 2**i), -4.0, requires_grad=True) for i in range(4)]
    DeepSupervisionLoss(BCEDiceLoss())(logits, target).backward()
    for i, x in enumerate(logits):
        assert x.grad is not None
        assert x.grad[0, 0, 3 // 2**i, 5 // 2**i] < 0


def test_parts_are_summed_with_the_weights_of_the_total() -> None:
    logits, target = levels(8, 6), torch.rand(2, 2, 8, 6)
    loss = DeepSupervisionLoss(BCEDiceLoss())
    total, parts = loss.parts(logits, target)
    torch.testing.assert_close(total, loss(logits, target))
    torch.testing.assert_close(0.5 * parts["bce"] + parts["dice"], total)


def test_parts_are_there_only_if_the_loss_has_them() -> None:
    assert hasattr(DeepSupervisionLoss(BCEDiceLoss()), "parts")
    assert not hasattr(DeepSupervisionLoss(DiceLoss()), "parts")


def test_invalid_pixels_are_ignored_at_every_level() -> None:
    logits, target = levels(8, 6), torch.rand(2, 2, 8, 6)
    valid = torch.rand(2, 8, 6) < 0.5
    loss = DeepSupervisionLoss(BCEDiceLoss())
    changed = torch.where(valid[:, None], target, torch.nan)
    assert torch.equal(loss(logits, changed, valid=valid), loss(logits, target, valid=valid))
    assert torch.equal(loss.parts(logits, changed, valid=valid)[0], loss(logits, target, valid=valid))


def test_it_takes_what_a_network_gives_in_training_and_in_evaluation() -> None:
    model = UNeXt(num_classes=1, channels=(4, 6, 8, 10, 12), deep_supervision=True)
    loss = DeepSupervisionLoss(BCEDiceLoss())
    images, target = torch.rand(2, 3, 40, 34), torch.zeros(2, 1, 40, 34)
    loss(model.train()(images), target).backward()
    assert all(head.weight.grad is not None for head in (model.head, *model.auxiliary_heads))
    assert loss(model.eval()(images), target).isfinite()


def test_compiled_in_one_graph_it_is_equal() -> None:
    torch.compiler.reset()
    logits, target = levels(9, 7), torch.rand(2, 2, 9, 7)
    loss = DeepSupervisionLoss(BCEDiceLoss())
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(logits, target), loss(logits, target))
    compiled = torch.compile(loss.parts, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(logits, target), loss.parts(logits, target))


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        ([], "got logits of 0 levels and 0 weights, expected one weight a level"),
        (
            [torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 8, 8)],
            r"stride 1 .* expected the sides \(8, 8\) .* finest",
        ),
        ([torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 8, 8)], r"stride 2 .* expected the sides \(4, 4\)"),
        ([torch.zeros(2, 1, 4, 4)], r"stride 1 .* expected the sides \(8, 8\)"),
        ([torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 3, 3)], r"stride 2 .* expected the sides \(4, 4\)"),
    ],
)
def test_levels_that_do_not_fit_are_refused(logits: list[Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeepSupervisionLoss(DiceLoss())(logits, torch.zeros(2, 1, 8, 8))


def test_another_number_of_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="got logits of 3 levels and 2 weights, expected one weight a level"):
        DeepSupervisionLoss(DiceLoss(), weights=[1, 2])(levels(8, 8), torch.zeros(2, 2, 8, 8))
