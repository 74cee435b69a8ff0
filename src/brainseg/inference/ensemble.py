"""Several networks as one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from brainseg.inference.images import ImageLike
from brainseg.inference.predictor import Predictor
from brainseg.models.mask_dino import Instances


class Ensemble(Predictor):
    """Predicts by the mean of the logits of several predictors, each with the size and normalization of its weights.

    Args:
        members: predictors of one task with the same names of classes; threshold and postprocessing are the first's.

    Raises:
        ValueError: no members, or tasks or classes that differ.
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
        self.members, self.spec, self.device = list(members), first, members[0].device

    @classmethod
    def from_folders(cls, folders: Sequence[str | Path], **arguments: Any) -> Self:
        """An ensemble of weights or runs; arguments as for `Predictor`."""
        return cls([Predictor.from_pretrained(folder, **arguments) for folder in folders])

    @property
    def in_channels(self) -> int | None:
        """That of the first member."""
        return self.members[0].in_channels

    def logits(self, images: Tensor) -> Tensor:
        """Mean logits (B, K, H, W) of a batch (B, C, H, W) floating point in [0, 1], of the size of the images."""
        return torch.stack([member.logits(images).to(self.device) for member in self.members]).mean(0)

    def instances(self, image: ImageLike, *, min_score: float | None = 0.5) -> list[Instances]:  # noqa: ARG002
        """Refused: objects of several networks have no mean.

        Raises:
            ValueError: always.
        """
        raise ValueError("objects of several networks have no mean; predict instances with one of the members")
