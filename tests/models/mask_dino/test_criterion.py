"""Matcher and criterion: the best assignment, losses by hand, and what goes wrong."""

import math
from itertools import permutations
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from brainseg.models import HungarianMatcher, QueryPredictions, SetCriterion
from brainseg.models.mask_dino import Target, matcher, sampling, targets_from_masks
from brainseg.models.mask_dino import criterion as criterion_module
from brainseg.models.mask_dino.boxes import giou

NAMES = ("class", "mask", "dice", "box", "giou")


def predictions(queries: int = 5, batch: int = 2, classes: int = 2, seed: int = 0, **more: Any) -> QueryPredictions:
    generator = torch.Generator().manual_seed(seed)
    return QueryPredictions(
        torch.randn(batch, queries, classes, generator=generator),
        torch.randn(batch, queries, 16, 16, generator=generator),
        torch.rand(batch, queries, 4, generator=generator) * 0.4 + 0.2,
        **more,
    )


def targets(counts: tuple[int, ...] = (3, 0)) -> list[Target]:
    generator = torch.Generator().manual_seed(1)
    found: list[Target] = []
    for count in counts:
        masks = torch.rand(count, 64, 64, generator=generator) > 0.5
        boxes = torch.rand(count, 4, generator=generator) * 0.4 + 0.2
        found.append({"labels": torch.arange(count) % 2, "boxes": boxes, "masks": masks})
    return found


def leaves(given: QueryPredictions) -> list[Tensor]:
    assert given.pred_masks is not None
    return [x.requires_grad_() for x in (given.pred_logits, given.pred_masks, given.pred_boxes)]


def test_the_matcher_finds_the_assignment_of_least_cost() -> None:
    matcher = HungarianMatcher(num_points=100)
    torch.manual_seed(0)
    cost, empty = matcher.costs(predictions(), targets())
    assert empty.shape == (5, 0)
    torch.manual_seed(0)
    pairs = matcher(predictions(), targets())
    assert pairs.images.tolist() == [0, 0, 0]
    found = cost[pairs.queries, pairs.objects].sum()
    best = min(sum(cost[q, i] for i, q in enumerate(queries)) for queries in permutations(range(5), 3))
    torch.testing.assert_close(found, best)


def test_objects_of_later_images_are_counted_on() -> None:
    pairs = HungarianMatcher(num_points=20)(predictions(batch=3), targets((2, 0, 1)))
    assert pairs.images.tolist() == [0, 0, 2]
    assert sorted(pairs.objects.tolist()) == [0, 1, 2]
    assert pairs.objects[2] == 2


def test_more_objects_than_queries_are_warned_of_and_the_rest_stays_alone() -> None:
    with pytest.warns(UserWarning, match="an image has 6 objects and the model 2 queries"):
        pairs = HungarianMatcher(num_points=20)(predictions(queries=2), targets((6, 0)))
    assert len(pairs.queries) == 2


def test_infinite_logits_do_not_stop_the_matcher() -> None:
    given = predictions()
    given.pred_logits[0, 0] = torch.nan
    assert given.pred_masks is not None
    given.pred_masks[0, 1] = torch.inf
    pairs = HungarianMatcher(num_points=20)(given, targets())
    assert 0 not in pairs.queries.tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_changes_no_assignment_of_sure_masks(dtype: torch.dtype) -> None:
    masks = torch.zeros(5, 64, 64)
    for i in range(5):
        masks[i, 12 * i : 12 * i + 12] = 1
    sure = F.avg_pool2d(masks, 4)[None] * 60 - 30
    given = QueryPredictions(torch.zeros(1, 10, 1), torch.cat([sure, -sure], dim=1), torch.full((1, 10, 4), 0.5))
    target: Target = {"labels": torch.zeros(5).long(), "boxes": torch.full((5, 4), 0.5), "masks": masks > 0}
    with torch.autocast("cpu", dtype):
        pairs = HungarianMatcher()(given, [target])
        total, _ = SetCriterion(1, denoising="no")(given, [target], rand=draw)
    assert pairs.queries.tolist() == pairs.objects.tolist() == [0, 1, 2, 3, 4]
    torch.testing.assert_close(total, SetCriterion(1, denoising="no")(given, [target], rand=draw)[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_confident_logits_of_half_types_have_finite_costs(dtype: torch.dtype) -> None:
    given = predictions()
    assert given.pred_masks is not None
    half = QueryPredictions(
        (given.pred_logits * 100).to(dtype), (given.pred_masks * 1000).to(dtype), given.pred_boxes.to(dtype)
    )
    terms = HungarianMatcher(num_points=20).terms(half, targets())
    assert all(term.isfinite().all() and term.dtype == torch.float32 for image in terms for term in image.values())
    x = leaves(half)
    total, _ = SetCriterion(2, num_points=20, denoising="no")(half, targets())
    total.backward()
    assert total.isfinite()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in x)


def test_losses_of_one_sure_query_are_those_of_the_formulas() -> None:
    masks = torch.zeros(1, 1, 64, 64)
    masks[..., 16:48, 16:48] = 1
    (target,) = targets_from_masks(masks)
    logits = torch.full((1, 2, 1), -math.inf)
    logits[0, 1] = 0.3
    exact = F.avg_pool2d(masks, 4) * 40 - 20
    given = QueryPredictions(logits.clamp(min=-50), torch.cat([-exact, exact], dim=1), torch.full((1, 2, 4), 0.5))
    total, parts = SetCriterion(1, num_points=2000, denoising="no")(given, [target])
    p = 1 / (1 + math.exp(-0.3))
    assert parts["loss_class"].item() == pytest.approx(-0.25 * (1 - p) ** 2 * math.log(p), rel=1e-5)
    assert parts["loss_box"].item() == 0
    assert parts["loss_giou"].item() == pytest.approx(0, abs=1e-5)
    assert parts["loss_dice"] < 0.1  # most points lie on the border
    expected = sum(
        {"class": 4, "mask": 5, "dice": 5, "box": 5, "giou": 2}[name] * parts[f"loss_{name}"] for name in NAMES
    )
    torch.testing.assert_close(total, expected)


@pytest.mark.parametrize("softmax", [False, True])
def test_a_batch_without_objects_costs_its_classes_alone(softmax: bool) -> None:
    given = predictions(classes=2 + softmax, softmax=softmax)
    x = leaves(given)
    total, parts = SetCriterion(2, num_points=20, softmax_classes=softmax)(given, targets((0, 0)))
    total.backward()
    assert parts["loss_class"] > 0
    assert all(value == 0 for name, value in parts.items() if name != "loss_class")
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in x)


