"""The rules that every loss keeps: what a target may be, what is ignored, how classes are weighted and reduced."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainseg.checks import check_choice

Reduction = Literal["mean", "sum", "none"]


@dataclass(frozen=True)
class Case:
    """Logits and target, checked, in the computing dtype, without the background if it is left out.

    Ignored pixels are 0 in `logits` and `target`, whatever they held.

    Attributes:
        logits: (B, K, ...) float32 or float64; probabilities if `from_probabilities`.
        target: (B, K, ...) of the same dtype; with `multiclass` (B, ...) class indices, int64.
        valid: None or bool, of the rank of the logits, each side 1 or that of the logits.
        weight: None or (K,), of the dtype of the logits.
        multiclass: the classes exclude each other (softmax), else each is a mask of its own (sigmoid).
        from_probabilities: `logits` are probabilities.
        first_class: 1 if `multiclass` and the background is left out: softmax still needs its channel.
    """

    logits: Tensor
    target: Tensor
    valid: Tensor | None
    weight: Tensor | None
    multiclass: bool
    from_probabilities: bool
    first_class: int

    def probabilities(self) -> Tensor:
        """(B, K, ...) probabilities of the classes that count, 0 in ignored pixels."""
        p = self.logits
        if not self.from_probabilities:
            p = p.softmax(1) if self.multiclass else p.sigmoid()
        p = p[:, self.first_class :]
        return p if self.valid is None else p * self.valid

    def masks(self) -> Tensor:
        """(B, K, ...) masks of the classes that count, 0 in ignored pixels."""
        return self.class_masks().to(self.logits.dtype) if self.multiclass else self.target

    def class_masks(self) -> Tensor:
        """(B, K, ...) bool masks of the classes that count, False in ignored pixels; only if `multiclass`."""
        classes = torch.arange(self.first_class, self.logits.shape[1], device=self.target.device)
        masks = self.target[:, None] == classes.view(-1, *[1] * (self.target.ndim - 1))
        return masks if self.valid is None else masks & self.valid

    def class_indices(self) -> tuple[Tensor, Tensor | None]:
        """(B, 1, ...) place of each pixel's class among those that count, 0 where it has none; only if `multiclass`.

        And which pixels have one: bool, of the rank of the logits, each side 1 or theirs; None if all have.
        """
        index = self.target[:, None]
        if not self.first_class:
            return index, self.valid
        kept = index >= self.first_class
        return (index - self.first_class).clamp_(min=0), kept if self.valid is None else kept & self.valid

    def counted(self, axes: tuple[int, ...]) -> Tensor | None:
        """Which masks have a pixel that is not ignored: bool, `axes` reduced; None if nothing is ignored."""
        if self.valid is None:
            return None
        return self.valid.expand_as(self.logits)[:, self.first_class :].any(axes)

    def class_weight(self) -> Tensor | None:
        """(K,) weights of the channels of `logits`, 0 for one that is left out; None if all are 1."""
        if not self.first_class:
            return self.weight
        weight = self.logits.new_ones(self.logits.shape[1] - 1) if self.weight is None else self.weight
        return F.pad(weight, (self.first_class, 0))

    def pixel_weight(self) -> Tensor | None:
        """Weights of losses one a pixel, (B, K, ...) or with `multiclass` (B, ...): those of its class, 0 if ignored.

        They broadcast; None if all are 1.
        """
        weight, valid = self.class_weight(), self.valid
        if self.multiclass:
            weight = None if weight is None else weight[self.target]
            valid = None if valid is None else valid[:, 0]
        elif weight is not None:
            weight = weight.view(-1, *[1] * (self.logits.ndim - 2))
        if valid is None:
            return weight
        return valid.to(self.logits.dtype) if weight is None else weight * valid


def prepare(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | Sequence[float] | None = None,
    include_background: bool = True,
    ignore_index: int | None = None,
    valid: Tensor | None = None,
    from_probabilities: bool = False,
    check_target: bool = True,
) -> Case:
    """Checks the arguments that all losses share and brings them into the form that formulas read.

    Args:
        logits: (B, K, H, W) or (B, K, D, H, W), any floating dtype; half types become float32.
        target: (B, K, H, W) floating or bool: one mask a class (sigmoid), soft values allowed. (B, H, W) integer: class
            indices (softmax). With K = 1, (B, H, W) integer or bool is the binary mask. Likewise with a depth.
        weight: (K,), one number a class, from 0.
        include_background: False leaves class 0 out; (K,) is then (K - 1,) in what comes back.
        ignore_index: value of an integer target whose pixels are ignored.
        valid: bool, False where pixels are ignored: (H, W), (B, H, W), or (B, K, H, W) if the target has masks; each
            side may be 1.
        from_probabilities: `logits` are probabilities.
        check_target: look at the values of the target (and of the probabilities), which waits once for the device.
            Compiled programs do not look.

    Raises:
        ValueError: shapes or dtypes that do not fit; values of the target out of range.
    """
    multiclass = _is_multiclass(logits, target)
    weight = None if weight is None else per_class("weight", weight, logits)
    valid = valid_pixels(logits.shape, target, valid, ignore_index)
    dtype = target.dtype
    logits = to_computing_dtype(logits)
    target = target.long() if multiclass else target.to(logits.dtype).reshape(logits.shape)
    first_class = 0
    if not include_background:
        if logits.shape[1] == 1:
            raise ValueError("include_background=False leaves nothing of logits with one channel; leave it True")
        weight = None if weight is None else weight[1:]
        if multiclass:
            first_class = 1
        else:
            logits, target = logits[:, 1:], target[:, 1:]
            valid = valid[:, 1:] if valid is not None and valid.shape[1] > 1 else valid
    if valid is not None:
        logits = logits.masked_fill(~valid, 0)
        target = target.masked_fill(~(valid[:, 0] if multiclass else valid), 0)
    case = Case(logits, target, valid, weight, multiclass, from_probabilities, first_class)
    if check_target and not torch.compiler.is_compiling():
        _check_values(case, dtype)
    return case


def valid_pixels(shape: Sequence[int], target: Tensor, valid: Tensor | None, ignore_index: int | None) -> Tensor | None:
    """Which pixels count, in losses and in metrics alike.

    Args:
        shape: (B, K, ...) of a batch with its class axis.
        target: masks of this shape, or (B, ...): class indices, or the mask of K = 1.
        valid: bool, False where pixels are ignored: (H, W), (B, H, W), or (B, K, H, W) if the target has masks; each
            side may be 1.
        ignore_index: value of an integer target whose pixels are ignored.

    Returns:
        bool, of the rank of `shape`, each side 1 or that of the shape; None if nothing is ignored.

    Raises:
        TypeError: `valid` is no tensor.
        ValueError: `valid` does not fit or is not bool, `ignore_index` is no integer, or the target is not.
    """
    flat = target.ndim < len(shape)
    if valid is not None:
        valid = _with_class_axis(valid, shape, classes=1 if flat else shape[1])
    if ignore_index is None:
        return valid
    check_ignore_index(ignore_index)
    if target.is_floating_point() or target.dtype == torch.bool:
        raise ValueError(f"ignore_index needs an integer target, got {target.dtype}; mark the pixels with valid")
    # In a uint8 target -100 would wrap to 156.
    kept = target.long() != ignore_index
    kept = kept[:, None] if flat else kept
    return kept if valid is None else kept & valid


def check_ignore_index(ignore_index: int | None) -> None:
    """Raises ValueError unless None or an integer."""
    if ignore_index is not None and (isinstance(ignore_index, bool) or not isinstance(ignore_index, int)):
        raise ValueError(f"ignore_index must be an integer, got {ignore_index!r}")


def _with_class_axis(valid: Tensor, shape: Sequence[int], *, classes: int) -> Tensor:
    if not isinstance(valid, Tensor):
        raise TypeError(f"valid must be a tensor, got {type(valid).__name__}; use torch.as_tensor")
    batch, _, *sides = shape
    mask = valid[:, None] if valid.ndim == len(shape) - 1 else valid[(None,) * (len(shape) - valid.ndim)]
    whole = (batch, classes, *sides)
    fits = mask.ndim == len(shape) and all(side in (1, n) for side, n in zip(mask.shape, whole, strict=True))
    if valid.dtype != torch.bool or not fits:
        raise ValueError(
            f"valid of shape {tuple(valid.shape)} and {valid.dtype} does not fit a batch of shape {tuple(shape)};"
            f" expected bool, True where pixels count, of shape {(batch, *sides)} or {whole}, where each side may be 1"
        )
    return mask


def reduce(
    loss: Tensor, *, weight: Tensor | None = None, counted: Tensor | None = None, reduction: Reduction
) -> Tensor:
    """Mean, sum or all of the losses; the mean is sum(w * loss) / sum(w), and 0 where all w are 0.

    Args:
        loss: one number a mask, (B, K), (B,) or (K,); or one a pixel.
        weight: broadcasts to `loss`.
        counted: broadcasts to `loss`; False where all was ignored, which is a weight of 0.
        reduction: "mean", "sum" or "none"; "none" gives w * loss, as `cross_entropy` does.

    Raises:
        ValueError: another reduction.
    """
    check_choice("reduction", reduction, Reduction)
    if counted is not None:
        weight = counted.to(loss.dtype) if weight is None else weight * counted
    if weight is not None:
        loss = loss * weight
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    # Not mean(), whose gradient writes a number a pixel where that of a sum is one number, spread.
    return loss.sum() / max(loss.numel(), 1) if weight is None else divide(loss.sum(), broadcast_sum(weight, loss))


def divide(total: Tensor, count: Tensor) -> Tensor:
    """Total / count, and `total` where the count is 0: the mean of nothing is the 0 that was summed."""
    return total / count.masked_fill(count == 0, 1)


def broadcast_sum(x: Tensor, like: Tensor) -> Tensor:
    """Sum of x once it is broadcast to the shape of `like`, without writing that out."""
    return x.sum() * (like.numel() // max(x.numel(), 1))


def to_computing_dtype(x: Tensor) -> Tensor:
    """Half types as float32, others as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def check_smooth(smooth: float) -> None:
    """Raises ValueError unless 0 < smooth < inf: with 0 an empty mask would be 0/0."""
    if not 0 < smooth < math.inf:
        raise ValueError(f"smooth must be a positive number, got {smooth!r}; without it empty masks give 0/0")


