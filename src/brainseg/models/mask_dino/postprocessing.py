"""From queries to maps of classes, to instances and to segments."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from brainseg.checks import check_between, check_count, check_counts
from brainseg.models.mask_dino.boxes import corners
from brainseg.models.mask_dino.instances import Instances
from brainseg.models.mask_dino.layers import without_autocast
from brainseg.models.mask_dino.positions import at_least_float32
from brainseg.models.mask_dino.predictions import QueryPredictions

Size = tuple[int, int]


@dataclass(frozen=True)
class Segment:
    """One segment of a panoptic map: its number there, its class, and whether it is an object of its own."""

    id: int
    class_index: int
    is_thing: bool


def semantic_logits(predictions: QueryPredictions, image_size: Size | None = None) -> Tensor:
    """Logits of each class: those of the query that says most surely "this class, here".

    With class logits a and mask logits b, c and m their sigmoids, the probability is the largest c * m of all queries;
    the logit of one product is -logsumexp(-a, -b, -a - b), exact and finite. The maximum, not the sum of
    `semantic_inference`: hundreds of hesitant queries would add up to tumour in healthy tissue.

    Args:
        predictions: of `forward_queries`.
        image_size: height and width before padding; by default those that the predictions know, or the padded ones.

    Returns:
        (B, K, H, W) in float32 at least.
    """
    image_size = _image_size(predictions, image_size, None)
    logits = predictions.pred_logits.to(at_least_float32(predictions.pred_logits.dtype))
    if predictions.softmax:
        logits = _one_against_others(logits)
    masks = predictions.masks
    if torch.compiler.is_compiling():  # a program has any number of queries
        return _best_products(logits, _full_size(masks, image_size))
    # A few queries at a time, since maps of all of them need much memory.
    parts = list(zip(torch.split(logits, 16, dim=1), torch.split(masks, 16, dim=1), strict=True))
    differentiable = torch.is_grad_enabled() and (logits.requires_grad or masks.requires_grad)
    if differentiable or logits.shape[2] == 1 or not _has_logarithms(logits, masks):
        return reduce(torch.maximum, (_best_products(a, _full_size(m, image_size)) for a, m in parts))
    log = reduce(torch.maximum, (_best_logarithms(a, _full_size(m, image_size)) for a, m in parts))
    return log - torch.log(-torch.expm1(log))


def _best_products(logits: Tensor, masks: Tensor) -> Tensor:
    """The largest logit of class times mask probability, for each class: (B, q, K), (B, q, H, W) -> (B, K, H, W)."""
    maps = []
    for a in logits[..., None, None].unbind(dim=2):
        # -log(e^-a + e^-b + e^(-a-b)), with e^-b + e^(-a-b) = e^-b (1 + e^-a)
        maps.append(-torch.logaddexp(-a, F.softplus(-a) - masks).amin(dim=1))
    return torch.stack(maps, dim=1)


def _best_logarithms(logits: Tensor, masks: Tensor) -> Tensor:
    """The largest logarithm of class times mask probability, a sum: shapes as above, and one addition a class."""
    log_masks = F.logsigmoid(masks)
    return torch.stack([(a + log_masks).amax(dim=1) for a in F.logsigmoid(logits)[..., None, None].unbind(2)], dim=1)


def _has_logarithms(logits: Tensor, masks: Tensor) -> bool:
    """Whether no product of probabilities is so near to 1 that float32 has no logarithm of it but 0."""
    return not (logits.numel() and masks.numel() and torch.minimum(logits.amax(), masks.amax()) > 80)


def semantic_inference(
    predictions: QueryPredictions,
    image_size: Size | None = None,
    output_size: Size | None = None,
    *,
    temperature: float | None = None,
    resize_last: bool = False,
) -> Tensor:
    """The authors' semantic result: the sum over queries of class times mask probability, for an argmax over classes.

    Args:
        predictions: of `forward_queries`.
        image_size: height and width before padding; by default those that the predictions know, or the padded ones.
        output_size: height and width of the result; `image_size` by default.
        temperature: None for the probabilities of the classes; a number (authors: 0.06) for their softmax over it.
        resize_last: crop and resize the result and not the mask logits.

    Returns:
        (B, K, H', W'), values from 0 that may exceed 1.

    Raises:
        ValueError: logits that are not finite; sizes or a temperature that cannot be.
    """
    predictions.check_finite()
    late = (_image_size(predictions, image_size, output_size), output_size)
    masks = _full_size(predictions.masks, *((None, None) if resize_last else late)).sigmoid()
    with without_autocast(masks.device):
        result = torch.einsum("bqk,bqhw->bkhw", _class_scores(predictions, temperature).to(masks.dtype), masks)
    return _crop_and_resize(result, *late) if resize_last else result


def instance_inference(
    predictions: QueryPredictions,
    image_size: Size | None = None,
    output_size: Size | None = None,
    *,
    topk: int = 100,
    things: Sequence[int] | None = None,
    min_score: float | None = None,
) -> list[Instances]:
    """The most probable pairs of query and class of each image; a query may occur with several classes.

    Args:
        predictions: of `forward_queries`.
        image_size: height and width before padding; by default those that the predictions know, or the padded ones.
        output_size: height and width of the result; `image_size` by default.
        topk: number of pairs, at most Q * K.
        things: classes that are kept, after the choice; None for all.
        min_score: instances of a lower score are left out; None keeps all, however doubtful.

    Raises:
        ValueError: logits that are not finite; sizes or numbers that cannot be.
    """
    predictions.check_finite()
    image_size = _image_size(predictions, image_size, output_size)
    check_count("topk", topk)
    least = 0.0 if min_score is None else check_between("min_score", min_score, 0, 1)
    probabilities = _class_scores(predictions, None)
    num_classes = probabilities.shape[2]
    padded = predictions.padded_size
    height, width = image_size or padded
    rows, columns = output_size or (height, width)
    to_output = predictions.pred_boxes.new_tensor([columns * padded[1] / width, rows * padded[0] / height] * 2)
    results = []
    for p, masks, boxes in zip(probabilities, predictions.masks, predictions.pred_boxes, strict=True):
        scores, chosen = torch.topk(p.flatten(), min(topk, p.numel()))
        queries, classes = chosen // num_classes, chosen % num_classes
        kept = scores >= least  # no score exceeds the probability of its class
        if things is not None:
            kept &= _is_thing(classes, things)
        scores, queries, classes = scores[kept], queries[kept], classes[kept]
        own = _full_size(masks[None, queries], image_size, output_size)[0]
        mask = own > 0
        sure = (own.sigmoid() * mask).sum(dim=(1, 2)) / (mask.sum(dim=(1, 2)) + 1e-6)
        scores, order = (scores * sure).sort(descending=True, stable=True)
        order = order[scores >= least]
        in_pixels = torch.cat(corners(boxes[queries]), dim=1) * to_output
        results.append(Instances(scores[: len(order)], classes[order], in_pixels[order], mask[order]))
    return results


def panoptic_inference(
    predictions: QueryPredictions,
    things: Sequence[int],
    image_size: Size | None = None,
    output_size: Size | None = None,
    *,
    object_mask_threshold: float = 0.25,
    overlap_threshold: float = 0.8,
    temperature: float | None = 0.06,
) -> list[tuple[Tensor, list[Segment]]]:
    """Each pixel to one segment: every object of a "thing" class, every other class as a whole.

    Args:
        predictions: of `forward_queries`.
        things: classes whose objects are segments of their own.
        image_size: height and width before padding; by default those that the predictions know, or the padded ones.
        output_size: height and width of the result; `image_size` by default.
        object_mask_threshold: queries of a lower class probability are left out.
        overlap_threshold: a segment keeps at least this share of its mask, or is left out.
        temperature: as for `semantic_inference`; classes and scores of the kept queries are those of the softmax.

    Returns:
        for each image the map (H', W') of segment numbers from 1, 0 where there is none, and its segments.

    Raises:
        ValueError: logits that are not finite; sizes or a temperature that cannot be.
    """
    predictions.check_finite()
    image_size = _image_size(predictions, image_size, output_size)
    plain, sharp = (_class_scores(predictions, t) for t in (None, temperature))
    results = []
    for image, masks in enumerate(predictions.masks):
        kept = plain[image].amax(dim=1) > object_mask_threshold
        if predictions.softmax:  # "no object" is the likeliest class
            kept &= predictions.pred_logits[image].argmax(dim=1) < plain.shape[2]
        scores, classes = sharp[image][kept].max(dim=1)
        full = _full_size(masks[None, kept], image_size, output_size)[0].sigmoid()
        results.append(_segments(full, scores, classes, things, overlap_threshold))
    return results


def _segments(
    masks: Tensor, scores: Tensor, classes: Tensor, things: Sequence[int], overlap_threshold: float
) -> tuple[Tensor, list[Segment]]:
    result = torch.zeros(masks.shape[-2:], dtype=torch.long, device=masks.device)
    segments: list[Segment] = []
    if len(masks) == 0:
        return result, segments
    owner = (scores[:, None, None] * masks).argmax(dim=0)
    whole = masks >= 0.5
    owned = owner == torch.arange(len(masks), device=masks.device)[:, None, None]
    counts = torch.stack([x.sum(dim=(1, 2)) for x in (owned, whole, owned & whole)], dim=1).tolist()
    stuff: dict[int, int] = {}
    for index, (class_index, (own, original, both)) in enumerate(zip(classes.tolist(), counts, strict=True)):
        if not (own and original and both) or own / original < overlap_threshold:
            continue
        is_thing = class_index in things
        number = len(segments) + 1
        if not is_thing:
            number = stuff.setdefault(class_index, number)
        result[owned[index] & whole[index]] = number
        if number > len(segments):
            segments.append(Segment(number, class_index, is_thing))
    return result, segments


def _class_scores(predictions: QueryPredictions, temperature: float | None) -> Tensor:
    """(B, Q, K) probabilities of the classes, "no object" left out; with a temperature their sharpened shares."""
    logits = predictions.pred_logits.to(at_least_float32(predictions.pred_logits.dtype))
    if temperature is not None and not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    if predictions.softmax:
        return logits.softmax(dim=-1)[..., :-1]
    return logits.sigmoid() if temperature is None else (logits.sigmoid() / temperature).softmax(dim=-1)


def _one_against_others(logits: Tensor) -> Tensor:
    """The logit of each class's softmax probability; "no object" left out."""
    classes = logits.shape[-1]
    others = logits[..., None, :].masked_fill(torch.eye(classes, dtype=torch.bool, device=logits.device), -torch.inf)
    return (logits - others.logsumexp(dim=-1))[..., :-1]


