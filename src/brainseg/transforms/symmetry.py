"""The eight symmetries of the square, one for each sample, as one exact copy."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Symmetry:
    """For each sample a transposition or none, then rows reversed or not, then columns reversed or not.

    Turns, flips and transpositions in any order come down to these three, so that a chain of them moves each pixel
    once.

    Attributes:
        transposed: (B,) bool, only for square images.
        rows: (B,) bool, whether the order of the rows is reversed.
        columns: (B,) bool, whether the order of the columns is reversed.
    """

    transposed: Tensor
    rows: Tensor
    columns: Tensor

    def then(self, following: "Symmetry") -> "Symmetry":
        """This symmetry and then the following one, as one."""
        # What reversed rows reverses columns once it is transposed.
        rows = torch.where(following.transposed, self.columns, self.rows)
        columns = torch.where(following.transposed, self.rows, self.columns)
        return Symmetry(self.transposed ^ following.transposed, rows ^ following.rows, columns ^ following.columns)

    def apply(self, images: Tensor, masks: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Copies of images (B, C, H, W) and of masks (B, K, H, W) or (B, H, W) of the same size."""
        sources = self._sources(*images.shape[-2:])
        size = images.shape[-2:]
        return take(images, sources, size), None if masks is None else take(masks, sources, size)

    def _sources(self, height: int, width: int) -> Tensor:
        """Where each pixel comes from, as an index into the flattened image, (B, H * W)."""
        down = torch.where(self.transposed, 1, width)
        right = torch.where(self.transposed, width, 1)
        start = self.rows * (height - 1) * down + self.columns * (width - 1) * right
        down, right = torch.where(self.rows, -down, down), torch.where(self.columns, -right, right)
        i = torch.arange(height, device=start.device)[:, None]
        j = torch.arange(width, device=start.device)
        sources = start[:, None, None] + i * down[:, None, None] + j * right[:, None, None]  # (B, H, W)
        return sources.flatten(1)


def take(x: Tensor, sources: Tensor, size: Sequence[int]) -> Tensor:
    """Pixels of x (B, K, H, W) or (B, H, W) by their index in the flattened image, (B, N), as images of this size."""
    pixels = x.flatten(-2)
    if x.dim() == 4:
        sources = sources[:, None]
    # Five times as fast as torch.take_along_dim, which is ready for negative indices.
    return pixels.gather(-1, sources.expand(*pixels.shape[:-1], -1)).view(*x.shape[:-2], *size)
