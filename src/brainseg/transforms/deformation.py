"""Transforms that interpolate: affine maps and elastic deformations."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import index

import torch
from torch import Tensor

from brainseg.checks import check_choice, check_finite, check_range
from brainseg.transforms.base import GeometricTransform, check_probability, draw_chosen, draw_uniform
from brainseg.transforms.warp import Padding, Sampling, Warp


@dataclass(frozen=True)
class AffineParameters:
    """One row a sample.

    Attributes:
        degrees: (B,) of the turn, counter-clockwise.
        scale: (B,) above 1 enlarges.
        shear: (B, 2) degrees by which the rows lean downwards and the columns to the right.
        translation: (B, 2) pixels downwards and to the right.
        inverted: the map is undone.
    """

    degrees: Tensor
    scale: Tensor
    shear: Tensor
    translation: Tensor
    inverted: bool = False


class RandomAffine(GeometricTransform):
    """Shears, turns, scales about the centre and then shifts a sample; every number is drawn uniformly from its range.

    Args:
        degrees: lowest and highest turn, counter-clockwise as torch.rot90's.
        scale: lowest and highest factor; above 1 enlarges.
        shear: lowest and highest lean in degrees, drawn for rows and columns.
        translation: lowest and highest shift as a fraction of the side, drawn for rows and columns.
        p: probability that a sample is moved.
        padding: what lies beyond the image: "constant", "border" or "reflection".
        value: of the images there, if constant; masks hold 0.
        soft_masks: masks are floating point with values between 0 and 1, and are interpolated as the images are.
    """

    def __init__(
        self,
        degrees: Sequence[float] = (-15.0, 15.0),
        scale: Sequence[float] = (0.9, 1.1),
        shear: Sequence[float] = (0.0, 0.0),
        translation: Sequence[float] = (-0.05, 0.05),
        p: float = 0.5,
        *,
        padding: Padding = "constant",
        value: float = 0.0,
        soft_masks: bool = False,
    ) -> None:
        degrees, translation = check_range("degrees", degrees), check_range("translation", translation)
        scale, shear = check_range("scale", scale, above=0), check_range("shear", shear, above=-90, below=90)
        p = check_probability(p)
        super().__init__(
            degrees=degrees,
            scale=scale,
            shear=shear,
            translation=translation,
            p=p,
            padding=padding,
            value=value,
            soft_masks=soft_masks,
        )
        self.degrees, self.scale, self.shear, self.translation, self.p = degrees, scale, shear, translation, p
        self.sampling = make_sampling(padding, value, soft_masks)

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> AffineParameters:
        chosen = draw_chosen(batch_shape, generator, self.p)
        count, (height, width) = batch_shape[0], batch_shape[-2:]
        degrees = draw_uniform((count,), generator, self.degrees) * chosen
        scale = torch.where(chosen, draw_uniform((count,), generator, self.scale), 1.0)
        shear = draw_uniform((count, 2), generator, self.shear) * chosen[:, None]
        fractions = draw_uniform((count, 2), generator, self.translation) * chosen[:, None]
        translation = torch.stack([fractions[:, 0] * height, fractions[:, 1] * width], 1)
        return AffineParameters(degrees, scale, shear, translation)

    def warp(self, parameters: AffineParameters, batch_shape: Sequence[int]) -> Warp:
        forward = _linear(parameters)
        shift = parameters.translation[..., None]
        if parameters.inverted:
            return Warp(_size(batch_shape), (torch.cat([forward, shift], -1),))
        back = _inverted(forward)
        return Warp(_size(batch_shape), (torch.cat([back, -back @ shift], -1),))

    def inverse(self, parameters: AffineParameters) -> AffineParameters:
        return replace(parameters, inverted=not parameters.inverted)


@dataclass(frozen=True)
class ElasticParameters:
    """Displacements of the control points, rows and columns, in pixels: (B, 2, cells + 3, cells + 3)."""

    displacement: Tensor


class RandomElastic(GeometricTransform):
    """Moves the pixels of a sample by a smooth random field, a uniform cubic B-spline of control points.

    A free-form deformation (Rueckert et al. 1999, doi:10.1109/42.796284): control points lie in a grid of `cells` by
    `cells` over the image and one beyond each side. No pixel moves further than its control points do, and below 0.48
    of a cell nothing folds (Choi and Lee 2000, Graphical Models 62).

    Args:
        displacement: lowest and highest reach as a fraction of the side; of each sample one number between is drawn,
            and of its control points displacements up to that, along rows and columns.
        cells: number of cells along a side; more of them make finer waves.
        p: probability that a sample is deformed.
        padding: what lies beyond the image: "constant", "border" or "reflection".
        value: of the images there, if constant; masks hold 0.
        soft_masks: masks are floating point with values between 0 and 1, and are interpolated as the images are.
    """

    def __init__(
        self,
        displacement: Sequence[float] = (0.02, 0.08),
        cells: int = 4,
        p: float = 0.5,
        *,
        padding: Padding = "constant",
        value: float = 0.0,
        soft_masks: bool = False,
    ) -> None:
        if isinstance(cells, bool) or index(cells) < 1:
            raise ValueError(f"cells must be a positive number of cells along a side, got {cells!r}")
        # Beyond this images fold.
        displacement = check_range("displacement", displacement, least=0, most=0.48 / cells)
        p = check_probability(p)
        super().__init__(
            displacement=displacement, cells=cells, p=p, padding=padding, value=value, soft_masks=soft_masks
        )
        self.displacement, self.cells, self.p = displacement, cells, p
        self.sampling = make_sampling(padding, value, soft_masks)

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> ElasticParameters:
        count, (height, width) = batch_shape[0], batch_shape[-2:]
        chosen = draw_chosen(batch_shape, generator, self.p)
        reach = draw_uniform((count,), generator, self.displacement) * chosen
        points = draw_uniform((count, 2, self.cells + 3, self.cells + 3), generator, (-1.0, 1.0))
        points = points * reach[:, None, None, None]
        return ElasticParameters(torch.stack([points[:, 0] * height, points[:, 1] * width], 1))

    def warp(self, parameters: ElasticParameters, batch_shape: Sequence[int]) -> Warp:
        height, width = _size(batch_shape)
        along_rows, along_columns = (_spline(side, self.cells, parameters.displacement) for side in (height, width))
        return Warp((height, width), (along_rows @ parameters.displacement @ along_columns.T,))


def make_sampling(padding: Padding, value: float, soft_masks: bool) -> Sampling:
    """The arguments of a transform that interpolates, checked."""
    check_choice("padding", padding, Padding)
    return Sampling(padding, check_finite("value", value), bool(soft_masks))


def _size(batch_shape: Sequence[int]) -> tuple[int, int]:
    height, width = batch_shape[-2:]
    return height, width


def _linear(parameters: AffineParameters) -> Tensor:
    """(B, 2, 2) of (row, column): columns lean, then rows, then both turn and are scaled."""
    angle = parameters.degrees.deg2rad()
    of_rows, of_columns = parameters.shear.deg2rad().tan().unbind(1)
    one, zero = torch.ones_like(angle), torch.zeros_like(angle)
    turn = _matrix(angle.cos(), -angle.sin(), angle.sin(), angle.cos())
    lean_rows, lean_columns = _matrix(one, of_rows, zero, one), _matrix(one, zero, of_columns, one)
    return parameters.scale[:, None, None] * (turn @ lean_rows @ lean_columns)


def _matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    return torch.stack([a, b, c, d], -1).view(-1, 2, 2)


def _inverted(matrix: Tensor) -> Tensor:
    """Not torch.linalg.inv, for which a GPU is waited for."""
    (a, b), (c, d) = (row.unbind(1) for row in matrix.unbind(1))
    return _matrix(d, -b, -c, a) / (a * d - b * c)[:, None, None]


def _spline(side: int, cells: int, like: Tensor) -> Tensor:
    """(side, cells + 3) weights of the control points in each pixel of a line; of every pixel they add up to 1."""
    places = (torch.arange(side, dtype=like.dtype, device=like.device) + 0.5) * (cells / side)
    points = torch.arange(-1, cells + 2, dtype=like.dtype, device=like.device)
    distance = (places[:, None] - points).abs()
    near = 2 / 3 - distance.square() * (1 - distance / 2)
    far = (2 - distance).clamp(min=0) ** 3 / 6
    return torch.where(distance < 1, near, far)