@pytest.mark.parametrize(("denoising", "number"), [("seg", 10), ("standard", 8), ("no", 5)])
def test_denoising_losses_are_zero_in_a_step_without_it(denoising: Any, number: int) -> None:
    given = predictions(interm=predictions())
    _, parts = SetCriterion(2, num_points=20, denoising=denoising)(given, targets())
    assert len(parts) == number + 5
    assert sum(name.endswith("_dn") for name in parts) == number - 5


def test_boxes_of_things_alone_can_count() -> None:
    given = predictions()
    every, things, none = (
        SetCriterion(2, num_points=20, denoising="no", things=chosen)(given, targets(), rand=draw)[1]
        for chosen in (None, [0], [])
    )
    assert every["loss_box"] > things["loss_box"] > none["loss_box"] == 0
    assert every["loss_mask"] == things["loss_mask"]


def draw(name: str, shape: tuple[int, ...]) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(len(name)))


def test_infinite_predictions_are_named() -> None:
    given = predictions(aux=[predictions()])
    given.aux[0].pred_boxes[:] = torch.nan
    with pytest.warns(RuntimeWarning, match="the loss is not finite, nor are pred_boxes of aux0"):
        SetCriterion(2, num_points=20, denoising="no")(given, targets())
    criterion = SetCriterion(2, num_points=20)
    criterion.weights["box"] = math.nan
    with pytest.warns(RuntimeWarning, match="the loss is not finite, nor are the weight of box;"):
        criterion(predictions(), targets())


def test_predictions_of_evaluation_are_refused_for_want_of_masks() -> None:
    given = predictions(aux=[QueryPredictions(torch.zeros(2, 5, 2), None, torch.rand(2, 5, 4))])
    with pytest.raises(ValueError, match=r"have no masks; call forward_queries with targets"):
        SetCriterion(2, num_points=20)(given, targets())


def test_giou_of_touching_equal_and_distant_boxes() -> None:
    a = torch.tensor([0.25, 0.5, 0.5, 1.0])
    others = torch.tensor([[0.25, 0.5, 0.5, 1.0], [0.75, 0.5, 0.5, 1.0], [0.875, 0.5, 0.25, 1.0]])
    torch.testing.assert_close(giou(a, others), torch.tensor([1, 0, -0.25]), atol=1e-5, rtol=0)


