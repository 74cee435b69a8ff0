"""Transforms of values and channels that bring images to what a network expects; masks stay as they are."""

import math
from collections.abc import Iterable, Sequence
from operator import index
from typing import Any

import torch
from torch import Tensor

from brainseg.checks import check_range, check_rate
from brainseg.transforms.base import Transform, widen
from brainseg.transforms.head import inside_head


class Normalize(Transform):
    """Subtracts a mean and divides by a standard deviation, both given for each channel.

    Args:
        mean: one number a channel.
        std: one positive number a channel.

    >>> normalize = Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    >>> normalize(torch.ones(1, 3, 1, 1)).flatten()
    tensor([2.2489, 2.4286, 2.6400])
    """

    def __init__(self, mean: Iterable[float], std: Iterable[float]) -> None:
        mean, std = _check_numbers("mean", mean), _check_numbers("std", std)
        if len(mean) != len(std) or min(std) <= 0:
            raise ValueError(f"mean and std must hold one number a channel, std positive ones, got {mean} and {std}")
        super().__init__(mean=mean, std=std)
        self.mean, self.std = mean, std

    def _transform(self, images: Tensor, masks: Tensor | None, _: None, /) -> tuple[Tensor, Tensor | None]:
        if images.shape[1] != len(self.mean):
            raise ValueError(
                f"Normalize was built for {len(self.mean)} channels, got images of shape {tuple(images.shape)}; give "
                f"images of {len(self.mean)} channels, or build it with mean and std of {images.shape[1]} numbers"
            )
        wide = widen(images)
        return ((wide - _channels(self.mean, wide)) / _channels(self.std, wide)).to(images.dtype), masks


class Rescale(Transform):
    """Maps one range of values linearly onto another; values outside the range go beyond it likewise.

    Args:
        input_range: lowest and highest value of the images.
        output_range: what these two become.

    >>> Rescale((0, 255))(torch.tensor([0.0, 51.0, 255.0]).view(1, 1, 1, 3)).flatten()
    tensor([0.0000, 0.2000, 1.0000])
    """

    def __init__(self, input_range: Iterable[float], output_range: Iterable[float] = (0.0, 1.0)) -> None:
        input_range = _check_range("input_range", input_range)
        output_range = _check_range("output_range", output_range)
        super().__init__(input_range=input_range, output_range=output_range)
        self.input_range, self.output_range = input_range, output_range

    def _transform(self, images: Tensor, masks: Tensor | None, _: None, /) -> tuple[Tensor, Tensor | None]:
        (low, high), (new_low, new_high) = self.input_range, self.output_range
        scale = (new_high - new_low) / (high - low)
        return ((widen(images) - low) * scale + new_low).to(images.dtype), masks


class ForegroundZScore(Transform):
    """Subtracts the mean and divides by the standard deviation of each image's own foreground, channel by channel.

    MRI has no unit: what is bright in one scan is dark in another. A channel that is zero everywhere stays so; where
    the foreground has one value only, its deviation counts as 1.

    Args:
        fraction: the foreground of a channel is what lies above this fraction of its maximum.

    >>> image = torch.tensor([0.0, 0.0, 0.4, 0.6, 0.8]).view(1, 1, 1, 5)
    >>> ForegroundZScore()(image).flatten()
    tensor([-3.6742, -3.6742, -1.2247,  0.0000,  1.2247])
    """

    def __init__(self, fraction: float = 0.1) -> None:
        fraction = check_rate("fraction", fraction)
        super().__init__(fraction=fraction)
        self.fraction = fraction

    def _transform(self, images: Tensor, masks: Tensor | None, _: None, /) -> tuple[Tensor, Tensor | None]:
        wide = widen(images)
        foreground = wide > self.fraction * wide.amax((2, 3), keepdim=True)
        return _standardized(wide, foreground).to(images.dtype), masks


class HeadZScore(Transform):
    """Subtracts the mean and divides by the standard deviation of the inside of the head, channel by channel.

    The head is that of `head_mask`. Its rim of 14 pixels is left out, since skin, fat and skull differ from scan to
    scan more than the brain does; or one of 8, 4 or 0 pixels, where fewer than 1,500 would be left. A channel that has
    one value there has the deviation 1; an image that is 0 everywhere stays so.

    Args:
        fraction: the head lies above this fraction of the image's brightness, in [0, 1).
        clip: lowest and highest value that may come out, in deviations.

    Shape:
        images (B, C, H, W) from 0 up, in any unit, with pixels of about 1 mm, on any device.

    >>> image = torch.zeros(1, 1, 64, 64)
    >>> image[..., 8:56, 8:56] = 0.5 + torch.linspace(0, 0.1, 48)
    >>> HeadZScore()(image).aminmax()
    torch.return_types.aminmax(
    min=tensor(-4.),
    max=tensor(1.8506))
    """

    def __init__(self, fraction: float = 0.15, clip: Iterable[float] = (-4.0, 6.0)) -> None:
        fraction, clip = check_rate("fraction", fraction), check_range("clip", clip)
        super().__init__(fraction=fraction, clip=clip)
        self.fraction, self.clip = fraction, clip

    def _transform(self, images: Tensor, masks: Tensor | None, _: None, /) -> tuple[Tensor, Tensor | None]:
        region = inside_head(images, fraction=self.fraction)[:, None]
        return _standardized(widen(images), region).clamp(*self.clip).to(images.dtype), masks


