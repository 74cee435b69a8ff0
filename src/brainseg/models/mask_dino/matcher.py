"""Which query answers for which object."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from brainseg.checks import check_count
from brainseg.models.mask_dino.boxes import giou
from brainseg.models.mask_dino.layers import without_autocast
from brainseg.models.mask_dino.positions import at_least_float32
from brainseg.models.mask_dino.predictions import QueryPredictions
from brainseg.models.mask_dino.randomness import Rand, torch_rand
from brainseg.models.mask_dino.targets import Target


class Pairs(NamedTuple):
    """Matched queries and objects of a batch, image by image.

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
    """

    def __init__(
        self,
        *,
        class_weight: float = 4.0,
        mask_weight: float = 5.0,
        dice_weight: float = 5.0,
        box_weight: float = 5.0,
        giou_weight: float = 2.0,
        num_points: int = 12544,
    ) -> None:
        self.weights = {
            "class": class_weight,
            "mask": mask_weight,
            "dice": dice_weight,
            "box": box_weight,
            "giou": giou_weight,
        }
        self.num_points = check_count("num_points", num_points)

    def __call__(
        self, predictions: QueryPredictions, targets: Sequence[Target], *, rand: Rand | None = None, stage: str = "last"
    ) -> Pairs:
        """The pairs of least cost.

        Args:
            predictions: of one layer.
            targets: one for each image, with masks of the padded image's size.
            rand: source of the points; torch's generator by default.
            stage: name of the layer in the names of the draws.

        Raises:
            ImportError: scipy is missing.
        """
        try:
            from scipy.optimize import linear_sum_assignment
        except ImportError as error:
            raise ImportError('matching needs scipy: pip install "brainseg-torch[metrics]"') from error
        costs = self.costs(predictions, targets, rand=rand, stage=stage)
        device = predictions.pred_logits.device
        pairs: list[tuple[int, int, int]] = []
        before = 0
        # One transfer for the batch.
        together = torch.cat(costs, dim=1).cpu()
        for image, cost in enumerate(torch.split(together, [cost.shape[1] for cost in costs], dim=1)):
            if cost.shape[1] > cost.shape[0]:
                warnings.warn(
                    f"an image has {cost.shape[1]} objects and the model {cost.shape[0]} queries: the others stay "
                    "without a query; build it with a larger num_queries",
                    stacklevel=2,
                )
            for query, target in zip(*linear_sum_assignment(cost.numpy()), strict=True):
                pairs.append((image, int(query), before + int(target)))
            before += cost.shape[1]
        images, queries, objects = torch.tensor(pairs, dtype=torch.long, device=device).view(-1, 3).unbind(1)
        return Pairs(images, queries, objects)

    def costs(
        self, predictions: QueryPredictions, targets: Sequence[Target], *, rand: Rand | None = None, stage: str = "last"
    ) -> list[Tensor]:
        """The weighted sum of all terms for each image: (Q, n), in float32 at least; arguments as for a call."""
        terms = self.terms(predictions, targets, rand=rand, stage=stage)
        # An infinite or undefined cost is a very large one: the assignment takes finite ones only.
        weighted = (torch.stack([self.weights[name] * cost for name, cost in image.items()]).sum(0) for image in terms)
        return [torch.nan_to_num(cost, 1e6, 1e6, 1e6) for cost in weighted]

    @torch.no_grad()
    def terms(
        self, predictions: QueryPredictions, targets: Sequence[Target], *, rand: Rand | None = None, stage: str = "last"
    ) -> list[dict[str, Tensor]]:
        """The terms "class", "mask", "dice", "box" and "giou" by themselves, for each image (Q, n)."""
        device = predictions.pred_logits.device
        height, width = (4 * side for side in predictions.masks.shape[-2:])
        if shapes := {tuple(target["masks"].shape[-2:]) for target in targets} - {(height, width)}:
            raise ValueError(
                f"masks of the targets must have {height}x{width} pixels as the padded image, got {sorted(shapes)}; "
                "SetCriterion pads them"
            )
        rand = rand or torch_rand(device)
        with without_autocast(device):  # whose matrix products would overflow
            return [
                self._terms_of_image(
                    image, predictions, target, rand(f"match/{stage}/{image}", (1, self.num_points, 2))
                )
                for image, target in enumerate(targets)
            ]

    def _terms_of_image(
        self, image: int, predictions: QueryPredictions, target: Target, points: Tensor
    ) -> dict[str, Tensor]:
        precision = at_least_float32(predictions.pred_logits.dtype)
        masks, points = predictions.masks[image].to(precision), points.to(precision)
        boxes, target_boxes = predictions.pred_boxes[image].to(precision), target["boxes"].to(precision)
        own, theirs = read_points(masks, points), read_points(target["masks"].to(precision), points)
        return {
            "class": _class_cost(predictions.pred_logits[image].to(precision), target["labels"].long()),
            "mask": _mask_cost(own, theirs),
            "dice": _dice_cost(own, theirs),
            "box": torch.cdist(boxes, target_boxes, p=1),
            "giou": -giou(boxes[:, None], target_boxes),
        }


def read_points(maps: Tensor, points: Tensor) -> Tensor:
    """Maps (R, h, w) read bilinearly at points (R or 1, P, 2), (x, y) in [0, 1]; beyond the rim is 0. (R, P)."""
    grid = (2 * points - 1).expand(maps.shape[0], -1, -1)[:, :, None]
    return F.grid_sample(maps[:, None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[:, 0, :, 0]


def _class_cost(logits: Tensor, labels: Tensor) -> Tensor:
    p = logits[:, labels].sigmoid()
    positive = 0.25 * (1 - p) ** 2 * -(p + 1e-8).log()
    negative = 0.75 * p**2 * -(1 - p + 1e-8).log()
    return positive - negative


def _mask_cost(logits: Tensor, target: Tensor) -> Tensor:
    # t softplus(-x) + (1 - t) softplus(x) is softplus(x) - t x
    return (F.softplus(logits).sum(dim=1, keepdim=True) - logits @ target.T) / logits.shape[1]


def _dice_cost(logits: Tensor, target: Tensor) -> Tensor:
    p = logits.sigmoid()
    total = p.sum(dim=1, keepdim=True) + target.sum(dim=1)
    return 1 - (2 * p @ target.T + 1) / (total + 1)
