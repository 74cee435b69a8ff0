"""What a picture shows of an image, and how bright."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainseg.visualization.outlines import as_array

PERCENTILE = 99.5
"""Share of the foreground, in %, that is not clipped."""


def brightened(image: ArrayLike, channel: int | None = None) -> NDArray[np.float32]:
    """The image as every picture shows it: so bright that 99.5 % of its foreground is just not clipped.

    MRI slices fill a small part of their range, and some are too dark to see anything. Of colour images all channels
    are scaled alike.

    Args:
        image: (H, W) or (C, H, W) in [0, 1]; a tensor on the CPU or an array.
        channel: the channel to show, such as `ModelSpec.shown_channel`; None shows a gray or colour image (C = 1, 3) as
            it is, and of others the first channel.

    Returns:
        (H, W) or (3, H, W) in [0, 1]; an image without foreground (pixels above 0) stays as it is.

    Raises:
        ValueError: another rank, integers, or a channel that the image does not have.

    >>> brightened([[0.0, 0.1, 0.2]]).round(2).tolist()
    [[0.0, 0.5, 1.0]]
    """
    picture = as_array(image)
    if picture.ndim not in (2, 3):
        raise ValueError(f"an image of shape {picture.shape} is no slice; give (H, W) or (C, H, W)")
    if picture.dtype.kind != "f":
        raise ValueError(f"an image of {picture.dtype} is not in [0, 1]; give image / 255")
    channels = len(picture) if picture.ndim == 3 else 1
    if channel is not None and not 0 <= channel < channels:
        raise ValueError(f"there is no channel {channel} in an image of {channels}; give one from 0 to {channels - 1}")
    if picture.ndim == 3 and not (channels == 3 and channel is None):
        picture = picture[channel or 0]
    picture = picture.astype(np.float32)
    foreground = picture[picture > 0]
    bound = np.percentile(foreground, PERCENTILE) if foreground.size else 1
    return np.clip(picture / np.float32(bound), 0, 1)