def _is_thing(classes: Tensor, things: Sequence[int]) -> Tensor:
    return torch.isin(classes, torch.tensor(list(things), device=classes.device, dtype=classes.dtype))


def _image_size(predictions: QueryPredictions, image_size: Size | None, output_size: Size | None) -> Size | None:
    """Height and width before padding, None where nothing was padded; ValueError for sizes that cannot be."""
    if image_size is not None:
        height, width = check_counts("image_size", image_size, 2)
        padded = predictions.padded_size
        if height > padded[0] or width > padded[1]:
            raise ValueError(
                f"image_size is the height and width before padding, at most {padded[0]}x{padded[1]} here, got "
                f"{height}x{width}; the size of the result is output_size"
            )
    if output_size is not None:
        check_counts("output_size", output_size, 2)
    return image_size or predictions.image_size


def _full_size(masks: Tensor, image_size: Size | None = None, output_size: Size | None = None) -> Tensor:
    """Mask logits (B, q, h, w) in the output's size, in float32 at least."""
    masks = masks.to(at_least_float32(masks.dtype))
    if not torch.compiler.is_compiling() and masks.numel() == 0:  # which cannot be interpolated
        size = output_size or image_size or (4 * masks.shape[-2], 4 * masks.shape[-1])
        return masks.new_zeros(*masks.shape[:2], *size)
    masks = F.interpolate(masks, scale_factor=4.0, mode="bilinear", align_corners=False)
    return _crop_and_resize(masks, image_size, output_size)


def _crop_and_resize(x: Tensor, image_size: Size | None, output_size: Size | None) -> Tensor:
    if image_size is not None:
        x = x[..., : image_size[0], : image_size[1]]
    if output_size is not None:
        x = F.interpolate(x, size=output_size, mode="bilinear", align_corners=False)
    return x
