"""The loss of the queries of all layers."""

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainseg.checks import check_between, check_choice, check_count
from brainseg.models.mask_dino.boxes import giou
from brainseg.models.mask_dino.layers import without_autocast
from brainseg.models.mask_dino.matcher import WEIGHTS, HungarianMatcher, Pairs, checked_weights
from brainseg.models.mask_dino.objects import Objects, gather_objects
from brainseg.models.mask_dino.positions import at_least_float32
from brainseg.models.mask_dino.predictions import QueryPredictions
from brainseg.models.mask_dino.processes import mean_over_processes
from brainseg.models.mask_dino.randomness import Rand, torch_rand
from brainseg.models.mask_dino.sampling import BUDGET, read_objects, read_points
from brainseg.models.mask_dino.targets import Target

DenoisingMode = Literal["seg", "standard", "no"]


class Stage(NamedTuple):
    """A layer's two names: `draws` in the names of its draws, `losses` at the end of those of its losses."""

    draws: str
    losses: str


class SetCriterion(nn.Module):
    """Set prediction loss on the last, auxiliary, encoder and denoising outputs (paper, section 3.3 and 3.4).

    Classes by the focal loss (0.25, 2), or by cross-entropy with "no object" weighing 0.1; masks by binary
    cross-entropy and Dice at random points, most of them where the mask is uncertain (Kirillov et al. 2020,
    arXiv:1912.08193); boxes by their L1 distance and GIoU. Sums over the objects, divided by their number in the batch
    (in training: mean over processes).

    Args:
        num_classes: number of classes K.
        matcher: pairs queries and objects in each layer; `HungarianMatcher` with the same number of points by default.
        weights: of "class", "mask", "dice", "box" and "giou".
        num_points: P, points at which a mask is compared.
        oversample: number of random candidates over P.
        importance: share of P taken from the most uncertain candidates; the others are random.
        denoising: "seg" with masks, "standard" for classes and boxes alone, "no".
        softmax_classes: K + 1 classes that exclude each other, "no object" last.
        things: classes whose boxes count; None for all.

    Raises:
        ValueError: arguments out of range, weights that are no numbers, another matcher.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        matcher: HungarianMatcher | None = None,
        weights: Mapping[str, float] | None = None,
        num_points: int = 12544,
        oversample: float = 3.0,
        importance: float = 0.75,
        denoising: DenoisingMode = "seg",
        softmax_classes: bool = False,
        things: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_choice("denoising", denoising, DenoisingMode)
        self.num_classes = check_count("num_classes", num_classes)
        self.num_points = check_count("num_points", num_points)
        if not isinstance(matcher, HungarianMatcher | None):
            raise ValueError(f"matcher must be a HungarianMatcher or None, got {matcher!r}")
        self.matcher = matcher or HungarianMatcher(num_points=num_points)
        self.weights = {**WEIGHTS, **checked_weights(weights or {})}
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
            total, in float32 at least, and the parts, detached: "loss_class", "loss_mask", "loss_dice", "loss_box" and
            "loss_giou" of the last layer, with "_i" of layer i, "_interm" of the encoder, "_dn" of denoising.

        Raises:
            ValueError: targets or predictions that do not fit; a batch without images.
            ImportError: scipy is missing.

        Warns:
            RuntimeWarning: a total that is not finite, with the names of the predictions or weights to blame. It is no
                error, since loss scaling leaves such steps out.
        """
        objects = self._objects(predictions, targets)
        device = objects.labels.device
        rand = rand or torch_rand(device)
        layers = [predictions, *predictions.aux]
        stages = [Stage("last", ""), *(Stage(f"aux{i}", f"_{i}") for i in range(len(predictions.aux)))]
        if predictions.interm is not None:
            layers.append(predictions.interm)
            stages.append(Stage("interm", "_interm"))
        with without_autocast(device):
            number = torch.tensor(float(len(objects.labels)), device=device)
            number = (mean_over_processes(number) if self.training else number).clamp(min=1)
            pairs = self.matcher.match(layers, [stage.draws for stage in stages], objects, rand)
            losses = self._losses(layers, stages, objects, pairs, number, rand)
            total, parts = self._summed(losses, stages)
            if self.denoising != "no":
                # The first layer of one-stage queries has no loss here, as in the authors' code.
                first = 0 if predictions.interm is not None else 1
                stages = [Stage(f"{stage.draws}_dn", f"_dn{stage.losses}") for stage in stages]
                stages = [stages[0], *stages[1 + first : 1 + len(predictions.aux)]]
                losses = self._denoising(predictions, first, stages, objects, number, rand)
                more, dn_parts = self._summed(losses, stages)
                total, parts = total + more, {**parts, **dn_parts}
        if not math.isfinite(total.item()):
            _warn_of_infinite(predictions, self.weights)
        return total, parts

    def _summed(self, losses: Mapping[str, Tensor], stages: Sequence[Stage]) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of losses (L,), and each by its name."""
        values = torch.stack(list(losses.values()))
        weights = values.new_tensor([self.weights[name] for name in losses])
        names = [f"loss_{name}{stage.losses}" for name in losses for stage in stages]
        return weights @ values.sum(dim=1), dict(zip(names, values.detach().flatten().unbind(), strict=True))

    def _objects(self, predictions: QueryPredictions, targets: Sequence[Target]) -> Objects:
        batch = len(predictions.pred_logits)
        if batch == 0:
            raise ValueError("a batch without images has no loss; leave it out")
        kind = "softmax" if self.softmax_classes else "sigmoid"
        if (predictions.num_classes, predictions.softmax) != (self.num_classes, self.softmax_classes):
            raise ValueError(
                f"the criterion is for {self.num_classes} {kind} classes, and the predictions are of "
                f"{predictions.num_classes} {'softmax' if predictions.softmax else 'sigmoid'} ones; build it with "
                f"SetCriterion({predictions.num_classes}, softmax_classes={predictions.softmax})"
            )
        if predictions.objects is not None and predictions.objects.are_those_of(targets):
            return predictions.objects
        objects = gather_objects(
            targets,
            predictions.padded_size,
            batch=batch,
            num_classes=self.num_classes,
            device=predictions.pred_logits.device,
            dtype=at_least_float32(predictions.pred_logits.dtype),
            image_size=predictions.image_size,
        )
        denoised = predictions.objects if predictions.dn is not None else None
        if denoised is not None and denoised.counts != objects.counts:
            raise ValueError(
                f"denoising queries were made of targets of {denoised.counts} objects, and the criterion got targets "
                f"of {objects.counts}; give the same to both"
            )
        return objects

    def _denoising(
        self,
        predictions: QueryPredictions,
        first: int,
        stages: Sequence[Stage],
        objects: Objects,
        number: Tensor,
        rand: Rand,
    ) -> dict[str, Tensor]:
        """Losses of the denoising queries, whose objects are known; 0 in a step without them."""
        masks = self.denoising == "seg"
        if predictions.dn is None:
            zeros = number.new_zeros(len(stages))
            return {name: zeros for name in WEIGHTS if masks or name not in ("mask", "dice")}
        layers = [predictions.dn, *predictions.dn.aux[first:]]
        pairs = _known_pairs(objects, predictions.groups, layers)
        return self._losses(layers, stages, objects, pairs, number * predictions.groups, rand, masks=masks)

    def _losses(
        self,
        layers: Sequence[QueryPredictions],
        stages: Sequence[Stage],
        objects: Objects,
        pairs: Pairs,
        number: Tensor,
        rand: Rand,
        *,
        masks: bool = True,
    ) -> dict[str, Tensor]:
        """Each loss of L layers, (L,)."""
        precision = at_least_float32(layers[0].pred_logits.dtype)
        which = torch.arange(len(layers), device=number.device)[:, None]
        images, queries, chosen = (index.to(number.device) for index in pairs)
        labels = objects.labels[chosen]
        logits = torch.stack([layer.pred_logits for layer in layers]).to(precision)
        losses = {"class": self._class_losses(logits, (which, images, queries), labels, number)}
        if masks:
            losses["mask"], losses["dice"] = self._mask_losses(layers, stages, objects, pairs, number, rand, precision)
        boxes = torch.stack([layer.pred_boxes for layer in layers])[which, images, queries].to(precision)
        theirs = objects.boxes.to(precision)[chosen]
        box, overlap = (boxes - theirs).abs().sum(-1), 1 - giou(boxes, theirs)
        if self.things is not None:
            thing = torch.isin(labels, torch.tensor(self.things, device=labels.device))
            box, overlap = box.where(thing, 0), overlap.where(thing, 0)
        return {**losses, "box": box.sum(1) / number, "giou": overlap.sum(1) / number}

    def _class_losses(
        self, logits: Tensor, matched: tuple[Tensor, Tensor, Tensor], labels: Tensor, number: Tensor
    ) -> Tensor:
        if self.softmax_classes:
            target = labels.new_full(logits.shape[:3], self.num_classes)
            target[matched] = labels
            weight = 1 - 0.9 * (target == self.num_classes).to(logits.dtype)
            surprise = F.cross_entropy(logits.movedim(-1, 1), target, reduction="none")
            total = weight.sum(dim=(1, 2))
            return (weight * surprise).sum(dim=(1, 2)) / (mean_over_processes(total) if self.training else total)
        target = torch.zeros_like(logits)
        target[*matched, labels] = 1
        surprise = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        miss = (target - logits.sigmoid()).abs()
        return ((0.75 - 0.5 * target) * miss**2 * surprise).sum(dim=(1, 2, 3)) / number

    def _mask_losses(
        self,
        layers: Sequence[QueryPredictions],
        stages: Sequence[Stage],
        objects: Objects,
        pairs: Pairs,
        number: Tensor,
        rand: Rand,
        precision: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        """Binary cross-entropy and Dice at points of the paired masks."""
        rows = pairs.objects.shape[1]
        images, queries = (index.to(number.device).unbind() for index in (pairs.images, pairs.queries))
        sums = []
        for part in _parts(len(layers), rows * self.num_points):
            own = zip(layers[part], images[part], queries[part], strict=True)
            maps = torch.cat([layer.masks[image, query] for layer, image, query in own])[:, None].to(precision)
            with torch.no_grad():
                points = self._uncertain_points(maps, stages[part], rand)
                truth = read_objects(objects.masks, pairs.objects[part].flatten().numpy(), points)
            x = read_points(maps, points[:, None]).flatten(1)  # (l * R, P)
            p = x.sigmoid()
            mask = F.binary_cross_entropy_with_logits(x, truth, reduction="none").mean(dim=1)
            sums.append(torch.stack([mask, (p * truth).sum(dim=1), (p + truth).sum(dim=1)]))
        mask, overlap, total = torch.cat(sums, dim=1).view(3, len(layers), rows)
        dice = 1 - (2 * overlap + 1) / (total + 1)
        return mask.sum(dim=1) / number, dice.sum(dim=1) / number

    def _uncertain_points(self, maps: Tensor, stages: Sequence[Stage], rand: Rand) -> Tensor:
        """Points (l * R, P, 2) for maps (l * R, 1, h, w): candidates where a map is nearest to 0, and random ones."""
        rows = len(maps) // len(stages)

        def draw(name: str, stages: Sequence[Stage], number: int) -> Tensor:
            draws = [rand(f"points/{stage.draws}/{name}", (rows, number, 2)) for stage in stages]
            return (torch.cat(draws) if len(draws) > 1 else draws[0]).to(maps)

        important = []
        parts = list(_parts(len(stages), 2 * rows * self.candidates))
        for part, own in zip(
            parts, torch.split(maps, [(part.stop - part.start) * rows for part in parts]), strict=True
        ):
            candidates = draw("over", stages[part], self.candidates)
            doubt = read_points(own, candidates[:, None]).flatten(1).abs_()
            # Floats from 0 have the same order as integers, which are compared faster; nobody needs them sorted.
            bits = doubt.view(torch.int64 if doubt.dtype == torch.float64 else torch.int32)
            chosen = torch.topk(bits, self.important, dim=1, largest=False, sorted=False).indices
            important.append(torch.view_as_complex(candidates).gather(1, chosen))
        further = draw("rand", stages, self.num_points - self.important)
        return torch.cat([torch.view_as_real(torch.cat(important)), further], dim=1)


def _parts(layers: int, numbers: int) -> Iterator[slice]:
    """The layers in parts of so many that what each needs, so many numbers, fits into the budget."""
    some = max(1, BUDGET // max(1, numbers))
    for start in range(0, layers, some):
        yield slice(start, min(start + some, layers))


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


def _warn_of_infinite(predictions: QueryPredictions, weights: Mapping[str, float]) -> None:
    layers = {"last": predictions, **{f"aux{i}": layer for i, layer in enumerate(predictions.aux)}}
    layers |= {"interm": predictions.interm} if predictions.interm is not None else {}
    if (dn := predictions.dn) is not None:
        layers |= {"last_dn": dn, **{f"aux{i}_dn": layer for i, layer in enumerate(dn.aux)}}
    found = [
        f"{name} of {stage}"
        for stage, layer in layers.items()
        for name in ("pred_logits", "pred_masks", "pred_boxes")
        if not getattr(layer, name).isfinite().all()
    ]
    found += [f"the weight of {name}" for name, weight in weights.items() if not math.isfinite(weight)]
    warnings.warn(
        f"the loss is not finite, nor are {', '.join(found) or 'differences of predictions'}; lower the learning rate, "
        "or use bfloat16 in place of float16",
        RuntimeWarning,
        stacklevel=3,
    )


def _known_pairs(objects: Objects, groups: int, layers: Sequence[QueryPredictions]) -> Pairs:
    """Slot and object of every denoising query that has one, image by image, group by group; of all layers alike."""
    size = layers[0].pred_logits.shape[1] // groups
    rows = []
    before = 0
    for image, count in enumerate(objects.counts):
        rows += [(image, k * size + j, before + j) for k in range(groups) for j in range(count)]
        before += count
    pairs = torch.tensor(rows, dtype=torch.long).view(-1, 3)
    return Pairs(*pairs.expand(len(layers), -1, -1).unbind(2))
