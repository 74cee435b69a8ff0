"""What networks that answer with objects make of a batch: trained by their own criterion, scored as all others."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from brainseg.models import MaskDINO, ModelSpec
from brainseg.models.mask_dino import (
    Instances,
    Target,
    instance_inference,
    semantic_logits,
    targets_from_masks,
)
from brainseg.training.config import ObjectsConfig
from brainseg.training.targets import to_target, valid_of


class ObjectStep(NamedTuple):
    """Logits and losses of a batch, and its objects.

    Attributes:
        logits: (B, K, H, W), without gradient.
        loss: of the criterion.
        parts: of the loss: class, mask, dice, box and giou of the last layer, with _i of layer i, _interm of the
            encoder, _dn of denoising.
        found: the objects of each image, without those of the background; empty in training, and beside a loss that is
            not finite.
        true: likewise, labels and masks.
    """

    logits: Tensor
    loss: Tensor
    parts: dict[str, Tensor]
    found: list[Instances]
    true: list[dict[str, Tensor]]


def object_step(model: MaskDINO, images: Tensor, batch: Mapping[str, Any], config: ObjectsConfig) -> ObjectStep:
    """Predictions of a batch and what the network's criterion makes of them.

    Args:
        model: in training or in evaluation, where nothing is noised.
        images: (B, C, H, W) as the network takes them.
        batch: of `brainseg.data.Sample`s.
        config: which objects there are.

    Raises:
        ValueError: masks that do not fit the network's classes.

    Warns:
        UserWarning: pixels that do not count, which the criterion knows nothing of.
    """
    warn_of_pixels(batch, f"the criterion of {type(model).__name__} takes")
    targets = object_targets(batch["mask"], model.spec, config)
    predictions = model.forward_queries(images, targets)
    loss, parts = model.criterion(predictions, targets)
    height, width = images.shape[-2:]
    with torch.no_grad():
        logits = semantic_logits(predictions, (height, width))
        found = []
        if not model.training and loss.isfinite():  # else the run says so, with likely causes
            found = instance_inference(predictions, (height, width), things=list(model.spec.foreground))
    true = foreground_objects(targets, model.spec)
    return ObjectStep(logits, loss, {name.removeprefix("loss_"): value for name, value in parts.items()}, found, true)


def object_targets(masks: Tensor, spec: ModelSpec, config: ObjectsConfig) -> list[Target]:
    """The objects of masks (B, K, H, W) or class indices (B, H, W); of a softmax's classes the background is one."""
    if spec.task == "multiclass":
        classes = torch.arange(spec.num_classes, device=masks.device)
        masks = to_target(masks, spec)[:, None] == classes[:, None, None]
    return targets_from_masks(masks, components=config.components, min_pixels=config.min_pixels)


def foreground_objects(targets: Sequence[Target], spec: ModelSpec) -> list[dict[str, Tensor]]:
    """Labels and masks of the objects that are scored: all but the background of "multiclass"."""
    return [
        {name: target[name][target["labels"] >= spec.foreground.start] for name in ("labels", "masks")}
        for target in targets
    ]


def warn_of_pixels(batch: Mapping[str, Any], who_takes: str) -> None:
    """Warns of pixels that do not count, of which objects know nothing."""
    if any(not valid.all() for valid in valid_of(batch).values()):
        warnings.warn(
            f"some pixels do not count, and {who_takes} them for pixels without an object; scores of masks leave them "
            "out",
            stacklevel=3,
        )
