"""What every transform promises: draw one row of parameters a sample, apply them, say how it was built."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar, Self, SupportsFloat, overload

import torch
from torch import Tensor, nn

from brainseg.transforms.symmetry import Symmetry


class Transform(nn.Module):
    """Base class of the transforms: a batch of images, or of images and masks, in and out.

    A transform says in `_transform` what it does to images and masks, and if it is random, in `draw` what it draws;
    the parameters of others are None. Drawn parameters can be logged, and applied again.

    Attributes:
        config: ``{"name": ..., "arguments": {...}}`` as JSON values; `create_transform` builds the transform again.

    Shape:
        images (B, C, H, W) floating point; masks (B, K, H, W) or (B, H, W) of any dtype, which they keep.
    """

    classes: ClassVar[dict[str, type["Transform"]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Transform.classes[cls.__name__] = cls

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        values = json.loads(json.dumps(arguments, default=_config))
        self.config: dict[str, Any] = {"name": type(self).__name__, "arguments": values}

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> Any:
        """Parameters for a batch: a dataclass of tensors, one row a sample, on the generator's device.

        Args:
            batch_shape: (B, C, H, W) of the images.
            generator: the one source of randomness.
        """

    @overload
    def apply(self, images: Callable[[nn.Module], None]) -> Self: ...

    @overload
    def apply(self, images: Tensor, masks: Tensor | None, parameters: Any) -> tuple[Tensor, Tensor | None]: ...

    def apply(
        self, images: Tensor | Callable[[nn.Module], None], masks: Tensor | None = None, parameters: Any = None
    ) -> tuple[Tensor, Tensor | None] | Self:
        """Images and masks under the parameters; deterministic, and one graph under torch.compile.

        Args:
            images: (B, C, H, W) floating point. A function, alone, is what `torch.nn.Module.apply` takes: it is called
                on this module and its parts, as happens when a module around this one initialises its weights.
            masks: (B, K, H, W) or (B, H, W) of any dtype, or None.
            parameters: what `draw` gave for images of this shape.

        Returns:
            the images, and the masks or None.

        Raises:
            ValueError: images or masks of another rank, size or dtype.
        """
        if not isinstance(images, Tensor) and callable(images):
            return super().apply(images)
        _check(type(self).__name__, images, masks)
        return self._transform(images, masks, parameters)

    def _transform(self, images: Tensor, masks: Tensor | None, parameters: Any, /) -> tuple[Tensor, Tensor | None]:
        """What `apply` does, on arguments that are checked."""
        raise NotImplementedError

    def inverse(self, parameters: Any) -> Any:
        """Parameters whose `apply` undoes that of the given ones.

        Raises:
            NotImplementedError: this transform cannot be undone.
        """
        raise NotImplementedError(f"{type(self).__name__} has no inverse; only flips, turns and transpositions do")

    def output_shape(self, batch_shape: Sequence[int]) -> Sequence[int]:
        """(B, C, H, W) of what comes out for images of this shape, which is what a following transform draws for."""
        return batch_shape

    @overload
    def forward(
        self,
        images: Tensor,
        masks: None = None,
        *,
        generator: torch.Generator | None = None,
        seeds: Sequence[int] | Tensor | None = None,
    ) -> Tensor: ...

    @overload
    def forward(
        self,
        images: Tensor,
        masks: Tensor,
        *,
        generator: torch.Generator | None = None,
        seeds: Sequence[int] | Tensor | None = None,
    ) -> tuple[Tensor, Tensor]: ...

    def forward(
        self,
        images: Tensor,
        masks: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        seeds: Sequence[int] | Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Draws parameters and applies them.

        Args:
            images: (B, C, H, W) floating point.
            masks: (B, K, H, W) or (B, H, W) of any dtype.
            generator: where the draws come from, on the images' device; torch's default of that device if None.
            seeds: one integer a sample, instead of a generator; what becomes of a sample then depends on its seed
                alone, however the samples are batched.

        Returns:
            the images, and the masks if they were given.

        Raises:
            ValueError: images or masks of another rank, size or dtype, or seeds and generator that do not fit.
        """
        _check(type(self).__name__, images, masks)
        if seeds is None:
            parameters = self.draw(images.shape, _generator_for(images, generator))
        elif generator is None:
            parameters = self._draw_each(images, seeds)
        else:
            raise ValueError("seeds and a generator were given; give one of them")
        images, transformed = self.apply(images, masks, parameters)
        return images if transformed is None else (images, transformed)

    def extra_repr(self) -> str:
        # Arguments that are transforms are shown as submodules.
        shown = {key: value for key, value in self.config["arguments"].items() if key not in self._modules}
        return ", ".join(f"{key}={value!r}" for key, value in shown.items())

    def _draw_each(self, images: Tensor, seeds: Sequence[int] | Tensor) -> Any:
        """Parameters of a batch, the row of each sample drawn from its seed."""
        seeds = seeds.tolist() if isinstance(seeds, Tensor) else list(seeds)
        if len(seeds) != len(images):
            raise ValueError(f"got {len(seeds)} seeds for {len(images)} images; give one integer a sample")
        generator = torch.Generator(images.device)
        sample = (1, *images.shape[1:])
        rows = [self.draw(sample, generator.manual_seed(seed)) for seed in seeds]
        return _join(rows or [self.draw(images.shape, generator)])


