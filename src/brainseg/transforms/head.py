"""Where the head is in an image: what is brighter than the air around it, without holes and without specks."""

import torch
import torch.nn.functional as F
from torch import Tensor

from brainseg.transforms.base import widen

# All is found at half the resolution, in pixels of about 2 mm: a head has no finer outline that matters.
SMOOTHING = 4  # means of 2x2, one after the other: nearly a Gaussian of one pixel
BRIGHTEST = 100  # one pixel of so many is brighter than what fractions are taken of: a few vessels do not count
BRAIN = 0.5  # of this; what is brighter, fat for the most part, is no reason to take the brain for air
LEVELS = 64
SPECK = 2  # pixels; what holds no square of 2 SPECK + 1 of them is no part of the head
# Skin, fat and skull are about as thick, in pixels of 2 mm; less is taken off where little of the head is seen.
RIMS = (7, 4, 2)
LEAST_INSIDE = 375  # pixels


def head_mask(images: Tensor, *, fraction: float = 0.15) -> Tensor:
    """The head in each image, from all channels together.

    What is brighter than the air in the maximum over the channels, smoothed; with all that is enclosed by it on all
    four sides, and without what is narrower than 10 pixels. The brightness between air and head is that of Otsu
    (IEEE Transactions on Systems, Man, and Cybernetics 9, 1979), of the square roots, in which noise counts less;
    it is at least a fraction of the image's brightness. An image that is 0 everywhere has no head.

    Every step is one of tensors: compiled and exported programs hold it, and no GPU is waited for.

    Args:
        images: (B, C, H, W) floating point from 0 up, in any unit, with pixels of about 1 mm, on any device.
        fraction: of the 99th percentile, in [0, 1).

    Returns:
        (B, H, W) bool, in squares of 2x2 pixels.

    >>> image = torch.zeros(1, 3, 64, 64)
    >>> image[:, :, 16:48, 20:44] = 0.5
    >>> image[:, :, 30:34, 30:34] = 0
    >>> head_mask(image).sum()  # by the smoothing a little more
    tensor(992)
    """
    return _at_full_size(_find(images, fraction), images)


def inside_head(images: Tensor, *, fraction: float = 0.15) -> Tensor:
    """The head without its rim of skin, fat and skull, which differ from scan to scan more than the brain does.

    Eroded by an octagon of 14 pixels, or of 8, 4 or 0 where fewer than 1,500 pixels would be left. The border of the
    image is no rim.

    Args:
        images: as in `head_mask`.
        fraction: as in `head_mask`.

    Returns:
        (B, H, W) bool, in squares of 2x2 pixels.
    """
    region = head = _find(images, fraction)
    eroded, depth = head.float()[:, None], 0
    for rim in reversed(RIMS):
        while depth < rim:
            eroded, depth = _eroded(eroded, as_square=depth % 2 == 0), depth + 1
        left = eroded[:, 0] > 0
        enough = left.sum((1, 2), keepdim=True) >= LEAST_INSIDE
        region = (left & enough) | (region & ~enough)
    return _at_full_size(region, images)


def _find(images: Tensor, fraction: float) -> Tensor:
    """The head, (B, H / 2, W / 2) rounded up, bool."""
    brightness = widen(images.detach().amax(1, keepdim=True))
    half = _halved(brightness)
    smooth = F.pad(half, (SMOOTHING // 2,) * 4, mode="replicate")
    for _ in range(SMOOTHING):
        smooth = F.avg_pool2d(smooth, 2, stride=1)

    pixels = smooth.flatten(1)
    bright = pixels.topk(pixels.shape[1] // BRIGHTEST + 1).values[:, -1:]
    brain = (BRAIN * bright).clamp(min=torch.finfo(bright.dtype).tiny)
    few = (smooth[:, 0, ::2, ::2] / brain[..., None]).flatten(1)
    threshold = BRAIN * _otsu(few.clamp(0, 1).sqrt()).square().unsqueeze(1)
    found = smooth[:, 0] > (threshold.clamp(min=fraction) * bright)[..., None]

    side = 2 * SPECK + 1
    opened = -F.max_pool2d(-_enclosed(found).float()[:, None], side, 1, SPECK)  # the border of the image is no edge
    return _enclosed(F.max_pool2d(opened, side, 1, SPECK)[:, 0] > 0)


def _halved(images: Tensor) -> Tensor:
    """Means of squares of 2x2 pixels, of odd sides the last ones twice.

    By slices: what PyTorch 2.9 traces of a pooling holds for odd sides alone, or for even ones, as the example has.
    """
    height, width = images.shape[-2:]
    padded = F.pad(images, (0, 1, 0, 1), mode="replicate")
    squares = [padded[..., i : height + i : 2, j : width + j : 2] for i in (0, 1) for j in (0, 1)]
    return (squares[0] + squares[1] + squares[2] + squares[3]) / 4


def _otsu(values: Tensor) -> Tensor:
    """The level between the two kinds of values, (B,) of (B, N) in [0, 1]."""
    levels = torch.arange(1, LEVELS, device=values.device, dtype=values.dtype) / LEVELS
    above = values[:, None] > levels[:, None]
    share = above.to(values.dtype).mean(2)
    excess = (above * values[:, None]).mean(2) - share * values.mean(1, keepdim=True)
    spread = (share * (1 - share)).clamp(min=1e-6)
    return levels[(excess.square() / spread).argmax(1)]


def _enclosed(mask: Tensor) -> Tensor:
    """What has pixels of the mask on all four sides, or is one of them."""
    count = mask.int()
    result = torch.ones_like(mask)
    for axis in (1, 2):
        before = count.cumsum(axis)
        result = result & (before > 0) & (count.sum(axis, keepdim=True) - before + count > 0)
    return result


def _eroded(mask: Tensor, *, as_square: bool) -> Tensor:
    """By a square of 3x3 or by its cross; of both in turns is made an octagon."""
    if as_square:
        return -F.max_pool2d(-mask, 3, 1, 1)
    return -torch.maximum(F.max_pool2d(-mask, (3, 1), 1, (1, 0)), F.max_pool2d(-mask, (1, 3), 1, (0, 1)))


def _at_full_size(mask: Tensor, images: Tensor) -> Tensor:
    rows, columns = (torch.arange(side, device=mask.device) // 2 for side in images.shape[-2:])
    return mask[:, rows[:, None], columns]
