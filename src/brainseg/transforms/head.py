"""Where the head is in an image: what is above the noise around it, in one piece and without holes."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

PERCENTILE = 99  # of the brightness that a fraction is taken of: a few bright vessels do not count
SIGMA = 2.0  # pixels, of the Gaussian that smooths the noise of the air away
# Skin, fat and skull are about as thick, in pixels of about 1 mm; less is taken off where little of the head is seen.
RIMS = (14, 8, 4)
LEAST_INSIDE = 1500  # pixels


def head_mask(images: Tensor, *, fraction: float = 0.15) -> Tensor:
    """The head in each image, from all channels together.

    What lies above a fraction of the 99th percentile of the maximum over the channels, smoothed; of this the largest
    piece (neighbours share a side), with its holes filled. An image of one value has no head.

    Args:
        images: (B, C, H, W) floating point from 0 up, in any unit, on any device: pieces are found on the CPU, for
            which a GPU is waited for.
        fraction: of the percentile, in [0, 1).

    Returns:
        (B, H, W) bool.

    Raises:
        ImportError: scipy is not installed.

    >>> image = torch.zeros(1, 3, 64, 64)
    >>> image[:, :, 16:48, 20:44] = 0.5
    >>> image[:, :, 30:34, 30:34] = 0
    >>> head_mask(image).sum()  # by the smoothing two pixels more on each side, at the corners less
    tensor(988)
    """
    head: Tensor = _head_mask(images.detach(), fraction)
    return head


def inside(head: Tensor) -> Tensor:
    """The head without its rim of skin, fat and skull, which differ from scan to scan more than the brain does.

    Eroded by a disk of 14 pixels, or of 8, 4 or 0 where fewer than 1,500 pixels would be left. The border of the image
    is no rim.

    Args:
        head: (B, H, W) bool, on any device, as in `head_mask`.

    Returns:
        (B, H, W) bool.
    """
    result: Tensor = _inside(head)
    return result


# Operators of their own, which a compiled program holds as one node each.
@torch.library.custom_op("brainseg::head_mask", mutates_args=())
def _head_mask(images: Tensor, fraction: float) -> Tensor:
    ndimage = _ndimage()
    heads = np.zeros((len(images), *images.shape[-2:]), bool)
    for head, image in zip(heads, images.amax(1).cpu().double().numpy(), strict=True):
        smooth = ndimage.gaussian_filter(image, SIGMA)
        head[:] = _filled(ndimage, _largest(ndimage, smooth > fraction * np.percentile(smooth, PERCENTILE)))
    return torch.from_numpy(heads).to(images.device)


@_head_mask.register_fake
def _(images: Tensor, fraction: float) -> Tensor:  # noqa: ARG001
    return images.new_empty(len(images), *images.shape[-2:], dtype=torch.bool)


@torch.library.custom_op("brainseg::inside", mutates_args=())
def _inside(head: Tensor) -> Tensor:
    ndimage = _ndimage()
    result = head.cpu().numpy().copy()
    for mask in result:
        if not mask.all():  # else there is nothing to measure the distance from
            depth = ndimage.distance_transform_edt(mask)
            mask[:] = next((deep for rim in RIMS if (deep := depth > rim).sum() >= LEAST_INSIDE), depth > 0)
    return torch.from_numpy(result).to(head.device)


@_inside.register_fake
def _(head: Tensor) -> Tensor:
    return torch.empty_like(head)


def _largest(ndimage: Any, mask: "NDArray[np.bool_]") -> "NDArray[np.bool_]":
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest: NDArray[np.bool_] = mask & (labels == sizes.argmax())
    return largest


def _filled(ndimage: Any, mask: "NDArray[np.bool_]") -> "NDArray[np.bool_]":
    """What binary_fill_holes of scipy gives, which dilates step by step and takes several times as long."""
    labels, count = ndimage.label(~mask)
    outside = np.zeros(count + 1, bool)
    for border in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        outside[border] = True
    outside[0] = False  # the mask itself
    filled: NDArray[np.bool_] = ~outside[labels]
    return filled


def _ndimage() -> Any:
    try:
        from scipy import ndimage
    except ImportError as error:
        raise ImportError('finding the head needs scipy: pip install "brainseg-torch[data]"') from error
    return ndimage
