"""Transforms of brightness and sharpness; masks stay as they are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from brainseg.checks import check_range
from brainseg.transforms.base import Transform, check_probability, draw_chosen, draw_uniform, widen


@dataclass(frozen=True)
class BrightnessParameters:
    """Factor of each sample: (B,); 1 changes nothing."""

    factor: Tensor


class RandomBrightness(Transform):
    """Multiplies a sample by a factor.

    Images in any range; zero stays zero. Nothing is clipped: values beyond the range may come.

    Args:
        factor: lowest and highest factor, from 0; above 1 is brighter.
        p: probability that a sample is changed.
    """

    def __init__(self, factor: Sequence[float] = (0.75, 1.25), p: float = 0.5) -> None:
        factor, p = check_range("factor", factor, least=0), check_probability(p)
        super().__init__(factor=factor, p=p)
        self.factor, self.p = factor, p

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> BrightnessParameters:
        return BrightnessParameters(_draw(batch_shape, generator, self.p, self.factor, neutral=1))

    def _transform(
        self, images: Tensor, masks: Tensor | None, parameters: BrightnessParameters, /
    ) -> tuple[Tensor, Tensor | None]:
        wide = widen(images)
        return (wide * _over_pixels(parameters.factor, wide)).to(images.dtype), masks


@dataclass(frozen=True)
class ScaleShiftParameters:
    """Factor and summand of each channel: (B, C) each; 1 and 0 change nothing."""

    scale: Tensor
    shift: Tensor


class RandomScaleShift(Transform):
    """Multiplies each channel of a sample by a factor of its own and adds a number of its own: x * scale + shift.

    For standardised images, whose channels come from scans without a common unit. Any values; nothing is clipped.

    Args:
        scale: lowest and highest factor, from 0.
        shift: lowest and highest summand, in the images' unit.
        p: probability that a sample is changed.
    """

    def __init__(
        self, scale: Sequence[float] = (0.85, 1.15), shift: Sequence[float] = (-0.15, 0.15), p: float = 0.5
    ) -> None:
        scale, shift, p = check_range("scale", scale, least=0), check_range("shift", shift), check_probability(p)
        super().__init__(scale=scale, shift=shift, p=p)
        self.scale, self.shift, self.p = scale, shift, p

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> ScaleShiftParameters:
        chosen = draw_chosen(batch_shape, generator, self.p)[:, None]
        scale = torch.where(chosen, draw_uniform(batch_shape[:2], generator, self.scale), 1.0)
        return ScaleShiftParameters(scale, draw_uniform(batch_shape[:2], generator, self.shift) * chosen)

    def _transform(
        self, images: Tensor, masks: Tensor | None, parameters: ScaleShiftParameters, /
    ) -> tuple[Tensor, Tensor | None]:
        wide = widen(images)
        scale, shift = (x.to(wide.dtype)[..., None, None] for x in (parameters.scale, parameters.shift))
        return (wide * scale + shift).to(images.dtype), masks


@dataclass(frozen=True)
class ContrastParameters:
    """Factor of each sample: (B,); 1 changes nothing."""

    factor: Tensor


class RandomContrast(Transform):
    """Multiplies the distance of each pixel from its channel's mean by a factor: (x - mean) * factor + mean.

    The mean is that of the whole image, of each channel and sample. Images in any range; a zero background does not
    stay zero, and nothing is clipped.

    Args:
        factor: lowest and highest factor, from 0; above 1 has more contrast.
        p: probability that a sample is changed.
    """

    def __init__(self, factor: Sequence[float] = (0.75, 1.25), p: float = 0.5) -> None:
        factor, p = check_range("factor", factor, least=0), check_probability(p)
        super().__init__(factor=factor, p=p)
        self.factor, self.p = factor, p

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> ContrastParameters:
        return ContrastParameters(_draw(batch_shape, generator, self.p, self.factor, neutral=1))

    def _transform(
        self, images: Tensor, masks: Tensor | None, parameters: ContrastParameters, /
    ) -> tuple[Tensor, Tensor | None]:
        wide = widen(images)
        # The mean of a single channel over both axes at once would be summed in an order that depends on the threads.
        mean = wide.mean(3, keepdim=True).mean(2, keepdim=True)
        # At weight 1 lerp gives its end exactly.
        return torch.lerp(mean, wide, _over_pixels(parameters.factor, wide)).to(images.dtype), masks


@dataclass(frozen=True)
class GammaParameters:
    """Exponent of each sample: (B,); 1 changes nothing."""

    gamma: Tensor


class RandomGamma(Transform):
    """Raises a sample to a power, each channel relative to its maximum: (x / max) ** gamma * max.

    Images from 0 up, in any range; zero stays zero and each channel's maximum stays. Negative values count as 0 in a
    sample that is changed. The gradient at zero, where a power below 1 has none, is 0.

    Args:
        gamma: lowest and highest exponent, above 0; below 1 is brighter.
        p: probability that a sample is changed.
    """

    def __init__(self, gamma: Sequence[float] = (0.7, 1.5), p: float = 0.5) -> None:
        gamma, p = check_range("gamma", gamma, above=0), check_probability(p)
        super().__init__(gamma=gamma, p=p)
        self.gamma, self.p = gamma, p

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> GammaParameters:
        return GammaParameters(_draw(batch_shape, generator, self.p, self.gamma, neutral=1))

    def _transform(
        self, images: Tensor, masks: Tensor | None, parameters: GammaParameters, /
    ) -> tuple[Tensor, Tensor | None]:
        positive = widen(images).relu()
        maximum = positive.amax((2, 3), keepdim=True)
        gamma = _over_pixels(parameters.gamma, positive)
        # The factor is (x / max) ** (gamma - 1): exp and log take a third of the time of pow, and at zero, where x
        # itself makes the product 0, the smallest number keeps both and their slopes finite. Autograd allows what is
        # done in place here, which spares memory and a fifth of the time.
        ratio = (positive / torch.where(maximum > 0, maximum, 1)).clamp_(min=torch.finfo(positive.dtype).tiny)
        factor = ratio.log().mul_(gamma - 1).exp_()
        return torch.where(gamma == 1, images, (positive * factor).to(images.dtype)), masks


@dataclass(frozen=True)
class GaussianNoiseParameters:
    """One row a sample.

    Attributes:
        std: (B,) deviation; 0 changes nothing.
        noise: (B, C, H, W) standard normal, float32.
    """

    std: Tensor
    noise: Tensor


class RandomGaussianNoise(Transform):
    """Adds normal noise of mean 0 to a sample, independent at each pixel and channel.

    Images in any range; a zero background does not stay zero and values may fall below 0. The noise of MRI is
    `RandomRicianNoise`.

    Args:
        std: lowest and highest deviation in the images' unit, from 0.
        p: probability that a sample becomes noisy.
    """

    def __init__(self, std: Sequence[float] = (0.0, 0.1), p: float = 0.5) -> None:
        std, p = check_range("std", std, least=0), check_probability(p)
        super().__init__(std=std, p=p)
        self.std, self.p = std, p

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> GaussianNoiseParameters:
        std = _draw(batch_shape, generator, self.p, self.std, neutral=0)
        noise = torch.randn(batch_shape, generator=generator, device=generator.device, dtype=torch.float32)
        return GaussianNoiseParameters(std, noise)

    def _transform(
        self, images: Tensor, masks: Tensor | None, parameters: GaussianNoiseParameters, /
    ) -> tuple[Tensor, Tensor | None]:
        wide = widen(images)
        noisy = torch.addcmul(wide, _over_pixels(parameters.std, wide), parameters.noise.to(wide.dtype))
        return noisy.to(images.dtype), masks


@dataclass(frozen=True)
class BlurParameters:
    """Deviation of each sample's Gaussian in pixels: (B,); 0 changes nothing."""

    sigma: Tensor