def check_weights(name: str, values: Iterable[float]) -> None:
    """Raises ValueError unless all are numbers from 0."""
    numbers = [float(value) for value in values]
    if not all(0 <= number < math.inf for number in numbers):
        raise ValueError(f"{name} must be numbers from 0, got {numbers}")


def check_masks(case: Case) -> None:
    """Raises ValueError if the target has class indices: a loss of sigmoids needs one mask a class."""
    if case.multiclass:
        raise ValueError(
            f"target of shape {tuple(case.target.shape)} has class indices, logits have {case.logits.shape[1]}"
            " channels, and a sigmoid needs one mask a class: give a floating or bool target of the logits' shape"
        )


def per_class(name: str, values: Tensor | Sequence[float], logits: Tensor) -> Tensor:
    """An argument of one number a class: (K,), of the computing dtype and on the device of the logits.

    Raises:
        ValueError: another shape, or negative numbers.
    """
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    numbers = torch.as_tensor(values, dtype=dtype, device=logits.device)
    if numbers.shape != logits.shape[1:2]:
        raise ValueError(f"{name} of shape {tuple(numbers.shape)}, expected one number a class: ({logits.shape[1]},)")
    if not isinstance(values, Tensor):
        check_weights(name, values)  # not of a tensor, which may lie on a device that would have to be waited for
    return numbers


