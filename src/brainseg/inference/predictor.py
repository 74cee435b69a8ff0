"""From an image to its mask with nothing else to remember: size, scale and channels as the weights expect them.

Several networks predict as one.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from brainseg.checks import check_choice, check_count, check_counts
from brainseg.data.nifti import stretch_of
from brainseg.inference.backends import Backend, create_backend
from brainseg.inference.components import postprocess, voxel_volume
from brainseg.inference.foreign import check_finite, check_logits, find_queries, find_spec
from brainseg.inference.images import ImageLike, check_unit_range, to_images
from brainseg.inference.part import check_whole, logits_of_part, resize_of
from brainseg.inference.symmetries import mean_over_symmetries
from brainseg.inference.windows import mean_over_windows
from brainseg.models import ModelSpec, Postprocessing, QueryPredictions, SegmentationModel, create_model
from brainseg.models.files import find_members, read_config, write_ensemble
from brainseg.models.mask_dino import Instances, instance_inference, semantic_logits
from brainseg.transforms import Resize, create_transform
from brainseg.transforms.geometry import pad_to


class Predictor:
    """Segments images with a network, as the spec of its weights says.

    Args:
        model: it is moved to the device; its mode is eval while it predicts, and afterwards as it was.
        spec: what the network takes and gives; None for `model.spec`. Needed for a network that is none of ours, whose
            output must be the logits (B, K, H, W) of the spec's classes.
        image_size: in place of the spec's, if given; its `crop` changes with it.
        threshold: in place of the spec's, if given.
        tta: average the logits over the eight turns and flips of the image (test-time augmentation).
        windows: see images larger than the spec's `image_size` window by window and not resized, all of them even if
            the spec has a `crop`. A side that is smaller is filled up with 0 where the aspect ratio is kept; else both
            must be larger.
        device: None for a GPU if there is one; "onnxruntime" has the CPU alone.
        backend: "torch"; "compile": by `optimize(model, compile=True)`, which takes up to a minute and a C++ compiler
            the first time, and is kept for later processes; "onnxruntime" (extra `export`). The masks are the same; the
            last two keep the weights that the model has now.

    Attributes:
        spec: what is done with every image and with its logits.

    Raises:
        TypeError: a network without a spec.
        ValueError: a spec that does not fit the network, a normalization that cannot be built, another backend, or a
            network that the backend does not take.
        ImportError: a backend that is not installed.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        spec: ModelSpec | None = None,
        image_size: tuple[int, int] | None = None,
        threshold: float | tuple[float, ...] | None = None,
        tta: bool = False,
        windows: bool = False,
        device: str | torch.device | None = None,
        backend: Backend = "torch",
    ) -> None:
        check_choice("backend", backend, Backend)
        found = find_spec(model, spec)
        if found is None:
            raise TypeError(
                f"{type(model).__name__} does not say what its output means; give Predictor(model, spec=ModelSpec(...))"
            )
        self.spec = _with(found, image_size, threshold)
        has_gpu = torch.cuda.is_available() and backend != "onnxruntime"
        self.device = torch.device(device or ("cuda" if has_gpu else "cpu"))
        self.model = model.to(self.device)
        if windows and self.spec.image_size is None:
            raise ValueError(
                "windows are of the size that a network was trained at, and the spec of this one names none; leave "
                "windows out (or name one in Python: image_size=(height, width))"
            )
        self.tta, self.windows = tta, windows
        self.normalize = None if self.spec.normalization is None else create_transform(self.spec.normalization)
        self._forward = create_backend(backend, self.model, self.spec)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **arguments: Any) -> "Predictor":
        """A predictor of the weights that `save_pretrained` wrote, or of a run's best; arguments as for the class.

        The folder of an ensemble or of a cross-validation gives an `Ensemble`.
        """
        found, *others = find_members(Path(folder).expanduser())
        if others:
            return Ensemble.from_folders([found, *others], **arguments)
        model = SegmentationModel.from_pretrained(found)
        if read_config(found).spec is None and arguments.get("spec") is None:
            spec = replace(model.spec, keep_aspect_ratio=False)
            model.spec = _with(spec, _image_size_of_run(found.parent), None)
        return cls(model, **arguments)

    @classmethod
    def from_weights(cls, name: str, weights: str, **arguments: Any) -> Self:
        """A predictor of weights that ship, such as "unext" and "lgg" (`list_weights`); arguments as for the class.

        >>> Predictor.from_weights("unext", "lgg").spec.class_names
        ('tumour',)
        """
        return cls(create_model(name, weights=weights), **arguments)

    def logits(self, images: Tensor, *, stretch: float = 1.0) -> Tensor:
        """Logits of a batch.

        Args:
            images: (B, C, H, W) floating point in [0, 1], channels as stored, on any device.
            stretch: height of a pixel over its width, in mm. A network that sees images at an `image_size`, their
                aspect ratio kept, sees that of the head; others see pixels as they are.

        Returns:
            (B, K, H, W) on the predictor's device, of the size of the images.

        Raises:
            ValueError: values beyond [0, 1], channels or sides that the network does not take, or logits that are not
                finite.
        """
        with torch.inference_mode(), _evaluating(self.model):
            logits = self._logits(self._checked(images), resize_of(self.spec, stretch))
        check_finite(logits, self.model)
        return logits

    def _logits(self, images: Tensor, resize: Resize | None) -> Tensor:
        height, width = images.shape[-2:]
        if self.windows and self._has_windows(height, width):
            return self._over_windows(images)
        raw = images if resize is None else resize(images)
        images = self._normalized(raw)
        if self.spec.crop is None:
            logits = self._network(images)
        else:
            logits = logits_of_part(self._network, raw, images, self.spec)
        return logits if resize is None else resize.undo(logits, (height, width))

    def _has_windows(self, *size: int) -> bool:
        """Whether images are so large that they are not resized."""
        assert self.spec.image_size is not None
        larger = [side >= wanted for side, wanted in zip(size, self.spec.image_size, strict=True)]
        return any(larger) if self.spec.keep_aspect_ratio else all(larger)

    def _over_windows(self, images: Tensor) -> Tensor:
        window, size = self.spec.image_size, (images.shape[-2], images.shape[-1])
        assert window is not None
        if any(side < least for side, least in zip(size, window, strict=True)):
            images = pad_to(images, (max(size[0], window[0]), max(size[1], window[1])))
        return mean_over_windows(self._network, self._normalized(images), window)[..., : size[0], : size[1]]

    def _checked(self, images: Tensor) -> Tensor:
        """Images on the network's device, in its dtype."""
        check_unit_range(images)
        self._check_channels(images)
        return images.to(self.device, _dtype(self.model))

    def _normalized(self, images: Tensor) -> Tensor:
        return images if self.normalize is None else self.normalize(images)

    def _network(self, images: Tensor) -> Tensor:
        return mean_over_symmetries(self._answer, images) if self.tta else self._answer(images)

    def _answer(self, images: Tensor) -> Tensor:
        return check_logits(self._forward(images), images, self.model)

    def __call__(self, image: ImageLike, *, stretch: float = 1.0) -> Tensor:
        """The masks of an image, or of each image of a batch.

        Args:
            image: path; PIL image; array (H, W, C) or (H, W), uint8 or uint16 as image files hold it, or floats in
                [0, 1]; tensor (C, H, W) or batch (B, C, H, W), in [0, 1] or uint8.
            stretch: as for `logits`.

        Returns:
            (K, H, W) bool, on the CPU, of a batch (B, K, H, W). Of "multiclass" exactly one class for each pixel.

        Raises:
            TypeError: none of these.
            ValueError: another rank, dtype or range, or an image that the network does not take.
        """
        return self._predict(image, self.spec.masks, stretch)

    def probabilities(self, image: ImageLike, *, stretch: float = 1.0) -> Tensor:
        """Probabilities (K, H, W) float32 of an image, of a batch (B, K, H, W), on the CPU; arguments as for a call."""
        return self._predict(image, lambda logits: self.spec.probabilities(logits).float(), stretch)

    def labels(self, image: ImageLike, *, stretch: float = 1.0) -> Tensor:
        """The likeliest class of each pixel, by its place in `spec.class_names`; arguments as for a call.

        Returns:
            (H, W) int64, of a batch (B, H, W), on the CPU.

        Raises:
            ValueError: a network whose classes may overlap, besides what a call raises.
        """
        if self.spec.task != "multiclass":
            raise ValueError(f"the network's task is {self.spec.task!r}, and labels are of 'multiclass'; use its masks")
        return self._predict(image, lambda logits: self.spec.probabilities(logits).argmax(1), stretch)

    def instances(
        self, image: ImageLike, *, min_score: float | None = 0.5, stretch: float = 1.0
    ) -> Instances | list[Instances]:
        """The objects of an image, each with its class, score, box and mask; of a network with queries (Mask DINO).

        Args:
            image: as for a call.
            min_score: objects of a lower score are left out; None keeps the 100 likeliest, however doubtful.
            stretch: as for `logits`.

        Returns:
            objects on the CPU, best first, boxes and masks in pixels of the image; the background of "multiclass" is
            none. Of a batch a list of them.

        Raises:
            ValueError: a network without queries, a predictor with `tta` or `windows`, a spec with a `crop`, a score
                that is none, besides what a call raises.
        """
        images = to_images(image)
        resize = resize_of(self.spec, stretch)
        found = self._instances(self._queries(images, resize), images, min_score, resize)
        return found if _is_batch(image) else found[0]

    def logits_and_instances(self, images: Tensor, *, stretch: float = 1.0) -> tuple[Tensor, list[Instances]]:
        """Logits of a batch, as of `logits`, and all of its objects, as of `instances`, for the time of one of them.

        Args:
            images: as for `logits`.
            stretch: likewise.

        Raises:
            ValueError: as of these two.
        """
        resize = resize_of(self.spec, stretch)
        predictions = self._queries(images, resize)
        with torch.inference_mode():
            logits = semantic_logits(predictions)
            if resize is not None:
                logits = resize.undo(logits, (images.shape[-2], images.shape[-1]))
        return logits, self._instances(predictions, images, None, resize)

    def _queries(self, images: Tensor, resize: Resize | None) -> QueryPredictions:
        queries = find_queries(self.model)
        if self.tta or self.windows:
            raise ValueError("objects of turned images and of windows have no mean; predict instances without")
        check_whole(self.spec)
        with torch.inference_mode(), _evaluating(self.model):
            images = self._checked(images)
            return queries(self._normalized(images if resize is None else resize(images)))

    def _instances(
        self, predictions: QueryPredictions, images: Tensor, min_score: float | None, resize: Resize | None
    ) -> list[Instances]:
        size = (images.shape[-2], images.shape[-1])
        seen = None if resize is None else resize.content_size(*size)
        with torch.inference_mode():
            found = instance_inference(predictions, seen, size, things=self.spec.foreground, min_score=min_score)
        return [each.to("cpu") for each in found]

    def volume(
        self,
        slices: Tensor,
        *,
        spacing: Sequence[float] | None = None,
        postprocessing: Postprocessing | None = None,
        batch_size: int = 8,
    ) -> Tensor:
        """The masks of a patient from all slices together, smoothed over slices and rid of components as the spec says.

        Args:
            slices: (S, C, H, W) floating point in [0, 1], in order.
            spacing: of slices, rows and columns in mm; needed where components below a volume are removed, and where
                pixels are no squares.
            postprocessing: in place of the spec's, if given.
            batch_size: slices that the network sees at once.

        Returns:
            (S, K, H, W) bool, on the CPU.

        Raises:
            ValueError: no slices, a batch of none, or what `logits` and `postprocess` raise.
        """
        if slices.dim() != 4 or len(slices) == 0:
            raise ValueError(f"expected the slices of a patient (S, C, H, W), got shape {tuple(slices.shape)}")
        batch_size = check_count("batch_size", batch_size)
        if spacing is not None:
            voxel_volume(spacing)  # three positive numbers
        stretch = stretch_of(spacing)
        parts = torch.split(slices, batch_size)
        likely = [self.spec.probabilities(self.logits(few, stretch=stretch)).cpu() for few in parts]
        return postprocess(torch.cat(likely), self.spec, steps=postprocessing, spacing=spacing)

    def _predict(self, image: ImageLike, of_logits: Any, stretch: float) -> Tensor:
        result: Tensor = of_logits(self.logits(to_images(image), stretch=stretch)).cpu()
        return result if _is_batch(image) else result[0]

    @property
    def in_channels(self) -> int | None:
        """Channels of the images; None for a network that does not say so."""
        return self.model.config["in_channels"] if isinstance(self.model, SegmentationModel) else None

    def _check_channels(self, images: Tensor) -> None:
        expected = self.in_channels
        if expected is not None and images.dim() == 4 and images.shape[1] != expected:
            hint = "; permute it to channels first" if images.shape[-1] == expected else ""
            if images.shape[2] == expected:
                hint = "; arrays are (height, width, channels), tensors (channels, height, width)"
            trained = f"this network was trained on {expected} channel{'s' * (expected != 1)}"
            raise ValueError(f"{trained}; the image has {images.shape[1]}{hint}")


