"""The boxes of the figure one by one, each against plain formulas."""

import copy
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from brainseg.models import DeformableAttention, Denoising, PixelDecoder, TransformerDecoder
from brainseg.models.mask_dino import QuerySelection, deformable_attention
from brainseg.models.mask_dino.objects import Objects
from brainseg.models.mask_dino.query_selection import box_proposals
from brainseg.models.mask_dino.randomness import torch_rand
from brainseg.models.mask_dino.self_attention import SelfAttention

SHAPES = [(6, 5), (3, 4)]


def features(
    batch: int = 2, channels: tuple[int, ...] = (8, 12, 16, 20), height: int = 64, width: int = 96
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, c, height // 4 // 2**i, width // 4 // 2**i, generator=generator)
        for i, c in enumerate(channels)
    ]


# Deformable attention


def test_deformable_attention_reads_four_neighbours_of_every_place() -> None:
    torch.manual_seed(0)
    batch, queries, heads, width, points = 2, 3, 2, 4, 3
    value = torch.randn(batch, sum(h * w for h, w in SHAPES), heads, width).double()
    locations = (torch.rand(batch, queries, heads, len(SHAPES), points, 2) * 1.4 - 0.2).double()
    weights = torch.rand(batch, queries, heads, len(SHAPES), points).double()
    expected = torch.zeros(batch, queries, heads, width).double()
    starts = [0, SHAPES[0][0] * SHAPES[0][1]]
    for b, q, a, level, p in product(*map(range, (batch, queries, heads, len(SHAPES), points))):
        height, columns = SHAPES[level]
        x, y = (locations[b, q, a, level, p] * torch.tensor([columns, height]) - 0.5).tolist()
        for row, column in product((int(y // 1), int(y // 1) + 1), (int(x // 1), int(x // 1) + 1)):
            if 0 <= row < height and 0 <= column < columns:
                share = (1 - abs(x - column)) * (1 - abs(y - row)) * weights[b, q, a, level, p]
                expected[b, q, a] += share * value[b, starts[level] + row * columns + column, a]
    torch.testing.assert_close(deformable_attention(value, SHAPES, locations, weights), expected.flatten(2))


def test_deformable_attention_has_the_gradients_of_finite_differences() -> None:
    torch.manual_seed(0)
    value = torch.randn(1, 42, 2, 3).double().requires_grad_()
    locations, weights = (torch.rand(1, 2, 2, 2, 2, *end).double().requires_grad_() for end in ((2,), ()))
    torch.autograd.gradcheck(lambda *x: deformable_attention(x[0], SHAPES, *x[1:]), (value, locations, weights))


def test_deformable_attention_starts_on_rays_and_weighs_all_places_the_same() -> None:
    attention = DeformableAttention(16, 2, heads=4, points=3)
    offsets = attention.sampling_offsets(torch.randn(1, 1, 16)).view(4, 2, 3, 2)
    rays = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    expected = (rays[:, None, None] * torch.arange(1, 4)[:, None]).expand(-1, 2, -1, -1)
    torch.testing.assert_close(offsets, expected, atol=1e-6, rtol=0)
    assert not attention.attention_weights(torch.randn(1, 1, 16)).any()


def test_deformable_attention_needs_heads_that_divide_its_width() -> None:
    with pytest.raises(ValueError, match="multiple of 8 heads, got 20"):
        DeformableAttention(20, 2)


def test_half_precision_places_are_not_rounded() -> None:
    torch.manual_seed(0)
    attention = DeformableAttention(16, 1, heads=2).bfloat16()
    torch.nn.init.normal_(attention.sampling_offsets.bias, std=3)
    tokens = torch.arange(128 * 128).view(1, -1, 1).expand(-1, -1, 16).bfloat16() / 128**2
    query = torch.zeros(1, 1, 16).bfloat16()
    reference = torch.tensor([[[0.7431, 0.7431]]])
    half = attention(query, reference, tokens, [(128, 128)])
    full = copy.deepcopy(attention).float()(query.float(), reference, tokens.float(), [(128, 128)])
    assert (half.float() - full).abs().max() < 0.01 * full.abs().max()


# The others


def test_self_attention_is_that_of_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = SelfAttention(32, 4, drop=0.0), torch.nn.MultiheadAttention(32, 4, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    query, value, blocked = torch.randn(2, 7, 32), torch.randn(2, 7, 32), torch.rand(7, 7) > 0.7
    blocked.fill_diagonal_(False)
    expected, _ = theirs(query, query, value, attn_mask=blocked)
    torch.testing.assert_close(ours(query, value, blocked), expected)


@pytest.mark.parametrize("order", ["high2low", "low2high"])
def test_pixel_decoder_gives_levels_as_the_decoder_sees_them(order: str) -> None:
    decoder = PixelDecoder((8, 12, 16, 20), levels=4, feature_order=order, channels=32, layers=1, ffn=16)
    levels, finest = decoder(features())
    sides = [(8, 12), (4, 6), (2, 3), (1, 2)]
    assert [tuple(x.shape) for x in levels] == [
        (2, 32, *side) for side in (sides if order == "high2low" else sides[::-1])
    ]
    assert finest.shape == (2, 32, 8, 12)


@pytest.mark.parametrize("channels", [16, 32])
def test_drop_applies_in_training_alone(channels: int) -> None:
    torch.manual_seed(0)
    decoder = TransformerDecoder(channels, 2, layers=1, ffn=16, drop=0.5)
    inputs = torch.randn(1, 3, channels), torch.randn(1, 3, 4), torch.randn(1, 42, channels), SHAPES
    first, second = (decoder.train()(*inputs)[-1].content for _ in range(2))
    assert not torch.equal(first, second)
    first, second = (decoder.eval()(*inputs)[-1].content for _ in range(2))
    assert torch.equal(first, second)


def test_boxes_start_where_the_anchors_are_and_stay_within_the_image() -> None:
    torch.manual_seed(0)
    decoder = TransformerDecoder(16, 2, layers=2, ffn=16)
    anchors = torch.full((1, 3, 4), torch.inf)
    states = decoder(torch.randn(1, 3, 16), anchors, torch.randn(1, 42, 16), SHAPES)
    for state in states:  # the box head starts from zero
        torch.testing.assert_close(state.boxes, torch.ones(1, 3, 4), atol=2e-5, rtol=0)


def test_proposals_out_of_range_are_infinite_and_none_is_nan() -> None:
    boxes, valid = box_proposals([(64, 64), *[(2, 2)] * 5], like=torch.zeros(()))
    assert boxes[valid].isfinite().all()
    assert (boxes[~valid] == torch.inf).all()
    assert not valid[-4:].any()  # a side of 1.6
    assert not valid[:64].any()  # the first row lies within 0.01 of the rim


def test_selection_takes_the_best_tokens_in_order_and_cuts_their_gradient() -> None:
    torch.manual_seed(0)
    selection = QuerySelection(16, 5)
    class_embed, box_embed = torch.nn.Linear(16, 3), torch.nn.Linear(16, 4)
    memory = torch.randn(2, 42, 16, requires_grad=True)
    tokens, anchors = selection(memory, SHAPES, class_embed, box_embed)
    scores = class_embed(tokens).amax(dim=-1)
    assert (scores[:, :-1] >= scores[:, 1:]).all()
    everything = QuerySelection(16, 100)
    everything.load_state_dict(selection.state_dict())
    assert everything(memory, SHAPES, class_embed, box_embed)[0].shape == (2, 42, 16)
    assert anchors.requires_grad
    queries = selection.start(tokens, anchors)
    assert not queries.content.requires_grad
    assert not queries.anchors.requires_grad


def objects(labels: list[int], boxes: Tensor, counts: list[int] | None = None) -> Objects:
    masks = torch.zeros(len(labels), 32, 32, dtype=torch.bool)
    return Objects(torch.tensor(labels, dtype=torch.long), boxes, masks, counts or [len(labels)], [])


def test_denoising_without_noise_repeats_the_objects_in_groups() -> None:
    denoising = Denoising(4, 8, number=7, noise=0.0)
    boxes = torch.rand(3, 4)
    noised = denoising(objects([1, 3, 0], boxes, [2, 1]), torch_rand(torch.device("cpu")))
    assert noised is not None
    assert noised.groups == 3
    assert noised.pad_size == 6
    table = denoising.label_enc.weight
    for group in range(3):
        content, anchors = (x[:, 2 * group : 2 * group + 2] for x in (noised.queries.content, noised.queries.anchors))
        assert torch.equal(content[0], table[[1, 3]])
        assert torch.equal(content[1], torch.stack([table[0], torch.zeros(8)]))
        torch.testing.assert_close(anchors[0].sigmoid(), boxes[:2], atol=2e-5, rtol=0)
        torch.testing.assert_close(anchors[1, 0].sigmoid(), boxes[2], atol=2e-5, rtol=0)
        assert not anchors[1, 1].any()
    blocked = noised.blocked(2)
    for row, column in product(range(8), repeat=2):
        own = row // 2 == column // 2
        assert blocked[row, column] == (column < 6 and not own if row < 6 else column < 6)


def test_no_objects_are_not_noised_and_too_many_neither_with_one_warning() -> None:
    denoising = Denoising(4, 8, number=7)
    rand = torch_rand(torch.device("cpu"))
    assert denoising(objects([], torch.zeros(0, 4), [0, 0]), rand) is None
    with pytest.warns(UserWarning, match="an image has 8 objects, more than the 7 denoising queries: there is no"):
        assert denoising(objects([0] * 8, torch.rand(8, 4)), rand) is None
    assert denoising(objects([0] * 9, torch.rand(9, 4)), rand) is None


def test_noise_moves_centres_by_a_fifth_of_a_side_and_flips_a_fifth_of_the_labels() -> None:
    denoising = Denoising(1000, 4, number=100)
    boxes = torch.tensor([0.5, 0.5, 0.2, 0.1]).expand(100, 4)
    torch.manual_seed(0)
    noised = [denoising(objects([0] * 100, boxes), torch_rand(torch.device("cpu"))) for _ in range(30)]
    moved = torch.cat([x.queries.anchors[0].sigmoid() for x in noised if x]) - boxes[0]
    reach = torch.tensor([0.04, 0.02, 0.08, 0.04])
    assert (moved.abs() <= reach + 1e-5).all()
    assert (moved.abs().amax(dim=0) > 0.98 * reach).all()
    table = denoising.label_enc.weight
    flipped = torch.cat([(x.queries.content[0] != table[0]).any(dim=1) for x in noised if x]).float().mean()
    assert 0.17 < flipped < 0.23


def test_draws_of_half_precision_models_never_name_a_class_too_many() -> None:
    def draw(name: str, shape: tuple[int, ...]) -> Tensor:
        return torch.full(shape, 1 - 2**-24 if name == "dn/label" else 0.0)

    denoising = Denoising(3, 8).bfloat16()
    noised = denoising(objects([0], torch.rand(1, 4)), draw)
    assert noised is not None
    assert torch.equal(noised.queries.content[0, 0], denoising.label_enc.weight[2])
    assert noised.queries.anchors.dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"feature_order": "low2hi"}, "feature_order must be one of 'high2low', 'low2high', got 'low2hi'"),
        ({"encoder_features": ("res6",)}, "some of res2, res3, res4, res5"),
        ({"levels": 2}, "total_levels must be at least"),
    ],
)
def test_a_pixel_decoder_that_cannot_be_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PixelDecoder((8, 12, 16, 20), **arguments)


def test_features_that_no_loss_reaches_are_frozen() -> None:
    coarse = {"encoder_features": ("res4", "res5"), "levels": 2, "channels": 32}
    for order, trained in (("high2low", True), ("low2high", False)):
        decoder = PixelDecoder((8, 12, 16, 20), feature_order=order, **coarse)
        assert all(parameter.requires_grad == trained for parameter in decoder.fusions.parameters())