class SymmetryTransform(Transform):
    """Base class of the transforms that turn, flip or transpose: exact copies, and several in a row one copy."""

    def symmetry(self, parameters: Any, square: bool) -> Symmetry:
        """What the parameters do to images that are square, or not."""
        raise NotImplementedError

    def _transform(self, images: Tensor, masks: Tensor | None, parameters: Any, /) -> tuple[Tensor, Tensor | None]:
        return self.symmetry(parameters, _is_square(images)).apply(images, masks)


@dataclass(frozen=True)
class ComposeParameters:
    """Parameters of each part, in the order of the parts, and whether they are applied from the last to the first."""

    parts: tuple[Any, ...]
    backwards: bool = False


class Compose(Transform):
    """Transforms one after the other; neighbours that turn, flip or transpose are one copy.

    Args:
        transforms: the parts, in the order in which they are applied.

    >>> from brainseg.transforms import Normalize, RandomFlip
    >>> augment = Compose([RandomFlip(), Normalize(mean=[0.5], std=[0.25])])
    >>> augment(torch.rand(4, 1, 32, 32)).shape
    torch.Size([4, 1, 32, 32])
    """

    def __init__(self, transforms: Iterable[Transform]) -> None:
        transforms = list(transforms)
        for part in transforms:
            if not isinstance(part, Transform):
                raise TypeError(f"Compose takes transforms, got {part!r}; create_transform makes one of a config")
        super().__init__(transforms=transforms)
        self.transforms = nn.ModuleList(transforms)

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> ComposeParameters:
        parts = []
        for transform in self._parts():
            parts.append(transform.draw(batch_shape, generator))
            batch_shape = transform.output_shape(batch_shape)
        return ComposeParameters(tuple(parts))

    def _transform(
        self, images: Tensor, masks: Tensor | None, parameters: ComposeParameters, /
    ) -> tuple[Tensor, Tensor | None]:
        steps = list(zip(self._parts(), parameters.parts, strict=True))
        symmetry: Symmetry | None = None
        for transform, drawn in reversed(steps) if parameters.backwards else steps:
            if isinstance(transform, SymmetryTransform):
                following = transform.symmetry(drawn, _is_square(images))
                symmetry = following if symmetry is None else symmetry.then(following)
                continue
            if symmetry is not None:
                images, masks = symmetry.apply(images, masks)
                symmetry = None
            images, masks = transform.apply(images, masks, drawn)
        return (images, masks) if symmetry is None else symmetry.apply(images, masks)

    def inverse(self, parameters: ComposeParameters) -> ComposeParameters:
        steps = zip(self._parts(), parameters.parts, strict=True)
        inverted = tuple(transform.inverse(drawn) for transform, drawn in steps)
        return ComposeParameters(inverted, backwards=not parameters.backwards)

    def output_shape(self, batch_shape: Sequence[int]) -> Sequence[int]:
        for transform in self._parts():
            batch_shape = transform.output_shape(batch_shape)
        return batch_shape

    def _parts(self) -> list[Transform]:
        return list(self.transforms)  # type: ignore[arg-type]


