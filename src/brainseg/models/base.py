"""What every network promises: from the image to logits of its size, with taps, checkpointing and files."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal, Self, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from brainseg.checks import check_count
from brainseg.models import files, hub
from brainseg.models.adaptation import differences, load_adapted
from brainseg.models.card import model_card
from brainseg.models.layers import number_layers
from brainseg.models.spec import ModelSpec

Indices = int | Sequence[int] | None


class SegmentationModel(nn.Module):
    """Base class of the networks: image in, logits of the same height and width out.

    A network builds its boxes in `__init__`, ends it with `_build_heads`, and tells its story in `encode` and
    `decode`; checks, padding, heads, feature taps, checkpointing and files live here.

    Attributes:
        config: the constructor's arguments as JSON values; ``type(model)(**model.config)`` builds the same network.
        feature_info: for each encoder feature ``num_chs``, ``reduction`` (its stride) and ``module`` (its box).
        num_features: channels D of the last decoder box, which the head reads.

    Shape:
        images (B, C, H, W) floating point, H and W at least 32 -> logits (B, K, H, W). With `deep_supervision` and in
        training mode a list, finest first: (B, K, ceil(H/s), ceil(W/s)) for s = 1, 2, 4, ..., without the strides
        finer than that of the decoder. With `num_classes=0` there is no head: what it would read, (B, D, H, W).
    """

    stride: int
    """Sides are padded to a multiple of it: at the bottom and right, cropped off the logits again."""
    minimum_side: ClassVar[int] = 32
    padding_mode: ClassVar[str] = "replicate"
    """As for `torch.nn.functional.pad`."""
    class_modules: ClassVar[tuple[str, ...]] = ("head", "auxiliary_heads")
    """Where weights have a row for each class, by the names of the modules."""
    former_modules: ClassVar[Mapping[str, str]] = {}
    """What modules are called in files of earlier versions, and what they are called now, in full."""
    stems: tuple[str, ...]
    """The convolutions that read the image, by their names in the network."""
    decoder_stride: int = 1
    """Stride of the last decoder box, from which the logits are upsampled bilinearly."""

    feature_info: list[dict[str, Any]]
    num_features: int
    classes: ClassVar[dict[str, type["SegmentationModel"]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if not cls.__module__.startswith("torch."):  # the exporter makes subclasses of the same name to trace with
            SegmentationModel.classes[cls.__name__] = cls

    def __init__(
        self, in_channels: int, num_classes: int, *, deep_supervision: bool | None = None, **arguments: Any
    ) -> None:
        super().__init__()
        in_channels = check_count("in_channels", in_channels)
        num_classes = _check_classes(num_classes)
        config = {"in_channels": in_channels, "num_classes": num_classes, **arguments}
        if deep_supervision is not None:  # a constructor without it could not be called with its config again
            if not isinstance(deep_supervision, bool):
                raise ValueError(f"deep_supervision must be True or False, got {deep_supervision!r}")
            config["deep_supervision"] = deep_supervision
        self.config: dict[str, Any] = json.loads(json.dumps(config))
        self._spec = ModelSpec.of_classes(num_classes or 1)
        self.grad_checkpointing = False
        self.auxiliary_heads = nn.ModuleList()

    @property
    def spec(self) -> ModelSpec:
        """What trained weights take and give; saved with them. Set another one by `dataclasses.replace`.

        Raises:
            ValueError: a network of `num_classes=0`, whose features mean no classes.
        """
        if self.config["num_classes"] == 0:
            raise ValueError(
                f"this {type(self).__name__} has num_classes=0 and gives features, not masks; give it classes by "
                "reset_classifier(num_classes) and train its head"
            )
        return self._spec

    @spec.setter
    def spec(self, spec: ModelSpec) -> None:
        if not isinstance(spec, ModelSpec):
            raise TypeError(f"spec must be a ModelSpec, got {type(spec).__name__}")
        if spec.num_classes != self.config["num_classes"]:
            raise ValueError(
                f"a spec of {spec.num_classes} class(es) ({', '.join(spec.class_names)}) does not fit a network of "
                f"num_classes={self.config['num_classes']}; name each class once"
            )
        self._spec = spec

    def take_spec(self, spec: ModelSpec) -> None:
        """Takes over the spec of other weights, without what it says of classes or channels of another number."""
        if spec.channel_names is not None and len(spec.channel_names) != self.config["in_channels"]:
            spec = replace(spec, channel_names=None, shown_channel=None)
        num_classes = self.config["num_classes"]
        self._spec = spec.with_classes(num_classes) if num_classes else spec

    @property
    def normalization(self) -> dict[str, Any] | None:
        """That of `spec`: name and arguments of the transform that the weights expect on their input, or None."""
        return self._spec.normalization

    @normalization.setter
    def normalization(self, normalization: dict[str, Any] | None) -> None:
        self._spec = replace(self._spec, normalization=normalization)

    def encode(self, x: Tensor) -> list[Tensor]:
        """Encoder features, shallow to deep, of an image whose sides are multiples of `stride`."""
        raise NotImplementedError

    def decode(self, features: list[Tensor]) -> Iterator[Tensor]:
        """The output of every decoder box, coarse to fine; the last has the stride `decoder_stride`.

        The features are taken off the list as they are used, so that their memory is free for what follows.
        """
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Logits of the images; see the class for shapes.

        Raises:
            ValueError: images of another rank, number of channels or dtype, or smaller than `minimum_side`. Compiled
                and exported programs do not check.
        """
        self._check(images)
        height, width = images.shape[-2:]
        coarser: list[Tensor] = []
        boxes = len(self.auxiliary_heads)
        for level, x in enumerate(self.decode(self.encode(self._pad(images)))):
            if self.training and level < boxes:
                reduction = self.decoder_stride * 2 ** (boxes - level)
                coarser.append(self._cropped(self.auxiliary_heads[level](x), height, width, reduction))
        logits = self._logits(x, height, width)
        return [logits, *reversed(coarser)] if self.training and self.config.get("deep_supervision") else logits

    @overload
    def forward_intermediates(
        self, images: Tensor, *, indices: Indices = None, intermediates_only: Literal[True]
    ) -> list[Tensor]: ...

    @overload
    def forward_intermediates(
        self, images: Tensor, *, indices: Indices = None, intermediates_only: Literal[False] = False
    ) -> tuple[Tensor, list[Tensor]]: ...

    def forward_intermediates(
        self, images: Tensor, *, indices: Indices = None, intermediates_only: bool = False
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Encoder features, shallow to deep, each (B, num_chs, ceil(H/reduction), ceil(W/reduction)).

        Args:
            images: (B, C, H, W), as for `forward`.
            indices: which features: the last so many of a number, those at a list of positions in `feature_info`
                (negative ones count from the end); None for all.
            intermediates_only: leave out the decoder and return the features alone.

        Returns:
            the features described by `feature_info`, or (logits (B, K, H, W), features).

        Raises:
            ValueError: images that do not fit, or indices of features that there are not.
        """
        chosen = self.choose_features(indices)
        self._check(images)
        height, width = images.shape[-2:]
        features = self.encode(self._pad(images))
        cropped = [
            self._crop(x, height, width, info["reduction"])
            for k, (x, info) in enumerate(zip(features, self.feature_info, strict=True))
            if k in chosen
        ]
        if intermediates_only:
            return cropped
        *_, finest = self.decode(features)
        return self._logits(finest, height, width), cropped

    def choose_features(self, indices: Indices) -> list[int]:
        """The positions in `feature_info` that `indices` of `forward_intermediates` mean, shallow to deep.

        Raises:
            ValueError: features that there are not.
        """
        number = len(self.feature_info)
        wanted = range(number) if indices is None else range(-indices, 0) if isinstance(indices, int) else indices
        if not wanted or any(k not in range(-number, number) for k in wanted):
            raise ValueError(
                f"{type(self).__name__} has {number} features; indices must be how many of the last, or positions from "
                f"0 to {number - 1}, got {indices!r}"
            )
        return sorted({k % number for k in wanted})

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """What timm's `param_groups_layer_decay` and `group_parameters` ask for: a parameter's layer by its name.

        Layers are numbered from the image on; the boxes of the encoder come first, decoder and heads together are last.

        Args:
            coarse: a layer for each of `feature_info`; else one for each block of it, such as a residual unit.
        """
        numbers = number_layers(self, [info["module"] for info in self.feature_info], coarse=coarse)
        return numbers.__getitem__

    def get_classifier(self) -> nn.Module:
        """What turns features into classes: the last convolution, or an identity of `num_classes=0`."""
        head: nn.Module = self.head
        return head

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces the head (and those of deep supervision) by a freshly initialised one of `num_classes` channels.

        With 0 there is none, and `forward` gives features (B, `num_features`, H, W).
        """
        self.config["num_classes"] = _check_classes(num_classes)
        self.take_spec(self._spec)
        like = next(self.parameters())
        self._build_heads(self._decoder_channels)
        for heads in (self.head, self.auxiliary_heads):
            heads.to(device=like.device, dtype=like.dtype).train(self.training)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trades time for memory: the backward pass recomputes each box instead of keeping what is inside it.

        Compile a checkpointed network with `fullgraph=True`: around a graph break in a box its batch norms count twice.
        """
        self.grad_checkpointing = enable

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes `config.json` and `model.safetensors`, which `from_pretrained` reads.

        Args:
            folder: made if absent; the two files replace older ones in one move each.

        Raises:
            ValueError: the network is no longer the one that its config builds, and could not be read back.
        """
        with torch.device("meta"):
            built = type(self)(**self.config).state_dict()
        if changed := differences(built, self.state_dict()):
            raise ValueError(
                f"this {type(self).__name__} is not what its config builds ({changed}) and could not be read back; "
                "save it before optimize() or other changes to its boxes"
            )
        files.write(Path(folder), self.config_text(), self.state_dict())

    def push_to_hub(
        self,
        repository: str,
        *,
        message: str = "Weights of brainseg",
        private: bool | None = None,
        branch: str | None = None,
        token: str | None = None,
    ) -> str:
        """Uploads what `save_pretrained` writes, and a model card, to the Hugging Face Hub.

        Args:
            repository: "org/name", made if there is none; `from_pretrained` reads it. A card that it has stays.
            message: of the commit.
            private: whether a new repository is; None for what is usual for the owner.
            branch: made if there is none; None for main.
            token: None for that of `hf auth login`.

        Returns:
            the address of the commit.

        Raises:
            ConnectionError: the Hub cannot be reached.
            PermissionError: not signed in, or not allowed to write there.
            ValueError: as of `save_pretrained`, or no name of a repository.
        """
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            (Path(folder) / "README.md").write_text(model_card(type(self).__name__, repository, self._spec))
            return hub.push_folder(
                Path(folder), repository, message=message, private=private, branch=branch, token=token
            )

    def config_text(self) -> str:
        """The content of `config.json`: the network's name, its arguments, its spec and the version."""
        return files.config_text(type(self).__name__, self.config, self._spec)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **changes: Any) -> Self:
        """Builds the network that `save_pretrained` wrote; called on SegmentationModel, whichever network it is.

        Args:
            folder: holds `config.json` and `model.safetensors`, or a run whose best weights are taken; or the name of
                weights that ship, or a repository of the Hugging Face Hub, "org/name" or "org/name@revision".
            changes: constructor arguments to change. Another `in_channels` sums or repeats the stem's kernels, another
                `num_classes` starts a fresh head; what was adapted is logged as a warning.

        Raises:
            ConnectionError: weights of the Hub that are not in its cache, and no connection.
            FileNotFoundError: no such folder, file or repository.
            ValueError: a truncated or foreign file, another network, or weights that do not fit the changes.
        """
        folder = files.find_folder(Path(folder).expanduser())
        config = files.read_config(folder)
        network = cls.classes.get(config.model)
        if network is None:
            raise ValueError(
                f"{folder} holds a {config.model}, and no network of this name is defined; known are "
                f"{', '.join(sorted(cls.classes))}: import the module that defines it first"
            )
        if not issubclass(network, cls):
            raise ValueError(f"{folder} holds a {config.model}, not a {cls.__name__}; use its from_pretrained")
        try:
            model = network(**{**config.arguments, **changes})
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{folder}: {network.__name__} cannot be built from its config.json with {changes}: {error}"
            ) from error
        load_adapted(model, files.read_state_dict(folder / files.WEIGHTS), folder, config)
        return model

    def _check(self, images: Tensor) -> None:
        if torch.compiler.is_compiling():
            return
        name = type(self).__name__
        if not isinstance(images, Tensor):
            raise TypeError(f"{name} takes a tensor (B, C, H, W), got {type(images).__name__}; use torch.from_numpy")
        shape = tuple(images.shape)
        channels = self.config["in_channels"]
        last = bool(shape) and shape[-1] == channels and shape[-3:-2] != (channels,)
        if images.dim() != 4:
            advice = "add a batch axis with images[None]"
            if images.dim() == 3 and last:
                advice = "of an image (H, W, C) take image.permute(2, 0, 1)[None]"
            raise ValueError(f"{name} takes images (B, C, H, W), got shape {shape}; {advice}")
        if shape[1] != channels:
            advice = f"build it with in_channels={shape[1]}"
            if last:
                advice = "of images (B, H, W, C) take images.permute(0, 3, 1, 2)"
            raise ValueError(f"{name} was built for {channels} channels, got an image of shape {shape}; {advice}")
        if not images.is_floating_point():
            raise ValueError(f"{name} takes floating-point images, got {images.dtype}; use images.float() / 255")
        if min(shape[2:]) < self.minimum_side:
            raise ValueError(
                f"{name} takes sides of at least {self.minimum_side} pixels, got an image of shape {shape}; "
                "resize or pad it"
            )

    def _pad(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        # A multiple of a quotient and no remainder: the compilers' shape inference knows what 32 * n / 2 is.
        bottom = self.stride * _ceil_div(height, self.stride) - height
        right = self.stride * _ceil_div(width, self.stride) - width
        return images if _is_zero(bottom, right) else F.pad(images, (0, right, 0, bottom), self.padding_mode)

    def _logits(self, finest: Tensor, height: int, width: int) -> Tensor:
        logits: Tensor = self.head(finest)
        if self.decoder_stride > 1:  # behind the head, which has fewer channels, and gives the same numbers there
            logits = F.interpolate(logits, scale_factor=float(self.decoder_stride), mode="bilinear")
        return self._cropped(logits, height, width, 1)

    def _cropped(self, logits: Tensor, height: int, width: int, reduction: int) -> Tensor:
        # Contiguous, since losses like to view logits as (B, K * H * W), whatever the layout inside.
        return self._crop(logits, height, width, reduction).contiguous()

    def _crop(self, x: Tensor, height: int, width: int, reduction: int) -> Tensor:
        """The part of a map of this reduction that an image of this height and width covers."""
        bottom = x.shape[-2] - _ceil_div(height, reduction)
        right = x.shape[-1] - _ceil_div(width, reduction)
        # A negative padding and no slice: that a slice is dense or not would bind an exported program to the size.
        return x if _is_zero(bottom, right) else F.pad(x, (0, -right, 0, -bottom))

    def _build_heads(self, channels: Sequence[int]) -> None:
        """The 1x1 convolutions behind the decoder's boxes, whose widths are given coarse to fine."""
        self._decoder_channels = tuple(channels)
        *coarser, self.num_features = channels
        num_classes, deep_supervision = self.config["num_classes"], self.config.get("deep_supervision")

        def head(width: int) -> nn.Module:
            return nn.Conv2d(width, num_classes, kernel_size=1) if num_classes else nn.Identity()

        self.head = head(self.num_features)
        self.auxiliary_heads = nn.ModuleList(head(width) for width in (coarser if deep_supervision else ()))

    def _run(self, box: nn.Module, *inputs: Tensor) -> Any:
        """The output of one box of the network, recomputed in the backward pass if checkpointing is on."""
        if not (self.grad_checkpointing and torch.is_grad_enabled()):
            return box(*inputs)

        if torch.compiler.is_compiling():  # a compiled graph updates the statistics once, whatever it recomputes
            return checkpoint(box, *inputs, use_reentrant=False)

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), _FrozenStatistics(box)

        return checkpoint(box, *inputs, use_reentrant=False, context_fn=contexts)


