"""3x3 convolutions with a quarter of the multiplications (Winograd 1980; Lavin and Gray 2015, arXiv:1509.09308)."""

import math
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainseg.inference.packed import PackedConv2d

TILE = 4
"""Pixels of the output that are computed at once in each direction, from 6 of the input by 6 products and not 12."""

POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)
"""Where the polynomials are multiplied, besides infinity: of those tried the ones with the smallest error.

It is 3 times that of plain sums of products (1.3e-6 of the largest value for 32 channels); 0, 1, -1, 2, -2 have 15."""

CHUNK = 2**21
"""Numbers that lie between two steps at most: they are to stay in the processor's cache."""


class WinogradConv2d(PackedConv2d):
    """A convolution, and the ReLU after it if there is one.

    In the words of the paper F(4x4, 3x3): A' [(G w G') * (B' x B)] A, where the product * over channels is 36 products
    of matrices. Small maps, and whatever is not float32 inference on the CPU, are computed as by the modules that it
    stands for.

    Args:
        conv: one that `can_use_winograd` names; its weights are used.
        activation: None or ReLU.
    """

    def __init__(self, conv: nn.Conv2d, activation: nn.Module | None) -> None:
        super().__init__(conv, activation)
        self.transforms = create_transforms(POINTS)

    def _can_be_fast(self, x: Tensor) -> bool:
        # With fewer tiles it takes longest to read the weights, which are four times as many.
        return super()._can_be_fast(x) and x.shape[0] * _tiles(x.shape[2]) * _tiles(x.shape[3]) >= 64

    def _reorder(self, weight: Tensor) -> Tensor:
        _, _, g = self.transforms
        transformed = torch.einsum("pi,qj,kcij->pqck", g, g, weight.double())
        return transformed.to(weight.dtype).reshape(36, self.in_channels, self.out_channels)

    def _fast(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        rows, columns = _tiles(height), _tiles(width)
        right, bottom = TILE * columns - width + 1, TILE * rows - height + 1
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, right, 1, bottom))  # (B, 4 rows + 2, 4 columns + 2, C)
        output = x.new_empty(batch, rows, TILE, columns, TILE, self.out_channels)
        chunk = max(1, CHUNK // (36 * columns * (channels + self.out_channels)))  # rows of tiles
        images = max(1, chunk // rows)
        chunk = math.ceil(rows / math.ceil(rows / chunk))  # of equal size
        for image in range(0, batch, images):
            for row in range(0, rows, chunk):
                part = padded[image : image + images, TILE * row : TILE * (row + chunk) + 2]
                self._compute(part, output[image : image + images, row : row + chunk])
        pixels = output.view(batch, TILE * rows, TILE * columns, -1)
        return pixels[:, :height, :width].contiguous().permute(0, 3, 1, 2)

    def _compute(self, image: Tensor, output: Tensor) -> None:
        """Rows of tiles, from (B, 4 rows + 2, 4 columns + 2, C) to (B, rows, 4, columns, 4, K)."""
        a, b, _ = self.transforms
        tiles = image.unfold(1, TILE + 2, TILE).unfold(2, TILE + 2, TILE).permute(4, 5, 0, 1, 2, 3)
        products = torch.bmm(_transform(tiles, b).view(36, -1, self.in_channels), self._prepare())
        result = _transform(products, a)
        batch, rows, _, columns, _, _ = output.shape
        result = result.view(TILE, TILE, batch, rows, columns, -1).permute(2, 3, 0, 4, 1, 5)
        if self.bias is None:
            output.copy_(result)
        else:
            torch.add(result, self.bias, out=output)
        if isinstance(self.activation, nn.ReLU):
            output.relu_()


def can_use_winograd(conv: nn.Module, activation: nn.Module | None) -> TypeGuard[nn.Conv2d]:
    """Whether this convolution and activation have such a form, and it is faster."""
    if type(conv) is not nn.Conv2d or not isinstance(activation, nn.ReLU | None):
        return False
    geometry = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode)
    c, k = conv.in_channels, conv.out_channels
    # With fewer channels the way to the products and back takes longer than they do; with more, the weights take too
    # much memory.
    return geometry == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros") and c * k >= 40 * (c + k) and c * k <= 200_000


def create_transforms(points: tuple[float, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """A' (4, 6) and B' (6, 6) of float32, G (6, 3) of float64, by Lagrange's polynomials of the points and infinity."""
    a, b, g = torch.zeros(3, 6, 6, dtype=torch.float64).unbind()
    everywhere = torch.ones(1, dtype=torch.float64)
    for point in points:
        everywhere = _times_root(everywhere, point)
    for n, point in enumerate(points):
        others, scale = torch.ones(1, dtype=torch.float64), 1.0
        for other in points[:n] + points[n + 1 :]:
            others, scale = _times_root(others, other), scale * (point - other)
        powers = torch.tensor([point**i for i in range(6)], dtype=torch.float64)
        a[:, n], b[n, :5], g[n] = powers, others, powers / scale
    a[3, 5], b[5], g[5, 2] = 1, everywhere, 1
    return a[:4].float(), b.float(), g[:, :3]


def _times_root(polynomial: Tensor, root: float) -> Tensor:
    """Coefficients of (x - root) times a polynomial, the constant first."""
    return F.pad(polynomial, (1, 0)) - root * F.pad(polynomial, (0, 1))


def _transform(x: Tensor, matrix: Tensor) -> Tensor:
    """The matrix (m, 6) applied to both of the first two axes of (6, 6, ...), or of (36, ...): (m, m, rest)."""
    first = (matrix @ x.reshape(6, -1)).view(len(matrix), 6, -1)
    return matrix @ first


def _tiles(side: int) -> int:
    return math.ceil(side / TILE)
