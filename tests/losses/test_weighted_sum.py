"""Sums of named losses."""

import pytest
import torch
from torch import Tensor, nn

from brainseg.losses import (
    BCELoss,
    CrossEntropyLoss,
    DeepSupervisionLoss,
    DiceLoss,
    WeightedSum,
    bce_loss,
    dice_loss,
)


class Count(nn.Module):
    """Costs what it is told, and counts its calls."""

    def __init__(self, cost: float) -> None:
        super().__init__()
        self.cost, self.calls = cost, 0

    def forward(self, logits: Tensor, _: Tensor) -> Tensor:
        self.calls += 1
        return self.cost + 0 * logits.sum()


def draw(*shape: int) -> tuple[Tensor, Tensor]:
    return torch.randn(shape), (torch.rand(shape) < 0.3).float()


def test_the_total_is_the_sum_of_weight_times_part() -> None:
    loss = WeightedSum({"a": Count(2.0), "b": Count(3.0), "c": Count(5.0)}, weights={"b": 10.0, "c": 0.0})
    total, parts = loss.parts(*draw(2, 1, 4, 4))
    assert total.item() == 2 + 30
    assert {name: part.item() for name, part in parts.items()} == {"a": 2, "b": 3, "c": 5}
    assert list(parts) == ["a", "b", "c"]


def test_every_loss_is_called_once() -> None:
    count = Count(1.0)
    loss = WeightedSum({"count": count})
    loss.parts(*draw(2, 1, 4, 4))
    loss(*draw(2, 1, 4, 4))
    assert count.calls == 2


def test_the_gradient_is_the_sum_of_weighted_gradients_and_parts_have_none() -> None:
    logits, target = draw(2, 1, 6, 5)
    x, y = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    total, parts = WeightedSum({"bce": BCELoss(), "dice": DiceLoss()}, weights={"dice": 3.0}).parts(x, target)
    total.backward()
    (bce_loss(y, target) + 3 * dice_loss(y, target)).backward()
    assert x.grad is not None
    assert y.grad is not None
    torch.testing.assert_close(x.grad, y.grad)
    assert not any(part.requires_grad for part in parts.values())


def test_invalid_pixels_are_ignored_by_every_loss() -> None:
    logits, target = draw(2, 1, 6, 5)
    valid = torch.rand(2, 6, 5) < 0.5
    loss = WeightedSum({"bce": BCELoss(), "dice": DiceLoss()})
    changed = torch.where(valid[:, None], target, torch.nan)
    assert torch.equal(loss(logits, changed, valid=valid), loss(logits, target, valid=valid))


def test_losses_of_one_shape_are_summed_without_reduction() -> None:
    logits, target = draw(2, 3, 6, 5)
    loss = WeightedSum({"a": DiceLoss(reduction="none"), "b": DiceLoss(smooth=9.0, reduction="none")})
    torch.testing.assert_close(
        loss(logits, target), dice_loss(logits, target, reduction="none") + loss.losses["b"](logits, target)
    )


def test_losses_of_different_shapes_are_refused() -> None:
    loss = WeightedSum({"bce": BCELoss(reduction="none"), "dice": DiceLoss()})
    with pytest.raises(ValueError, match=r"have the shapes {'bce': \(2, 1, 4, 4\), 'dice': \(\)}, .* same reduction"):
        loss(*draw(2, 1, 4, 4))


def test_sums_nest() -> None:
    inner = WeightedSum({"a": Count(2.0), "b": Count(3.0)})
    total, parts = WeightedSum({"inner": inner, "c": Count(1.0)}, weights={"inner": 2.0}).parts(*draw(2, 1, 4, 4))
    assert total.item() == 11
    assert {name: part.item() for name, part in parts.items()} == {"inner": 5, "c": 1}


def test_deep_supervision_sums_the_parts_of_every_level() -> None:
    logits = [torch.randn(2, 3, -(-9 // s), -(-7 // s)) for s in (1, 2, 4)]
    target = torch.randint(3, (2, 9, 7))
    inner = WeightedSum({"ce": CrossEntropyLoss(), "dice": DiceLoss()}, weights={"ce": 0.5})
    loss = DeepSupervisionLoss(inner)
    total, parts = loss.parts(logits, target)
    torch.testing.assert_close(total, loss(logits, target))
    torch.testing.assert_close(0.5 * parts["ce"] + parts["dice"], total)
    valid = torch.rand(2, 9, 7) < 0.5
    torch.testing.assert_close(loss.parts(logits, target, valid=valid)[0], loss(logits, target, valid=valid))


def test_compiled_in_one_graph_it_is_equal() -> None:
    torch.compiler.reset()
    logits, target = draw(2, 3, 6, 5)
    loss = WeightedSum({"bce": BCELoss(), "dice": DiceLoss()}, weights={"dice": 3.0})
    compiled = torch.compile(loss.parts, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits, target), loss.parts(logits, target))


def test_the_weights_of_its_losses_move_with_it_and_nothing_is_saved() -> None:
    loss = WeightedSum({"bce": BCELoss(weight=[1.0, 2.0])})
    assert loss.state_dict() == {}
    assert "weights={'bce': 1.0}" in repr(loss)
    assert next(loss.to("meta").buffers()).device.type == "meta"


def test_a_sum_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="a sum of no losses; give at least one"):
        WeightedSum({})


def test_a_weight_without_a_loss_is_refused() -> None:
    with pytest.raises(ValueError, match=r"there is no loss 'focl'; did you mean focal\?"):
        WeightedSum({"dice": DiceLoss(), "focal": BCELoss()}, weights={"focl": 20.0})


def test_losses_without_names_are_refused() -> None:
    with pytest.raises(TypeError, match=r"losses need names, .* got list"):
        WeightedSum([DiceLoss()])  # type: ignore[arg-type]
