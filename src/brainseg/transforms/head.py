"""Where the head is in an image: what is above the noise around it, in one piece and without holes."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

# By the disk of this radius in pixels, the first that leaves enough of the head: skin, fat and skull are about as thick.
EROSIONS = (14, 8, 4, 0)
LEAST_PIXELS = 1500


def head_mask(images: Tensor, *, fraction: float = 0.15, percentile: float = 99.0, sigma: float = 2.0) -> Tensor:
    """The head in each image, all channels together.

    Of the maximum over the channels, smoothed, what lies above a fraction of a high percentile; of this the largest
    piece (neighbours share a side), with its holes filled. An image of one value has no head.

    Args:
        images: (B, C, H, W) floating point, from 0 up, in any unit; on any device (a GPU is waited for, since the
            pieces are found on the CPU).
        fraction: of the percentile, in (0, 1).
        percentile: between 0 and 100; a few bright vessels do not count.
        sigma: deviation of the Gaussian that smooths, in pixels.

    Returns:
        (B, H, W) bool.

    Raises:
        ImportError: scipy is not installed.
    """
    head: Tensor = _head_mask(images.detach(), fraction, percentile, sigma)
    return head


def inner_head(head: Tensor) -> Tensor:
    """The head without its rim: skin, fat and skull, which differ from scan to scan more than the brain does.

    Eroded by a disk of 14 pixels, or of 8, 4 or 0 where fewer than 1,500 pixels would be left. The border of the image
    is no rim.

    Args:
        head: (B, H, W) bool.

    Returns:
        (B, H, W) bool.

    Raises:
        ImportError: scipy is not installed.
    """
    inner: Tensor = _inner_head(head)
    return inner


# As operators of their own, programs that are compiled hold them as one node.
@torch.library.custom_op("brainseg::head_mask", mutates_args=())
def _head_mask(images: Tensor, fraction: float, percentile: float, sigma: float) -> Tensor:
    ndimage = _ndimage()
    heads = np.zeros((len(images), *images.shape[-2:]), bool)
    for head, image in zip(heads, images.amax(1).double().cpu().numpy(), strict=True):
        smooth = ndimage.gaussian_filter(image, sigma)
        above = smooth > fraction * np.percentile(smooth, percentile)
        head[:] = _filled(ndimage, _largest(ndimage, above))
    return torch.from_numpy(heads).to(images.device)


@_head_mask.register_fake
def _(images: Tensor, fraction: float, percentile: float, sigma: float) -> Tensor:  # noqa: ARG001
    return images.new_empty(len(images), *images.shape[-2:], dtype=torch.bool)


@torch.library.custom_op("brainseg::inner_head", mutates_args=())
def _inner_head(head: Tensor) -> Tensor:
    ndimage = _ndimage()
    inner = head.cpu().numpy().copy()
    for mask in inner:
        if not mask.all():
            depth = ndimage.distance_transform_edt(mask)
            mask[:] = next(
                (deep for radius in EROSIONS if (deep := depth > radius).sum() >= LEAST_PIXELS), mask.copy()
            )
    return torch.from_numpy(inner).to(head.device)


@_inner_head.register_fake
def _(head: Tensor) -> Tensor:
    return torch.empty_like(head)


def _largest(ndimage: Any, mask: "NDArray[np.bool_]") -> "NDArray[np.bool_]":
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(labels.ravel())
    largest: NDArray[np.bool_] = labels == 1 + sizes[1:].argmax()
    return largest


def _filled(ndimage: Any, mask: "NDArray[np.bool_]") -> "NDArray[np.bool_]":
    """A quarter of the time of scipy's binary_fill_holes, which dilates step by step."""
    labels, count = ndimage.label(~mask)
    outside = np.zeros(count + 1, bool)
    for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        outside[side] = True
    outside[0] = False
    filled: NDArray[np.bool_] = ~outside[labels]
    return filled


def _ndimage() -> Any:
    try:
        from scipy import ndimage
    except ImportError as error:
        raise ImportError('finding the head needs scipy: pip install "brainseg-torch[metrics]"') from error
    return ndimage
