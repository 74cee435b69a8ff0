"""Transforms of values and channels that bring images to what a network expects; masks stay as they are."""

import math
from collections.abc import Iterable, Sequence
from operator import index
from typing import Any

import torch
from torch import Tensor

from brainseg.transforms.base import Transform, widen


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
        if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 <= fraction < 1:
            raise ValueError(f"fraction must lie in [0, 1), got {fraction!r}")
        super().__init__(fraction=fraction)
        self.fraction = float(fraction)

    def _transform(self, images: Tensor, masks: Tensor | None, _: None, /) -> tuple[Tensor, Tensor | None]:
        wide = widen(images)
        foreground = wide > self.fraction * wide.amax((2, 3), keepdim=True)
        count = foreground.sum((2, 3), keepdim=True).clamp(min=1)
        mean = (wide * foreground).sum((2, 3), keepdim=True) / count
        centered = wide - mean
        variance = (centered * foreground).square().sum((2, 3), keepdim=True) / count
        return (centered / torch.where(variance > 0, variance, 1).sqrt()).to(images.dtype), masks


class SelectChannels(Transform):
    """Takes channels of the images, in the order given.

    Args:
        channels: numbers of channels, from 0; (2, 1, 0) turns RGB into BGR, (1,) keeps FLAIR of the LGG data alone,
            (1, 1, 1) repeats it.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        try:
            numbers = tuple(index(channel) for channel in channels)
        except TypeError:
            numbers = ()
        if not numbers or min(numbers) < 0:
            raise ValueError(f"channels must be a list of one or more numbers from 0, got {channels!r}")
        super().__init__(channels=numbers)
        self.channels = numbers

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
