"""The objects of a batch: checked, padded and put together, once a step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from brainseg.models.mask_dino.boxes import giou
from brainseg.models.mask_dino.targets import Target, boxes_of_masks

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)

# What boxes may have been given as, and what is centre and size then.
_OTHER_FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "corners (x0, y0, x1, y1)": lambda b: torch.cat([(b[:, :2] + b[:, 2:]) / 2, b[:, 2:] - b[:, :2]], dim=1),
    "the upper left corner and size": lambda b: torch.cat([b[:, :2] + b[:, 2:] / 2, b[:, 2:]], dim=1),
    "centre and size with y before x": lambda b: b[:, [1, 0, 3, 2]],
}


@dataclass(frozen=True)
class Objects:
    """The n objects of a batch, image after image.

    Attributes:
        labels: (n,) int64 classes.
        boxes: (n, 4) centre and size in units of the padded image.
        masks: (n, H, W) bool, of the padded image's size.
        counts: how many of them each image has.
        targets: what they were made of.
    """

    labels: Tensor
    boxes: Tensor
    masks: Tensor
    counts: list[int]
    targets: Sequence[Target]

    def are_those_of(self, targets: Sequence[Target]) -> bool:
        """Whether they were made of these very tensors, which are checked and padded then."""
        if not isinstance(targets, list | tuple) or len(targets) != len(self.targets):
            return False
        return all(
            isinstance(given, dict) and {k: id(x) for k, x in given.items()} == {k: id(x) for k, x in own.items()}
            for given, own in zip(targets, self.targets, strict=True)
        )


def gather_objects(
    targets: Sequence[Target],
    size: tuple[int, int],
    *,
    batch: int,
    num_classes: int,
    device: torch.device,
    dtype: torch.dtype,
    image_size: tuple[int, int] | None = None,
) -> Objects:
    """The objects of all targets, their masks padded at the bottom and right.

    Args:
        targets: one for each image.
        size: height and width of the padded images, multiples of 32.
        batch: number of images.
        num_classes: number of classes K.
        device: of the predictions.
        dtype: of the boxes.
        image_size: height and width before padding: masks have these or `size`; None: all that pads to `size`.

    Raises:
        ValueError: a target that is missing, incomplete, elsewhere, or holds what no object can have.
    """
    is_list = isinstance(targets, list | tuple)
    if not is_list or len(targets) != batch:
        found = f"{len(targets)} targets" if is_list else type(targets).__name__
        raise ValueError(f"got {found} for {batch} images; give a list with one for each, empty ones included")
    for index, target in enumerate(targets):
        _check_form(index, target, device)
        _check_size(index, target, size, image_size)
    kept: list[Target] = [
        target.copy() for target in targets
    ]  # the tensors of now, whatever becomes of the dictionaries
    counts = [len(target["labels"]) for target in targets]
    some = [target for target in targets if len(target["labels"])]
    if not some:
        nothing = torch.zeros(0, *size, dtype=torch.bool, device=device)
        boxes = torch.zeros(0, 4, dtype=dtype, device=device)
        return Objects(torch.zeros(0, dtype=torch.long, device=device), boxes, nothing, counts, kept)
    labels = torch.cat([target["labels"] for target in some]).long()
    masks = torch.cat([_padded(target["masks"].bool(), size) for target in some])
    around = boxes_of_masks(masks, dtype=dtype)
    # Boxes are in units of their masks, which may lack some rows and columns of the padded image.
    sides = [target["masks"].shape for target in some for _ in range(len(target["labels"]))]
    scale = torch.tensor([[columns / size[1], rows / size[0]] * 2 for _, rows, columns in sides], device=device).to(
        dtype
    )
    own = around / scale
    defaults = torch.split(own, [len(target["labels"]) for target in some])
    given = torch.cat([target.get("boxes", default).to(dtype) for target, default in zip(some, defaults, strict=True)])
    _check_values(some, labels, given, own, num_classes)
    return Objects(labels, given * scale, masks, counts, kept)


def _check_form(index: int, target: Target, device: torch.device) -> None:
    if not isinstance(target, dict) or not {"labels", "masks"} <= set(target) <= {"labels", "masks", "boxes"}:
        found = ", ".join(map(str, target)) if isinstance(target, dict) else type(target).__name__
        raise ValueError(
            f"target {index} must have labels and masks, and may have boxes, got {found or 'nothing'}; "
            "targets_from_masks makes targets"
        )
    if not all(isinstance(x, Tensor) for x in target.values()):
        raise ValueError(f"{', '.join(target)} of target {index} must be tensors; use torch.as_tensor")
    labels, masks = target["labels"], target["masks"]
    boxes = target.get("boxes", torch.zeros(len(labels) if labels.dim() else 0, 4, device=labels.device))
    if elsewhere := {x.device for x in (labels, boxes, masks)} - {device}:
        raise ValueError(f"target {index} lies on {elsewhere.pop()} and the predictions on {device}; move it there")
    if labels.dim() != 1 or boxes.shape != (len(labels), 4) or masks.dim() != 3 or len(masks) != len(labels):
        shapes = f"labels {tuple(labels.shape)}, boxes {tuple(boxes.shape)}, masks {tuple(masks.shape)}"
        raise ValueError(f"target {index} must have labels (n,), boxes (n, 4) and masks (n, H, W), got {shapes}")
    if labels.dtype not in INTEGERS or not boxes.is_floating_point() or masks.is_complex():
        raise ValueError(
            f"target {index} must have integer labels, floating boxes and real masks, got {labels.dtype}, "
            f"{boxes.dtype} and {masks.dtype}"
        )


def _check_size(index: int, target: Target, size: tuple[int, int], image_size: tuple[int, int] | None) -> None:
    found = (target["masks"].shape[1], target["masks"].shape[2])
    if len(target["masks"]) == 0:
        return
    if image_size is not None and found not in (image_size, size):
        raise ValueError(
            f"masks of target {index} are {tuple(target['masks'].shape)}, and the image has (height, width) "
            f"{image_size}; give masks of its size"
        )
    if not all(side - 32 < own <= side for own, side in zip(found, size, strict=True)):
        raise ValueError(
            f"masks of {found[0]}x{found[1]} pixels do not belong to an image that has {size[0]}x{size[1]} with its "
            "padding; give masks of the image's size"
        )


def _padded(masks: Tensor, size: tuple[int, int]) -> Tensor:
    if masks.shape[1:] == size:
        return masks
    return F.pad(masks, (0, size[1] - masks.shape[2], 0, size[0] - masks.shape[1]))


def _check_values(targets: Sequence[Target], labels: Tensor, boxes: Tensor, around: Tensor, num_classes: int) -> None:
    """Labels, boxes in units of their masks, and masks, against the boxes around the masks."""
    numbers = [target["masks"] for target in targets if target["masks"].dtype != torch.bool]
    between = [((x != 0) & (x != 1)).any() for x in numbers]
    off = torch.dist(boxes, around, torch.inf)
    facts = [*labels.aminmax(), *boxes.aminmax(), around[:, 2].amin(), off, *between]
    # One wait for the device.
    low, high, least, most, thinnest, distance, *soft = torch.stack([x.to(boxes.dtype) for x in facts]).tolist()
    if low < 0 or high >= num_classes:
        raise ValueError(f"labels must lie in 0 to {num_classes - 1}, got {low:.0f} to {high:.0f}")
    if any(soft):
        values = torch.stack([extreme.double() for x in numbers for extreme in x.aminmax()]).tolist()
        advice = "masks > 0.5" if max(values) <= 1 and min(values) >= 0 else "masks > 127"
        raise ValueError(
            f"masks must be bool or 0 and 1, got values of {min(values):g} to {max(values):g}; use {advice}"
        )
    if thinnest == 0:
        raise ValueError(
            f"{int((around[:, 2] == 0).sum())} of {len(labels)} masks are empty, and no object has an empty one; leave "
            "such objects out, as targets_from_masks does"
        )
    if not (least >= 0 and most <= 1):
        raise ValueError(
            f"boxes must be centre and size in units of width and height, within [0, 1], got {least:g} to {most:g}; "
            "divide pixels by them"
        )
    if distance > 0.01:  # looser boxes are no error, but those of another form are
        fits = [giou(read, around).mean() for read in (boxes, *(form(boxes) for form in _OTHER_FORMS.values()))]
        fit, *others = torch.stack(fits).tolist()
        better, form = max(zip(others, _OTHER_FORMS, strict=True))
        if better > max(0.5, 2 * fit):
            raise ValueError(
                f"boxes must be centre and size, and those given are {form}: read so they fit those around the masks "
                f"with a mean GIoU of {better:.2f}, as centre and size with {fit:.2f}; without boxes these are taken"
            )
