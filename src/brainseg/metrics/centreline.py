"""clDice of many slices or volumes."""

from typing import Any

import torch
from torch import Tensor

from brainseg.metrics.functional.centreline import centreline_counts, cldice_of_counts
from brainseg.metrics.scans import ScanMetric


class ClDiceScore(ScanMetric):
    """Mean centre line Dice, in [0, 1]; `brainseg.metrics.functional.cldice_score` defines it.

    For arguments see `HausdorffDistance`; this one has no percentile, no spacing, and no distance of what is missing,
    which is 0.

    Args:
        num_classes: K, 1 for a binary mask.
        arguments: of `HausdorffDistance`: `aggregation`, with "patient" the centre lines are those of volumes, ...

    Example:
        >>> import torch
        >>> lines = ClDiceScore()
        >>> target = torch.zeros(2, 1, 5, 20, dtype=torch.bool)
        >>> target[..., 2, :] = True
        >>> prediction = target.clone()
        >>> prediction[1] = False
        >>> lines.update(prediction, target)
        >>> lines.compute()
        tensor(0.5000)
    """

    higher_is_better = True

    def __init__(self, num_classes: int = 1, **arguments: Any) -> None:
        super().__init__(num_classes, measured=4, **arguments)  # as `centreline_counts`
        self._mark("centreline")

    def _measure(self, predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        return centreline_counts(predicted, true), torch.zeros(0)

    def _values(self, rows: Tensor, payload: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ARG002, no such numbers
        return cldice_of_counts(rows, sizes, empty=self.empty), rows[..., 0] > 0, rows[..., 2] > 0
