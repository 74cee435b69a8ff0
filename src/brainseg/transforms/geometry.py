"""Transforms that move pixels: flips, quarter turns, transpositions as exact copies, and resizing."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from brainseg.checks import check_between
from brainseg.transforms.base import SymmetryTransform, Transform, check_probability, draw_chosen, widen
from brainseg.transforms.symmetry import Symmetry

Axes = Literal["horizontal", "vertical", "both"]


@dataclass(frozen=True)
class FlipParameters:
    """Which samples are mirrored left to right, and which top to bottom: (B,) bool each."""

    horizontal: Tensor
    vertical: Tensor


class RandomFlip(SymmetryTransform):
    """Mirrors a sample left to right, top to bottom, or both.

    Args:
        axes: the flips of which one is drawn, all equally likely: "horizontal" (left to right), "vertical" (top to
            bottom), "both".
        p: probability that a sample is flipped.
    """

    def __init__(self, axes: Sequence[Axes] = ("horizontal", "vertical", "both"), p: float = 0.5) -> None:
        known = get_args(Axes)
        if not isinstance(axes, list | tuple) or not axes or not all(axis in known for axis in axes):
            raise ValueError(f"axes must be a list of one or more of {', '.join(known)}, got {axes!r}")
        p = check_probability(p)
        super().__init__(axes=axes, p=p)
        self.axes = tuple(axes)
        self.p = p

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> FlipParameters:
        chosen = draw_chosen(batch_shape, generator, self.p)
        which = torch.randint(len(self.axes), batch_shape[:1], generator=generator, device=generator.device)
        horizontal, vertical = torch.zeros_like(chosen), torch.zeros_like(chosen)
        for number, axis in enumerate(self.axes):
            drawn = chosen & (which == number)
            if axis != "vertical":
                horizontal = horizontal | drawn
            if axis != "horizontal":
                vertical = vertical | drawn
        return FlipParameters(horizontal, vertical)

    def symmetry(self, parameters: FlipParameters, square: bool) -> Symmetry:  # noqa: ARG002
        return Symmetry(torch.zeros_like(parameters.vertical), rows=parameters.vertical, columns=parameters.horizontal)

    def inverse(self, parameters: FlipParameters) -> FlipParameters:
        return parameters


@dataclass(frozen=True)
class Rotate90Parameters:
    """Quarter turns of each sample, counter-clockwise: (B,) int64, 0 to 3."""

    turns: Tensor


class RandomRotate90(SymmetryTransform):
    """Turns a sample counter-clockwise by 0, 1, 2 or 3 quarters, all equally likely, as torch.rot90 does.

    An image that is not square keeps its shape: a turn by 1 or 3 quarters is one by 2.

    Args:
        p: probability that a turn is drawn for a sample; one in four of these turns is by 0.
    """

    def __init__(self, p: float = 0.5) -> None:
        p = check_probability(p)
        super().__init__(p=p)
        self.p = p

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> Rotate90Parameters:
        chosen = draw_chosen(batch_shape, generator, self.p)
        turns = torch.randint(4, batch_shape[:1], generator=generator, device=generator.device)
        return Rotate90Parameters(turns * chosen)

    def symmetry(self, parameters: Rotate90Parameters, square: bool) -> Symmetry:
        turns = parameters.turns
        if not square:
            return Symmetry(torch.zeros_like(turns, dtype=torch.bool), rows=turns > 0, columns=turns > 0)
        return Symmetry(turns % 2 == 1, rows=(turns == 1) | (turns == 2), columns=turns >= 2)

    def inverse(self, parameters: Rotate90Parameters) -> Rotate90Parameters:
        return Rotate90Parameters((4 - parameters.turns) % 4)


@dataclass(frozen=True)
class TransposeParameters:
    """Which samples are transposed: (B,) bool."""

    transposed: Tensor


class RandomTranspose(SymmetryTransform):
    """Exchanges the rows and columns of a sample; an image that is not square stays as it is.

    Args:
        p: probability that a sample is transposed.
    """

    def __init__(self, p: float = 0.5) -> None:
        p = check_probability(p)
        super().__init__(p=p)
        self.p = p

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> TransposeParameters:
        return TransposeParameters(draw_chosen(batch_shape, generator, self.p))

    def symmetry(self, parameters: TransposeParameters, square: bool) -> Symmetry:
        nowhere = torch.zeros_like(parameters.transposed)
        return Symmetry(parameters.transposed if square else nowhere, rows=nowhere, columns=nowhere)

    def inverse(self, parameters: TransposeParameters) -> TransposeParameters:
        return parameters


STEPS = 1000
"""Parts of a pixel, in which sides of pixels that are no squares are counted."""


class Resize(Transform):
    """Brings images and masks to a size: images bilinearly with antialiasing, masks by the nearest pixel.

    Args:
        size: height and width in pixels, or one number for both.
        soft_masks: masks are floating point with values between 0 and 1, and are resized as the images are.
        keep_aspect_ratio: scale both sides alike, until the longer one fits, and fill images and masks up with 0 below
            and to the right, where networks pad. False: each side by itself, which distorts what is not of the
            size's shape.
        stretch: height of a pixel over its width, in mm: where the aspect ratio is kept, it is that of what is seen.

    Raises:
        ValueError: a size or a stretch that cannot be.

    >>> resize = Resize(256, keep_aspect_ratio=True)
    >>> resize(torch.rand(1, 3, 240, 155)).shape, resize.content_size(240, 155)
    (torch.Size([1, 3, 256, 256]), (256, 165))
    """

    def __init__(
        self,
        size: int | Sequence[int],
        *,
        soft_masks: bool = False,
        keep_aspect_ratio: bool = False,
        stretch: float = 1.0,
    ) -> None:
        size, stretch = check_size(size), check_between("stretch", stretch, 1e-3, 1e3)
        super().__init__(size=size, soft_masks=soft_masks, keep_aspect_ratio=keep_aspect_ratio, stretch=stretch)
        self.size = size
        self.soft_masks = soft_masks
        self.keep_aspect_ratio = keep_aspect_ratio
        self.stretch = stretch

    def content_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that images of this size have in the resized ones, from the first pixel on."""
        if not self.keep_aspect_ratio:
            return self.size
        if self.stretch != 1:
            height, width = round(STEPS * self.stretch * height), STEPS * width
        return fitted_size((height, width), self.size)

    def undo(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """What a network says of resized images, (B, K, *self.size), at the size that the images had, bilinearly."""
        seen = self.content_size(*size)
        return x if size == self.size == seen else resize_bilinear(top_left(x, seen), size)

    def _transform(self, images: Tensor, masks: Tensor | None, _: None, /) -> tuple[Tensor, Tensor | None]:
        size = self.content_size(images.shape[-2], images.shape[-1])
        if images.shape[-2:] == self.size == size:
            return images, masks
        if masks is not None:
            masks = self._resize_soft(masks, size) if self.soft_masks else _resize_nearest(masks, size)
            masks = pad_to(masks, self.size)
        return pad_to(resize_bilinear(images, size), self.size), masks

    def output_shape(self, batch_shape: Sequence[int]) -> Sequence[int]:
        return (*batch_shape[:2], *self.size)

    def _resize_soft(self, masks: Tensor, size: tuple[int, int]) -> Tensor:
        if not masks.is_floating_point():
            raise ValueError(
                f"soft masks are floating point, got {masks.dtype}; build Resize with soft_masks=False for labels"
            )
        return resize_bilinear(masks[:, None], size)[:, 0] if masks.dim() == 3 else resize_bilinear(masks, size)


def resize_bilinear(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (B, C, H, W) of another height and width, with antialiasing where they shrink."""
    # Not every device resizes half types with antialiasing.
    return F.interpolate(widen(images), size, mode="bilinear", antialias=True).to(images.dtype)


def fitted_size(size: tuple[int, int], into: tuple[int, int]) -> tuple[int, int]:
    """Height and width of what has this size, both scaled alike, to the nearest pixel, to the largest that fits."""
    (height, width), (rows, columns) = size, into
    # In integers, and without a branch, so that an exported program computes it for every size.
    scaled_height = (2 * height * columns + width) // (2 * width)
    scaled_width = (2 * width * rows + height) // (2 * height)
    return _between_1_and(rows, scaled_height), _between_1_and(columns, scaled_width)


def _between_1_and(most: int, side: int) -> int:
    result: int = torch.sym_min(most, torch.sym_max(1, side))  # type: ignore[no-untyped-call]
    return result


def pad_to(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Adds zeros below and to the right of (..., h, w) until it has a size that is no smaller."""
    # Always some, and a part of it: an exporter takes a padding by none for another program.
    return F.pad(x, (0, size[1], 0, size[0]))[..., : size[0], : size[1]]


def top_left(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The first rows and columns of (..., h, w), so many as the size says."""
    # One more than there are, since an exporter takes a part that is the whole for another program.
    return F.pad(x, (0, 1, 0, 1))[..., : size[0], : size[1]]


def _resize_nearest(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """The "nearest-exact" mode of F.interpolate, for any dtype: the pixel in which the new pixel's centre lies."""
    for dim, side in zip((-2, -1), size, strict=True):
        # Floor of (i + 1/2) * old / new, in integers.
        centers = 2 * torch.arange(side, device=masks.device) + 1
        masks = masks.index_select(dim, centers * masks.shape[dim] // (2 * side))
    return masks


def check_size(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width; ValueError unless they are positive numbers of pixels."""
    sides = size if isinstance(size, Sequence) else (size, size)
    try:
        height, width = (index(side) for side in sides)
    except (TypeError, ValueError):
        height = width = 0
    if height < 1 or width < 1:
        raise ValueError(f"size must be a positive number of pixels, or height and width, got {size!r}")
    return height, width
