"""What all metrics agree on: what a mask is, what an empty one means, and how the values of cases become a result."""

import math
import warnings
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from brainseg.losses.rules import valid_pixels

Aggregation = Literal["slice", "patient", "dataset", "batch"]
Average = Literal["macro", "none"]
Empty = Literal["exclude", "one", "zero"]


class MetricResult(NamedTuple):
    """A mean, and what it is the mean of.

    The counts are summed over the classes; with ``average="none"`` there is one for each class.

    Attributes:
        value: what `compute()` returns: float32, a scalar or with ``average="none"`` (K,); of ConfusionCounts (K, 4).
        cases: how many cases the mean runs over.
        excluded: how many were left out of it: those of two empty masks, those of which every pixel is ignored, and
            those in which the metric is not defined.
        missed: how many have a target, and nothing is predicted.
        false_alarms: how many have no target, and something is predicted.
    """

    value: Tensor
    cases: int | tuple[int, ...]
    excluded: int | tuple[int, ...]
    missed: int | tuple[int, ...]
    false_alarms: int | tuple[int, ...]


class Masks(NamedTuple):
    """Prediction and target as masks, one a class; both are False in ignored pixels, whatever these held.

    Attributes:
        predicted: bool (B, K, ...).
        true: bool (B, K, ...).
        valid: which pixels count, bool, each side 1 or that of the masks; None if all do.
    """

    predicted: Tensor
    true: Tensor
    valid: Tensor | None

    def sizes(self) -> Tensor:
        """(B, K) int64, how many pixels count."""
        batch, classes, *sides = self.true.shape
        if self.valid is None:
            return torch.full((batch, classes), math.prod(sides), device=self.true.device)
        return self.valid.expand_as(self.true).flatten(2).sum(-1)


def to_masks(
    prediction: Tensor,
    target: Tensor,
    *,
    num_classes: int | None = None,
    threshold: float = 0.5,
    from_probabilities: bool = False,
    ignore_index: int | None = None,
    valid: Tensor | None = None,
    suspect_probabilities: bool = True,
) -> Masks:
    """Prediction and target as masks, one a class.

    Args:
        prediction: floating (B, K, H, W): logits, foreground where the sigmoid is above the threshold, or the class of
            the largest logit where the target holds class indices. Integer or bool: masks or class indices, like the
            target.
        target: masks (B, K, H, W) of any dtype that hold only 0 and 1, or integer class indices (B, H, W) for K >= 2.
        num_classes: K; with K = 1 the class axis may be absent, of volumes only beside masks that have it. Volumes have
            one more axis. None takes K from the class axis, and 1 where there is none.
        threshold: a probability; what equals it is background, and so is NaN (class 0, where a pixel has nothing else).
        from_probabilities: floating predictions are probabilities, not logits.
        ignore_index: value of an integer target whose pixels are ignored: prediction and target may hold anything
            there, NaN and unknown classes included.
        valid: bool, False where pixels are ignored: (H, W), (B, H, W), or (B, K, H, W) if the target has masks; each
            side may be 1.
        suspect_probabilities: warn if what is read as logits looks like probabilities: all of it lies in [0, 1], and
            some is neither 0 nor 1.

    Raises:
        TypeError: one is no tensor.
        ValueError: a threshold that is no probability, shapes or dtypes that do not fit; but for ignored pixels masks
            that hold more than 0 and 1, class indices outside [0, K), or probabilities outside [0, 1].
    """
    check_threshold(threshold)
    for name, tensor in (("prediction", prediction), ("target", target)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}; use torch.as_tensor")
    if num_classes is None:
        largest = max(prediction, target, key=Tensor.dim)
        num_classes = largest.shape[1] if largest.dim() > 3 else 1
    axes = _class_axes(prediction, target, num_classes)
    shape = (len(target), num_classes, *target.shape[2 if axes[1] else 1 :])
    valid = valid_pixels(shape, target, valid, ignore_index)
    if valid is not None:
        prediction, target = (
            _filled(tensor, valid, axis) for tensor, axis in zip((prediction, target), axes, strict=True)
        )
    true = _read("target", target, num_classes, axes[1])
    if not prediction.is_floating_point():
        predicted = _read("prediction", prediction, num_classes, axes[0])
    else:
        if from_probabilities:
            _check_probabilities(prediction)
        elif suspect_probabilities:
            _warn_of_probabilities(prediction)
        multiclass = num_classes > 1 and not axes[1]
        predicted = _largest(prediction) if multiclass else _above(prediction, threshold, from_probabilities)
        predicted = predicted if axes[0] else predicted.unsqueeze(1)
    return Masks(predicted, true, None) if valid is None else Masks(predicted & valid, true & valid, valid)


