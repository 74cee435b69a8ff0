"""Objects of an image as the criterion takes them: labels, boxes and masks."""

from collections.abc import Sequence
from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor


class Target(TypedDict):
    """The n objects of one image.

    `labels` (n,) integer classes; `boxes` (n, 4) floating, centre and size in units of the masks' width and height;
    `masks` (n, H, W) bool or 0 and 1.
    """

    labels: Tensor
    boxes: Tensor
    masks: Tensor


def targets_from_masks(masks: Tensor, *, components: bool = False) -> list[Target]:
    """One object for each class that an image holds, or for each connected component of it.

    Args:
        masks: (B, K, H, W) bool or 0 and 1, a mask a class.
        components: each component (8 neighbours) is an object of its own.

    Returns:
        a target for each image.

    Raises:
        ValueError: masks of another rank.
        ImportError: `components` without scipy.
    """
    if masks.dim() != 4:
        raise ValueError(f"masks must be (B, K, H, W), got {tuple(masks.shape)}; add axes with masks[:, None]")
    return [_target(image > 0.5 if image.is_floating_point() else image > 0, components) for image in masks]


def boxes_of_masks(masks: Tensor) -> Tensor:
    """The boxes around masks (n, H, W): (n, 4) centre and size in units of width and height, 0 for an empty mask."""
    height, width = masks.shape[-2:]

    def span(line: Tensor, length: int) -> tuple[Tensor, Tensor]:
        places = torch.arange(length, device=line.device)
        first = places.where(line, length).amin(dim=-1)
        end = (places + 1).where(line, 0).amax(dim=-1)
        some = line.any(dim=-1)
        return ((first + end) / (2 * length)).where(some, 0), ((end - first) / length).where(some, 0)

    x, w = span(masks.bool().any(dim=-2), width)
    y, h = span(masks.bool().any(dim=-1), height)
    return torch.stack([x, y, w, h], dim=-1)


def check_targets(targets: Sequence[Target], batch: int, num_classes: int) -> None:
    """Raises ValueError unless there is a sound target for each image."""
    if len(targets) != batch:
        raise ValueError(f"got {len(targets)} targets for {batch} images; give one for each, empty ones included")
    for index, target in enumerate(targets):
        if missing := {"labels", "boxes", "masks"} - set(target):
            raise ValueError(f"target {index} has no {', '.join(sorted(missing))}; targets_from_masks makes targets")
        labels, boxes, masks = target["labels"], target["boxes"], target["masks"]
        shapes = f"labels {tuple(labels.shape)}, boxes {tuple(boxes.shape)}, masks {tuple(masks.shape)}"
        if labels.dim() != 1 or boxes.shape != (len(labels), 4) or masks.dim() != 3 or len(masks) != len(labels):
            raise ValueError(f"target {index} must have labels (n,), boxes (n, 4) and masks (n, H, W), got {shapes}")
        if labels.is_floating_point() or labels.dtype == torch.bool or not boxes.is_floating_point():
            raise ValueError(
                f"target {index} must have integer labels and floating boxes, got {labels.dtype} and {boxes.dtype}"
            )
    if sum(len(target["labels"]) for target in targets) == 0:
        return
    labels = torch.cat([target["labels"].flatten() for target in targets])
    boxes = torch.cat([target["boxes"] for target in targets])
    masks = torch.stack([target["masks"].amax() for target in targets if target["masks"].numel()]).amax()
    # One wait for the device.
    low, high, least, most, brightest = torch.stack(
        [value.to(torch.float64) for value in (labels.amin(), labels.amax(), boxes.amin(), boxes.amax(), masks)]
    ).tolist()
    if low < 0 or high >= num_classes:
        raise ValueError(f"labels must lie in 0 to {num_classes - 1}, got {low:.0f} to {high:.0f}")
    if not (least >= 0 and most <= 1):
        raise ValueError(
            f"boxes must be centre and size in units of width and height, within [0, 1], got {least:g} to {most:g}; "
            "divide pixels by them"
        )
    if not brightest <= 1:
        raise ValueError(f"masks must be bool or 0 and 1, got values up to {brightest:g}; use masks > 127")


def pad_targets(targets: Sequence[Target], height: int, width: int) -> list[Target]:
    """Targets of images that were padded at the bottom and right to this size.

    Raises:
        ValueError: masks larger than that.
    """
    padded: list[Target] = []
    for target in targets:
        rows, columns = target["masks"].shape[-2:]
        if rows > height or columns > width:
            raise ValueError(
                f"masks of {rows}x{columns} pixels do not belong to an image that has {height}x{width} with its "
                "padding; give masks of the image's size"
            )
        scale = target["boxes"].new_tensor([columns / width, rows / height] * 2)
        masks = F.pad(target["masks"], (0, width - columns, 0, height - rows))
        padded.append({"labels": target["labels"], "boxes": target["boxes"] * scale, "masks": masks})
    return padded


def _target(masks: Tensor, components: bool) -> Target:
    labels = torch.arange(len(masks), device=masks.device)
    if components:
        parts = [_components(mask) for mask in masks]
        labels = labels.repeat_interleave(torch.tensor([len(part) for part in parts], device=masks.device))
        masks = torch.cat(parts)
    present = masks.flatten(1).any(dim=1)
    masks = masks[present]
    return {"labels": labels[present], "boxes": boxes_of_masks(masks), "masks": masks}


def _components(mask: Tensor) -> Tensor:
    try:
        from scipy.ndimage import label
    except ImportError as error:
        raise ImportError('components need scipy: pip install "brainseg-torch[metrics]"') from error
    labelled, count = label(mask.cpu().numpy(), structure=[[1] * 3] * 3)
    parts = torch.from_numpy(labelled).to(mask.device)
    return parts == torch.arange(1, count + 1, device=mask.device)[:, None, None]
