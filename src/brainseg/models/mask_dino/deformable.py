"""Attention that reads a few learned places of every level instead of all tokens."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainseg.checks import check_count
from brainseg.models.mask_dino.positions import at_least_float32


def deformable_attention(
    value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """Weighted sum of values read bilinearly at the sampled places (Zhu et al. 2021, arXiv:2010.04159, equation 3).

    Args:
        value: (B, S, A, D), the tokens of all levels for A heads of D channels.
        shapes: height and width of each level; their areas sum to S.
        locations: (B, N, A, L, P, 2), places (x, y) of N queries in units of the level; outside of [0, 1] is zero.
        weights: (B, N, A, L, P), what each place counts.

    Returns:
        (B, N, A * D), heads side by side.
    """
    batch, _, heads, width = value.shape
    queries = locations.shape[1]
    # Queries stand last and points before them: so a sum over points runs along whole rows of memory.
    grid = torch.rsub(locations, -1, alpha=-2).permute(0, 2, 3, 4, 1, 5).flatten(0, 1)  # (B * A, L, P, N, 2)
    shares = weights.permute(0, 2, 3, 4, 1).flatten(0, 1)[:, :, None]  # (B * A, L, 1, P, N)
    maps = torch.split(value.permute(0, 2, 3, 1), [height * columns for height, columns in shapes], dim=-1)
    output = value.new_zeros(())
    for index, (level, shape) in enumerate(zip(maps, shapes, strict=True)):
        read = F.grid_sample(
            level.reshape(batch * heads, width, *shape),
            grid[:, index],
            mode="bilinear",
            padding_mode="zeros",
            align_corners=False,
        )  # (B * A, D, P, N)
        output = output + (read * shares[:, index]).sum(dim=2)
    return output.view(batch, heads * width, queries).transpose(1, 2)


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention (Zhu et al. 2021, arXiv:2010.04159, section 4.1).

    Args:
        channels: width C of queries and tokens, a multiple of `heads`.
        levels: number of levels L.
        heads: number of heads A.
        points: places P that each head reads in each level.

    Shape:
        query (B, N, C); reference (B, N, 2), a point (x, y), or (B, N, 4), a box (x, y, width, height), in units of the
        image; tokens (B, S, C) and the levels' (height, width), whose areas sum to S -> (B, N, C). Places are computed
        in float32 at least.

    Raises:
        ValueError: `channels` is no multiple of `heads`.
    """

    def __init__(self, channels: int, levels: int, *, heads: int = 8, points: int = 4) -> None:
        super().__init__()
        for name, value in (("levels", levels), ("heads", heads), ("points", points)):
            check_count(name, value)
        if channels % heads:
            raise ValueError(
                f"deformable attention needs channels that are a multiple of {heads} heads, got {channels}"
            )
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(channels, heads * levels * points * 2)
        self.attention_weights = nn.Linear(channels, heads * levels * points)
        self.value_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The first places lie on rays around the reference, one for each head, and all count the same."""
        angles = 2 * math.pi / self.heads * torch.arange(self.heads)
        rays = torch.stack([angles.cos(), angles.sin()], dim=-1)
        rays = rays / rays.abs().amax(dim=-1, keepdim=True)
        steps = torch.arange(1, self.points + 1)[:, None]
        offsets = (rays[:, None, None] * steps).expand(-1, self.levels, -1, -1)
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.flatten())
        for linear in (self.attention_weights, self.value_proj, self.output_proj):
            nn.init.zeros_(linear.bias)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.xavier_uniform_(self.value_proj.weight)
        nn.init.xavier_uniform_(self.output_proj.weight)

    def forward(self, query: Tensor, reference: Tensor, tokens: Tensor, shapes: Sequence[tuple[int, int]]) -> Tensor:
        value = self.value_proj(tokens).unflatten(-1, (self.heads, tokens.shape[-1] // self.heads))
        offsets = self.sampling_offsets(query).unflatten(-1, (self.heads, self.levels, self.points, 2))
        weights = self.attention_weights(query).unflatten(-1, (self.heads, self.levels * self.points))
        # Here too queries stand last in memory: a softmax over a few numbers that stand together is slow.
        weights = weights.permute(0, 2, 3, 1).contiguous().softmax(dim=2)  # (B, A, L * P, N)
        weights = weights.unflatten(2, (self.levels, self.points)).permute(0, 4, 1, 2, 3)
        precision = at_least_float32(value.dtype)
        reference = reference[:, :, None, None, None].to(precision)
        if reference.shape[-1] == 2:  # cells of the level
            cells = torch.stack([torch.stack([_number(n, reference) for n in shape[::-1]]) for shape in shapes])
            locations = reference + offsets.to(precision) / cells[:, None]
        else:  # P steps to the side of the box
            locations = reference[..., :2] + offsets.to(precision) / self.points * reference[..., 2:] * 0.5
        output = deformable_attention(value.to(precision), shapes, locations, weights.to(precision))
        attended: Tensor = self.output_proj(output.to(value.dtype))
        return attended


def _number(value: int, like: Tensor) -> Tensor:
    """A size as a tensor, also where a compiler keeps it free."""
    return like.new_full((), value)
