"""Which query answers for which object."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from brainseg.checks import check_between, check_count
from brainseg.models.mask_dino.boxes import giou
from brainseg.models.mask_dino.layers import without_autocast
from brainseg.models.mask_dino.objects import Objects, gather_objects
from brainseg.models.mask_dino.positions import at_least_float32
from brainseg.models.mask_dino.predictions import QueryPredictions
from brainseg.models.mask_dino.randomness import Rand, torch_rand
from brainseg.models.mask_dino.sampling import BUDGET, read_points
from brainseg.models.mask_dino.targets import Target

WEIGHTS = {"class": 4.0, "mask": 5.0, "dice": 5.0, "box": 5.0, "giou": 2.0}
"""Of the terms of costs and losses, in the authors' training code."""


class Pairs(NamedTuple):
    """Matched queries and objects of a batch, image by image, on the CPU; (L, R) where they are those of L layers.

    Attributes:
        images: (R,) index of the image.
        queries: (R,) index of the query in its image.
        objects: (R,) index of the object among all objects of the batch, image after image.
    """

    images: Tensor
    queries: Tensor
    objects: Tensor


class HungarianMatcher:
    """One to one assignment of least cost between the queries and the objects of an image (paper, section 3.3).

    Args:
        class_weight, mask_weight, dice_weight, box_weight, giou_weight: what each term counts.
        num_points: P, random points at which masks are compared.

    Raises:
        ValueError: weights that are no numbers from 0.
    """

    def __init__(
        self,
        *,
        class_weight: float = WEIGHTS["class"],
        mask_weight: float = WEIGHTS["mask"],
        dice_weight: float = WEIGHTS["dice"],
        box_weight: float = WEIGHTS["box"],
        giou_weight: float = WEIGHTS["giou"],
        num_points: int = 12544,
    ) -> None:
        self.weights = checked_weights(
            {
                "class": class_weight,
                "mask": mask_weight,
                "dice": dice_weight,
                "box": box_weight,
                "giou": giou_weight,
            }
        )
        self.num_points = check_count("num_points", num_points)

    def __call__(
        self, predictions: QueryPredictions, targets: Sequence[Target], *, rand: Rand | None = None, stage: str = "last"
    ) -> Pairs:
        """The pairs of least cost of one layer.

        Args:
            predictions: of one layer.
            targets: one for each image, with masks of the image's size before or after its padding.
            rand: source of the points; torch's generator by default.
            stage: name of the layer in the names of the draws.

        Raises:
            ValueError: targets that do not fit.
            ImportError: scipy is missing.
        """
        objects, rand = _prepared(predictions, targets, rand)
        images, queries, chosen = self.match([predictions], [stage], objects, rand)
        return Pairs(images[0], queries[0], chosen[0])

    def costs(
        self, predictions: QueryPredictions, targets: Sequence[Target], *, rand: Rand | None = None, stage: str = "last"
    ) -> list[Tensor]:
        """The weighted sum of all terms for each image: (Q, n), in float32 at least; arguments as for a call."""
        objects, rand = _prepared(predictions, targets, rand)
        costs = self._weighted(self._terms([predictions], [stage], objects, rand))
        return [image[:, 0].T for image in torch.split(costs, objects.counts)]

    def terms(
        self, predictions: QueryPredictions, targets: Sequence[Target], *, rand: Rand | None = None, stage: str = "last"
    ) -> list[dict[str, Tensor]]:
        """The terms "class", "mask", "dice", "box" and "giou" by themselves, for each image (Q, n)."""
        objects, rand = _prepared(predictions, targets, rand)
        terms = self._terms([predictions], [stage], objects, rand)
        parts = {name: [image[:, 0].T for image in torch.split(cost, objects.counts)] for name, cost in terms.items()}
        return [{name: images[b] for name, images in parts.items()} for b in range(len(objects.counts))]

    def match(self, layers: Sequence[QueryPredictions], stages: Sequence[str], objects: Objects, rand: Rand) -> Pairs:
        """The pairs of least cost of L layers, (L, R).

        Args:
            layers: predictions of equally many queries each.
            stages: their names in the names of the draws.
            objects: those of the batch.
            rand: source of the points.
        """
        try:
            from scipy.optimize import linear_sum_assignment
        except ImportError as error:
            raise ImportError('matching needs scipy: pip install "brainseg-torch[metrics]"') from error
        num_queries = layers[0].pred_logits.shape[1]
        if (most := max(objects.counts, default=0)) > num_queries:
            warnings.warn(
                f"an image has {most} objects and the model {num_queries} queries: the others stay without a query; "
                "build it with a larger num_queries",
                stacklevel=2,
            )
        # One transfer for all layers of the batch.
        costs = self._weighted(self._terms(layers, stages, objects, rand)).cpu().numpy()
        rows = []
        for layer in range(len(layers)):
            before = 0
            for image, count in enumerate(objects.counts):
                if count:
                    own = costs[before : before + count, layer].T
                    for query, number in zip(*linear_sum_assignment(own), strict=True):
                        rows.append((image, int(query), before + int(number)))
                before += count
        # As many in each layer.
        pairs = torch.tensor(rows, dtype=torch.long).view(len(layers), len(rows) // len(layers), 3)
        return Pairs(*pairs.unbind(2))

    def _weighted(self, terms: Mapping[str, Tensor]) -> Tensor:
        cost = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum(0)
        # An infinite or undefined cost is a very large one: the assignment takes finite ones only.
        return torch.nan_to_num(cost, 1e6, 1e6, 1e6)

    @torch.no_grad()
    def _terms(
        self, layers: Sequence[QueryPredictions], stages: Sequence[str], objects: Objects, rand: Rand
    ) -> dict[str, Tensor]:
        """Each term of every object and query, (n, L, Q)."""
        precision = at_least_float32(layers[0].pred_logits.dtype)
        device = objects.labels.device
        image = torch.arange(len(objects.counts), device=device).repeat_interleave(
            torch.tensor(objects.counts, device=device)
        )
        logits = torch.stack([layer.pred_logits for layer in layers])[:, image, :, objects.labels]  # (n, L, Q)
        boxes = torch.stack([layer.pred_boxes for layer in layers], dim=1)[image].to(precision)  # (n, L, Q, 4)
        theirs = objects.boxes.to(precision)[:, None, None]
        with without_autocast(device):  # whose matrix products would overflow
            mask, dice = self._mask_terms(layers, stages, objects, rand, precision)
            return {
                "class": _class_cost(logits.to(precision)),
                "mask": mask,
                "dice": dice,
                "box": (boxes - theirs).abs().sum(-1),
                "giou": -giou(boxes, theirs),
            }

    def _mask_terms(
        self,
        layers: Sequence[QueryPredictions],
        stages: Sequence[str],
        objects: Objects,
        rand: Rand,
        precision: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        num_queries = layers[0].pred_logits.shape[1]
        some = max(1, BUDGET // (num_queries * self.num_points))  # layers at a time
        costs = [torch.zeros(2, 0, len(layers), num_queries, dtype=precision, device=objects.labels.device)]
        for image, own in _of_images(objects.counts):
            draws = [rand(f"match/{stage}/{image}", (1, self.num_points, 2)) for stage in stages]
            points = torch.cat(draws).to(objects.boxes.device, precision)  # (L, P, 2)
            truth = read_points(objects.masks[None, own].to(precision), points[None])[0].movedim(0, -1)  # (L, P, n)
            maps = [layer.masks[image] for layer in layers]
            sums = []
            for start, where, what in zip(
                range(0, len(layers), some), torch.split(points[:, None], some), torch.split(truth, some), strict=True
            ):
                x = read_points(torch.stack(maps[start : start + some]).to(precision), where).flatten(2)  # (l, Q, P)
                sums.append(_sums_at_points(x, what))
            softplus, product, total, overlap = (torch.cat(parts) for parts in zip(*sums, strict=True))
            costs.append(_mask_and_dice_cost(softplus, product, total, overlap, truth).movedim(-1, 1))
        mask, dice = torch.cat(costs, dim=1)
        return mask, dice


def checked_weights(weights: Mapping[str, float]) -> dict[str, float]:
    """The weights of terms as plain numbers; ValueError for those that are none, and for names of no term."""
    if unknown := set(weights) - set(WEIGHTS):
        raise ValueError(f"weights are of {', '.join(WEIGHTS)}, got {', '.join(sorted(map(str, unknown)))}")
    return {name: check_between(f"the weight of {name}", weight, 0, 1e6) for name, weight in weights.items()}


def _prepared(predictions: QueryPredictions, targets: Sequence[Target], rand: Rand | None) -> tuple[Objects, Rand]:
    device = predictions.pred_logits.device
    objects = gather_objects(
        targets,
        predictions.padded_size,
        batch=len(predictions.pred_logits),
        num_classes=predictions.num_classes,
        device=device,
        dtype=at_least_float32(predictions.pred_logits.dtype),
    )
    return objects, rand or torch_rand(device)


def _of_images(counts: Sequence[int]) -> Iterator[tuple[int, slice]]:
    """Each image that has objects, and where these are among all."""
    before = 0
    for image, count in enumerate(counts):
        if count:
            yield image, slice(before, before + count)
        before += count


def _class_cost(logits: Tensor) -> Tensor:
    p = logits.sigmoid()
    positive = 0.25 * (1 - p) ** 2 * -(p + 1e-8).log()
    negative = 0.75 * p**2 * -(1 - p + 1e-8).log()
    return positive - negative


def _sums_at_points(x: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of logits (L, Q, P) and objects (L, P, n) what the costs are made of: two of (L, Q, 1), two of (L, Q, n)."""
    softplus, product = F.softplus(x).sum(dim=-1, keepdim=True), x.bmm(truth)
    p = x.sigmoid_()
    return softplus, product, p.sum(dim=-1, keepdim=True), p.bmm(truth)


def _mask_and_dice_cost(softplus: Tensor, product: Tensor, total: Tensor, overlap: Tensor, truth: Tensor) -> Tensor:
    # t softplus(-x) + (1 - t) softplus(x) is softplus(x) - t x
    mask = (softplus - product) / truth.shape[1]
    dice = 1 - (2 * overlap + 1) / (total + truth.sum(dim=1, keepdim=True) + 1)
    return torch.stack([mask, dice])
