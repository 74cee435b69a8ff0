"""A loss on every output of a network with deep supervision."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainseg.losses.rules import to_computing_dtype


class DeepSupervisionLoss(nn.Module):
    """Weighted sum of a loss on logits of strides 1, 2, 4, ... (Lee et al. 2015, arXiv:1409.5185).

    Strides may be left out, as networks do whose decoder ends at stride 2 or 4. The coarse logits are upsampled to the
    target, not the target downsampled: a small tumour is never lost.

    Args:
        loss: called with logits of the target's size and the target (and `valid`, if given).
        weights: one number a level, finest first, used as they are; default 1, 1/2, 1/4, ... over their sum.

    Shape:
        logits: a list, finest first, of (B, K, ceil(H/s), ceil(W/s)) or (B, K, ceil(D/s), ceil(H/s), ceil(W/s)) with
        s = 1 and then growing powers of 2; half types are computed in float32. One tensor goes to `loss` as it is,
        which is what networks give in eval mode. target: as `loss` takes it. Returns what `loss` returns.

    Raises:
        ValueError: no logits, sizes that do not fit, or another number of logits than weights.

    Example:
        >>> import torch
        >>> from brainseg.losses import DiceLoss
        >>> loss = DeepSupervisionLoss(DiceLoss())
        >>> loss([torch.zeros(2, 1, 8, 6), torch.zeros(2, 1, 4, 3)], torch.ones(2, 1, 8, 6))
        tensor(0.3288)
    """

    def __init__(self, loss: nn.Module, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.loss = loss
        self.weights = None if weights is None else tuple(float(weight) for weight in weights)

    def forward(self, logits: Tensor | Sequence[Tensor], target: Tensor, *, valid: Tensor | None = None) -> Tensor:
        arguments = {} if valid is None else {"valid": valid}
        levels = self._levels(logits, target)
        return torch.stack([weight * self.loss(x, target, **arguments) for weight, x in levels]).sum(0)

    @property
    def parts(self) -> Callable[..., tuple[Tensor, dict[str, Tensor]]]:
        """`parts(logits, target, *, valid=None)`: total, and the same sum of every part; only if `loss` has it."""
        if not hasattr(self.loss, "parts"):
            raise AttributeError(f"{type(self.loss).__name__} has no parts")
        return self._parts

    def extra_repr(self) -> str:
        return f"weights={self.weights}"

    def _parts(
        self, logits: Tensor | Sequence[Tensor], target: Tensor, *, valid: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        arguments = {} if valid is None else {"valid": valid}
        loss: Any = self.loss
        totals, parts = [], defaultdict(list)
        for weight, x in self._levels(logits, target):
            total, named = loss.parts(x, target, **arguments)
            totals.append(weight * total)
            for name, part in named.items():
                parts[name].append(weight * part)
        return torch.stack(totals).sum(0), {name: torch.stack(terms).sum(0) for name, terms in parts.items()}

    def _levels(self, logits: Tensor | Sequence[Tensor], target: Tensor) -> list[tuple[float, Tensor]]:
        """Weight and logits of the target's size, finest first."""
        if isinstance(logits, Tensor):
            return [(1.0, logits)]
        count = len(logits)
        halving = [2.0 ** (count - 1 - level) / (2**count - 1) for level in range(count)]
        weights = halving if self.weights is None else self.weights
        if not count or len(weights) != count:
            raise ValueError(f"got logits of {count} levels and {len(weights)} weights, expected one weight a level")
        scaled, stride = [], 0
        for x in logits:
            stride = _stride(x, stride, target)
            scaled.append(_upsample(x, stride, target))
        return list(zip(weights, scaled, strict=True))


def _stride(logits: Tensor, finer: int, target: Tensor) -> int:
    """Of the first logits 1; of others the first power of 2 above that of the finer ones which fits."""
    size = target.shape[2 - logits.ndim :]
    stride = max(1, 2 * finer)
    expected = tuple(-(-side // stride) for side in size)
    coarser = [stride * 2**n for n in range(max(size).bit_length() + 1)] if finer else [1]
    for fitting in coarser:
        if logits.shape[2:] == tuple(-(-side // fitting) for side in size):
            return fitting
    raise ValueError(
        f"logits of stride {stride} have the shape {tuple(logits.shape)}, expected the sides {expected}"
        f" for a target of {tuple(size)}; give the finest first, each half the one before or a quarter, an eighth, ...,"
        " rounded up"
    )


def _upsample(logits: Tensor, stride: int, target: Tensor) -> Tensor:
    if stride == 1:
        return logits
    dimensions = logits.ndim - 2
    mode = "bilinear" if dimensions == 2 else "trilinear"
    x = F.interpolate(to_computing_dtype(logits), scale_factor=float(stride), mode=mode)
    for axis, side in enumerate(target.shape[-dimensions:], start=2):
        x = x.narrow(axis, 0, side)
    return x
