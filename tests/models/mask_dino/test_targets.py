"""Objects of an image from its masks, and what is refused."""

from typing import Any

import pytest
import torch

from brainseg.models.mask_dino import Target, boxes_of_masks, targets_from_masks
from brainseg.models.mask_dino.targets import check_targets, pad_targets

CPU = torch.device("cpu")


def target(**changes: Any) -> Target:
    sound = {"labels": torch.tensor([1]), "boxes": torch.full((1, 4), 0.5), "masks": torch.ones(1, 8, 8)}
    return {**sound, **changes}  # type: ignore[typeddict-item]


def test_boxes_enclose_the_masks() -> None:
    masks = torch.zeros(3, 10, 20, dtype=torch.bool)
    masks[0, 2:5, 4:12] = True
    masks[1, 9, 19] = True
    expected = torch.tensor([[8 / 20, 3.5 / 10, 8 / 20, 3 / 10], [19.5 / 20, 9.5 / 10, 1 / 20, 1 / 10], [0, 0, 0, 0]])
    torch.testing.assert_close(boxes_of_masks(masks), expected)
    torch.testing.assert_close(boxes_of_masks(masks.float()), expected)


def test_every_class_that_an_image_holds_is_an_object() -> None:
    masks = torch.zeros(2, 3, 10, 20)
    masks[0, 0, 2:5, 4:12] = masks[0, 2, 0, 0] = 1
    first, second = targets_from_masks(masks)
    assert first["labels"].tolist() == [0, 2]
    assert torch.equal(first["masks"], masks[0, [0, 2]].bool())
    torch.testing.assert_close(first["boxes"], boxes_of_masks(masks[0, [0, 2]]))
    assert [tuple(x.shape) for x in second.values()] == [(0,), (0, 4), (0, 10, 20)]
    check_targets([first, second], 2, 3, CPU)


def test_components_are_objects_of_their_own_and_touch_at_corners() -> None:
    masks = torch.zeros(1, 2, 8, 8, dtype=torch.uint8)
    masks[0, 1, 0, 0] = masks[0, 1, 1, 1] = 1
    masks[0, 1, 5:7, 5] = 1
    (found,) = targets_from_masks(masks, components=True)
    assert found["labels"].tolist() == [1, 1]
    assert found["masks"].sum(dim=(1, 2)).tolist() == [2, 2]
    assert torch.equal(found["masks"].sum(dim=0), masks[0, 1].long())


def test_masks_of_another_rank_are_refused() -> None:
    with pytest.raises(ValueError, match=r"masks must be \(B, K, H, W\), got \(2, 8, 8\)"):
        targets_from_masks(torch.zeros(2, 8, 8))
    for value in (255, -5):
        with pytest.raises(ValueError, match=r"lie in 0 to 1, got .*use masks > 127"):
            targets_from_masks(torch.full((1, 1, 8, 8), value))


def test_targets_grow_with_the_padding() -> None:
    empty = target(labels=torch.zeros(0).long(), boxes=torch.zeros(0, 4), masks=torch.zeros(0, 1, 1))
    padded, grown = pad_targets([target(masks=torch.ones(1, 48, 40)), empty], 64, 64)
    assert torch.equal(padded["masks"][0, :48, :40], torch.ones(48, 40))
    assert padded["masks"].sum() == 48 * 40
    torch.testing.assert_close(padded["boxes"], torch.tensor([[0.3125, 0.375, 0.3125, 0.375]]))
    assert grown["masks"].shape == (0, 64, 64)
    for side in (32, 65):
        with pytest.raises(ValueError, match=f"masks of {side}x64 pixels do not belong to an image that has 64x64"):
            pad_targets([target(masks=torch.ones(1, side, 64))], 64, 64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": torch.tensor([3])}, "labels must lie in 0 to 2, got 3 to 3"),
        ({"labels": torch.tensor([-1])}, "labels must lie in 0 to 2, got -1"),
        ({"labels": torch.tensor([1.0])}, "integer labels, floating boxes and real masks, got torch.float32"),
        ({"labels": torch.tensor([True])}, "integer labels, floating boxes and real masks, got torch.bool"),
        ({"labels": torch.tensor([1, 1])}, r"got labels \(2,\), boxes \(1, 4\), masks \(1, 8, 8\)"),
        ({"boxes": torch.tensor([[20.0, 20, 8, 8]])}, "within .* got 8 to 20; divide pixels by them"),
        ({"boxes": torch.full((1, 4), torch.nan)}, "within"),
        ({"boxes": torch.ones(1, 4).long()}, "integer labels, floating boxes"),
        ({"boxes": torch.ones(4)}, r"boxes \(n, 4\)"),
        ({"masks": torch.full((1, 8, 8), 255, dtype=torch.uint8)}, "got values .*255; use masks > 127"),
        ({"masks": torch.ones(8, 8)}, r"masks \(n, H, W\)"),
        ({"masks": -torch.ones(1, 8, 8)}, "got values of -1 to -1"),
        ({"masks": torch.ones(1, 8, 8, device="meta")}, "target 0 lies on meta and the predictions on cpu"),
        ({"labels": [1]}, "of target 0 must be tensors"),
    ],
)
def test_unsound_targets_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_targets([target(**changes)], 1, 3, CPU)


def test_targets_are_one_for_each_image_and_whole() -> None:
    with pytest.raises(ValueError, match="got 1 targets for 2 images"):
        check_targets([target()], 2, 3, CPU)
    with pytest.raises(ValueError, match="got str for 2 images"):
        check_targets("no", 2, 3, CPU)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="target 1 has no boxes, masks; targets_from_masks"):
        check_targets([target(), {"labels": torch.tensor([0])}], 2, 3, CPU)  # type: ignore[typeddict-item]
