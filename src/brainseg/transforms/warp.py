"""Where the pixels of an image come from, through any chain of maps, and one interpolation at the end."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from brainseg.transforms.symmetry import Symmetry

Padding = Literal["constant", "border", "reflection"]
MODES = {"constant": "zeros", "border": "border", "reflection": "reflection"}


@dataclass(frozen=True)
class Sampling:
    """What lies beyond the image, and how masks are read.

    Attributes:
        padding: "constant", "border" (the nearest pixel) or "reflection" (at the edge of the last pixel).
        value: what images hold there, if constant; masks hold 0.
        soft_masks: masks are floating point and interpolated as images are, else the nearest pixel is taken.
    """

    padding: Padding = "constant"
    value: float = 0.0
    soft_masks: bool = False


@dataclass(frozen=True)
class Warp:
    """Maps from the pixels of the output to places in the input; (row, column) in pixels from the image's centre.

    Attributes:
        size: height and width of the output.
        steps: (B, 2, 3) matrices and (B, 2, H, W) displacements in pixels, the first one from the output.
    """

    size: tuple[int, int]
    steps: tuple[Tensor, ...]

    @staticmethod
    def of_symmetry(symmetry: Symmetry, size: tuple[int, int]) -> "Warp":
        rows, columns = (torch.where(x, -1.0, 1.0) for x in (symmetry.rows, symmetry.columns))
        kept = 1.0 - symmetry.transposed.float()
        matrix = torch.stack([rows * kept, columns * (1 - kept), rows * (1 - kept), columns * kept], -1).view(-1, 2, 2)
        return Warp(size, (F.pad(matrix, (0, 1)),))

    @staticmethod
    def of_crop(offsets: Tensor, size: tuple[int, int], before: tuple[int, int]) -> "Warp":
        """Of a part of images, `offsets` (B, 2) its first row and column."""
        centers = [(side - 1) / 2 - (old - 1) / 2 for side, old in zip(size, before, strict=True)]
        shift = torch.stack([offset + center for offset, center in zip(offsets.unbind(1), centers, strict=True)], 1)
        matrix = torch.eye(2, device=offsets.device).expand(len(offsets), 2, 2)
        return Warp(size, (torch.cat([matrix, shift.float()[..., None]], -1),))

    def then(self, following: "Warp") -> "Warp":
        """This map's images and then the following one's, as one; matrices that meet become one."""
        *later, last = following.steps
        first, *earlier = self.steps
        if first.dim() == last.dim() == 3:
            product = first[:, :, :2] @ last
            met = [torch.cat([product[:, :, :2], product[:, :, 2:] + first[:, :, 2:]], -1)]
        else:
            met = [last, first]
        return Warp(following.size, (*later, *met, *earlier))

    def apply(self, images: Tensor, masks: Tensor | None, sampling: Sampling) -> tuple[Tensor, Tensor | None]:
        """Images (B, C, H, W) and masks (B, K, H, W) or (B, H, W) of any dtype, read once."""
        rows, columns = self._places()
        grid = _grid(rows, columns, images)
        if sampling.soft_masks and masks is not None and not masks.is_floating_point():
            raise ValueError(f"soft masks are floating point, got {masks.dtype}; use soft_masks=False for labels")
        moved = _sample(images, grid, sampling, value=sampling.value)
        if masks is None:
            return moved, None
        channels = masks[:, None] if masks.dim() == 3 else masks
        return moved, _sample(channels, grid, sampling, nearest=not sampling.soft_masks).view(
            *masks.shape[:-2], *self.size
        )

    def _places(self) -> tuple[Tensor, Tensor]:
        """Row and column of the input for each pixel of the output, (B, H, W) each."""
        device = self.steps[0].device
        rows, columns = (torch.arange(side, device=device) - (side - 1) / 2 for side in self.size)
        rows, columns = rows[:, None], columns[None]
        on_grid = True
        for step in self.steps:
            if step.dim() == 3:
                (a, b, c), (d, e, f) = (row.unbind(1) for row in step[..., None, None].unbind(1))
                # In this order the first sums are of rows and columns, not of pixels.
                rows, columns = (a * rows + c) + b * columns, (d * rows + f) + e * columns
            else:
                if not on_grid:
                    step = F.grid_sample(step, _grid(rows, columns, step), padding_mode="border", align_corners=False)
                rows, columns = rows + step[:, 0], columns + step[:, 1]
            on_grid = False
        return rows, columns


def _grid(rows: Tensor, columns: Tensor, like: Tensor) -> Tensor:
    """Places (B, H, W) in an image of that size as torch's grid_sample has them, (B, H, W, 2)."""
    height, width = like.shape[-2:]
    return torch.stack([columns * (2 / width), rows * (2 / height)], -1)


def _sample(x: Tensor, grid: Tensor, sampling: Sampling, *, value: float = 0.0, nearest: bool = False) -> Tensor:
    """Pixels of x (B, C, H, W), of any dtype, at the places of a grid as torch's grid_sample has it."""
    # Of integers float64 holds all that are labels, float32 those up to 16 bits.
    wide = (
        torch.float64
        if x.dtype in (torch.float64, torch.int64, torch.int32, torch.uint32, torch.uint64)
        else torch.float32
    )
    value = value if sampling.padding == "constant" else 0.0
    # Compilers write a grid_sample of their own, which on the CPU takes ten times as long.
    sample = _grid_sample if torch.compiler.is_compiling() else F.grid_sample
    shifted = x.to(wide) - value if value else x.to(wide)
    moved = sample(shifted, grid.to(wide), "nearest" if nearest else "bilinear", MODES[sampling.padding], False)
    return (moved + value if value else moved).to(x.dtype)


@torch.library.custom_op("brainseg::grid_sample", mutates_args=())
def _grid_sample(x: Tensor, grid: Tensor, mode: str, padding: str, align_corners: bool) -> Tensor:
    return F.grid_sample(x, grid, mode, padding, align_corners)


@_grid_sample.register_fake
def _(x: Tensor, grid: Tensor, mode: str, padding: str, align_corners: bool) -> Tensor:  # noqa: ARG001
    return x.new_empty(*x.shape[:2], *grid.shape[1:3])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    x, grid, *ctx.how = inputs
    ctx.save_for_backward(x, grid)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    x, grid = ctx.saved_tensors
    mode, padding, align_corners = ctx.how
    modes = ["bilinear", "nearest"].index(mode), ["zeros", "border", "reflection"].index(padding)
    needed = [ctx.needs_input_grad[0], ctx.needs_input_grad[1]]
    of_x, of_grid = torch.ops.aten.grid_sampler_2d_backward(gradient, x, grid, *modes, align_corners, needed)
    return of_x, of_grid, None, None, None


_grid_sample.register_autograd(_backward, setup_context=_keep)