def test_the_number_of_objects_is_the_mean_over_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda number: number.add_(6))  # 3 here, 6 there
    criterion = SetCriterion(2, num_points=20, denoising="no")
    shared, _ = criterion(predictions(), targets(), rand=draw)
    monkeypatch.undo()
    alone, _ = criterion(predictions(), targets(), rand=draw)
    torch.testing.assert_close(shared, alone * 3 / 4.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"denoising": "seq"}, "denoising must be one of 'seg', 'standard', 'no', got 'seq'"),
        ({"weights": {"bbox": 1.0}}, "weights are of class, mask, dice, box, giou, got bbox"),
        ({"weights": {"box": "1"}}, r"the weight of box must lie in \[0, 1e\+06\], got '1'"),
        ({"weights": {"box": math.nan}}, "the weight of box must lie in"),
        ({"weights": {"box": None}}, "the weight of box must lie in"),
        ({"weights": {"box": -1.0}}, "the weight of box must lie in"),
        ({"num_points": 0}, "num_points must be a positive integer"),
        ({"importance": 1.5}, r"importance must lie in \[0, 1\]"),
        ({"things": [2]}, r"things must be some of the classes 0 to 1, got \[2\]"),
        ({"things": "0"}, "things must be some of the classes"),
        ({"things": 1}, "things must be some of the classes"),
        ({"matcher": "hungarian"}, "matcher must be a HungarianMatcher or None, got 'hungarian'"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SetCriterion(2, **arguments)


@pytest.mark.parametrize("weight", [math.nan, math.inf, "5", None, True, -1.0])
def test_costs_that_are_no_numbers_are_refused(weight: Any) -> None:
    with pytest.raises(ValueError, match=r"the weight of mask must lie in \[0, 1e\+06\]"):
        HungarianMatcher(mask_weight=weight)


def test_a_matcher_by_itself_pads_masks_and_refuses_those_of_another_image() -> None:
    cut = [{**t, "masks": t["masks"][:, :60, :40], "boxes": t["boxes"]} for t in targets()]
    assert len(HungarianMatcher(num_points=20)(predictions(), cut).queries) == 3
    with pytest.raises(ValueError, match="masks of 16x16 pixels do not belong to an image that has 64x64"):
        HungarianMatcher(num_points=20)(predictions(), [{**t, "masks": t["masks"][:, :16, :16]} for t in targets()])


def test_a_criterion_of_other_classes_says_which_it_needs() -> None:
    for criterion, given in (
        (SetCriterion(3), predictions()),
        (SetCriterion(1, softmax_classes=True), predictions()),
        (SetCriterion(2), predictions(classes=3, softmax=True)),
    ):
        with pytest.raises(ValueError, match=rf"build it with SetCriterion\(2, softmax_classes={given.softmax}\)"):
            criterion(given, targets())


def test_a_batch_without_images_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch without images has no loss"):
        SetCriterion(2)(predictions(batch=0), [])


def test_boxes_are_those_around_the_masks_where_none_are_given() -> None:
    masks = torch.zeros(1, 2, 60, 40, dtype=torch.bool)
    masks[0, 0, 3:30, 5:31] = masks[0, 1, 40:57, 20:40] = True
    (given,) = targets_from_masks(masks)
    without: Target = {"labels": given["labels"], "masks": given["masks"]}
    one = predictions(batch=1)
    with_boxes, alone = (
        SetCriterion(2, num_points=20, denoising="no")(one, [t], rand=draw)[0] for t in (given, without)
    )
    torch.testing.assert_close(with_boxes, alone)


def test_layers_in_one_pass_are_as_each_by_itself() -> None:
    """Also where the memory allows one layer at a time, and one mask."""
    layers = [predictions(seed=seed) for seed in range(3)]
    together = predictions(seed=0, aux=layers[1:])
    criterion = SetCriterion(2, num_points=50, denoising="no")
    own = targets((3, 2))

    def stages(name: str, shape: tuple[int, ...]) -> Tensor:
        return draw(name.replace("aux0", "last").replace("aux1", "last"), shape)

    _, parts = criterion(together, own, rand=stages)
    with pytest.MonkeyPatch.context() as patch:
        for module in (matcher, criterion_module, sampling):
            patch.setattr(module, "BUDGET", 1)
        _, narrow = criterion(together, own, rand=stages)
    for suffix, layer in zip(("", "_0", "_1"), layers, strict=True):
        _, alone = criterion(layer, own, rand=draw)
        for name in NAMES:
            torch.testing.assert_close(parts[f"loss_{name}{suffix}"], alone[f"loss_{name}"])
            torch.testing.assert_close(narrow[f"loss_{name}{suffix}"], alone[f"loss_{name}"])


def test_a_few_masks_are_read_at_a_time() -> None:
    given = predictions(queries=60, batch=1)
    many = targets((40,))
    pairs = HungarianMatcher(num_points=20)(given, many, rand=draw)
    _, parts = SetCriterion(2, num_points=20, denoising="no", importance=0.0)(given, many, rand=draw)
    points = draw("points/last/rand", (40, 20, 2))
    grid = (2 * points - 1)[:, :, None]
    read = [
        F.grid_sample(x[:, None].float(), grid, align_corners=False)[:, 0, :, 0]
        for x in (given.masks[0, pairs.queries], many[0]["masks"][pairs.objects])
    ]
    expected = F.binary_cross_entropy_with_logits(*read)
    torch.testing.assert_close(parts["loss_mask"], expected)
