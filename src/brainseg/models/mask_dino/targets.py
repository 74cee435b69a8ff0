"""Objects of an image as the criterion takes them: labels, boxes and masks."""

from typing import NotRequired, TypedDict

import torch
from torch import Tensor

from brainseg.checks import check_count


class Target(TypedDict):
    """The n objects of one image.

    `labels` (n,) integer classes; `masks` (n, H, W) bool or 0 and 1, none of them empty; `boxes` (n, 4) floating,
    centre and size in units of the masks' width and height, by default those around the masks.
    """

    labels: Tensor
    masks: Tensor
    boxes: NotRequired[Tensor]


def targets_from_masks(masks: Tensor, *, components: bool = False, min_pixels: int = 1) -> list[Target]:
    """One object for each class that an image holds, or for each connected component of it.

    Args:
        masks: (B, K, H, W), a mask a class: bool, or numbers in [0, 1], set above 0.5.
        components: each component (8 neighbours) is an object of its own.
        min_pixels: objects of fewer pixels are left out.

    Returns:
        a target for each image.

    Raises:
        ValueError: masks of another rank or with other values; `min_pixels` below 1.
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
    check_count("min_pixels", min_pixels)
    return [_target(image > 0.5, components, min_pixels) for image in masks]


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
        length, unset = line.shape[-1], ~line
        places = torch.arange(length, device=line.device, dtype=dtype)
        first, end = places.masked_fill(unset, length).amin(dim=-1), (places + 1).masked_fill(unset, 0).amax(dim=-1)
        nothing = unset.all(dim=-1)
        center, size = (first + end) / (2 * length), (end - first) / length
        return center.masked_fill(nothing, 0), size.masked_fill(nothing, 0)

    x, w = span(set_pixels.any(dim=-2))
    y, h = span(set_pixels.any(dim=-1))
    return torch.stack([x, y, w, h], dim=-1)


def _target(masks: Tensor, components: bool, min_pixels: int) -> Target:
    labels = torch.arange(len(masks), device=masks.device)
    if components and len(masks):
        parts = [_components(mask) for mask in masks]
        labels = labels.repeat_interleave(torch.tensor([len(part) for part in parts], device=masks.device))
        masks = torch.cat(parts)
    present = masks.flatten(1).sum(dim=1) >= min_pixels
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