def fill_empty(
    values: Tensor, predicted: Tensor, true: Tensor, *, empty: Empty, worst: Tensor | float, sizes: Tensor
) -> Tensor:
    """The empty-mask rule: the values of the cases in which a mask is empty.

    Args:
        values: of the metric, with anything in the cases that have an empty mask.
        predicted: whether anything is predicted, bool, as many as values.
        true: whether the target holds anything, likewise.
        empty: what a case of two empty masks gets: NaN ("exclude"), 1 or 0.
        worst: what a missed target or a false alarm gets; a number, or one for each case.
        sizes: how many pixels of each case count; one without any has no value, NaN, whatever `empty` says.

    Returns:
        values, with those of the cases with an empty mask replaced.
    """
    both = {"exclude": math.nan, "one": 1.0, "zero": 0.0}[empty]
    values = torch.where(predicted != true, worst, values)
    return left_out(torch.where(predicted | true, values, both), sizes)


def left_out(values: Tensor, sizes: Tensor) -> Tensor:
    """The values, NaN where no pixel of a case counts."""
    return torch.where(sizes > 0, values, math.nan)


def summarise(
    values: Tensor, predicted: Tensor, true: Tensor, *, weights: Tensor | None = None, average: Average = "macro"
) -> MetricResult:
    """The mean over cases, and over classes those that have a case.

    Args:
        values: (N, K) float64 of N cases, NaN where a case is left out.
        predicted: (N, K) bool, whether anything is predicted.
        true: (N, K) bool, whether the target holds anything.
        weights: (N,) of the cases in the mean; None: all equal.
        average: "macro": one mean, "none": one for each class.

    Returns:
        the result; its value does not depend on the order of the cases. Without any case it is NaN, with a warning.
    """
    counted = ~values.isnan()
    weights = torch.ones(len(values), dtype=torch.float64) if weights is None else weights.double()
    means = [_mean(value[kept], weights[kept]) for value, kept in zip(values.unbind(1), counted.unbind(1), strict=True)]
    if average == "macro":
        known = [mean for mean in means if not math.isnan(mean)]
        means = [math.fsum(known) / len(known) if known else math.nan]
    if any(math.isnan(mean) for mean in means):
        warnings.warn(
            "no case to average: all were left out, such as those of two empty masks, or none came; the result is NaN",
            stacklevel=2,
        )
    counts = (counted, ~counted, true & ~predicted, predicted & ~true)
    value = torch.tensor(means, dtype=torch.float32)
    if average == "macro":
        return MetricResult(value[0], *(int(count.sum()) for count in counts))
    return MetricResult(value, *(tuple(count.sum(0).tolist()) for count in counts))


def check_threshold(threshold: Any) -> float:
    """The threshold as a plain number; ValueError unless it is a probability."""
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be a probability in [0, 1], got {threshold!r}; it is one for logits too")
    return float(threshold)


def _class_axes(prediction: Tensor, target: Tensor, num_classes: int) -> tuple[bool, bool]:
    """Whether prediction and target have a class axis; ValueError unless they fit each other and K."""
    # Four axes are a volume without classes only beside a volume with them.
    axes = prediction.dim() >= max(4, target.dim()), target.dim() >= max(4, prediction.dim())
    sides = [
        (tensor.shape[0], *tensor.shape[2 if axis else 1 :])
        for tensor, axis in zip((prediction, target), axes, strict=True)
        if tensor.dim() in (3, 4, 5)
    ]
    classes = {tensor.shape[1] for tensor, axis in zip((prediction, target), axes, strict=True) if axis}
    if len(sides) != 2 or sides[0] != sides[1] or classes - {num_classes}:
        raise ValueError(
            f"prediction of shape {tuple(prediction.shape)} and target of shape {tuple(target.shape)} do not fit "
            f"num_classes={num_classes}; expected (B, {num_classes}, H, W), or (B, H, W) for "
            f"{'masks' if num_classes == 1 else 'class indices'}, of the same B, H, W (volumes: one more axis, with "
            "their class axis: unsqueeze(1) adds it)"
        )
    if num_classes > 1 and not axes[0] and prediction.is_floating_point():
        raise ValueError(
            f"prediction of shape {tuple(prediction.shape)} is {prediction.dtype} and has no class axis; "
            f"give logits (B, {num_classes}, H, W), or class indices as integers"
        )
    return axes


