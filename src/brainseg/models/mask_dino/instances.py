"""Objects that were found in an image."""

import operator
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Instances:
    """The r objects of one image, best first; `len` counts them, an index, slice or mask takes some.

    Attributes:
        scores: (r,) probability of the class times the mean of the mask's probability over its pixels.
        classes: (r,) indices.
        boxes: (r, 4) corners x0, y0, x1, y1 in pixels of the masks, not clipped to them.
        masks: (r, H, W) bool.

    Example:
        >>> found = Instances(torch.tensor([0.9, 0.4]), torch.tensor([0, 1]), torch.rand(2, 4), torch.ones(2, 8, 8) > 0)
        >>> len(found), len(found[found.scores > 0.5]), found[0].classes
        (2, 1, tensor([0]))
    """

    scores: Tensor
    classes: Tensor
    boxes: Tensor
    masks: Tensor

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: Any) -> Self:
        """Some of the objects: those of a slice, a mask (r,) or indices, or the one of an integer."""
        if not isinstance(index, slice | Tensor | list):
            place = operator.index(index)
            if not -len(self) <= place < len(self):
                raise IndexError(f"there are {len(self)} instances, and none of index {place}")
            index = [place]
        return type(self)(self.scores[index], self.classes[index], self.boxes[index], self.masks[index])

    def to(self, device: str | torch.device) -> Self:
        """The same on another device."""
        return type(self)(*(x.to(device) for x in (self.scores, self.classes, self.boxes, self.masks)))