class Ensemble(Predictor):
    """Predicts by the mean of the logits of several predictors, each with the size and normalization of its weights.

    Args:
        members: predictors of one task with the same names of classes; threshold, postprocessing and values of label
            maps are the first's.

    Raises:
        ValueError: no members, or tasks, classes, channels or axes that differ.
    """

    def __init__(self, members: Sequence[Predictor]) -> None:
        if not members:
            raise ValueError("an ensemble needs one member or more")
        first = members[0].spec
        for member in members[1:]:
            if (member.spec.task, member.spec.class_names) != (first.task, first.class_names):
                raise ValueError(
                    f"members must agree in task and classes, got {first.task} of {', '.join(first.class_names)} and "
                    f"{member.spec.task} of {', '.join(member.spec.class_names)}"
                )
            _check_same_slices(first, member.spec)
        self.members, self.spec, self.device = list(members), first, members[0].device

    @classmethod
    def from_folders(cls, folders: Sequence[str | Path], **arguments: Any) -> Self:
        """An ensemble of weights or runs; arguments as for `Predictor`."""
        return cls([Predictor.from_pretrained(folder, **arguments) for folder in folders])

    @classmethod
    def from_pretrained(cls, folder: str | Path, **arguments: Any) -> Self:
        """An ensemble of the networks that `save_pretrained` or `brainseg cross-validate` wrote; of a run, one."""
        return cls.from_folders(find_members(Path(folder).expanduser()), **arguments)

    @classmethod
    def from_weights(cls, name: str, weights: str, **arguments: Any) -> Self:
        """An ensemble of one, of weights that ship; arguments as for `Predictor`."""
        return cls([Predictor.from_weights(name, weights, **arguments)])

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes each member's weights, with its spec, below the folder, and last `ensemble.json`, that names them.

        Raises:
            ValueError: a member whose network is none of ours, or one that could not be read back.
        """
        folder, models = Path(folder), dict[str, SegmentationModel]()
        for number, member in enumerate(self.members):
            model = getattr(member, "model", member)
            if not isinstance(model, SegmentationModel):
                raise ValueError(
                    f"member_{number} is {type(model).__name__}, expected a network of brainseg: others cannot be "
                    "built again from their files"
                )
            models[f"member_{number}"] = model
        for member, (name, model) in zip(self.members, models.items(), strict=True):
            with _meaning(model, member.spec):
                model.save_pretrained(folder / name)
        write_ensemble(folder, list(models))

    @property
    def in_channels(self) -> int | None:
        """That of the first member."""
        return self.members[0].in_channels

    def logits(self, images: Tensor, *, stretch: float = 1.0) -> Tensor:
        """Mean logits (B, K, H, W) of a batch (B, C, H, W) floating point in [0, 1], of the size of the images."""
        answers = [member.logits(images, stretch=stretch).to(self.device) for member in self.members]
        return torch.stack(answers).mean(0)

    def _queries(self, images: Tensor, resize: Resize | None) -> QueryPredictions:  # noqa: ARG002
        raise ValueError("objects of several networks have no mean; predict instances with one of the members")


def _with(
    spec: ModelSpec, image_size: tuple[int, int] | None, threshold: float | tuple[float, ...] | None
) -> ModelSpec:
    """The spec with what is given; at another size of the image its crop is the same part of it."""
    if threshold is not None:
        spec = replace(spec, threshold=threshold)
    if image_size is None:
        return spec
    if spec.crop is None or spec.image_size is None:
        return replace(spec, image_size=image_size)
    (height, width), (old_height, old_width) = check_counts("image_size", image_size, 2), spec.image_size
    crop = (round(spec.crop[0] * height / old_height), round(spec.crop[1] * width / old_width))
    return replace(spec, image_size=image_size, crop=crop)


def _check_same_slices(first: ModelSpec, other: ModelSpec) -> None:
    """ValueError where two networks take other channels, as far as these have names, or slices along other axes."""
    names = [[name.lower() for name in spec.channel_names or ()] for spec in (first, other)]
    if all(names) and names[0] != names[1]:
        raise ValueError(
            f"members must take the same channels, got {', '.join(names[0])} and {', '.join(names[1])}; predict apart"
        )
    if first.axis != other.axis:
        raise ValueError(f"members must take slices of one axis, got {first.axis} and {other.axis}; predict apart")


def _image_size_of_run(run: Path) -> tuple[int, int] | None:
    """Before 0.2 the size at which a network sees its images stood in the run's config.yaml alone."""
    if not (run / "config.yaml").is_file():
        return None
    import yaml  # type: ignore[import-untyped]

    size = yaml.safe_load((run / "config.yaml").read_text())["data"].get("image_size")
    return None if size is None else (size[0], size[1])


def _is_batch(image: ImageLike) -> bool:
    return isinstance(image, Tensor) and image.dim() == 4


def _dtype(model: nn.Module) -> torch.dtype:
    return next((x.dtype for x in model.parameters() if x.is_floating_point()), torch.float32)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode for the block, and afterwards each module's own: a network in training is predicted with as well."""
    training = [module for module in model.modules() if module.training]
    if training:
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _meaning(model: SegmentationModel, spec: ModelSpec) -> Iterator[None]:
    """The network with this spec for the block: what a predictor was given may differ from the network's own."""
    own, model.spec = model.spec, spec
    try:
        yield
    finally:
        model.spec = own