class MinMaxNormalize(Transform):
    """Maps each channel of each image linearly onto [0, 1], from its lowest and highest value.

    A channel with one value only becomes 0. Any values.

    >>> MinMaxNormalize()(torch.tensor([-1.0, 0.0, 3.0]).view(1, 1, 1, 3)).flatten()
    tensor([0.0000, 0.2500, 1.0000])
    """

    def _transform(self, images: Tensor, masks: Tensor | None, _: None, /) -> tuple[Tensor, Tensor | None]:
        wide = widen(images)
        low, high = wide.amin((2, 3), keepdim=True), wide.amax((2, 3), keepdim=True)
        return _onto_unit_range(wide, low, high).to(images.dtype), masks


class PercentileNormalize(Transform):
    """Maps two percentiles of each channel of each image onto 0 and 1; a few bright ones do not count.

    Percentiles are interpolated linearly between pixels, as numpy.percentile does. Where they are the same, the
    difference counts as 1, so that a channel with one value only becomes 0. Any values.

    Args:
        lower: percentile that becomes 0, from 0.
        upper: percentile that becomes 1, up to 100.
        clip: what lies beyond becomes 0 or 1.

    >>> PercentileNormalize(25, 75)(torch.tensor([0.0, 1.0, 2.0, 3.0, 9.0]).view(1, 1, 1, 5)).flatten()
    tensor([0.0000, 0.0000, 0.5000, 1.0000, 1.0000])
    """

    def __init__(self, lower: float = 1.0, upper: float = 99.0, clip: bool = True) -> None:
        lower, upper = _check_range("lower and upper", (lower, upper))
        if lower < 0 or upper > 100:
            raise ValueError(f"lower and upper must be percentiles between 0 and 100, got {lower!r} and {upper!r}")
        super().__init__(lower=lower, upper=upper, clip=clip)
        self.lower, self.upper, self.clip = lower, upper, clip

    def _transform(self, images: Tensor, masks: Tensor | None, _: None, /) -> tuple[Tensor, Tensor | None]:
        wide = widen(images)
        low, high = (_percentile(wide.flatten(2), percent)[..., None] for percent in (self.lower, self.upper))
        result = _onto_unit_range(wide, low, high)
        return (result.clamp(0, 1) if self.clip else result).to(images.dtype), masks


class SelectChannels(Transform):
    """Takes channels of the images, in the order given.

    Args:
        channels: numbers of channels, from 0; (2, 1, 0) turns RGB into BGR, (1,) keeps FLAIR of the LGG data alone,
            (1, 1, 1) repeats it.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        channels = check_channels(channels)
        super().__init__(channels=channels)
        self.channels = channels

    def _transform(self, images: Tensor, masks: Tensor | None, _: None, /) -> tuple[Tensor, Tensor | None]:
        if max(self.channels) >= images.shape[1]:
            raise ValueError(
                f"SelectChannels takes channels {self.channels}, got images of shape {tuple(images.shape)}; "
                f"select channels below {images.shape[1]}"
            )
        # Slices and no list of indices, which a GPU would wait for.
        return torch.stack([images[:, channel] for channel in self.channels], dim=1), masks

    def output_shape(self, batch_shape: Sequence[int]) -> Sequence[int]:
        return (batch_shape[0], len(self.channels), *batch_shape[2:])


def check_channels(channels: Any) -> tuple[int, ...]:
    """Numbers of channels as plain integers; ValueError unless there is one at least, and all count from 0."""
    try:
        numbers = tuple(index(channel) for channel in channels)
    except TypeError:
        numbers = ()
    if not numbers or min(numbers) < 0:
        raise ValueError(f"channels must be a list of one or more numbers from 0, got {channels!r}")
    return numbers


def _onto_unit_range(images: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return (images - low) / torch.where(high > low, high - low, 1)


def _percentile(pixels: Tensor, percent: float) -> Tensor:
    """Percentile of the last axis, which stays with length 1."""
    count = pixels.shape[-1]
    position = percent / 100 * (count - 1)
    before = math.floor(position)
    # Sorts the few pixels beyond alone, and unlike torch.quantile takes images of any size.
    if 2 * before < count:
        beyond = pixels.topk(min(before + 2, count), largest=False).values
        low, high = beyond[..., before : before + 1], beyond[..., -1:]
    else:
        beyond = pixels.topk(count - before).values
        low, high = beyond[..., -1:], beyond[..., -2:][..., :1]
    return low + (high - low) * (position - before)


def _standardized(images: Tensor, region: Tensor) -> Tensor:
    """Each plane minus its mean over the region, over its deviation there, which counts as 1 where values are equal."""
    count = _total(region).clamp(min=1)
    centered = images - _total(images * region) / count
    variance = _total((centered * region).square()) / count
    # Of equal values the mean may be a rounding off, and the variance not 0.
    lowest = torch.where(region, images, torch.inf).amin((2, 3), keepdim=True)
    highest = torch.where(region, images, -torch.inf).amax((2, 3), keepdim=True)
    varies = (highest > lowest) & (variance > 0)
    return centered / torch.where(varies, variance, 1).sqrt()


def _total(x: Tensor) -> Tensor:
    """Sum of each plane; one axis after the other, since both at once are split by threads, as the batch is large."""
    return x.sum(3, keepdim=True).sum(2, keepdim=True)


def _channels(values: tuple[float, ...], images: Tensor) -> Tensor:
    """One number a channel, (C, 1, 1), on the images' device without waiting for it."""
    return torch.tensor(values, dtype=images.dtype).to(images.device, non_blocking=True)[:, None, None]


def _check_numbers(name: str, values: Any) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        numbers = ()
    if isinstance(values, str) or not numbers or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{name} must be a list of finite numbers, got {values!r}")
    return numbers


def _check_range(name: str, values: Any) -> tuple[float, float]:
    numbers = _check_numbers(name, values)
    if len(numbers) != 2 or numbers[0] >= numbers[1]:
        raise ValueError(f"{name} must be a lowest and a highest value, got {values!r}")
    return numbers[0], numbers[1]
