"""Where the queries of the decoder come from: the encoder's best tokens, or learned tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from brainseg.models.mask_dino.positions import at_least_float32, cell_centers, inverse_sigmoid
from brainseg.models.mask_dino.targets import boxes_of_masks

InitBox = Literal["no", "bitmask", "mask2box"]


@dataclass(frozen=True)
class Queries:
    """Input of the decoder.

    Attributes:
        content: (B, Q, C) content queries.
        anchors: (B, Q, 4) boxes before their sigmoid.
    """

    content: Tensor
    anchors: Tensor


class LearnedQueries(nn.Module):
    """One-stage queries: content and anchors are learned, the same for all images."""

    def __init__(self, channels: int, num_queries: int) -> None:
        super().__init__()
        self.content = nn.Embedding(num_queries, channels)
        self.anchors = nn.Embedding(num_queries, 4)

    def forward(self, batch: int) -> Queries:
        return Queries(self.content.weight.expand(batch, -1, -1), self.anchors.weight.expand(batch, -1, -1))


class QuerySelection(nn.Module):
    """Two-stage queries: the encoder's tokens that look most like an object (paper, section 3.3).

    Args:
        channels: width C of tokens and queries.
        num_queries: number of queries Q; an image with fewer tokens has as many queries as tokens.
        learn_content: content queries are a learned table, and only the anchors come from the image.
    """

    def __init__(self, channels: int, num_queries: int, *, learn_content: bool = False) -> None:
        super().__init__()
        self.num_queries = num_queries
        self.enc_output = nn.Linear(channels, channels)
        self.enc_output_norm = nn.LayerNorm(channels)
        self.content = nn.Embedding(num_queries, channels) if learn_content else None

    def forward(
        self, memory: Tensor, shapes: Sequence[tuple[int, int]], class_embed: nn.Module, box_embed: nn.Module
    ) -> tuple[Tensor, Tensor]:
        """The selected tokens (B, Q, C) and their anchors before the sigmoid (B, Q, 4), best first.

        Args:
            memory: (B, S, C) tokens of all levels.
            shapes: height and width of each level.
            class_embed: token -> class logits, by whose largest tokens are chosen.
            box_embed: token -> what its box adds to the proposal of its place.
        """
        proposals, valid = box_proposals(shapes, like=memory)
        # Tokens at the rim all become the norm of the bias: they keep a score and may be chosen.
        tokens = self.enc_output_norm(self.enc_output(memory * valid[:, None].to(memory.dtype)))
        scores = class_embed(tokens).amax(dim=-1)
        chosen = torch.topk(scores, _smaller(self.num_queries, scores.shape[1]), dim=1).indices
        tokens = torch.gather(tokens, 1, chosen[..., None].expand(-1, -1, tokens.shape[-1]))
        # Where no proposal is, the box is (1, 1, 1, 1), whatever the head says.
        anchors = torch.where(valid[chosen][..., None], box_embed(tokens) + proposals[chosen], torch.inf)
        return tokens, anchors

    def start(self, tokens: Tensor, anchors: Tensor) -> Queries:
        """What the decoder gets; it does not train the selection."""
        if self.content is None:
            return Queries(tokens.detach(), anchors.detach())
        content = self.content.weight[: tokens.shape[1]].expand(tokens.shape[0], -1, -1)
        return Queries(content, anchors.detach())


def box_proposals(shapes: Sequence[tuple[int, int]], *, like: Tensor) -> tuple[Tensor, Tensor]:
    """A box at each token, of side 0.05 in the first level and twice as large in each further one.

    Returns:
        the boxes before their sigmoid (S, 4), inf where they are not valid; and which are (S,): those whose four
        numbers lie within 0.01 and 0.99.
    """
    centers = cell_centers(shapes, like=like)
    sides = torch.cat([centers.new_full((height * width, 2), 0.05 * 2**i) for i, (height, width) in enumerate(shapes)])
    boxes = torch.cat([centers, sides], dim=-1)
    valid = ((boxes > 0.01) & (boxes < 0.99)).all(dim=-1)
    boxes = boxes.where(valid[:, None], 0.5)  # the logarithm of no negative number
    return torch.log(boxes / (1 - boxes)).where(valid[:, None], torch.inf), valid


def _smaller(number: int, size: int) -> int:
    if torch.compiler.is_dynamo_compiling() or not torch.compiler.is_compiling():
        return min(number, size)
    smaller: int = torch.sym_min(number, size)  # type: ignore[no-untyped-call]  # of a size that an export keeps free
    return smaller


def mask_anchors(mask_logits: Tensor, init_box: InitBox) -> Tensor:
    """Mask-enhanced anchors: the box around each mask, before its sigmoid (paper, section 3.4).

    Args:
        mask_logits: (..., H, W); pixels above 0 are set.
        init_box: "bitmask" includes the last row and column, and an empty mask is (0, 0, 0, 0); "mask2box" ends at
            their upper left corner, and an empty mask is (1, 1, 0, 0).

    Returns:
        (..., 4) without gradient.
    """
    dtype = at_least_float32(mask_logits.dtype)
    boxes = boxes_of_masks(mask_logits.detach() > 0, dtype=dtype)
    if init_box == "mask2box":
        height, width = mask_logits.shape[-2:]
        pixel = torch.stack([boxes.new_full((), 1.0) / side for side in (2 * width, 2 * height, width, height)])
        empty = (boxes == 0).all(dim=-1, keepdim=True)
        boxes = (boxes - pixel).where(~empty, boxes.new_tensor([1.0, 1.0, 0.0, 0.0]))
    return inverse_sigmoid(boxes)
