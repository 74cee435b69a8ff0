"""Attention of the queries to each other."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainseg.models.mask_dino.layers import init_matrices


class SelfAttention(nn.Module):
    """Multi-head attention whose queries and keys are one input, and whose values another.

    It has the parameters of `torch.nn.MultiheadAttention`, which cannot be exported for any number of images.

    Args:
        channels: width C, a multiple of `heads`.
        heads: number of heads.
        drop: dropout of the attention's weights.

    Shape:
        query (B, T, C), value (B, T, C), blocked (T, T), True where a query (row) may not see another -> (B, T, C).
    """

    def __init__(self, channels: int, heads: int, *, drop: float) -> None:
        super().__init__()
        self.heads, self.drop = heads, drop
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = nn.Linear(channels, channels)
        nn.init.zeros_(self.out_proj.bias)
        init_matrices(self)

    def forward(self, query: Tensor, value: Tensor, blocked: Tensor | None) -> Tensor:
        split = 2 * value.shape[-1]
        q_k = F.linear(query, self.in_proj_weight[:split], self.in_proj_bias[:split])
        v = F.linear(value, self.in_proj_weight[split:], self.in_proj_bias[split:])
        q, k, v = (
            x.view(*x.shape[:2], self.heads, x.shape[-1] // self.heads).transpose(1, 2)
            for x in (*q_k.chunk(2, dim=-1), v)
        )
        attended = F.scaled_dot_product_attention(
            q, k, v, attn_mask=None if blocked is None else ~blocked, dropout_p=self.drop if self.training else 0.0
        )
        output: Tensor = self.out_proj(attended.transpose(1, 2).flatten(-2))
        return output