class RandomBlur(Transform):
    """Convolves a sample with a Gaussian.

    The kernel ends at 3 times the highest deviation, rounded up, whatever is drawn; its sum is 1. Beyond its border
    the image goes on with its outermost pixels. Images in any range, of any size; a zero background stays zero but for
    what the blur carries into it. Below a deviation of 0.01 pixels nothing changes.

    Args:
        sigma: lowest and highest deviation in pixels, from 0.
        p: probability that a sample is blurred.
    """

    def __init__(self, sigma: Sequence[float] = (0.5, 1.5), p: float = 0.5) -> None:
        sigma, p = check_range("sigma", sigma, least=0), check_probability(p)
        super().__init__(sigma=sigma, p=p)
        self.sigma, self.p = sigma, p
        self.radius = math.ceil(3 * sigma[1])

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> BlurParameters:
        return BlurParameters(_draw(batch_shape, generator, self.p, self.sigma, neutral=0))

    def _transform(
        self, images: Tensor, masks: Tensor | None, parameters: BlurParameters, /
    ) -> tuple[Tensor, Tensor | None]:
        # No convolution takes an empty batch as groups.
        if images.numel() == 0:
            return images, masks
        wide = widen(images)
        kernels = _gaussians(parameters.sigma.to(wide.dtype), self.radius)  # (B, taps)
        return _convolve(wide, kernels).to(images.dtype), masks


@dataclass(frozen=True)
class LowResolutionParameters:
    """Resolution of each sample as a fraction of what it was: (B,); 1 changes nothing."""

    zoom: Tensor


