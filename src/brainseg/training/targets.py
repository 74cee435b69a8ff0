"""What losses compare logits with, as the task of the network has it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from brainseg.models import ModelSpec
from brainseg.training.scores import IGNORED


def to_target(masks: Tensor, spec: ModelSpec) -> Tensor:
    """Masks as they are for sigmoids, class indices for the softmax of "multiclass".

    Args:
        masks: (B, K, H, W), 0 or 1, of the classes of the spec, or of all but the background; or class indices
            (B, H, W) already.
        spec: of the network.

    Returns:
        the masks; for "multiclass" (B, H, W) int64, background where no mask is.

    Raises:
        ValueError: for "multiclass" another number of masks, or masks that overlap.
    """
    if spec.task != "multiclass" or masks.dim() == 3:
        return masks
    first = spec.num_classes - masks.shape[1]
    if first not in (0, 1):
        raise ValueError(
            f"the slices have {masks.shape[1]} masks and the network the classes {', '.join(spec.class_names)}; "
            "expected a mask for each of them, or for each but the first"
        )
    check_exclusive(masks)
    classes = torch.arange(first, spec.num_classes, device=masks.device)[:, None, None]
    return (masks * classes).sum(1).long()


def are_chosen(names: Sequence[str]) -> bool:
    """Whether somebody has chosen the names of classes; those that follow from their numbers say nothing."""
    if len(names) == 1:
        return re.fullmatch(r"foreground|label_\d+", names[0]) is None
    return not all(re.fullmatch(rf"background|(class|label)_{k}", name) for k, name in enumerate(names))


def are_values(names: Sequence[str]) -> bool:
    """Whether the names of classes are the values that they have in label maps, as they are where nobody chose any."""
    return all(re.fullmatch(r"background|label_\d+", name) for name in names)


def check_exclusive(masks: Tensor) -> None:
    """ValueError if a pixel has several of the masks (B, K, H, W)."""
    if bool((masks.sum(1) > 1).any()):
        raise ValueError(
            "masks overlap, and the classes of a multiclass network exclude each other; train one of task 'multilabel'"
        )


def valid_of(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """The argument `valid` of losses, bool (B, H, W) or (B, 1, H, W); none if all pixels of the batch count."""
    masks: Tensor = batch["mask"]
    if masks.dim() == 3:
        return {"valid": masks != IGNORED}
    return {"valid": batch["valid"]} if "valid" in batch else {}
