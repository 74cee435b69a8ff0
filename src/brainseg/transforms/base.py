"""What every transform promises: draw one row of parameters a sample, apply them, say how it was built."""

import json
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar, Self, SupportsFloat, overload

import torch
from torch import Tensor, nn

from brainseg.transforms.symmetry import Symmetry
from brainseg.transforms.warp import Sampling, Warp


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

    def __init_subclass__(cls, *, abstract: bool = False) -> None:
        super().__init_subclass__()
        # The exporter makes subclasses of the same name to trace with.
        if not abstract and not cls.__module__.startswith("torch."):
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
        # Places and kernels are products of matrices, which autocast would round.
        with torch.autocast(images.device.type, enabled=False):
            return self._transform(images, masks, parameters)

    def _transform(self, images: Tensor, masks: Tensor | None, parameters: Any, /) -> tuple[Tensor, Tensor | None]:
        """What `apply` does, on arguments that are checked."""
        raise NotImplementedError

    def inverse(self, parameters: Any) -> Any:
        """Parameters whose `apply` undoes that of the given ones.

        Raises:
            NotImplementedError: this transform cannot be undone.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no inverse; only flips, turns, transpositions and affine maps do"
        )

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


class GeometricTransform(Transform, abstract=True):
    """Base class of the transforms that move pixels, of which several in a row are one map and one interpolation.

    Attributes:
        sampling: what an interpolation of its own needs to know; None for those that copy pixels.
    """

    sampling: Sampling | None = None

    def warp(self, parameters: Any, batch_shape: Sequence[int]) -> Warp:
        """Where the pixels come from in images of this shape."""
        raise NotImplementedError

    def _transform(self, images: Tensor, masks: Tensor | None, parameters: Any, /) -> tuple[Tensor, Tensor | None]:
        assert self.sampling is not None
        return self.warp(parameters, images.shape).apply(images, masks, self.sampling)


class SymmetryTransform(GeometricTransform, abstract=True):
    """Base class of the transforms that turn, flip or transpose: exact copies, and several in a row one copy."""

    def symmetry(self, parameters: Any, square: bool) -> Symmetry:
        """What the parameters do to images that are square, or not."""
        raise NotImplementedError

    def warp(self, parameters: Any, batch_shape: Sequence[int]) -> Warp:
        height, width = batch_shape[-2:]
        return Warp.of_symmetry(self.symmetry(parameters, height == width), (height, width))

    def _transform(self, images: Tensor, masks: Tensor | None, parameters: Any, /) -> tuple[Tensor, Tensor | None]:
        return self.symmetry(parameters, is_square(images)).apply(images, masks)


def check_probability(p: Any) -> float:
    """The value as a plain number; ValueError unless it lies in [0, 1]."""
    if isinstance(p, bool | str) or not isinstance(p, SupportsFloat) or not 0 <= float(p) <= 1:
        raise ValueError(f"p must be a probability in [0, 1], got {p!r}")
    return float(p)


def draw_chosen(batch_shape: Sequence[int], generator: torch.Generator, p: float) -> Tensor:
    """(B,) bool: which samples a transform of probability p works on."""
    return torch.rand(batch_shape[0], generator=generator, device=generator.device) < p


def draw_uniform(shape: Sequence[int], generator: torch.Generator, between: tuple[float, float]) -> Tensor:
    """Numbers of this shape, uniform between two."""
    low, high = between
    return torch.rand(shape, generator=generator, device=generator.device) * (high - low) + low


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


def is_square(images: Tensor) -> bool:
    """Whether the images are as high as wide."""
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