def _read(name: str, tensor: Tensor, num_classes: int, class_axis: bool) -> Tensor:
    """Masks or class indices as bool (B, K, ...)."""
    if num_classes > 1 and not class_axis:
        return _one_hot(_indices(name, tensor, num_classes), num_classes)
    mask = tensor.bool()
    if tensor.dtype != torch.bool and not torch.equal(mask.to(tensor.dtype), tensor):
        low, high = torch.stack(tensor.double().aminmax()).tolist()
        raise ValueError(
            f"{name} values lie in [{low:g}, {high:g}], expected only 0 and 1; a mask read from a file needs "
            "mask > 127, a soft one mask > 0.5, class indices num_classes of 2 or more, and pixels to leave out "
            "ignore_index or valid"
        )
    return mask if class_axis else mask.unsqueeze(1)


def _indices(name: str, tensor: Tensor, num_classes: int) -> Tensor:
    if tensor.is_floating_point() or tensor.dtype == torch.bool:
        raise ValueError(
            f"{name} of shape {tuple(tensor.shape)} is {tensor.dtype}; without a class axis and with "
            f"num_classes={num_classes} it must hold class indices: give integers, or masks (B, {num_classes}, H, W)"
        )
    indices = tensor.long()
    if indices.numel():
        low, high = torch.stack(indices.aminmax()).tolist()
        if low < 0 or high >= num_classes:
            raise ValueError(
                f"{name} holds class indices in [{low}, {high}], expected [0, {num_classes - 1}]; "
                "num_classes counts the background too, and pixels to leave out need ignore_index or valid"
            )
    return indices


def _one_hot(indices: Tensor, num_classes: int) -> Tensor:
    classes = torch.arange(num_classes, device=indices.device)
    return indices.unsqueeze(1) == classes.view(-1, *(1,) * (indices.dim() - 1))


def _largest(logits: Tensor) -> Tensor:
    """The mask of the class of the largest logit."""
    # NaN would be the largest; of a pixel that has nothing else the class is 0.
    return _one_hot(logits.masked_fill(logits.isnan(), -math.inf).argmax(1), logits.shape[1])


def _above(values: Tensor, threshold: float, from_probabilities: bool) -> Tensor:
    """Where logits or probabilities are above a threshold."""
    # A logit against the threshold's logit: the sigmoid rounds, differently in each dtype.
    bound = threshold if from_probabilities else _logit(threshold)
    return (values.float() if values.dtype in (torch.float16, torch.bfloat16) else values) > bound


def _filled(tensor: Tensor, valid: Tensor, class_axis: bool) -> Tensor:
    """0 in ignored pixels; without a class axis in those that are ignored in all classes."""
    return tensor.masked_fill(~(valid if class_axis else valid.any(1)), 0)


def _check_probabilities(prediction: Tensor) -> None:
    if prediction.numel():
        low, high = torch.stack(prediction.detach().aminmax()).tolist()
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"prediction values lie in [{low:g}, {high:g}], expected probabilities in [0, 1]; "
                "for logits leave out from_probabilities=True"
            )


def _warn_of_probabilities(prediction: Tensor) -> None:
    if prediction.numel():
        low, high = torch.stack(prediction.detach().aminmax()).tolist()
        if low >= 0 and high <= 1 and ((prediction > 0) & (prediction < 1)).any():
            warnings.warn(
                "all predictions lie in [0, 1], as probabilities do, and floating predictions are read as logits; give "
                "from_probabilities=True if they are probabilities",
                stacklevel=2,
            )


def _logit(probability: float) -> float:
    if probability in (0, 1):
        return math.inf if probability else -math.inf
    return math.log(probability / (1 - probability))


def _mean(values: Tensor, weights: Tensor) -> float:
    # fsum rounds once, at the end, so that the order of the cases cannot matter.
    total = math.fsum(weights.tolist())
    return math.fsum((values * weights).tolist()) / total if total else math.nan
