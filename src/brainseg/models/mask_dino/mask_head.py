"""From content queries and two features to mask logits."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainseg.models.mask_dino.layers import MLP


class Fusion(nn.Module):
    """T(C_b) + F(C_e), then a 3x3 convolution: a feature of the backbone joined by a coarser map of the decoder."""

    def __init__(self, in_channels: int, channels: int, *, norm: bool = True) -> None:
        super().__init__()
        self.adapter = _conv(in_channels, channels, kernel_size=1, norm=norm)
        self.layer = _conv(channels, channels, kernel_size=3, norm=norm)

    def forward(self, feature: Tensor, coarser: Tensor) -> Tensor:
        upsampled = F.interpolate(coarser, size=feature.shape[-2:], mode="bilinear", align_corners=False)
        return F.relu(self.layer(self.adapter(feature) + upsampled))


class MaskHead(nn.Module):
    """The mask branch (Li et al. 2022, arXiv:2206.02777, equation 1): m = q_c (x) M(T(C_b) + F(C_e)).

    Args:
        in_channels: channels of the backbone's stride-4 feature C_b.
        encoder_channels: channels E of the encoded feature C_e, the finest of the pixel decoder.
        query_channels: channels C of the content queries q_c.
        mask_channels: width of the pixel embedding, in which queries and pixels meet.
        norm: group norms in the convolutions of M and T.

    Shape:
        queries (B, Q, C), C_b (B, in_channels, H/4, W/4), C_e (B, E, h, w) -> mask logits (B, Q, H/4, W/4).
    """

    def __init__(
        self, in_channels: int, encoder_channels: int, query_channels: int, mask_channels: int, *, norm: bool = True
    ) -> None:
        super().__init__()
        self.fusion = Fusion(in_channels, encoder_channels, norm=norm)
        self.mask_features = _init(nn.Conv2d(encoder_channels, mask_channels, kernel_size=1))
        self.mask_embed = MLP(query_channels, query_channels, mask_channels, layers=3)

    def forward(self, queries: Tensor, backbone_feature: Tensor, encoder_feature: Tensor) -> Tensor:
        return self.masks(queries, self.pixel_embedding(backbone_feature, encoder_feature))

    def pixel_embedding(self, backbone_feature: Tensor, encoder_feature: Tensor) -> Tensor:
        """M(T(C_b) + F(C_e)), the same for all queries; computed without autocast."""
        inputs = (x.to(self.mask_features.weight.dtype) for x in (backbone_feature, encoder_feature))
        with torch.autocast(backbone_feature.device.type, enabled=False):
            embedding: Tensor = self.mask_features(self.fusion(*inputs))
        return embedding

    def masks(self, queries: Tensor, pixel_embedding: Tensor) -> Tensor:
        return torch.einsum("bqc,bchw->bqhw", self.mask_embed(queries), pixel_embedding)


def _init(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.kaiming_uniform_(conv.weight, a=1)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def _conv(in_channels: int, channels: int, *, kernel_size: int, norm: bool) -> nn.Sequential:
    conv = _init(nn.Conv2d(in_channels, channels, kernel_size, padding=kernel_size // 2, bias=not norm))
    return nn.Sequential(conv, *([nn.GroupNorm(32, channels)] if norm else []))