def check_probability(p: Any) -> float:
    """The value as a plain number; ValueError unless it lies in [0, 1]."""
    if isinstance(p, bool | str) or not isinstance(p, SupportsFloat) or not 0 <= float(p) <= 1:
        raise ValueError(f"p must be a probability in [0, 1], got {p!r}")
    return float(p)


def draw_chosen(batch_shape: Sequence[int], generator: torch.Generator, p: float) -> Tensor:
    """(B,) bool: which samples a transform of probability p works on."""
    return torch.rand(batch_shape[0], generator=generator, device=generator.device) < p


def widen(images: Tensor) -> Tensor:
    """The images in single precision at least, so that half types round the result alone."""
    return images.to(torch.promote_types(images.dtype, torch.float32))


def _check(name: str, images: Tensor, masks: Tensor | None) -> None:
    if torch.compiler.is_compiling():
        return
    for given in (images, masks):
        if not isinstance(given, Tensor | None):
            raise TypeError(f"{name} takes tensors, got {type(given).__name__}; use torch.from_numpy")
    shape = tuple(images.shape)
    if images.dim() != 4:
        raise ValueError(f"{name} takes images (B, C, H, W), got shape {shape}; add a batch axis with images[None]")
    if not images.is_floating_point():
        raise ValueError(f"{name} takes floating-point images, got {images.dtype}; use images.float() / 255")
    if masks is None:
        return
    if masks.dim() not in (3, 4) or len(masks) != shape[0] or masks.shape[-2:] != shape[-2:]:
        batch, _, height, width = shape
        raise ValueError(
            f"{name} takes masks ({batch}, K, {height}, {width}) or ({batch}, {height}, {width}) with images of shape "
            f"{shape}, got masks of shape {tuple(masks.shape)}; give each image its mask, of its size"
        )


def _generator_for(images: Tensor, generator: torch.Generator | None) -> torch.Generator:
    """The generator, if it fits; torch's default of the images' device if there is none."""
    device = images.device
    if generator is not None:
        if generator.device.type != device.type:
            raise ValueError(
                f"the generator is on {generator.device} and the images are on {device}; "
                "make it with torch.Generator(images.device)"
            )
        return generator
    if device.type == "cpu":
        return torch.default_generator
    if device.type == "mps":
        return torch.mps._get_default_mps_generator()
    default: torch.Generator = torch.get_device_module(device).default_generators[device.index]
    return default


def _is_square(images: Tensor) -> bool:
    return images.shape[-2] == images.shape[-1]


def _join(rows: Sequence[Any]) -> Any:
    """The parameters of a batch from those of its samples."""
    first = rows[0]
    if isinstance(first, Tensor):
        return torch.cat(list(rows))
    if isinstance(first, tuple):
        return tuple(_join(column) for column in zip(*rows, strict=True))
    if is_dataclass(first) and not isinstance(first, type):
        columns = {field.name: _join([getattr(row, field.name) for row in rows]) for field in fields(first)}
        return type(first)(**columns)
    return first


def _config(argument: Any) -> dict[str, Any]:
    """How an argument that is itself a transform is written as JSON."""
    if isinstance(argument, Transform):
        return argument.config
    raise TypeError(f"{argument!r} cannot be written as JSON; give plain numbers, strings, lists or transforms")
