"""What a network sees of an image: its size, and the part around the head, whose logits come back in the whole."""

from collections.abc import Callable

import torch
from torch import Tensor

from brainseg.models import ModelSpec
from brainseg.transforms import CropToHead, Resize

# A probability of 1e-13, finite in half precision as well.
NOTHING = -30.0


def resize_of(spec: ModelSpec, stretch: float = 1.0) -> Resize | None:
    """How images of such pixels get the size at which the network sees them; None: they have it."""
    if spec.image_size is None:
        return None
    return Resize(spec.image_size, keep_aspect_ratio=spec.keep_aspect_ratio, stretch=stretch)


def logits_of_part(network: Callable[[Tensor], Tensor], raw: Tensor, images: Tensor, spec: ModelSpec) -> Tensor:
    """Logits of whole images by a network that sees the part of each around its own head.

    Args:
        network: (B, C, h, w) to logits (B, K, h, w).
        raw: (B, C, H, W) before the normalization, in which the head is found.
        images: the same, normalized.
        spec: with a `crop` (h, w).

    Returns:
        (B, K, H, W), background beyond the part.
    """
    assert spec.crop is not None
    around = CropToHead(spec.crop)
    place = around.locate(raw)
    logits = network(around.take(images, place))
    first = spec.foreground.start
    size = (raw.shape[-2], raw.shape[-1])
    found = around.undo(logits[:, first:], place, size, value=NOTHING)
    return torch.cat([around.undo(logits[:, :first], place, size), found], 1) if first else found


def check_whole(spec: ModelSpec) -> None:
    """Objects are found in the whole image alone.

    Raises:
        ValueError: a spec with a `crop`.
    """
    if spec.crop is not None:
        raise ValueError(
            "objects of a network that sees the part around the head alone are not supported; give a spec without crop"
        )