class RandomLowResolution(Transform):
    """Makes a sample look like a scan of lower resolution: fewer pixels are taken, and the image drawn between them.

    Along each axis round(zoom * side) pixels, at least one, are taken as by nearest neighbours, and brought back to
    the side by linear interpolation, both with pixel centres at halves. As nnU-Net augments (Isensee et al. 2021,
    doi:10.1038/s41592-020-01008-z), here with linear interpolation. Images in any range; no new extremes come.

    Args:
        zoom: lowest and highest fraction of the side, above 0 and up to 1.
        p: probability that a sample is changed.
    """

    def __init__(self, zoom: Sequence[float] = (0.5, 1.0), p: float = 0.5) -> None:
        zoom, p = check_range("zoom", zoom, above=0, most=1), check_probability(p)
        super().__init__(zoom=zoom, p=p)
        self.zoom, self.p = zoom, p

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> LowResolutionParameters:
        return LowResolutionParameters(_draw(batch_shape, generator, self.p, self.zoom, neutral=1))

    def _transform(
        self, images: Tensor, masks: Tensor | None, parameters: LowResolutionParameters, /
    ) -> tuple[Tensor, Tensor | None]:
        wide = widen(images)
        height, width = images.shape[-2:]

        before, after, weight = _lattice(parameters.zoom, height, wide.dtype)
        wide = torch.lerp(_take_rows(wide, before), _take_rows(wide, after), weight[:, None, :, None])
        before, after, weight = _lattice(parameters.zoom, width, wide.dtype)
        # One copy of both: two would compile to a loop that interpolates the rows again for each, three times as slow.
        first, second = _take_columns(wide, torch.cat([before, after], 1)).chunk(2, 3)
        wide = torch.lerp(first, second, weight[:, None, None, :])
        return wide.to(images.dtype), masks


def _draw(
    batch_shape: Sequence[int], generator: torch.Generator, p: float, between: tuple[float, float], *, neutral: float
) -> Tensor:
    """(B,) numbers, uniform between two in the samples that are chosen, neutral in the others."""
    chosen = draw_chosen(batch_shape, generator, p)
    return torch.where(chosen, draw_uniform(batch_shape[:1], generator, between), neutral)


def _over_pixels(values: Tensor, images: Tensor) -> Tensor:
    """One number a sample, (B, 1, 1, 1), of the images' dtype."""
    return values.to(images.dtype)[:, None, None, None]


def _gaussians(sigma: Tensor, radius: int) -> Tensor:
    """(B, 2 * radius + 1) kernels of sum 1; with sigma 0 that which changes nothing."""
    offsets = torch.arange(-radius, radius + 1, device=sigma.device)
    # At a hundredth of a pixel all but the centre are 0 exactly.
    kernels = (-0.5 * (offsets / sigma.clamp(min=0.01)[:, None]).square()).exp()
    return kernels / kernels.sum(1, keepdim=True)


def _convolve(images: Tensor, kernels: Tensor) -> Tensor:
    """Each sample of (B, C, H, W) along columns and then rows with its kernel, one of (B, taps)."""
    channels = images.shape[1]
    planes, radius = len(images) * channels, kernels.shape[1] // 2
    # A single group would be a dense convolution, which rounds differently, on GPUs to TF32; it is doubled.
    groups = max(planes, 2)
    weight = kernels.repeat_interleave(channels, 0, output_size=planes).expand(groups, -1)
    padded = F.pad(images, [radius] * 4, mode="replicate")
    padded = padded.reshape(1, planes, *padded.shape[2:]).expand(-1, groups, -1, -1)
    columns = F.conv2d(padded, weight[:, None, :, None], groups=groups)
    return F.conv2d(columns, weight[:, None, None, :], groups=groups)[:, :planes].reshape(images.shape)


def _lattice(zoom: Tensor, side: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """For each pixel of a side the pixels taken just before and after it, and the weight of the second: (B, side).

    In integers, so that rounding decides nowhere.
    """
    taken = (zoom * side).round().long().clamp(min=1)[:, None]
    pixels = torch.arange(side, device=zoom.device)
    # In pixels taken, pixel i lies at (i + 1/2) * taken / side - 1/2; below it is the numerator over 2 * side.
    numerator = ((2 * pixels + 1) * taken - side).clamp(min=0)
    number = numerator // (2 * side)
    following = torch.minimum(number + 1, taken - 1)
    # Number j of those taken is the pixel in which (j + 1/2) * side / taken lies.
    before, after = ((2 * j + 1) * side // (2 * taken) for j in (number, following))
    return before, after, (numerator % (2 * side)).to(dtype) / (2 * side)


def _take_rows(images: Tensor, rows: Tensor) -> Tensor:
    """Rows of each sample by their number, (B, H)."""
    batch, channels, height, width = images.shape
    starts = (torch.arange(batch * channels, device=images.device) * height).view(batch, channels, 1)
    # Whole rows are copied faster than gather takes pixels.
    numbers = (starts + rows[:, None]).flatten()
    return images.reshape(-1, width).index_select(0, numbers).view(images.shape)


def _take_columns(images: Tensor, columns: Tensor) -> Tensor:
    """Columns of each sample by their number, (B, N), as images (B, C, H, N)."""
    return images.gather(3, columns[:, None, None].expand(*images.shape[:3], -1))
