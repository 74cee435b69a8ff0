"""Objects of an image from its masks."""

import pytest
import torch

from brainseg.models.mask_dino import boxes_of_masks, targets_from_masks


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


def test_components_are_objects_of_their_own_and_touch_at_corners() -> None:
    masks = torch.zeros(1, 2, 8, 8, dtype=torch.uint8)
    masks[0, 1, 0, 0] = masks[0, 1, 1, 1] = 1
    masks[0, 1, 5:7, 5] = 1
    (found,) = targets_from_masks(masks, components=True)
    assert found["labels"].tolist() == [1, 1]
    assert found["masks"].sum(dim=(1, 2)).tolist() == [2, 2]
    assert torch.equal(found["masks"].sum(dim=0), masks[0, 1].long())


def test_objects_of_too_few_pixels_are_left_out() -> None:
    masks = torch.zeros(1, 2, 8, 8)
    masks[0, 0, 0, 0] = masks[0, 0, 4:6, 4:6] = masks[0, 1, 0, :3] = 1
    for components, least, kept in ((False, 5, [5]), (False, 3, [5, 3]), (True, 3, [4, 3]), (True, 1, [1, 4, 3])):
        (found,) = targets_from_masks(masks, components=components, min_pixels=least)
        assert found["masks"].sum(dim=(1, 2)).tolist() == kept
    with pytest.raises(ValueError, match="min_pixels must be a positive integer, got 0"):
        targets_from_masks(masks, min_pixels=0)


def test_masks_of_another_rank_are_refused() -> None:
    with pytest.raises(ValueError, match=r"masks must be \(B, K, H, W\), got \(2, 8, 8\)"):
        targets_from_masks(torch.zeros(2, 8, 8))
    for value in (255, -5):
        with pytest.raises(ValueError, match=r"lie in 0 to 1, got .*use masks > 127"):
            targets_from_masks(torch.full((1, 1, 8, 8), value))
