"""The loss of the queries of all layers."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from brainseg.checks import check_between, check_choice, check_count
from brainseg.models.mask_dino.boxes import giou
from brainseg.models.mask_dino.layers import without_autocast
from brainseg.models.mask_dino.matcher import HungarianMatcher, Pairs, read_points
from brainseg.models.mask_dino.positions import at_least_float32
from brainseg.models.mask_dino.predictions import QueryPredictions
from brainseg.models.mask_dino.randomness import Rand, torch_rand
from brainseg.models.mask_dino.targets import Target, check_targets, pad_targets

DenoisingMode = Literal["seg", "standard", "no"]

# Of the authors' training code, the same for every layer.
LOSS_WEIGHTS = {"ce": 4.0, "mask": 5.0, "dice": 5.0, "bbox": 5.0, "giou": 2.0}


class SetCriterion(nn.Module):
    """Set prediction loss on the last, auxiliary, encoder and denoising outputs (paper, section 3.3 and 3.4).

    Classes by the focal loss (0.25, 2), or by cross-entropy with "no object" weighing 0.1; masks by binary
    cross-entropy and Dice at random points, most of them where the mask is uncertain (Kirillov et al. 2020,
    arXiv:1912.08193); boxes by their L1 distance and GIoU. Sums over the objects, divided by their number in the batch
    (mean over processes).

    Args:
        num_classes: number of classes K.
        matcher: pairs queries and objects in each layer; `HungarianMatcher` with the same number of points by default.
        weights: of "ce", "mask", "dice", "bbox" and "giou".
        num_points: P, points at which a mask is compared.
        oversample: number of random candidates over P.
        importance: share of P taken from the most uncertain candidates; the others are random.
        denoising: "seg" with masks, "standard" for classes and boxes alone, "no".
        softmax_classes: K + 1 classes that exclude each other, "no object" last.
        things: classes whose boxes count; None for all.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        matcher: HungarianMatcher | None = None,
        weights: dict[str, float] | None = None,
        num_points: int = 12544,
        oversample: float = 3.0,
        importance: float = 0.75,
        denoising: DenoisingMode = "seg",
        softmax_classes: bool = False,
        things: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_choice("denoising", denoising, get_args(DenoisingMode))
        if unknown := set(weights or {}) - set(LOSS_WEIGHTS):
            raise ValueError(f"weights are of {', '.join(LOSS_WEIGHTS)}, got {', '.join(sorted(map(str, unknown)))}")
        self.num_classes = check_count("num_classes", num_classes)
        self.num_points = check_count("num_points", num_points)
        self.matcher = matcher or HungarianMatcher(num_points=num_points)
        self.weights = {**LOSS_WEIGHTS, **(weights or {})}
        self.candidates = int(check_between("oversample", oversample, 1, 1000) * num_points)
        self.important = int(check_between("importance", importance, 0, 1) * num_points)
        self.denoising = denoising
        self.softmax_classes = softmax_classes
        self.things = check_things(things, num_classes)

    def forward(
        self, predictions: QueryPredictions, targets: Sequence[Target], *, rand: Rand | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of all losses, and each of them unweighted.

        Args:
            predictions: of `forward_queries`, in training or with targets.
            targets: one for each image, with masks of the image's size before or after its padding.
            rand: (name, shape) -> uniform numbers in [0, 1); torch's generator by default.

        Returns:
            total, in float32 at least, and the parts, detached: "loss_ce", "loss_mask", "loss_dice", "loss_bbox" and
            "loss_giou" of the last layer, with "_i" of layer i, "_interm" of the encoder, "_dn" of denoising.

        Raises:
            ValueError: targets that do not fit.
            ImportError: scipy is missing.

        Warns:
            RuntimeWarning: a total that is not finite, with the names of the predictions to blame. It is no error,
                since loss scaling leaves such steps out.
        """
        device = predictions.pred_logits.device
        check_targets(targets, predictions.pred_logits.shape[0], self.num_classes, device)
        height, width = (4 * side for side in predictions.masks.shape[-2:])
        with without_autocast(device):
            return self._all_losses(predictions, pad_targets(targets, height, width), rand or torch_rand(device))

    def _all_losses(
        self, predictions: QueryPredictions, targets: Sequence[Target], rand: Rand
    ) -> tuple[Tensor, dict[str, Tensor]]:
        device = predictions.pred_logits.device
        objects = self._number_of_objects(targets, device)
        together = _together(targets)

        parts: dict[str, Tensor] = {}
        layers = {"": predictions, **{f"_{i}": layer for i, layer in enumerate(predictions.aux)}}
        if predictions.interm is not None:
            layers["_interm"] = predictions.interm
        for suffix, layer in layers.items():
            stage = _stage(suffix)
            pairs = self.matcher(layer, targets, rand=rand, stage=stage)
            losses = self._losses(layer, together, pairs, objects, rand, stage, masks=True)
            parts |= {f"loss_{name}{suffix}": value for name, value in losses.items()}
        if self.denoising != "no":
            parts |= self._denoising(predictions, targets, together, objects, rand)
        total = torch.stack([self.weights[name.split("_")[1]] * value for name, value in parts.items()]).sum()
        if not total.isfinite():
            _warn_of_infinite(layers)
        return total, {name: value.detach() for name, value in parts.items()}

    def _denoising(
        self,
        predictions: QueryPredictions,
        targets: Sequence[Target],
        together: Target,
        objects: Tensor,
        rand: Rand,
    ) -> dict[str, Tensor]:
        """Losses of the denoising queries, whose objects are known; 0 in a step without them."""
        # The first layer of one-stage queries has no loss here, as in the authors' code.
        first = 0 if predictions.interm is not None else 1
        suffixes = ["", *(f"_{i}" for i in range(first, len(predictions.aux)))]
        masks = self.denoising == "seg"
        if predictions.dn is None:
            names = [name for name in LOSS_WEIGHTS if masks or name not in ("mask", "dice")]
            zero = predictions.pred_boxes.new_zeros(())
            return {f"loss_{name}_dn{suffix}": zero for suffix in suffixes for name in names}
        dn, groups = predictions.dn, predictions.groups
        pairs = _known_pairs(targets, groups, dn.pred_logits)
        parts: dict[str, Tensor] = {}
        for suffix in suffixes:
            layer = dn.aux[int(suffix[1:])] if suffix else dn
            losses = self._losses(layer, together, pairs, objects * groups, rand, f"{_stage(suffix)}_dn", masks=masks)
            parts |= {f"loss_{name}_dn{suffix}": value for name, value in losses.items()}
        return parts

    def _losses(
        self,
        layer: QueryPredictions,
        together: Target,
        pairs: Pairs,
        objects: Tensor,
        rand: Rand,
        stage: str,
        *,
        masks: bool,
    ) -> dict[str, Tensor]:
        precision = at_least_float32(layer.pred_logits.dtype)
        labels = together["labels"][pairs.objects]
        losses = {"ce": self._class_loss(layer.pred_logits.to(precision), pairs, labels, objects)}
        if masks:
            own = layer.masks[pairs.images, pairs.queries].to(precision)
            losses["mask"], losses["dice"] = self._mask_losses(
                own, together["masks"], pairs.objects, objects, rand, stage
            )
        boxes = layer.pred_boxes[pairs.images, pairs.queries].to(precision)
        target_boxes = together["boxes"].to(precision)[pairs.objects]
        if self.things is not None:
            kept = torch.isin(labels, torch.tensor(self.things, device=labels.device))
            boxes, target_boxes = boxes[kept], target_boxes[kept]
        losses["bbox"] = (boxes - target_boxes).abs().sum() / objects
        losses["giou"] = (1 - giou(boxes, target_boxes)).sum() / objects
        return losses

    def _class_loss(self, logits: Tensor, pairs: Pairs, labels: Tensor, objects: Tensor) -> Tensor:
        if self.softmax_classes:
            target = labels.new_full(logits.shape[:2], self.num_classes)
            target[pairs.images, pairs.queries] = labels
            weight = logits.new_ones(self.num_classes + 1)
            weight[-1] = 0.1
            return F.cross_entropy(logits.transpose(1, 2), target, weight)
        target = torch.zeros_like(logits)
        target[pairs.images, pairs.queries, labels] = 1
        ce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        miss = torch.where(target > 0, 1 - logits.sigmoid(), logits.sigmoid())
        return ((0.75 - 0.5 * target) * miss**2 * ce).sum() / objects

    def _mask_losses(
        self, logits: Tensor, target: Tensor, indices: Tensor, objects: Tensor, rand: Rand, stage: str
    ) -> tuple[Tensor, Tensor]:
        """Binary cross-entropy and Dice at points of maps (R, h, w) and of their objects' masks (n, H, W)."""
        with torch.no_grad():
            points = self._uncertain_points(logits, rand, stage)
            # A few at a time: denoising repeats the objects, and their masks have 16 times the pixels of the logits.
            parts = zip(torch.split(indices, 16), torch.split(points, 16), strict=True)
            labels = torch.cat([read_points(target[i].to(logits.dtype), p) for i, p in parts])
        x = read_points(logits, points)
        mask = F.binary_cross_entropy_with_logits(x, labels, reduction="none").mean(dim=1).sum() / objects
        p = x.sigmoid()
        dice = 1 - (2 * (p * labels).sum(dim=1) + 1) / (p.sum(dim=1) + labels.sum(dim=1) + 1)
        return mask, dice.sum() / objects

    def _uncertain_points(self, logits: Tensor, rand: Rand, stage: str) -> Tensor:
        rows = len(logits)
        candidates = rand(f"points/{stage}/over", (rows, self.candidates, 2)).to(logits)
        doubt = -read_points(logits, candidates).abs()
        chosen = torch.topk(doubt, self.important, dim=1).indices
        chosen_points = torch.gather(candidates, 1, chosen[..., None].expand(-1, -1, 2))
        further = rand(f"points/{stage}/rand", (rows, self.num_points - self.important, 2)).to(logits)
        return torch.cat([chosen_points, further], dim=1)

    def _number_of_objects(self, targets: Sequence[Target], device: torch.device) -> Tensor:
        number = torch.tensor(float(sum(len(target["labels"]) for target in targets)), device=device)
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(number)
            number = number / distributed.get_world_size()
        return number.clamp(min=1)


def check_things(things: Sequence[int] | None, num_classes: int) -> list[int] | None:
    """The classes as plain integers; ValueError unless they are some of the classes."""
    if things is None:
        return None
    sound = isinstance(things, Iterable) and not isinstance(things, str)
    if not sound or not all(_is_class(k, num_classes) for k in things):
        raise ValueError(f"things must be some of the classes 0 to {num_classes - 1}, got {things!r}")
    return [int(k) for k in things]


def _is_class(k: object, num_classes: int) -> bool:
    return isinstance(k, Integral) and not isinstance(k, bool) and 0 <= int(k) < num_classes


def _together(targets: Sequence[Target]) -> Target:
    """The objects of all images, one after the other."""
    return {
        "labels": torch.cat([target["labels"] for target in targets]).long(),
        "boxes": torch.cat([target["boxes"] for target in targets]),
        "masks": torch.cat([target["masks"] for target in targets]),
    }


def _warn_of_infinite(layers: Mapping[str, QueryPredictions]) -> None:
    found = [
        f"{name} of {_stage(suffix)}"
        for suffix, layer in layers.items()
        for name in ("pred_logits", "pred_masks", "pred_boxes")
        if not getattr(layer, name).isfinite().all()
    ]
    warnings.warn(
        f"the loss is not finite, nor are {', '.join(found) or 'some denoising predictions'}; lower the learning rate, "
        "or use bfloat16 in place of float16",
        RuntimeWarning,
        stacklevel=3,
    )


def _stage(suffix: str) -> str:
    """Name of a layer in the names of its draws."""
    if suffix in ("", "_interm"):
        return suffix[1:] or "last"
    return f"aux{suffix[1:]}"


def _known_pairs(targets: Sequence[Target], groups: int, like: Tensor) -> Pairs:
    """Slot and object of every denoising query that has one: image by image, group by group."""
    counts = [len(target["labels"]) for target in targets]
    size = like.shape[1] // groups
    rows = []
    before = 0
    for image, count in enumerate(counts):
        rows += [(image, k * size + j, before + j) for k in range(groups) for j in range(count)]
        before += count
    images, queries, objects = torch.tensor(rows, dtype=torch.long, device=like.device).view(-1, 3).unbind(1)
    return Pairs(images, queries, objects)
