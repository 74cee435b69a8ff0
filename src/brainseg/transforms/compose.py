"""Transforms of transforms: one after the other, one of several, one with a probability."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from brainseg.transforms.base import (
    GeometricTransform,
    SymmetryTransform,
    Transform,
    check_probability,
    draw_chosen,
    is_square,
)

if TYPE_CHECKING:
    from brainseg.transforms.symmetry import Symmetry
    from brainseg.transforms.warp import Sampling, Warp


@dataclass(frozen=True)
class ComposeParameters:
    """Parameters of each part, in the order of the parts, and whether they are applied from the last to the first."""

    parts: tuple[Any, ...]
    backwards: bool = False


class Compose(Transform):
    """Transforms one after the other; neighbours that move pixels are one map and one interpolation.

    Flips, turns and transpositions alone stay an exact copy, and so does a crop. Neighbours that interpolate are one
    if they agree on padding and soft masks; what one of them would lose beyond the border, the next may bring back.
    A chain within a chain keeps its own.

    Args:
        transforms: the parts, in the order in which they are applied.

    >>> from brainseg.transforms import Normalize, RandomFlip
    >>> augment = Compose([RandomFlip(), Normalize(mean=[0.5], std=[0.25])])
    >>> augment(torch.rand(4, 1, 32, 32)).shape
    torch.Size([4, 1, 32, 32])
    """

    def __init__(self, transforms: Iterable[Transform]) -> None:
        transforms = _check_transforms("Compose", transforms)
        super().__init__(transforms=transforms)
        self.transforms = nn.ModuleList(transforms)

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> ComposeParameters:
        parts = []
        for transform in _parts(self):
            parts.append(transform.draw(batch_shape, generator))
            batch_shape = transform.output_shape(batch_shape)
        return ComposeParameters(tuple(parts))

    def _transform(
        self, images: Tensor, masks: Tensor | None, parameters: ComposeParameters, /
    ) -> tuple[Tensor, Tensor | None]:
        steps = list(zip(_parts(self), parameters.parts, strict=True))
        for run in _runs(reversed(steps) if parameters.backwards else steps):
            images, masks = _transform_run(run, images, masks)
        return images, masks

    def inverse(self, parameters: ComposeParameters) -> ComposeParameters:
        steps = zip(_parts(self), parameters.parts, strict=True)
        inverted = tuple(transform.inverse(drawn) for transform, drawn in steps)
        return ComposeParameters(inverted, backwards=not parameters.backwards)

    def output_shape(self, batch_shape: Sequence[int]) -> Sequence[int]:
        for transform in _parts(self):
            batch_shape = transform.output_shape(batch_shape)
        return batch_shape


@dataclass(frozen=True)
class OneOfParameters:
    """Which of the transforms a sample gets, (B,) int64, -1 for none; and the parameters of each."""

    chosen: Tensor
    parts: tuple[Any, ...]


class OneOf(Transform):
    """For each sample one of several transforms, which must all give images of one shape.

    Each of them works on the whole batch, and of each sample one outcome is kept: as long as all of them take.

    Args:
        transforms: of which one is drawn.
        weights: how likely each is, in any unit; None: all equally.
        p: probability that a sample gets any.
    """

    def __init__(self, transforms: Iterable[Transform], weights: Sequence[float] | None = None, p: float = 1.0) -> None:
        transforms = _check_transforms("OneOf", transforms)
        shares = [1.0] * len(transforms) if weights is None else [float(weight) for weight in weights]
        if len(shares) != len(transforms) or not all(0 <= share < math.inf for share in shares) or not sum(shares):
            raise ValueError(
                f"weights must be one number from 0 for each of {len(transforms)} transforms, got {weights}"
            )
        p = check_probability(p)
        super().__init__(transforms=transforms, weights=weights, p=p)
        self.transforms = nn.ModuleList(transforms)
        self.bounds = [end / sum(shares) for end in accumulate(shares)]
        self.p = p

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> OneOfParameters:
        uniform = torch.rand(batch_shape[0], generator=generator, device=generator.device)
        chosen = sum((uniform >= bound).long() for bound in self.bounds[:-1]) + torch.zeros_like(uniform).long()
        chosen = torch.where(draw_chosen(batch_shape, generator, self.p), chosen, -1)
        return OneOfParameters(chosen, tuple(part.draw(batch_shape, generator) for part in _parts(self)))

    def _transform(
        self, images: Tensor, masks: Tensor | None, parameters: OneOfParameters, /
    ) -> tuple[Tensor, Tensor | None]:
        found = images, masks
        for number, (part, drawn) in enumerate(zip(_parts(self), parameters.parts, strict=True)):
            outcome = part.apply(images, masks, drawn)
            found = _choose(parameters.chosen == number, outcome, found, type(self).__name__)
        return found


@dataclass(frozen=True)
class RandomApplyParameters:
    """Which samples the transform works on, (B,) bool, and its parameters."""

    chosen: Tensor
    part: Any


class RandomApply(Transform):
    """A transform, or a composition, for some of the samples; it must give images of the shape that it gets.

    Args:
        transform: what is applied.
        p: probability that it is, for each sample.
    """

    def __init__(self, transform: Transform, p: float = 0.5) -> None:
        (transform,) = _check_transforms("RandomApply", [transform])
        p = check_probability(p)
        super().__init__(transform=transform, p=p)
        self.transform = transform
        self.p = p

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> RandomApplyParameters:
        return RandomApplyParameters(
            draw_chosen(batch_shape, generator, self.p), self.transform.draw(batch_shape, generator)
        )

    def _transform(
        self, images: Tensor, masks: Tensor | None, parameters: RandomApplyParameters, /
    ) -> tuple[Tensor, Tensor | None]:
        outcome = self.transform.apply(images, masks, parameters.part)
        return _choose(parameters.chosen, outcome, (images, masks), type(self).__name__)


def _choose(
    chosen: Tensor,
    outcome: tuple[Tensor, Tensor | None],
    other: tuple[Tensor, Tensor | None],
    name: str,
) -> tuple[Tensor, Tensor | None]:
    """The outcome for the chosen samples, the other for the rest."""
    (images, masks), (other_images, other_masks) = outcome, other
    if images.shape != other_images.shape:
        raise ValueError(
            f"{name} keeps samples of one shape, and a part of it makes {tuple(images.shape)} of "
            f"{tuple(other_images.shape)}; crop, resize or pad outside of it"
        )
    images = torch.where(chosen[:, None, None, None], images, other_images)
    if masks is None or other_masks is None:
        return images, None
    return images, torch.where(chosen.view(-1, *[1] * (masks.dim() - 1)), masks, other_masks)


def _parts(transform: Compose | OneOf) -> list[Transform]:
    return list(transform.transforms)  # type: ignore[arg-type]


def _check_transforms(name: str, transforms: Iterable[Any]) -> list[Transform]:
    listed = list(transforms)
    for part in listed:
        if not isinstance(part, Transform):
            raise TypeError(f"{name} takes transforms, got {part!r}; create_transform makes one of a config")
    return listed


def _runs(steps: Iterable[tuple[Transform, Any]]) -> list[list[tuple[Transform, Any]]]:
    """The steps in runs that are one copy or one interpolation."""
    runs: list[list[tuple[Transform, Any]]] = []
    sampling: Sampling | None = None
    for transform, drawn in steps:
        own = transform.sampling if isinstance(transform, GeometricTransform) else None
        joins = len(runs) > 0 and all(isinstance(part, GeometricTransform) for part in (runs[-1][-1][0], transform))
        if joins and (own is None or sampling is None or own == sampling):
            runs[-1].append((transform, drawn))
            sampling = sampling or own
        else:
            runs.append([(transform, drawn)])
            sampling = own
    return runs


def _transform_run(
    run: list[tuple[Transform, Any]], images: Tensor, masks: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    samplings = [part.sampling for part, _ in run if isinstance(part, GeometricTransform) and part.sampling]
    if not samplings or len(run) == 1:
        return _transform_copies(run, images, masks)
    warp: Warp | None = None
    shape: Sequence[int] = images.shape
    for transform, drawn in run:
        assert isinstance(transform, GeometricTransform)
        following = transform.warp(drawn, shape)
        warp = following if warp is None else warp.then(following)
        shape = transform.output_shape(shape)
    assert warp is not None
    return warp.apply(images, masks, samplings[0])


def _transform_copies(
    run: list[tuple[Transform, Any]], images: Tensor, masks: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """One transform, or several without an interpolation, of which symmetries in a row are one copy."""
    symmetry: Symmetry | None = None
    for transform, drawn in run:
        if isinstance(transform, SymmetryTransform):
            following = transform.symmetry(drawn, is_square(images))
            symmetry = following if symmetry is None else symmetry.then(following)
            continue
        if symmetry is not None:
            images, masks = symmetry.apply(images, masks)
            symmetry = None
        images, masks = transform.apply(images, masks, drawn)
    return (images, masks) if symmetry is None else symmetry.apply(images, masks)
