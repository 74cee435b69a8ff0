"""The formulas of Mask DINO as they are written down, by layer and by level: what ours is measured beside."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from brainseg.models import QueryPredictions
from brainseg.models.mask_dino import DeformableAttention, SetCriterion, Target
from brainseg.models.mask_dino.boxes import giou
from brainseg.models.mask_dino.randomness import Rand, torch_rand

from scipy.optimize import linear_sum_assignment  # isort: skip


def deformable_attention(
    value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """As `brainseg.models.mask_dino.deformable_attention`: all levels are read, put side by side, weighted, summed."""
    batch, _, heads, width = value.shape
    queries = locations.shape[1]
    grids = (2 * locations - 1).permute(0, 2, 1, 3, 4, 5).flatten(0, 1)  # (B * A, N, L, P, 2)
    levels = torch.split(value, [rows * columns for rows, columns in shapes], dim=1)
    read = [
        F.grid_sample(
            level.permute(0, 2, 3, 1).reshape(batch * heads, width, *shape), grids[:, :, index], align_corners=False
        )
        for index, (level, shape) in enumerate(zip(levels, shapes, strict=True))
    ]
    shares = weights.permute(0, 2, 1, 3, 4).reshape(batch * heads, 1, queries, -1)
    output = (torch.cat(read, dim=-1) * shares).sum(dim=-1)
    return output.view(batch, heads * width, queries).transpose(1, 2)


def attend(
    module: DeformableAttention, query: Tensor, reference: Tensor, tokens: Tensor, shapes: Sequence[tuple[int, int]]
) -> Tensor:
    """As `DeformableAttention.forward`, with the attention above."""
    heads, levels, points = module.heads, module.levels, module.points
    value = module.value_proj(tokens).unflatten(-1, (heads, -1))
    offsets = module.sampling_offsets(query).unflatten(-1, (heads, levels, points, 2))
    shares = module.attention_weights(query).unflatten(-1, (heads, levels * points)).softmax(-1)
    reference = reference[:, :, None, None, None]
    if reference.shape[-1] == 2:
        cells = torch.tensor([[columns, rows] for rows, columns in shapes])
        locations = reference + offsets / cells[:, None]
    else:
        locations = reference[..., :2] + offsets / points * reference[..., 2:] * 0.5
    output: Tensor = module.output_proj(
        deformable_attention(value, shapes, locations, shares.unflatten(-1, (levels, points)))
    )
    return output


def semantic_logits(predictions: QueryPredictions) -> Tensor:
    """As `brainseg.models.mask_dino.semantic_logits`: -logsumexp(-a, -b, -a - b) of each query and class."""
    best: list[Tensor] = []
    # Some queries at a time here too: maps of all of them do not fit into a cache, and time would measure memory.
    for some, masks in zip(
        torch.split(predictions.pred_logits, 16, 1), torch.split(predictions.masks, 16, 1), strict=True
    ):
        maps = F.interpolate(masks, scale_factor=4.0, mode="bilinear", align_corners=False)
        part = [-torch.logaddexp(-a, F.softplus(-a) - maps).amin(dim=1) for a in some[..., None, None].unbind(dim=2)]
        best = [torch.maximum(*pair) for pair in zip(best, part, strict=True)] if best else part
    return torch.stack(best, dim=1)


class Matched(NamedTuple):
    """Places of queries and objects that belong together: image, query in it, object among all of the batch."""

    images: Tensor
    queries: Tensor
    objects: Tensor


def criterion(
    settings: SetCriterion, predictions: QueryPredictions, targets: Sequence[Target], rand: Rand | None = None
) -> Tensor:
    """The total of `SetCriterion` for sigmoid classes and boxes of padded images, one layer after the other."""
    rand = rand or torch_rand(predictions.pred_logits.device)
    number = max(1, sum(len(target["labels"]) for target in targets))
    layers = {"last": predictions, **{f"aux{i}": layer for i, layer in enumerate(predictions.aux)}}
    noised = {f"{stage}_dn": layer for stage, layer in layers.items()}
    if predictions.interm is not None:
        layers["interm"] = predictions.interm
    total = predictions.pred_logits.new_zeros(())
    for stage, layer in layers.items():
        total = total + losses(
            settings, layer, match(settings, layer, targets, rand, stage), targets, number, rand, stage
        )
    if (dn := predictions.dn) is not None:
        known = slots(targets, predictions.groups, dn.pred_logits.shape[1])
        for stage, layer in zip(noised, (dn, *dn.aux), strict=True):
            total = total + losses(settings, layer, known, targets, number * predictions.groups, rand, stage)
    return total


def slots(targets: Sequence[Target], groups: int, queries: int) -> Matched:
    """Where each object stands among the denoising queries of its image, in every group."""
    rows, before = [], 0
    for image, target in enumerate(targets):
        count = len(target["labels"])
        rows += [(image, k * (queries // groups) + j, before + j) for k in range(groups) for j in range(count)]
        before += count
    return Matched(*torch.tensor(rows).unbind(1))


@torch.no_grad()
def match(
    settings: SetCriterion, layer: QueryPredictions, targets: Sequence[Target], rand: Rand, stage: str
) -> Matched:
    """The pairs of least cost, image by image."""
    rows, before = [], 0
    weights = settings.matcher.weights
    for image, target in enumerate(targets):
        points = rand(f"match/{stage}/{image}", (1, settings.matcher.num_points, 2))
        x, t = (read(masks.float(), points) for masks in (layer.masks[image], target["masks"]))
        p, c = x.sigmoid(), layer.pred_logits[image][:, target["labels"]].sigmoid()
        positive, negative = 0.25 * (1 - c) ** 2 * -(c + 1e-8).log(), 0.75 * c**2 * -(1 - c + 1e-8).log()
        boxes = layer.pred_boxes[image]
        cost = (
            weights["class"] * (positive - negative)
            + weights["mask"] * (F.softplus(x).sum(1, keepdim=True) - x @ t.T) / x.shape[1]
            + weights["dice"] * (1 - (2 * p @ t.T + 1) / (p.sum(1, keepdim=True) + t.sum(1) + 1))
            + weights["box"] * torch.cdist(boxes, target["boxes"], p=1)
            - weights["giou"] * giou(boxes[:, None], target["boxes"])
        )
        rows += [(image, q, before + j) for q, j in zip(*linear_sum_assignment(cost.cpu().numpy()), strict=True)]
        before += len(target["labels"])
    return Matched(*torch.tensor(rows).unbind(1))


def losses(
    settings: SetCriterion,
    layer: QueryPredictions,
    matched: Matched,
    targets: Sequence[Target],
    number: float,
    rand: Rand,
    stage: str,
) -> Tensor:
    """The weighted losses of a layer."""
    images, queries, objects = matched
    labels, boxes, masks = (
        torch.cat([target[name] for target in targets])[objects] for name in ("labels", "boxes", "masks")
    )
    wanted = torch.zeros_like(layer.pred_logits)
    wanted[images, queries, labels] = 1
    surprise = F.binary_cross_entropy_with_logits(layer.pred_logits, wanted, reduction="none")
    miss = torch.where(wanted > 0, 1 - layer.pred_logits.sigmoid(), layer.pred_logits.sigmoid())
    maps = layer.masks[images, queries]
    with torch.no_grad():
        candidates = rand(f"points/{stage}/over", (len(maps), settings.candidates, 2))
        chosen = torch.topk(-read(maps, candidates).abs(), settings.important, dim=1).indices
        uncertain = candidates.gather(1, chosen[..., None].expand(-1, -1, 2))
        further = rand(f"points/{stage}/rand", (len(maps), settings.num_points - settings.important, 2))
        points = torch.cat([uncertain, further], dim=1)
        t = torch.cat(
            [read(m.float(), p) for m, p in zip(torch.split(masks, 16), torch.split(points, 16), strict=True)]
        )
    x = read(maps, points)
    p, own = x.sigmoid(), layer.pred_boxes[images, queries]
    terms = {
        "class": ((0.75 - 0.5 * wanted) * miss**2 * surprise).sum(),
        "mask": F.binary_cross_entropy_with_logits(x, t, reduction="none").mean(dim=1).sum(),
        "dice": (1 - (2 * (p * t).sum(dim=1) + 1) / (p.sum(dim=1) + t.sum(dim=1) + 1)).sum(),
        "box": (own - boxes).abs().sum(),
        "giou": (1 - giou(own, boxes)).sum(),
    }
    return torch.stack([settings.weights[name] * value for name, value in terms.items()]).sum() / number


def read(maps: Tensor, points: Tensor) -> Tensor:
    """Maps (R, h, w) read at points (R or 1, P, 2) in [0, 1]: (R, P)."""
    grid = (2 * points - 1).expand(len(maps), -1, -1)[:, :, None]
    return F.grid_sample(maps[:, None], grid, align_corners=False)[:, 0, :, 0]
