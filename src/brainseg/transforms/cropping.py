"""Transforms that take a part of an image, or add to it: exact copies."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from brainseg.checks import check_choice, check_finite, check_rate
from brainseg.transforms.base import GeometricTransform, Transform, check_probability, draw_chosen
from brainseg.transforms.geometry import check_size
from brainseg.transforms.head import head_mask
from brainseg.transforms.symmetry import take
from brainseg.transforms.warp import Warp


@dataclass(frozen=True)
class CropParameters:
    """First row and column of each sample: (B, 2) int64."""

    offsets: Tensor


class Crop(GeometricTransform, abstract=True):
    """Base class of the crops: their parameters say which part of a sample they take.

    Args:
        size: height and width in pixels, or one number for both; images must be as large at least.
    """

    def __init__(self, size: int | Sequence[int]) -> None:
        size = check_size(size)
        super().__init__(size=size)
        self.size = size

    def warp(self, parameters: CropParameters, batch_shape: Sequence[int]) -> Warp:
        self.room(batch_shape)
        height, width = batch_shape[-2:]
        return Warp.of_crop(parameters.offsets, self.size, (height, width))

    def output_shape(self, batch_shape: Sequence[int]) -> Sequence[int]:
        return (*batch_shape[:2], *self.size)

    def room(self, batch_shape: Sequence[int]) -> tuple[int, int]:
        """The last row and column at which a part may begin.

        Raises:
            ValueError: the images are too small.
        """
        height, width = (old - new for old, new in zip(batch_shape[-2:], self.size, strict=True))
        if height < 0 or width < 0:
            raise ValueError(
                f"{type(self).__name__} takes {self.size[0]}x{self.size[1]} pixels of images of "
                f"{batch_shape[-2]}x{batch_shape[-1]}; pad or resize them first, or take less"
            )
        return height, width

    def _transform(
        self, images: Tensor, masks: Tensor | None, parameters: CropParameters, /
    ) -> tuple[Tensor, Tensor | None]:
        self.room(images.shape)
        return (
            _part(images, parameters.offsets, self.size),
            None if masks is None else _part(masks, parameters.offsets, self.size),
        )


class CenterCrop(Crop):
    """Takes the middle of an image; where it cannot be in the middle, it is half a pixel up or to the left.

    Args:
        size: height and width in pixels, or one number for both; images must be as large at least.
    """

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> CropParameters:
        """The one place there is; nothing is drawn."""
        starts = [torch.full(batch_shape[:1], more // 2, device=generator.device) for more in self.room(batch_shape)]
        return CropParameters(torch.stack(starts, 1))


class RandomCrop(Crop):
    """Takes a part of each sample, all places equally likely.

    Args:
        size: height and width in pixels, or one number for both; images must be as large at least.
    """

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> CropParameters:
        uniform = torch.rand(batch_shape[0], 2, generator=generator, device=generator.device)
        starts = [
            (x * (more + 1)).long().clamp(max=more)
            for x, more in zip(uniform.unbind(1), self.room(batch_shape), strict=True)
        ]
        return CropParameters(torch.stack(starts, 1))


@dataclass(frozen=True)
class ForegroundCropParameters:
    """One row a sample.

    Attributes:
        chosen: (B,) bool, whether a foreground pixel decides.
        pixel: (B,) in [0, 1): of n foreground pixels in reading order that of number floor(pixel * n) is seen.
        place: (B, 2) in [0, 1), where in the crop it is seen.
        offsets: (B, 2) int64, first row and column of a sample that is not chosen, or has no foreground.
    """

    chosen: Tensor
    pixel: Tensor
    place: Tensor
    offsets: Tensor


class ForegroundCrop(Transform):
    """Takes a part of each sample that shows a drawn pixel of its mask, so that tumours are seen.

    Two thirds of brain slices have no tumour, and most parts of the others neither. A sample without foreground, and
    one that is not chosen, gives any part, as `RandomCrop` does. It needs masks. In a `Compose` it begins a new copy,
    since it looks at the masks that come before it.

    Args:
        size: height and width in pixels, or one number for both; images must be as large at least.
        p: probability that a foreground pixel decides.
    """

    def __init__(self, size: int | Sequence[int], p: float = 0.67) -> None:
        p = check_probability(p)
        super().__init__(size=check_size(size), p=p)
        self.crop = RandomCrop(size)
        self.p = p

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> ForegroundCropParameters:
        chosen = draw_chosen(batch_shape, generator, self.p)
        uniform = torch.rand(batch_shape[0], 3, generator=generator, device=generator.device)
        return ForegroundCropParameters(
            chosen, uniform[:, 0], uniform[:, 1:], self.crop.draw(batch_shape, generator).offsets
        )

    def _transform(
        self, images: Tensor, masks: Tensor | None, parameters: ForegroundCropParameters, /
    ) -> tuple[Tensor, Tensor | None]:
        if masks is None:
            raise ValueError(
                "ForegroundCrop looks for the foreground of masks, and got none; give masks, or RandomCrop"
            )
        foreground = (masks != 0).any(1) if masks.dim() == 4 else masks != 0
        counted = foreground.flatten(1).cumsum(1)
        total = counted[:, -1]
        number = (parameters.pixel * total).long().minimum((total - 1).clamp(min=0))
        pixel = (counted <= number[:, None]).sum(1)
        row_and_column = pixel // images.shape[-1], pixel % images.shape[-1]
        starts = [
            (seen - (place * side).long()).clamp(min=0, max=more)
            for seen, place, side, more in zip(
                row_and_column, parameters.place.unbind(1), self.crop.size, self.crop.room(images.shape), strict=True
            )
        ]
        seen = torch.stack(starts, 1)
        found = parameters.chosen & (total > 0)
        return self.crop.apply(images, masks, CropParameters(torch.where(found[:, None], seen, parameters.offsets)))

    def output_shape(self, batch_shape: Sequence[int]) -> Sequence[int]:
        return self.crop.output_shape(batch_shape)


class CropToHead(Transform):
    """Takes the part of each sample in whose middle the head is, as far as the image reaches.

    The middle is that of the bounding box of `head_mask`; without a head it is that of the image. Where an image is
    smaller than the part, it stays as it is. In a `Compose` it begins a new copy, since it looks at the images that
    come before it.

    Args:
        size: height and width in pixels, or one number for both. A square of 192 pixels of about 1 mm holds a head.
        fraction: the head lies above this fraction of the image's brightness, in [0, 1).

    The slices of a patient have one place in common, that of their maximum, and what a network says of the part returns
    to the full image:

    >>> slices, crop = torch.rand(20, 3, 256, 240), CropToHead(192)
    >>> place = crop.locate(slices.amax(0, keepdim=True))
    >>> part = crop.take(slices, place)
    >>> part.shape, crop.undo(part, place, (256, 240)).shape
    (torch.Size([20, 3, 192, 192]), torch.Size([20, 3, 256, 240]))
    """

    def __init__(self, size: int | Sequence[int] = 192, fraction: float = 0.15) -> None:
        size, fraction = check_size(size), check_rate("fraction", fraction)
        super().__init__(size=size, fraction=fraction)
        self.size, self.fraction = size, fraction

    def locate(self, images: Tensor) -> CropParameters:
        """Where the part of each of the images (B, C, H, W) begins."""
        head = head_mask(images, fraction=self.fraction)
        starts = [
            _around(lines, wanted)
            for lines, wanted in zip((head.any(2), head.any(1)), self.output_shape(images.shape)[-2:], strict=True)
        ]
        return CropParameters(torch.stack(starts, 1))

    def take(self, x: Tensor, place: CropParameters) -> Tensor:
        """The part of each sample of x, (B, C, H, W) or (B, H, W), at places for each of them or one for all."""
        height, width = self.output_shape(x.shape)[-2:]
        return _part(x, place.offsets.expand(x.shape[0], 2), (height, width))

    def undo(self, x: Tensor, place: CropParameters, size: Sequence[int], value: float = 0.0) -> Tensor:
        """The parts x, (B, C, h, w) or (B, h, w), in images of the size before `take`, with a value around them."""
        full = x.new_full((*x.shape[:-2], *size), value)
        index = _pixels(place.offsets.expand(x.shape[0], 2), x.shape[-2:], size[1])
        if x.dim() == 4:
            index = index[:, None].expand(-1, x.shape[1], -1)
        return full.flatten(-2).scatter(-1, index, x.flatten(-2)).view_as(full)

    def _transform(self, images: Tensor, masks: Tensor | None, _: None, /) -> tuple[Tensor, Tensor | None]:
        place = self.locate(images)
        return self.take(images, place), None if masks is None else self.take(masks, place)

    def output_shape(self, batch_shape: Sequence[int]) -> Sequence[int]:
        sides = (min(side, wanted) for side, wanted in zip(batch_shape[-2:], self.size, strict=True))
        return (*batch_shape[:-2], *sides)


def _around(lines: Tensor, wanted: int) -> Tensor:
    """The first of so many lines about the middle of those that are True, of (B, side); none lies beyond the image."""
    side = lines.shape[1]
    numbers = torch.arange(side, device=lines.device)
    found = lines.any(1)
    first = torch.where(lines, numbers, side).amin(1).where(found, 0)
    last = torch.where(lines, numbers, 0).amax(1).where(found, side - 1)
    return ((first + last + 1 - wanted) // 2).clamp(min=0, max=side - wanted)


def _part(x: Tensor, offsets: Tensor, size: tuple[int, int]) -> Tensor:
    return take(x, _pixels(offsets, size, x.shape[-1]), size)


def _pixels(offsets: Tensor, size: Sequence[int], width: int) -> Tensor:
    """Where the pixels of parts of this size lie in the flattened images of this width, (B, N)."""
    rows, columns = (
        start[:, None] + torch.arange(side, device=offsets.device)
        for start, side in zip(offsets.unbind(1), size, strict=True)
    )
    return (rows[:, :, None] * width + columns[:, None]).flatten(1)


PadMode = Literal["constant", "border"]


class PadToMultiple(Transform):
    """Adds pixels below and to the right, until the sides are multiples of a number.

    Args:
        multiple: of pixels, such as a network's stride.
        padding: "constant", or "border": the last pixel again. Masks get 0, or their last pixel.
        value: what images get, if constant.
    """

    def __init__(self, multiple: int, padding: PadMode = "constant", value: float = 0.0) -> None:
        if isinstance(multiple, bool) or index(multiple) < 1:
            raise ValueError(f"multiple must be a positive number of pixels, got {multiple!r}")
        check_choice("padding", padding, PadMode)
        number = check_finite("value", value)
        super().__init__(multiple=multiple, padding=padding, value=value)
        self.multiple, self.padding, self.value = multiple, padding, number

    def _transform(self, images: Tensor, masks: Tensor | None, _: None, /) -> tuple[Tensor, Tensor | None]:
        return self._pad(images, self.value), None if masks is None else self._pad(masks, 0)

    def output_shape(self, batch_shape: Sequence[int]) -> Sequence[int]:
        return (*batch_shape[:2], *(side + -side % self.multiple for side in batch_shape[-2:]))

    def _pad(self, x: Tensor, value: float) -> Tensor:
        height, width = x.shape[-2:]
        down, right = -height % self.multiple, -width % self.multiple
        if self.padding == "constant":
            return F.pad(x, (0, right, 0, down), value=value)
        for axis, side, more in ((-2, height, down), (-1, width, right)):
            x = x.index_select(axis, torch.arange(side + more, device=x.device).clamp(max=side - 1))
        return x
