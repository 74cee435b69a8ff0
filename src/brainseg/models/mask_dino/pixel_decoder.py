"""The transformer encoder over the backbone's features."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from brainseg.checks import check_choice
from brainseg.models.mask_dino.deformable import DeformableAttention
from brainseg.models.mask_dino.fusion import Fusion
from brainseg.models.mask_dino.layers import FeedForward, init_conv, init_matrices, run, without_autocast
from brainseg.models.mask_dino.positions import cell_centers, sine_map

FEATURES = ("res2", "res3", "res4", "res5")
FeatureOrder = Literal["high2low", "low2high"]


class PixelDecoder(nn.Module):
    """Projects features to one width and lets their tokens attend to each other over all levels.

    Args:
        feature_channels: channels of the backbone's features res2 to res5, of strides 4, 8, 16 and 32.
        encoder_features: names of the features that become levels, among "res2" to "res5".
        levels: number of levels L; those beyond the features are convolved from the coarsest, each of half its size.
        feature_order: "high2low" runs from coarse to fine, "low2high" from fine to coarse. Trained weights belong to
            one order.
        channels: width E, a multiple of 32 (group norms) and of `heads`.
        layers, heads, ffn, drop: of the transformer: number of layers, heads of the attention, hidden width, dropout.
        norm: group norms in the convolutions that join features (the published setting).

    Shape:
        features res2 to res5, (B, D, H/4, W/4) to (B, D, H/32, W/32) -> the L encoded levels (B, E, h, w) in the order
        in which the decoder sees them, and the map C_e (B, E, h, w) for the mask head. Computed without autocast.
    """

    def __init__(
        self,
        feature_channels: Sequence[int],
        *,
        encoder_features: Sequence[str] = ("res3", "res4", "res5"),
        levels: int = 3,
        feature_order: FeatureOrder = "high2low",
        channels: int = 256,
        layers: int = 6,
        heads: int = 8,
        ffn: int = 1024,
        drop: float = 0.0,
        norm: bool = True,
    ) -> None:
        super().__init__()
        check_choice("feature_order", feature_order, get_args(FeatureOrder))
        check_levels(encoder_features, levels)
        indices = [FEATURES.index(name) for name in encoder_features]
        self.fine_first = feature_order == "low2high"
        self.indices = sorted(indices, reverse=not self.fine_first)  # in the order of the levels
        # The first of those with the most channels.
        self.coarsest = max(sorted(indices), key=lambda index: feature_channels[index])
        self.finest = min(indices)
        self.extra = levels - len(indices)
        self.grad_checkpointing = False

        self.input_proj = nn.ModuleList(
            _projection(feature_channels[index], channels, kernel_size=1) for index in self.indices
        )
        for number in range(self.extra):
            width = channels if number else feature_channels[self.coarsest]
            self.input_proj.append(_projection(width, channels, kernel_size=3))
        self.level_embed = nn.Parameter(torch.empty(levels, channels))
        self.layers = nn.ModuleList(
            EncoderLayer(channels, levels, heads=heads, ffn=ffn, drop=drop) for _ in range(layers)
        )
        nn.init.normal_(self.level_embed)
        # The mask head joins res2; here are those of features between it and the finest level, fine to coarse.
        self.fusions = nn.ModuleList(
            Fusion(feature_channels[index], channels, norm=norm) for index in range(1, self.finest)
        )
        if self.fine_first:  # official files have them, but `_fuse` leaves them out
            self.fusions.requires_grad_(False)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        dtype = self.level_embed.dtype
        with without_autocast(features[0].device):
            return self._encode([feature.to(dtype) for feature in features])

    def _encode(self, features: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        maps = self._project(features)
        shapes = [(x.shape[-2], x.shape[-1]) for x in maps]
        tokens = torch.cat([x.flatten(2).transpose(1, 2) for x in maps], dim=1)  # (B, S, E)
        positions = self._positions(shapes, tokens).to(tokens.dtype)
        points = cell_centers(shapes, like=tokens).expand(tokens.shape[0], -1, -1)
        for layer in self.layers:
            tokens = run(layer, tokens, positions, points, shapes, checkpointing=self.grad_checkpointing)
        sizes = [height * width for height, width in shapes]
        levels = [
            part.transpose(1, 2).reshape(part.shape[0], part.shape[-1], *shape)
            for part, shape in zip(torch.split(tokens, sizes, dim=1), shapes, strict=True)
        ]
        return levels[::-1], self._fuse(features, levels[0 if self.fine_first else -1])

    def _project(self, features: Sequence[Tensor]) -> list[Tensor]:
        """The input of each level, in the encoder's order."""
        count = len(self.indices)
        maps = [project(features[i]) for project, i in zip(self.input_proj[:count], self.indices, strict=True)]
        extra: list[Tensor] = []
        for project in self.input_proj[count:]:
            extra.append(project(extra[-1] if extra else features[self.coarsest]))
        return maps + extra[::-1] if self.fine_first else extra[::-1] + maps

    def _positions(self, shapes: Sequence[tuple[int, int]], like: Tensor) -> Tensor:
        """Position encodings of all tokens, each with the vector of its level: (S, E).

        The levels beyond the features lie coarse to fine among the features, but fine to coarse here, as in the
        authors' code: with two of them or more their tokens get encodings of another level. Trained weights depend
        on it.
        """
        own = shapes[: len(self.indices)] if self.fine_first else shapes[self.extra :]
        extra = shapes[len(self.indices) :] if self.fine_first else shapes[: self.extra]
        ordered = [*own, *extra[::-1]] if self.fine_first else [*extra[::-1], *own]
        channels = self.level_embed.shape[1]
        maps = [sine_map(*shape, channels, like=like) for shape in ordered]
        return torch.cat([x + vector for x, vector in zip(maps, self.level_embed, strict=True)])

    def _fuse(self, features: Sequence[Tensor], finest: Tensor) -> Tensor:
        """C_e: the finest level, joined by the features between it and res2."""
        if self.fine_first:  # each step starts anew from the finest level, so that only that of the mask head counts
            return finest
        for index in range(self.finest - 1, 0, -1):
            finest = self.fusions[index - 1](features[index], finest)
        return finest


