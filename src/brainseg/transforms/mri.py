"""What goes wrong in a scanner: uneven coils, noise, ghosts, moves, spikes and missing sequences; masks stay."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, Literal

import torch
from torch import Tensor

from brainseg.checks import check_choice, check_range
from brainseg.transforms.base import Transform, check_probability, draw_chosen, draw_uniform, widen
from brainseg.transforms.normalization import check_channels

Fill = Literal["zero", "repeat"]


@dataclass(frozen=True)
class BiasFieldParameters:
    """(B, order + 1, order + 1): of row i and column j the coefficient of row^i column^j; 0 everywhere changes nothing.

    The constant and what exceeds the order are 0.
    """

    coefficients: Tensor


class RandomBiasField(Transform):
    """Multiplies a sample by exp of a polynomial in row and column, as a coil does that is nearer to one side.

    The model of Van Leemput et al. 1999, doi:10.1109/42.811270. Rows and columns run from -1 to 1 over the image; all
    channels have the same field. Images from 0 up; zero stays zero, and values beyond 1 may come.

    Args:
        coefficient: lowest and highest coefficient of the monomials, drawn for each but the constant.
        order: the highest degree of a monomial, 1 or more.
        p: probability that a sample is changed.
    """

    def __init__(self, coefficient: Sequence[float] = (-0.5, 0.5), order: int = 3, p: float = 0.5) -> None:
        coefficient, order, p = check_range("coefficient", coefficient), _count("order", order), check_probability(p)
        super().__init__(coefficient=coefficient, order=order, p=p)
        self.coefficient, self.order, self.p = coefficient, order, p

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> BiasFieldParameters:
        chosen = draw_chosen(batch_shape, generator, self.p)
        degree = torch.arange(self.order + 1, device=generator.device)
        total = degree[:, None] + degree
        used = (total > 0) & (total <= self.order)
        drawn = draw_uniform((batch_shape[0], *total.shape), generator, self.coefficient)
        return BiasFieldParameters(drawn * (chosen[:, None, None] & used))

    def _transform(
        self, images: Tensor, masks: Tensor | None, parameters: BiasFieldParameters, /
    ) -> tuple[Tensor, Tensor | None]:
        wide = widen(images)
        rows, columns = (_coordinates(side, wide) for side in images.shape[-2:])
        of_rows = _polynomial(parameters.coefficients[..., None].unbind(2), columns)  # (B, order + 1, W)
        field = _polynomial(of_rows[:, :, None].unbind(1), rows[:, None])  # (B, H, W)
        return (wide * field.exp()[:, None]).to(images.dtype), masks


@dataclass(frozen=True)
class RicianNoiseParameters:
    """One row a sample.

    Attributes:
        std: (B,) deviation; 0 changes nothing.
        real: (B, C, H, W) standard normal, noise of the part in phase with the signal.
        imaginary: (B, C, H, W) standard normal, noise of the other part.
    """

    std: Tensor
    real: Tensor
    imaginary: Tensor


class RandomRicianNoise(Transform):
    """The magnitude of a complex signal with Gaussian noise of the same deviation in both parts.

    That is how noise looks in MRI (Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618): sqrt((x + std n1)^2 +
    (std n2)^2), so that the background does not stay zero. Images from 0 up; values beyond 1 may come.

    Args:
        std: lowest and highest deviation in the images' unit, from 0.
        p: probability that a sample becomes noisy.
    """

    def __init__(self, std: Sequence[float] = (0.0, 0.1), p: float = 0.5) -> None:
        std, p = check_range("std", std, least=0), check_probability(p)
        super().__init__(std=std, p=p)
        self.std, self.p = std, p

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> RicianNoiseParameters:
        chosen = draw_chosen(batch_shape, generator, self.p)
        std = draw_uniform(batch_shape[:1], generator, self.std) * chosen
        real, imaginary = (torch.randn(batch_shape, generator=generator, device=generator.device) for _ in range(2))
        return RicianNoiseParameters(std, real, imaginary)

    def _transform(
        self, images: Tensor, masks: Tensor | None, parameters: RicianNoiseParameters, /
    ) -> tuple[Tensor, Tensor | None]:
        wide = widen(images)
        std = parameters.std.to(wide.dtype)[:, None, None, None]
        squared = (wide + std * parameters.real).square() + (std * parameters.imaginary).square()
        # The root of 0 has no finite slope.
        magnitude = squared.clamp(min=torch.finfo(squared.dtype).tiny).sqrt()
        return torch.where(std > 0, magnitude.to(images.dtype), images), masks


class KSpaceTransform(Transform, abstract=True):
    """Base class of the transforms that change k-space, the Fourier transform of an image, in which scanners measure.

    Of k-space, whose other half is that of a real image, the columns from the centre on are kept, as torch.fft.rfft2
    gives them.
    """

    def k_space(self, spectrum: Tensor, shape: Sequence[int], parameters: Any) -> tuple[Tensor, Tensor]:
        """What becomes of k-space (B, C, H, W // 2 + 1) of images of a shape; and which samples change: (B,) bool."""
        raise NotImplementedError

    def _transform(self, images: Tensor, masks: Tensor | None, parameters: Any, /) -> tuple[Tensor, Tensor | None]:
        # Not every library of Fourier transforms takes an empty batch.
        if images.numel() == 0:
            return images, masks
        spectrum, changed = self.k_space(torch.fft.rfft2(widen(images)), images.shape, parameters)
        # Of a single plane it is computed another way, and a sample would depend on its batch.
        planes = torch.cat([spectrum, spectrum]) if spectrum.shape[:2].numel() == 1 else spectrum
        result = torch.fft.irfft2(planes, s=images.shape[-2:])[: len(images)].to(images.dtype)
        return torch.where(changed[:, None, None, None], result, images), masks


@dataclass(frozen=True)
class GhostingParameters:
    """One row a sample.

    Attributes:
        intensity: (B,) share that the damped lines lose; 0 changes nothing.
        ghosts: (B,) int64, every how many lines one is damped.
        vertical: (B,) bool, whether the lines follow each other along the rows' frequency, and the ghosts up and down;
            else along the columns', and left and right.
    """

    intensity: Tensor
    ghosts: Tensor
    vertical: Tensor


class RandomGhosting(KSpaceTransform):
    """Repeats a sample faintly along one axis, up and down or left and right, as pulsation and breathing do.

    Number the lines of k-space along that axis from its centre, ..., -2, -1, 0, 1, 2, ...: those whose number is a
    multiple of n are multiplied by 1 - intensity, but line 0 is kept. The n images then lie a fraction 1/n of the side
    apart, around the border; the faint ones are darker than their background. The mean brightness of each channel
    stays. Images from 0 up; values a little below 0 and beyond 1 may come. A side of less than 2n pixels has no line
    to damp.

    Args:
        intensity: lowest and highest share that a damped line loses, within 0 and 1.
        ghosts: fewest and most images along the axis, n, the one that is there included; 2 or more.
        p: probability that a sample is changed.
    """

    def __init__(
        self, intensity: Sequence[float] = (0.3, 0.7), ghosts: Sequence[int] = (4, 10), p: float = 0.5
    ) -> None:
        intensity, ghosts, p = (
            check_range("intensity", intensity, least=0, most=1),
            _check_ghosts(ghosts),
            check_probability(p),
        )
        super().__init__(intensity=intensity, ghosts=ghosts, p=p)
        self.intensity, self.ghosts, self.p = intensity, ghosts, p

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> GhostingParameters:
        count, device = batch_shape[:1], generator.device
        chosen = draw_chosen(batch_shape, generator, self.p)
        intensity = draw_uniform(count, generator, self.intensity) * chosen
        fewest, most = self.ghosts
        ghosts = torch.randint(fewest, most + 1, count, generator=generator, device=device)
        return GhostingParameters(intensity, ghosts, draw_chosen(batch_shape, generator, 0.5))

    def k_space(self, spectrum: Tensor, shape: Sequence[int], parameters: GhostingParameters) -> tuple[Tensor, Tensor]:
        rows, columns = _lines(spectrum, shape)
        ghosts, vertical = parameters.ghosts[:, None], parameters.vertical[:, None]
        along_rows = vertical & (rows % ghosts == 0) & (rows != 0)
        along_columns = ~vertical & (columns % ghosts == 0) & (columns != 0)
        damped = along_rows[:, :, None] | along_columns[:, None]  # (B, H, W // 2 + 1)
        factors = 1 - parameters.intensity[:, None, None] * damped
        return spectrum * factors[:, None], parameters.intensity > 0


@dataclass(frozen=True)
class MotionParameters:
    """One row a sample.

    Attributes:
        shift: (B, moves, 2) fraction of the height downwards and of the width to the right; 0 changes nothing.
        time: (B, moves) in [-1/2, 1/2], when the head moves, in lengths of the scan from its middle.
        vertical: (B,) bool, whether the lines are acquired along the rows' frequency; else along the columns'.
    """

    shift: Tensor
    time: Tensor
    vertical: Tensor


class RandomMotion(KSpaceTransform):
    """Sudden moves of the head during the scan: each line of k-space shows it where it was when the line was acquired.

    The lines along one axis, drawn, are acquired from the lowest frequency, -1/2 per pixel, to the highest. A move
    before the middle of the scan displaces the lines before it, a later one the lines after it, and displacements of
    several add up: the lines in the middle, which hold most of the image, are those of the image as it was, so that
    masks still fit. Moves are shifts, which are phases in k-space, exact, and what leaves at one border comes in at the
    other; a turn would cost an interpolation for each. The result is the real part, so that the mean brightness of each
    channel stays. Images from 0 up; values a little below 0 and beyond 1 may come.

    Args:
        shift: lowest and highest shift of a move as a fraction of the side, drawn for rows and columns.
        moves: number of moves, 1 or more.
        p: probability that a sample is changed.
        center: the share of the lines, in the middle, during which nothing moves, in [0, 1).
    """

    def __init__(
        self, shift: Sequence[float] = (-0.1, 0.1), moves: int = 2, p: float = 0.5, *, center: float = 0.1
    ) -> None:
        shift, moves, p = check_range("shift", shift), _count("moves", moves), check_probability(p)
        if isinstance(center, bool) or not isinstance(center, int | float) or not 0 <= center < 1:
            raise ValueError(f"center must be a share of the lines in [0, 1), got {center!r}")
        super().__init__(shift=shift, moves=moves, p=p, center=center)
        self.shift, self.moves, self.p, self.center = shift, moves, p, float(center)

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> MotionParameters:
        count = batch_shape[0]
        chosen = draw_chosen(batch_shape, generator, self.p)
        shift = draw_uniform((count, self.moves, 2), generator, self.shift) * chosen[:, None, None]
        early = draw_uniform((count, self.moves), generator, (0, 1)) < 0.5
        distance = draw_uniform((count, self.moves), generator, (self.center / 2, 0.5))
        return MotionParameters(
            shift, torch.where(early, -distance, distance), draw_chosen(batch_shape, generator, 0.5)
        )

    def k_space(self, spectrum: Tensor, shape: Sequence[int], parameters: MotionParameters) -> tuple[Tensor, Tensor]:
        angle = _lag(parameters, spectrum, shape)
        # The real part of an image is, in each point of k-space, the mean of it and of its opposite's conjugate.
        opposite = _lag(parameters, spectrum, shape, sign=-1)
        factors = torch.complex((angle.cos() + opposite.cos()) / 2, (opposite.sin() - angle.sin()) / 2)
        return spectrum * factors[:, None], (parameters.shift != 0).flatten(1).any(1)


@dataclass(frozen=True)
class SpikesParameters:
    """One row a sample.

    Attributes:
        intensity: (B,) height of the spikes over the largest magnitude of k-space; 0 changes nothing.
        points: (B, spikes, 2) int64, row and column of k-space as torch.fft.fft2 orders it.
    """

    intensity: Tensor
    points: Tensor


class RandomSpikes(KSpaceTransform):
    """Sets a few points of k-space to a high value, which lays stripes over a sample, as sparks in the scanner do.

    The value is real, intensity times the largest magnitude of the channel's k-space, which for images from 0 up is
    that of the centre; the point on the other side of the centre becomes the same, so that the image is real. All
    points but the centre are equally likely, and one that falls there is left out: the mean brightness of each channel
    stays, and a channel that is 0 everywhere too. Images from 0 up; values below 0 and beyond 1 may come.

    Args:
        spikes: number of points, 1 or more.
        intensity: lowest and highest value over the largest magnitude, from 0; a stripe's amplitude over the mean
            brightness is twice that.
        p: probability that a sample is changed.
    """

    def __init__(self, spikes: int = 1, intensity: Sequence[float] = (0.1, 0.3), p: float = 0.5) -> None:
        spikes, intensity = _count("spikes", spikes), check_range("intensity", intensity, least=0)
        p = check_probability(p)
        super().__init__(spikes=spikes, intensity=intensity, p=p)
        self.spikes, self.intensity, self.p = spikes, intensity, p

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> SpikesParameters:
        chosen = draw_chosen(batch_shape, generator, self.p)
        intensity = draw_uniform(batch_shape[:1], generator, self.intensity) * chosen
        shape = (batch_shape[0], self.spikes)
        points = [torch.randint(side, shape, generator=generator, device=generator.device) for side in batch_shape[-2:]]
        return SpikesParameters(intensity, torch.stack(points, -1))

    def k_space(self, spectrum: Tensor, shape: Sequence[int], parameters: SpikesParameters) -> tuple[Tensor, Tensor]:
        height, width = shape[-2:]
        kept = spectrum.shape[-1]
        row, column = parameters.points.unbind(-1)
        opposite = -row % height * kept + -column % width
        point = row * kept + column
        # Only the points of the first columns are stored; they stand for their opposites, too.
        places = torch.cat(
            [torch.where(column < kept, point, opposite), torch.where(-column % width < kept, opposite, point)], 1
        )
        struck = torch.zeros(len(spectrum), height * kept, dtype=torch.bool, device=spectrum.device)
        struck = struck.scatter(1, places, places > 0).view(-1, 1, height, kept)
        largest = spectrum.abs().amax((2, 3), keepdim=True)
        spikes = (parameters.intensity[:, None, None, None] * largest).to(spectrum.dtype)
        return torch.where(struck, spikes, spectrum), parameters.intensity > 0


@dataclass(frozen=True)
class ChannelDropoutParameters:
    """One row a sample.

    Attributes:
        missing: (B,) int64, the channel that is missing; -1 changes nothing.
        source: (B,) int64, the channel that is repeated in its place.
    """

    missing: Tensor
    source: Tensor


class RandomChannelDropout(Transform):
    """Takes a channel from a sample, as where a sequence was not acquired: it becomes 0, or a copy of another channel.

    In the LGG data a missing sequence is a copy of FLAIR. Any values.

    Args:
        p: probability that a sample misses a channel.
        fill: "zero", or "repeat" for a copy of another channel, all equally likely.
        channels: numbers of the channels of which one is drawn, all equally likely; any if None.
    """

    def __init__(self, p: float = 0.1, fill: Fill = "zero", *, channels: Sequence[int] | None = None) -> None:
        check_choice("fill", fill, Fill)
        p = check_probability(p)
        channels = None if channels is None else check_channels(channels)
        super().__init__(p=p, fill=fill, channels=channels)
        self.p, self.fill, self.channels = p, fill, channels

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> ChannelDropoutParameters:
        """Raises ValueError if the images have too few channels."""
        count, channels, device = batch_shape[:1], batch_shape[1], generator.device
        choice = tuple(range(channels)) if self.channels is None else self.channels
        if max(choice, default=0) >= channels:
            raise ValueError(
                f"RandomChannelDropout takes one of the channels {choice}, got images of shape {tuple(batch_shape)}; "
                f"choose channels below {channels}"
            )
        if channels == 1 and self.fill == "repeat":
            raise ValueError(
                "RandomChannelDropout repeats another channel in place of the missing one, got images of shape "
                f'{tuple(batch_shape)}; give images of 2 channels or more, or build it with fill="zero"'
            )
        chosen = draw_chosen(batch_shape, generator, self.p)
        which = torch.randint(len(choice), count, generator=generator, device=device)
        missing = torch.tensor(choice).to(device, non_blocking=True)[which]
        further = torch.randint(1, max(channels, 2), count, generator=generator, device=device)
        return ChannelDropoutParameters(torch.where(chosen, missing, -1), (missing + further) % channels)

    def _transform(
        self, images: Tensor, masks: Tensor | None, parameters: ChannelDropoutParameters, /
    ) -> tuple[Tensor, Tensor | None]:
        numbers = torch.arange(images.shape[1], device=images.device)
        missing = (numbers == parameters.missing[:, None])[..., None, None]
        if self.fill == "zero":
            return torch.where(missing, 0, images), masks
        samples = torch.arange(len(images), device=images.device)
        return torch.where(missing, images[samples, parameters.source][:, None], images), masks


@dataclass(frozen=True)
class ChannelCopyParameters:
    """Which samples lose channels: (B,) bool."""

    chosen: Tensor


class RandomChannelCopy(Transform):
    """Copies one channel into others, as the LGG data repeats FLAIR in place of sequences that were not acquired.

    `RandomChannelDropout` takes any one channel; this one says which are missing together. Any values.

    Args:
        source: number of the channel that is copied, from 0.
        targets: numbers of the channels that become copies.
        p: probability that a sample misses them.
    """

    def __init__(self, source: int, targets: Sequence[int], p: float = 0.1) -> None:
        ((source,), targets), p = (check_channels([source]), check_channels(targets)), check_probability(p)
        super().__init__(source=source, targets=targets, p=p)
        self.source, self.targets, self.p = source, targets, p

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> ChannelCopyParameters:
        return ChannelCopyParameters(draw_chosen(batch_shape, generator, self.p))

    def _transform(
        self, images: Tensor, masks: Tensor | None, parameters: ChannelCopyParameters, /
    ) -> tuple[Tensor, Tensor | None]:
        channels = images.shape[1]
        if (most := max(self.source, *self.targets)) >= channels:
            raise ValueError(
                f"RandomChannelCopy copies channel {self.source} into {self.targets}, got images of shape "
                f"{tuple(images.shape)}; give images of {most + 1} channels or more, or name channels below {channels}"
            )
        copied = torch.stack([images[:, self.source if i in self.targets else i] for i in range(channels)], 1)
        return torch.where(parameters.chosen[:, None, None, None], copied, images), masks


def _coordinates(side: int, like: Tensor) -> Tensor:
    """(side,) from -1 to 1; 0 if there is one pixel only."""
    return torch.arange(1 - side, side, 2, dtype=like.dtype, device=like.device) / max(side - 1, 1)


def _polynomial(coefficients: Sequence[Tensor], x: Tensor) -> Tensor:
    """The sum of coefficients[i] x^i."""
    value = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + coefficient
    return value


def _lines(spectrum: Tensor, shape: Sequence[int], sign: int = 1) -> tuple[Tensor, Tensor]:
    """Numbers of the rows and columns of k-space from the centre, or with sign -1 of what lies opposite.

    The last of an even number is -side / 2, as in torch.fft.fftfreq, and its own opposite.
    """
    rows, columns = (
        (sign * torch.arange(stored, device=spectrum.device) + side // 2) % side - side // 2
        for stored, side in zip(spectrum.shape[-2:], shape[-2:], strict=True)
    )
    return rows, columns


def _lag(parameters: MotionParameters, spectrum: Tensor, shape: Sequence[int], *, sign: int = 1) -> Tensor:
    """(B, H, W // 2 + 1): by how much moves delay the phase of each point of k-space, or with sign -1 its opposite."""
    rows, columns = (lines.to(spectrum.real.dtype) for lines in _lines(spectrum, shape, sign))
    vertical = parameters.vertical[:, None, None]
    of_rows = vertical & _moved(parameters.time * shape[-2], rows)
    of_columns = ~vertical & _moved(parameters.time * shape[-1], columns)
    down, right = (
        (of_rows * shift[:, None]).sum(2)[:, :, None] + (of_columns * shift[:, None]).sum(2)[:, None]
        for shift in parameters.shift.unbind(2)
    )
    return 2 * math.pi * (down * rows[:, None] + right * columns)


def _moved(time: Tensor, lines: Tensor) -> Tensor:
    """(B, lines, moves) bool: whether a move, at its line, lies between a line and the middle, line 0."""
    time, lines = time[:, None], lines[:, None]
    return ((time > 0) & (time < lines)) | ((time < 0) & (time > lines))


def _count(name: str, value: Any) -> int:
    try:
        number = 0 if isinstance(value, bool) else index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{name} must be a whole number from 1, got {value!r}")
    return number


def _check_ghosts(values: Any) -> tuple[int, int]:
    try:
        fewest, most = (index(value) for value in values)
    except (TypeError, ValueError):
        fewest, most = 0, 0
    if not 2 <= fewest <= most:
        raise ValueError(f"ghosts must be a fewest and a most number of images, whole and from 2, got {values!r}")
    return fewest, most
