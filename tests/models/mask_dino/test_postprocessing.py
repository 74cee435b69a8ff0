"""From queries to maps, instances and segments."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from brainseg.models import QueryPredictions
from brainseg.models.mask_dino import (
    Instances,
    instance_inference,
    panoptic_inference,
    semantic_inference,
    semantic_logits,
)
from tests.models.mask_dino import reference


def predictions(scale: float = 1.0, softmax: bool = False) -> QueryPredictions:
    generator = torch.Generator().manual_seed(0)
    return QueryPredictions(
        scale * torch.randn(2, 6, 3, generator=generator),
        scale * torch.randn(2, 6, 8, 12, generator=generator),
        torch.rand(2, 6, 4, generator=generator),
        softmax=softmax,
    )


def test_semantic_logits_are_those_of_the_best_query() -> None:
    given = predictions()
    found = semantic_logits(given)
    masks = F.interpolate(given.pred_masks, (32, 48), mode="bilinear").sigmoid()
    product = given.pred_logits.sigmoid()[..., None, None] * masks[:, :, None]
    torch.testing.assert_close(found, product.amax(dim=1).logit(), atol=1e-5, rtol=1e-5)
    expected = reference.semantic_logits(given.pred_logits, given.pred_masks, (32, 48), (30, 41))
    torch.testing.assert_close(semantic_logits(given, (30, 41)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_semantic_logits_never_overflow(dtype: torch.dtype) -> None:
    given = predictions(1e4)
    half = QueryPredictions(
        *(x.to(dtype).requires_grad_() for x in (given.pred_logits, given.pred_masks)), given.pred_boxes
    )
    found = semantic_logits(half)
    assert found.dtype == torch.float32
    found.sum().backward()
    assert found.isfinite().all()
    assert half.pred_logits.grad is not None
    assert half.pred_logits.grad.isfinite().all()


def test_semantic_logits_of_softmax_classes_use_their_probabilities() -> None:
    given = predictions(softmax=True)
    found = semantic_logits(given)
    assert found.shape == (2, 2, 32, 48)
    masks = F.interpolate(given.pred_masks, (32, 48), mode="bilinear").sigmoid()
    product = given.pred_logits.softmax(dim=-1)[..., :-1, None, None] * masks[:, :, None]
    torch.testing.assert_close(found, product.amax(dim=1).logit(), atol=1e-5, rtol=1e-5)


def test_the_order_of_queries_does_not_matter() -> None:
    given = predictions()
    turned = QueryPredictions(*(x.flip(1) for x in (given.pred_logits, given.pred_masks, given.pred_boxes)))
    assert torch.equal(semantic_logits(turned), semantic_logits(given))


def test_fewer_pairs_than_topk_are_all_of_them() -> None:
    for image in instance_inference(predictions(), topk=100):
        assert len(image.scores) == 18
        assert (image.scores[:-1] >= image.scores[1:]).all()
        assert image.masks.shape == (18, 32, 48)


def test_instances_of_softmax_classes_never_are_no_object() -> None:
    for image in instance_inference(predictions(softmax=True)):
        assert image.classes.max() == 1
        assert len(image.scores) == 12


def test_instances_below_a_score_are_left_out() -> None:
    for every, sure in zip(*(instance_inference(predictions(3), min_score=s) for s in (None, 0.5)), strict=True):
        assert torch.equal(sure.scores, every.scores[every.scores >= 0.5])
        assert 0 < len(sure) < len(every)
        assert torch.equal(sure.masks, every.masks[: len(sure)])
        assert torch.equal(sure.boxes, every.boxes[: len(sure)])
    with pytest.raises(ValueError, match=r"min_score must lie in \[0, 1\], got 50"):
        instance_inference(predictions(), min_score=50)


def test_predictions_know_the_size_of_the_image() -> None:
    given = replace(predictions(), image_size=(30, 41))
    assert semantic_logits(given).shape == (2, 3, 30, 41)
    assert torch.equal(semantic_inference(given), semantic_inference(predictions(), (30, 41)))
    for known, told in zip(instance_inference(given), instance_inference(predictions(), (30, 41)), strict=True):
        assert torch.equal(known.masks, told.masks)
        assert torch.equal(known.boxes, told.boxes)
    assert panoptic_inference(given, things=[0])[0][0].shape == (30, 41)


def test_instances_are_counted_and_taken_apart() -> None:
    found = instance_inference(predictions(), topk=4)[0]
    assert len(found) == 4
    assert [float(one.scores) for one in found] == found.scores.tolist()
    assert torch.equal(found[-1].masks, found.masks[3:])
    assert torch.equal(found[1:3].boxes, found.boxes[1:3])
    assert torch.equal(found[found.classes == 1].classes, found.classes[found.classes == 1])
    assert found.to("meta").masks.device.type == "meta"
    with pytest.raises(IndexError, match="there are 4 instances, and none of index 4"):
        found[4]
    assert isinstance(found[0], Instances)


@pytest.mark.parametrize("classes", [2, 20])
def test_many_classes_in_inference_have_the_same_logits_however_sure(classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for scale in (1.0, 30.0, 1e4):
        logits, masks = (scale * torch.randn(1, 40, *end, generator=generator) for end in ((classes,), (8, 8)))
        found = semantic_logits(QueryPredictions(logits, masks, torch.rand(1, 40, 4)))
        expected = reference.semantic_logits(logits.double(), masks.double(), (32, 32), (32, 32))
        assert found.isfinite().all()
        torch.testing.assert_close(found.double(), expected, atol=2e-5, rtol=2e-5)


def test_things_filter_after_the_choice() -> None:
    every, things = (instance_inference(predictions(), topk=5, things=chosen) for chosen in (None, [1]))
    for a, b in zip(every, things, strict=True):
        assert torch.equal(b.scores, a.scores[a.classes == 1])


def test_instance_boxes_are_pixels_of_the_output() -> None:
    boxes = torch.tensor([[[0.5, 0.25, 0.5, 0.5]]])
    given = QueryPredictions(torch.ones(1, 1, 1), torch.ones(1, 1, 8, 16), boxes)
    (image,) = instance_inference(given, image_size=(24, 48), output_size=(48, 96))
    torch.testing.assert_close(image.boxes, torch.tensor([[32.0, 0, 96, 32]]))  # of the padded 32x64


def test_panoptic_maps_number_their_segments_from_one() -> None:
    masks = torch.full((1, 3, 8, 8), -10.0)
    masks[0, 0, :, :4] = masks[0, 1, :4, 4:] = masks[0, 2, 4:, 4:] = 10
    logits = torch.full((1, 3, 2), -10.0)
    logits[0, 0, 1] = logits[0, 1, 0] = logits[0, 2, 0] = 5
    given = QueryPredictions(logits, masks, torch.rand(1, 3, 4))
    ((as_things, segments),) = panoptic_inference(given, things=[0])
    assert [(s.id, s.class_index, s.is_thing) for s in segments] == [(1, 1, False), (2, 0, True), (3, 0, True)]
    assert as_things[4::16, 4::16].tolist() == [[1, 2], [1, 3]]
    ((as_stuff, segments),) = panoptic_inference(given, things=[])
    assert [s.id for s in segments] == [1, 2]
    assert as_stuff[4::16, 4::16].tolist() == [[1, 2], [1, 2]]
    nothing = QueryPredictions(logits - 20, masks, torch.rand(1, 3, 4))
    ((empty, segments),) = panoptic_inference(nothing, things=[0])
    assert segments == []
    assert not empty.any()


def test_predictions_without_masks_are_refused() -> None:
    given = QueryPredictions(torch.ones(1, 1, 1), None, torch.ones(1, 1, 4))
    with pytest.raises(ValueError, match="take the last layer"):
        semantic_inference(given)


@pytest.mark.parametrize("size", [(33, 40), (0, 40), (3, 30, 40), 32])
def test_sizes_that_cannot_be_are_refused(size: object) -> None:
    for result in (semantic_logits, semantic_inference, instance_inference):
        with pytest.raises(ValueError, match="image_size"):
            result(predictions(), size)  # type: ignore[operator]


def test_a_temperature_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="temperature must be positive"):
        semantic_inference(predictions(), temperature=0.0)


def test_many_queries_are_taken_a_few_at_a_time() -> None:
    given = QueryPredictions(torch.randn(1, 40, 2), torch.randn(1, 40, 8, 8), torch.rand(1, 40, 4))
    masks = F.interpolate(given.pred_masks, (32, 32), mode="bilinear").sigmoid()
    expected = (given.pred_logits.sigmoid()[..., None, None] * masks[:, :, None]).amax(dim=1).logit()
    torch.testing.assert_close(semantic_logits(given), expected, atol=1e-5, rtol=1e-5)
