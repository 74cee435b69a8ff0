"""Objects of an image as the criterion takes them: labels, boxes and masks."""

from collections.abc import Sequence
from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


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
        masks: (B, K, H, W), a mask a class: bool, or numbers in [0, 1], set above 0.5.
        components: each component (8 neighbours) is an object of its own.

    Returns:
        a target for each image.

    Raises:
        ValueError: masks of another rank or with other values.
        ImportError: `components` without scipy.
    """
    if masks.dim() != 4:
        raise ValueError(f"masks must be (B, K, H, W), got {tuple(masks.shape)}; add axes with masks[:, None]")
    if masks.dtype != torch.bool and masks.numel():
        low, high = torch.stack(masks.aminmax()).tolist()
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"masks must be bool or lie in 0 to 1, got {low:g} to {high:g}; use masks > 127, or one_hot for indices"
            )
    return [_target(image > 0.5, components) for image in masks]


def boxes_of_masks(masks: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """The boxes around masks.

    Args:
        masks: (..., H, W) bool or 0 and 1.
        dtype: of the boxes.

    Returns:
        (..., 4) centre and size in units of width and height, 0 for an empty mask.
    """
    set_pixels = masks.bool()

    def span(line: Tensor) -> tuple[Tensor, Tensor]:
        length = line.shape[-1]
        places = torch.arange(length, device=line.device)
        first = places.where(line, length).amin(dim=-1).to(dtype)
        end = (places + 1).where(line, 0).amax(dim=-1).to(dtype)
        some = line.any(dim=-1)
        return ((first + end) / (2 * length)).where(some, 0), ((end - first) / length).where(some, 0)

    x, w = span(set_pixels.any(dim=-2))
    y, h = span(set_pixels.any(dim=-1))
    return torch.stack([x, y, w, h], dim=-1)


def check_targets(targets: Sequence[Target], batch: int, num_classes: int, device: torch.device) -> None:
    """Raises ValueError unless there is a sound target on the device for each image."""
    is_list = isinstance(targets, list | tuple)
    if not is_list or len(targets) != batch:
        found = f"{len(targets)} targets" if is_list else type(targets).__name__
        raise ValueError(f"got {found} for {batch} images; give a list with one for each, empty ones included")
    for index, target in enumerate(targets):
        _check_one(index, target, device)
    if not sum(len(target["labels"]) for target in targets):
        return
    labels = torch.cat([target["labels"] for target in targets])
    boxes = torch.cat([target["boxes"] for target in targets])
    extremes = [*labels.aminmax(), *boxes.aminmax()]
    for target in targets:
        if target["masks"].numel() and target["masks"].dtype != torch.bool:
            extremes += target["masks"].aminmax()
    # One wait for the device.
    low, high, least, most, *values = torch.stack([value.float() for value in extremes]).tolist()
    if low < 0 or high >= num_classes:
        raise ValueError(f"labels must lie in 0 to {num_classes - 1}, got {low:.0f} to {high:.0f}")
    if not (least >= 0 and most <= 1):
        raise ValueError(
            f"boxes must be centre and size in units of width and height, within [0, 1], got {least:g} to {most:g}; "
            "divide pixels by them"
        )
    if not all(0 <= value <= 1 for value in values):
        raise ValueError(
            f"masks must be bool or 0 and 1, got values of {min(values):g} to {max(values):g}; use masks > 127"
        )


def check_mask_sizes(targets: Sequence[Target], *sizes: Sequence[int]) -> None:
    """Raises ValueError unless masks have one of these heights and widths."""
    expected = [tuple(size) for size in sizes]
    for index, target in enumerate(targets):
        masks = target.get("masks") if isinstance(target, dict) else None
        if isinstance(masks, Tensor) and len(masks) and tuple(masks.shape[-2:]) not in expected:
            raise ValueError(
                f"masks of target {index} are {tuple(masks.shape)}, and the image has (height, width) {expected[0]}; "
                "give masks of its size"
            )


def pad_targets(targets: Sequence[Target], height: int, width: int) -> list[Target]:
    """Targets of images that were padded at the bottom and right to this size, a multiple of 32.

    Raises:
        ValueError: masks larger than that, or so small that less padding would have done.
    """
    padded: list[Target] = []
    for target in targets:
        rows, columns = target["masks"].shape[-2:]
        if len(target["masks"]) == 0:
            padded.append({**target, "masks": target["masks"].new_zeros(0, height, width)})
            continue
        if not (height - 32 < rows <= height and width - 32 < columns <= width):
            raise ValueError(
                f"masks of {rows}x{columns} pixels do not belong to an image that has {height}x{width} with its "
                "padding; give masks of the image's size"
            )
        scale = target["boxes"].new_tensor([columns / width, rows / height] * 2)
        masks = F.pad(target["masks"], (0, width - columns, 0, height - rows))
        padded.append({"labels": target["labels"], "boxes": target["boxes"] * scale, "masks": masks})
    return padded


def _check_one(index: int, target: Target, device: torch.device) -> None:
    if missing := {"labels", "boxes", "masks"} - set(target):
        raise ValueError(f"target {index} has no {', '.join(sorted(missing))}; targets_from_masks makes targets")
    labels, boxes, masks = target["labels"], target["boxes"], target["masks"]
    if not all(isinstance(x, Tensor) for x in (labels, boxes, masks)):
        raise ValueError(f"labels, boxes and masks of target {index} must be tensors; use torch.as_tensor")
    if elsewhere := {x.device for x in (labels, boxes, masks)} - {device}:
        raise ValueError(f"target {index} lies on {elsewhere.pop()} and the predictions on {device}; move it there")
    shapes = f"labels {tuple(labels.shape)}, boxes {tuple(boxes.shape)}, masks {tuple(masks.shape)}"
    if labels.dim() != 1 or boxes.shape != (len(labels), 4) or masks.dim() != 3 or len(masks) != len(labels):
        raise ValueError(f"target {index} must have labels (n,), boxes (n, 4) and masks (n, H, W), got {shapes}")
    if labels.dtype not in INTEGERS or not boxes.is_floating_point() or masks.is_complex():
        raise ValueError(
            f"target {index} must have integer labels, floating boxes and real masks, got {labels.dtype}, "
            f"{boxes.dtype} and {masks.dtype}"
        )


def _target(masks: Tensor, components: bool) -> Target:
    labels = torch.arange(len(masks), device=masks.device)
    if components and len(masks):
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
