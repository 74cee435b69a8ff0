"""Maps read bilinearly at points, which stand for all pixels in costs and losses of masks."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

BUDGET = 2**23
"""How many numbers are computed at a time, so that memory does not grow with layers and objects."""


def read_points(maps: Tensor, points: Tensor) -> Tensor:
    """Maps (R, C, h, w) read at points (R, N, P, 2), (x, y) in [0, 1]; beyond the rim is 0. (R, C, N, P)."""
    grid = torch.rsub(points, -1, alpha=-2)  # 2 * points - 1 in one pass
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def read_objects(masks: Tensor, objects: NDArray[np.int64], points: Tensor) -> Tensor:
    """The masks (n, H, W) of objects (R,) read at points (R, P, 2): (R, P).

    Many rows ask for the same object. Each mask is turned into numbers once, and read at the points of all its rows.
    """
    rows = np.argsort(objects, kind="stable")
    counts = np.bincount(objects, minlength=len(masks))
    place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    # A line of rows for each object; lines that are shorter than others repeat some row, and nobody asks for what is
    # read there.
    lines = np.zeros((len(masks), counts.max(initial=0)), dtype=np.int64)
    lines[objects[rows], place] = rows
    found = np.empty(len(rows), dtype=np.int64)
    found[rows] = objects[rows] * lines.shape[1] + place
    together = points[torch.from_numpy(lines)]  # (n, rows, P, 2)
    some = max(1, BUDGET // max(1, masks.shape[1] * masks.shape[2]))
    read = [
        read_points(mask[:, None].to(points.dtype), where)
        for mask, where in zip(torch.split(masks, some), torch.split(together, some), strict=True)
    ]
    return torch.cat(read).flatten(0, 2)[torch.from_numpy(found)]
