"""What the input and the output of trained weights mean; knows no network."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor

from brainseg._names import no_such
from brainseg.checks import check_between, check_choice, check_counts

Task = Literal["binary", "multilabel", "multiclass"]
Axis = Literal["axial", "coronal", "sagittal"]
Components = Literal["all", "largest", "likeliest"]


@dataclass(frozen=True, kw_only=True)
class Postprocessing:
    """What is done to the probabilities of all slices of a patient; single slices are left as they are.

    Attributes:
        smooth: average each slice with its two neighbours first.
        components: which ones of a class stay: "all", the "largest" alone, or the "likeliest": those that no other one
            exceeds both in voxels and in mean probability, since a false spot is small and faint; of a large faint and
            a small sure one both stay.
        min_volume: components of fewer ml are removed.

    Raises:
        ValueError: values that are none of these.
    """

    smooth: bool = False
    components: Components = "all"
    min_volume: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.smooth, bool):
            raise ValueError(f"smooth must be True or False, got {self.smooth!r}")
        check_choice("components", self.components, Components)
        object.__setattr__(self, "min_volume", check_between("min_volume", self.min_volume, 0, 1e6))


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """What trained weights take and give; saved with them in `config.json`.

    Every reader of a network's output asks here and nowhere else: `Predictor`, export, evaluation, training scores and
    the command.

    Attributes:
        task: "binary": one channel, a sigmoid. "multilabel": a sigmoid for each of K masks, which may overlap.
            "multiclass": a softmax over K classes that exclude each other, class 0 the background.
        class_names: of the K channels of the logits, in their order.
        label_values: of "multiclass", the values that the classes have in label maps, which written ones have again,
            such as (0, 1, 2, 4); None: 0, 1, 2, ...
        threshold: probability above which a pixel is foreground, strictly: one number, or one for each class. None for
            "multiclass", where the most likely class is taken.
        image_size: height and width at which the network sees the images; logits are resized back. None: as they are.
        keep_aspect_ratio: images of another shape than `image_size` are scaled until the longer side fits, and filled
            up with 0 below and to the right (`transforms.Resize`). False: they are stretched.
        crop: height and width, in pixels at `image_size`, of the part around the head (`transforms.CropToHead`) that
            the network sees; beyond it there is nothing but background. None: all of the image.
        normalization: name and arguments of the transform from images in [0, 1], channels as stored, to what the
            network sees, as a transform's `config` has them; None: the images as they are.
        channel_names: of the image's channels, such as the sequences of a volume; None if nobody named them.
        axis: "axial", "coronal" or "sagittal", along which volumes are cut into slices.
        postprocessing: what is done to all slices of a patient together.
        shown_channel: channel of the image that pictures show; None: a gray or colour image as it is, else the first.

    Raises:
        ValueError: values that are none of these, or do not fit each other.

    >>> ModelSpec(task="multiclass", class_names=("background", "oedema", "core")).num_classes
    3
    """

    task: Task = "binary"
    class_names: tuple[str, ...] = ("foreground",)
    label_values: tuple[int, ...] | None = None
    threshold: float | tuple[float, ...] | None = None
    image_size: tuple[int, int] | None = None
    keep_aspect_ratio: bool = True
    crop: tuple[int, int] | None = None
    normalization: dict[str, Any] | None = None
    channel_names: tuple[str, ...] | None = None
    axis: Axis = "axial"
    postprocessing: Postprocessing = Postprocessing()
    shown_channel: int | None = None

    def __post_init__(self) -> None:
        check_choice("task", self.task, Task)
        check_choice("axis", self.axis, Axis)
        names = _check_names("class_names", self.class_names)
        if (self.task == "binary") != (len(names) == 1):
            raise ValueError(
                f"task {self.task!r} does not go with {len(names)} class(es) {', '.join(names)}; one class is "
                "'binary', several are 'multilabel' if they may overlap and 'multiclass' if they exclude each other"
            )
        size = None if self.image_size is None else tuple(check_counts("image_size", self.image_size, 2))
        crop = None if self.crop is None else tuple(check_counts("crop", self.crop, 2))
        if crop is not None and (size is None or crop[0] > size[0] or crop[1] > size[1]):
            raise ValueError(f"crop is a part of the image at image_size, got crop {crop} of image_size {size}")
        if not isinstance(self.keep_aspect_ratio, bool):
            raise ValueError(f"keep_aspect_ratio must be True or False, got {self.keep_aspect_ratio!r}")
        channel = self.shown_channel
        if channel is not None and (isinstance(channel, bool) or not isinstance(channel, int) or channel < 0):
            raise ValueError(f"shown_channel must be an index from 0 or None, got {channel!r}")
        if not isinstance(self.postprocessing, Postprocessing):
            raise ValueError(f"postprocessing must be a Postprocessing, got {self.postprocessing!r}")
        object.__setattr__(self, "class_names", names)
        if self.channel_names is not None:
            object.__setattr__(self, "channel_names", _check_names("channel_names", self.channel_names))
        object.__setattr__(self, "label_values", _check_label_values(self.label_values, self.task, names))
        object.__setattr__(self, "threshold", _check_threshold(self.threshold, self.task, names))
        object.__setattr__(self, "image_size", size)
        object.__setattr__(self, "crop", crop)
        object.__setattr__(self, "normalization", _check_normalization(self.normalization))

    @property
    def num_classes(self) -> int:
        """Channels of the logits, K."""
        return len(self.class_names)

    @property
    def foreground(self) -> range:
        """The classes that are something: all but the background of "multiclass"."""
        return range(int(self.task == "multiclass"), self.num_classes)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities (B, K, ...) of logits (B, K, ...): sigmoids, or a softmax; half types widen to float32.

        Raises:
            ValueError: logits of another number of classes.
        """
        if logits.dim() < 2 or logits.shape[1] != self.num_classes:
            raise ValueError(
                f"logits of shape {tuple(logits.shape)} do not fit the {self.num_classes} class(es) of the spec "
                f"({', '.join(self.class_names)}); expected (B, {self.num_classes}, ...)"
            )
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return logits.softmax(1) if self.task == "multiclass" else logits.sigmoid()

    def masks(self, logits: Tensor) -> Tensor:
        """Masks (B, K, ...) bool of logits (B, K, ...): of "multiclass" exactly one class for each pixel.

        Raises:
            ValueError: logits of another number of classes.
        """
        return self.masks_of_probabilities(self.probabilities(logits))

    def masks_of_probabilities(self, probabilities: Tensor) -> Tensor:
        """The same of what `probabilities` gave, or of a mean of several."""
        if self.task == "multiclass":
            likeliest = probabilities.argmax(1, keepdim=True)
            return torch.zeros_like(probabilities, dtype=torch.bool).scatter_(1, likeliest, True)
        shape = (-1, *(1,) * (probabilities.dim() - 2))
        return probabilities > torch.as_tensor(self.threshold, device=probabilities.device).reshape(shape)

    def check_channels(self, names: Sequence[str] | None) -> None:
        """Refuses the channels of `channel_names` in another order, in which one would be taken for another.

        Other names are not compared: a sequence may be called otherwise, or stand in for one that is missing.

        Raises:
            ValueError: the same names, capitals or not, in another order.
        """
        known, given = ([name.lower() for name in each or ()] for each in (self.channel_names, names))
        if known != given and sorted(known) == sorted(given):
            raise ValueError(
                f"the weights take the channels {', '.join(self.channel_names or ())}, and the data gives "
                f"{', '.join(names or ())}; give sequences of volumes in the order of the weights"
            )

    @classmethod
    def of_classes(cls, num_classes: int) -> Self:
        """The spec of a fresh network: one mask, or K that may overlap, called "class_0" and so on."""
        if num_classes == 1:
            return cls()
        return cls(task="multilabel", class_names=tuple(f"class_{k}" for k in range(num_classes)))

    def with_classes(self, num_classes: int) -> Self:
        """The same for a head of another number of channels, whose classes have no names yet."""
        if num_classes == self.num_classes:
            return self
        fresh = type(self).of_classes(num_classes)
        if self.task == "multiclass" and num_classes > 1:
            names = ("background", *fresh.class_names[1:])
            return replace(self, class_names=names, label_values=None)
        return replace(self, task=fresh.task, class_names=fresh.class_names, label_values=None, threshold=None)

    def to_json(self) -> dict[str, Any]:
        """The attributes as JSON values."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The spec of `to_json`.

        Raises:
            ValueError: attributes that a spec does not have, or values that cannot be.
        """
        known = [field.name for field in fields(cls)]
        if unknown := [name for name in values if name not in known]:
            raise ValueError(f"{no_such('attribute of a spec', unknown[0], known)} a newer version may have written it")
        steps = values.get("postprocessing", {})
        if not isinstance(steps, Mapping):
            raise ValueError(f"postprocessing must be a mapping of steps, got {steps!r}")
        # Where nothing is said of it the weights were trained on stretched images.
        given = {"keep_aspect_ratio": False, **values, "postprocessing": Postprocessing(**steps)}
        return cls(**given)


