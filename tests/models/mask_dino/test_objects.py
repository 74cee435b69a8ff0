"""The objects of a batch, and what is refused."""

from typing import Any

import pytest
import torch
from torch import Tensor

from brainseg.models.mask_dino import Target, boxes_of_masks
from brainseg.models.mask_dino.objects import Objects, gather_objects


def target(**changes: Any) -> Target:
    sound = {"labels": torch.tensor([1]), "boxes": torch.full((1, 4), 0.5), "masks": torch.ones(1, 32, 32)}
    return {**sound, **changes}  # type: ignore[typeddict-item]


def gathered(targets: Any, size: tuple[int, int] = (32, 32), batch: int = 1, **more: Any) -> Objects:
    return gather_objects(
        targets, size, batch=batch, num_classes=3, device=torch.device("cpu"), dtype=torch.float32, **more
    )


def test_objects_stand_one_after_the_other_and_grow_with_the_padding() -> None:
    empty = target(labels=torch.zeros(0).long(), boxes=torch.zeros(0, 4), masks=torch.zeros(0, 1, 1))
    second = target(labels=torch.tensor([2], dtype=torch.uint8), masks=torch.ones(1, 64, 64, dtype=torch.uint8))
    found = gathered([target(masks=torch.ones(1, 48, 40)), empty, second], (64, 64), 3)
    assert found.counts == [1, 0, 1]
    assert found.labels.tolist() == [1, 2]
    assert found.masks.shape == (2, 64, 64)
    assert found.masks[0, :48, :40].all()
    assert found.masks[0].sum() == 48 * 40
    expected = torch.tensor([[0.3125, 0.375, 0.3125, 0.375], [0.5, 0.5, 0.5, 0.5]])
    torch.testing.assert_close(found.boxes, expected)


def test_a_batch_without_objects_has_the_size_of_its_images() -> None:
    nothing = {"labels": torch.zeros(0).long(), "masks": torch.zeros(0, 64, 64)}
    found = gathered([nothing, nothing], (64, 96), 2)
    assert found.masks.shape == (0, 64, 96)
    assert found.boxes.shape == (0, 4)
    assert found.counts == [0, 0]


def test_boxes_that_are_not_given_are_those_around_the_masks() -> None:
    masks = torch.zeros(2, 48, 40, dtype=torch.bool)
    masks[0, 3:20, 5:31] = masks[1, 40:, 39] = True
    found = gathered([{"labels": torch.tensor([0, 1]), "masks": masks}], (64, 64))
    torch.testing.assert_close(found.boxes, boxes_of_masks(found.masks))


@pytest.mark.parametrize("side", [32, 65])
def test_masks_that_do_not_pad_to_the_image_are_refused(side: int) -> None:
    with pytest.raises(ValueError, match=f"masks of {side}x64 pixels do not belong to an image that has 64x64"):
        gathered([target(masks=torch.ones(1, side, 64))], (64, 64))
    with pytest.raises(ValueError, match=r"masks of target 0 are \(1, 40, 60\), and the image has .*\(48, 60\)"):
        gathered([target(masks=torch.ones(1, 40, 60))], (64, 64), image_size=(48, 60))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": torch.tensor([3])}, "labels must lie in 0 to 2, got 3 to 3"),
        ({"labels": torch.tensor([-1])}, "labels must lie in 0 to 2, got -1"),
        ({"labels": torch.tensor([1.0])}, "integer labels, floating boxes and real masks, got torch.float32"),
        ({"labels": torch.tensor([True])}, "integer labels, floating boxes and real masks, got torch.bool"),
        ({"labels": torch.tensor([1, 1])}, r"got labels \(2,\), boxes \(1, 4\), masks \(1, 32, 32\)"),
        ({"boxes": torch.tensor([[20.0, 20, 8, 8]])}, "within .* got 8 to 20; divide pixels by them"),
        ({"boxes": torch.full((1, 4), torch.nan)}, "within"),
        ({"boxes": torch.ones(1, 4).long()}, "integer labels, floating boxes"),
        ({"boxes": torch.ones(4)}, r"boxes \(n, 4\)"),
        ({"masks": torch.full((1, 32, 32), 255, dtype=torch.uint8)}, "got values .*255; use masks > 127"),
        ({"masks": torch.ones(32, 32)}, r"masks \(n, H, W\)"),
        ({"masks": -torch.ones(1, 32, 32)}, "got values of -1 to -1"),
        ({"masks": torch.full((1, 32, 32), 0.7)}, r"got values of 0.7 to 0.7; use masks > 0\.5"),
        ({"masks": torch.full((1, 32, 32), torch.nan)}, "masks must be bool or 0 and 1, got values of nan"),
        ({"masks": torch.zeros(1, 32, 32)}, "1 of 1 masks are empty, and no object has an empty one"),
        ({"masks": torch.ones(1, 32, 32, device="meta")}, "target 0 lies on meta and the predictions on cpu"),
        ({"labels": [1]}, "of target 0 must be tensors"),
        ({"scores": torch.ones(1)}, "may have boxes, got labels, boxes, masks, scores"),
    ],
)
def test_unsound_targets_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gathered([target(**changes)])


def test_targets_are_one_for_each_image_and_whole() -> None:
    with pytest.raises(ValueError, match="got 1 targets for 2 images"):
        gathered([target()], batch=2)
    with pytest.raises(ValueError, match="got str for 2 images"):
        gathered("no", batch=2)
    with pytest.raises(ValueError, match=r"target 1 must have labels and masks.* got labels; targets_from_masks"):
        gathered([target(), {"labels": torch.tensor([0])}], batch=2)
    with pytest.raises(ValueError, match=r"target 0 must have labels and masks.* got Tensor; targets_from_masks"):
        gathered([torch.zeros(2)])


def off_centre() -> Tensor:
    masks = torch.zeros(3, 64, 64, dtype=torch.bool)
    masks[0, 4:20, 30:60] = masks[1, 40:50, 2:8] = masks[2, 10:60, 12:20] = True
    return masks


@pytest.mark.parametrize("form", ["corners", "corner and size", "y before x"])
def test_boxes_of_another_form_are_named(form: str) -> None:
    masks = off_centre()
    x, y, w, h = boxes_of_masks(masks).unbind(1)
    given, message = {
        "corners": ([x - w / 2, y - h / 2, x + w / 2, y + h / 2], "those given are corners"),
        "corner and size": ([x - w / 2, y - h / 2, w, h], "those given are the upper left corner and size"),
        "y before x": ([y, x, h, w], "those given are centre and size with y before x"),
    }[form]
    with pytest.raises(ValueError, match=message):
        gathered([target(labels=torch.arange(3), boxes=torch.stack(given, 1), masks=masks)], (64, 64))


def test_boxes_that_are_loose_are_none_of_another_form() -> None:
    masks = off_centre()
    x, y, w, h = boxes_of_masks(masks).unbind(1)
    loose = torch.stack([x, y, (1.6 * w).clamp(max=1), (1.4 * h).clamp(max=1)], 1)
    found = gathered([target(labels=torch.arange(3), boxes=loose, masks=masks)], (64, 64))
    torch.testing.assert_close(found.boxes, loose)


def test_objects_know_what_they_were_made_of() -> None:
    given = [target()]
    found = gathered(given)
    assert found.are_those_of(given)
    assert found.are_those_of([{**given[0]}])
    given[0]["labels"] = torch.tensor([1])
    assert not found.are_those_of(given)
    assert not found.are_those_of([target()])
    assert not found.are_those_of([])