def _check_classes(num_classes: Any) -> int:
    return 0 if num_classes == 0 and not isinstance(num_classes, bool) else check_count("num_classes", num_classes)


class _FrozenStatistics(AbstractContextManager[None]):
    """The batch norms of a box update copies of their statistics, which are dropped again.

    Entered once for each backward pass through the graph, so it is no generator.
    """

    def __init__(self, box: nn.Module) -> None:
        self.norms = [module for module in box.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        self.kept: list[tuple[nn.Module, str, Tensor]] = []

    def __enter__(self) -> None:
        self.kept = [(norm, name, buffer) for norm in self.norms for name, buffer in norm.named_buffers()]
        for norm, name, buffer in self.kept:
            setattr(norm, name, buffer.clone())

    def __exit__(self, *_: object) -> None:
        for norm, name, buffer in self.kept:
            setattr(norm, name, buffer)


def _is_zero(*amounts: int) -> bool:
    """Whether there is nothing to pad: only an eager call may look, a compiled one would be bound to the size."""
    return not torch.compiler.is_compiling() and not any(amounts)


def _ceil_div(side: int, divisor: int) -> int:
    quotient = (side + divisor - 1) // divisor
    if torch.compiler.is_dynamo_compiling() or not torch.compiler.is_compiling():
        return quotient
    # Shape inference of an export does not see by itself that this is positive, and so that no map can be empty.
    positive: int = torch.sym_max(quotient, 1)  # type: ignore[no-untyped-call]
    return positive


def describe_features(channels: Sequence[int], reductions: Sequence[int], boxes: Sequence[str]) -> list[dict[str, Any]]:
    """The encoder's features under timm's names, shallow to deep."""
    return [
        {"num_chs": width, "reduction": reduction, "module": box}
        for width, reduction, box in zip(channels, reductions, boxes, strict=True)
    ]
