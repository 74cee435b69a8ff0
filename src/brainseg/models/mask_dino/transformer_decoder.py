"""Queries that attend to each other and to the encoded levels, and refine their boxes layer by layer."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from brainseg.models.mask_dino.deformable import DeformableAttention
from brainseg.models.mask_dino.layers import MLP, FeedForward, init_matrices, run
from brainseg.models.mask_dino.positions import at_least_float32, inverse_sigmoid, sine_boxes
from brainseg.models.mask_dino.self_attention import SelfAttention


@dataclass(frozen=True)
class DecoderState:
    """What stands before the first layer, or comes out of one.

    Attributes:
        content: (B, T, C); after a layer normalised once by the decoder's norm.
        boxes: (B, T, 4) in [0, 1], predicted here.
    """

    content: Tensor
    boxes: Tensor


class TransformerDecoder(nn.Module):
    """Decoder with box refinement and look forward twice (Zhang et al. 2022, arXiv:2203.03605, section 3.5).

    Args:
        channels: width C, a multiple of `heads` and even.
        levels: number of levels L.
        layers, heads, points, ffn, drop: number of layers, heads of both attentions, places that each head reads in
            each level, hidden width, dropout.

    Shape:
        content (B, T, C), anchors (B, T, 4) before their sigmoid, memory (B, S, C) with its levels' (height, width),
        blocked (T, T), True where a query (row) may not see another -> a `DecoderState` for the start and each layer.
    """

    def __init__(
        self,
        channels: int,
        levels: int,
        *,
        layers: int = 9,
        heads: int = 8,
        points: int = 4,
        ffn: int = 2048,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.ref_point_head = MLP(2 * channels, channels, channels, layers=2)
        self.layers = nn.ModuleList(
            DecoderLayer(channels, levels, heads=heads, points=points, ffn=ffn, drop=drop) for _ in range(layers)
        )
        init_matrices(self.ref_point_head)
        self.norm = nn.LayerNorm(channels)
        self.box_embed = MLP(channels, channels, 4, layers=3, zero=True)
        self.grad_checkpointing = False

    def forward(
        self,
        content: Tensor,
        anchors: Tensor,
        memory: Tensor,
        shapes: Sequence[tuple[int, int]],
        blocked: Tensor | None = None,
    ) -> list[DecoderState]:
        # Boxes keep float32 under autocast: half types round them to some pixels.
        boxes = anchors.to(at_least_float32(anchors.dtype)).sigmoid()
        states = [DecoderState(content, boxes)]
        reference = boxes  # which learned anchors are trained through, unlike the refined boxes below
        for layer in self.layers:
            position = self.ref_point_head(sine_boxes(reference, content.shape[-1] // 2).to(content.dtype))
            content = run(
                layer, content, position, reference, memory, shapes, blocked, checkpointing=self.grad_checkpointing
            )
            hidden = self.norm(content)
            # The box that is predicted starts from the last refined one and keeps its gradient: look forward twice.
            states.append(DecoderState(hidden, self._refine(hidden, boxes)))
            boxes = self._refine(content, reference)
            reference = boxes.detach()
        return states

    def _refine(self, content: Tensor, boxes: Tensor) -> Tensor:
        refined: Tensor = (self.box_embed(content) + inverse_sigmoid(boxes)).sigmoid()
        return refined


class DecoderLayer(nn.Module):
    """Self-attention of the queries, deformable attention to the levels, feed-forward network."""

    def __init__(self, channels: int, levels: int, *, heads: int, points: int, ffn: int, drop: float) -> None:
        super().__init__()
        # Numbered as in official files, where the norm behind the first attention is the second.
        self.self_attn = SelfAttention(channels, heads, drop=drop)
        self.norm2 = nn.LayerNorm(channels)
        self.cross_attn = DeformableAttention(channels, levels, heads=heads, points=points)
        self.norm1 = nn.LayerNorm(channels)
        self.ffn = FeedForward(channels, ffn, drop=drop)
        self.norm3 = nn.LayerNorm(channels)
        self.drop = nn.Dropout(drop)
        init_matrices(self.ffn)

    def forward(
        self,
        content: Tensor,
        position: Tensor,
        reference: Tensor,
        memory: Tensor,
        shapes: Sequence[tuple[int, int]],
        blocked: Tensor | None,
    ) -> Tensor:
        content = self.norm2(content + self.drop(self.self_attn(content + position, content, blocked)))
        content = self.norm1(content + self.drop(self.cross_attn(content + position, reference, memory, shapes)))
        output: Tensor = self.norm3(content + self.ffn(content))
        return output