class EncoderLayer(nn.Module):
    """Deformable self-attention and a feed-forward network, each added and normalised."""

    def __init__(self, channels: int, levels: int, *, heads: int, ffn: int, drop: float) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(channels, levels, heads=heads)
        self.drop = nn.Dropout(drop)
        self.norm1 = nn.LayerNorm(channels)
        self.ffn = FeedForward(channels, ffn, drop=drop)
        self.norm2 = nn.LayerNorm(channels)
        init_matrices(self.ffn)

    def forward(self, tokens: Tensor, positions: Tensor, points: Tensor, shapes: Sequence[tuple[int, int]]) -> Tensor:
        tokens = self.norm1(tokens + self.drop(self.self_attn(tokens + positions, points, tokens, shapes)))
        output: Tensor = self.norm2(tokens + self.ffn(tokens))
        return output


def check_levels(encoder_features: Sequence[str], levels: int) -> None:
    """ValueError unless the features are known and there are levels for all of them."""
    features = list(encoder_features)
    if not features or len(set(features)) < len(features) or not set(features) <= set(FEATURES):
        raise ValueError(f"encoder_features must be some of {', '.join(FEATURES)}, each once, got {features}")
    if levels < len(features) or (len(features) == 1 and levels > 1):
        raise ValueError(
            f"total_levels must be at least the number of encoder_features, and 1 for a single one, got {levels} for "
            f"{len(features)}"
        )


def _projection(in_channels: int, channels: int, *, kernel_size: int) -> nn.Sequential:
    """A 1x1 convolution, or a 3x3 one of stride 2, and a group norm."""
    conv = nn.Conv2d(in_channels, channels, kernel_size, stride=1 + kernel_size // 2, padding=kernel_size // 2)
    return nn.Sequential(init_conv(conv, nn.init.xavier_uniform_), nn.GroupNorm(32, channels))