def to_weights(name: str, values: Tensor | Sequence[float] | None) -> Tensor | None:
    """What a module keeps of them; ValueError unless all are numbers from 0."""
    if values is None:
        return None
    weights = torch.as_tensor(values)
    if not torch.compiler.is_compiling():
        check_weights(name, weights.flatten().tolist())
    return weights


class Loss(nn.Module):
    """Keeps the arguments of a loss function; a loss calls its function with them.

    Args:
        weight: (K,); kept as a buffer, so that it moves with the module, but not saved: it is an argument.
        arguments: the function's other keyword arguments.
    """

    weight: Tensor | None

    def __init__(self, *, weight: Tensor | Sequence[float] | None = None, **arguments: Any) -> None:
        super().__init__()
        check_choice("reduction", arguments.get("reduction", "mean"), Reduction)
        self.arguments = arguments
        self.register_buffer("weight", to_weights("weight", weight), persistent=False)

    def extra_repr(self) -> str:
        weight = {} if self.weight is None else {"weight": self.weight.tolist()}
        return ", ".join(f"{name}={value!r}" for name, value in {**self.arguments, **weight}.items())


def _is_multiclass(logits: Tensor, target: Tensor) -> bool:
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"logits must be a tensor, got {type(logits).__name__}; DeepSupervisionLoss takes a list of them"
        )
    if not logits.is_floating_point():
        raise ValueError(f"logits must be floating point, got {logits.dtype}")
    if logits.ndim not in (4, 5):
        raise ValueError(
            f"logits of shape {tuple(logits.shape)} are neither (B, K, H, W) nor (B, K, D, H, W);"
            " one class needs its channel too: logits[:, None]"
        )
    classes, flat = logits.shape[1], (logits.shape[0], *logits.shape[2:])
    mask = target.is_floating_point() or target.dtype == torch.bool
    integer = not mask and not target.is_complex()
    if mask and target.shape == logits.shape:
        return False
    if target.shape == flat and (integer or (classes == 1 and target.dtype == torch.bool)):
        return classes > 1
    raise ValueError(
        f"target of shape {tuple(target.shape)} and {target.dtype} does not fit logits of shape {tuple(logits.shape)};"
        " expected a floating or bool target of the logits' shape, or an integer one (for one channel also bool)"
        f" of shape {flat}"
    )


def _check_values(case: Case, dtype: torch.dtype) -> None:
    """`dtype` is what the target came in: a bool has nothing to look at."""
    looked_at = [] if dtype == torch.bool else [case.target]
    if case.from_probabilities:
        looked_at.append(case.logits)
    if not looked_at or case.logits.numel() == 0:
        return
    ends = [end.float() for values in looked_at for end in torch.aminmax(values.detach())]
    ranges = torch.stack(ends).tolist()
    if case.from_probabilities and not 0 <= ranges[-2] <= ranges[-1] <= 1:
        raise ValueError(
            f"probabilities lie in [{ranges[-2]:g}, {ranges[-1]:g}], expected [0, 1]; leave out from_probabilities if"
            " these are logits"
        )
    top = case.logits.shape[1] - 1 if case.multiclass else 1
    if dtype != torch.bool and not 0 <= ranges[0] <= ranges[1] <= top:
        cast = "float()" if dtype.is_floating_point else "long(), a value for pixels to leave out needs ignore_index"
        raise ValueError(
            f"target values lie in [{ranges[0]:g}, {ranges[1]:g}], expected [0, {top}]; a mask read from a file needs"
            f" (mask > 127).{cast}"
        )