def _check_names(kind: str, names: Any) -> tuple[str, ...]:
    sound = isinstance(names, Sequence) and not isinstance(names, str) and len(names) > 0
    if not sound or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(f"{kind} must be a name for each {kind.removesuffix('_names')}, got {names!r}")
    if twice := [name for name in names if list(names).count(name) > 1]:
        raise ValueError(f"{kind} must differ, got {twice[0]!r} {list(names).count(twice[0])} times")
    return tuple(names)


def _check_label_values(values: Any, task: Task, names: Sequence[str]) -> tuple[int, ...] | None:
    if values is None:
        return None
    if task != "multiclass":
        raise ValueError(f"label_values are of 'multiclass', got {values!r} for {task!r}")
    sound = isinstance(values, Sequence) and len(values) == len({*values}) == len(names) and values[0] == 0
    if not sound or not all(type(value) is int and 0 <= value <= 65535 for value in values):
        raise ValueError(
            f"label_values must be 0 and a number to 65535 for each other of {', '.join(names)}, got {values!r}"
        )
    return None if [*values] == [*range(len(names))] else tuple(values)


def _check_threshold(threshold: Any, task: Task, names: Sequence[str]) -> float | tuple[float, ...] | None:
    if task == "multiclass":
        if threshold is not None:
            raise ValueError(f"threshold must be None for 'multiclass', the likeliest class wins, got {threshold!r}")
        return None
    if threshold is None:
        return 0.5
    if not isinstance(threshold, Sequence) or isinstance(threshold, str):
        return check_between("threshold", threshold, 0, 1)
    if len(threshold) != len(names):
        raise ValueError(f"threshold must be one number, or one for each of {len(names)} classes, got {threshold!r}")
    return tuple(check_between("each threshold", value, 0, 1) for value in threshold)


def _check_normalization(normalization: Any) -> dict[str, Any] | None:
    if normalization is None:
        return None
    sound = isinstance(normalization, Mapping) and normalization.keys() == {"name", "arguments"}
    if not sound or not isinstance(normalization["name"], str) or not isinstance(normalization["arguments"], Mapping):
        raise ValueError(
            f"normalization must be {{'name': ..., 'arguments': {{...}}}} as a transform's config has it, "
            f"got {normalization!r}"
        )
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(normalization), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"normalization must hold JSON values, got {normalization!r}: {error}") from error
    return plain
