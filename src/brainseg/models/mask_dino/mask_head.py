"""From content queries and two features to mask logits."""

import torch
from torch import Tensor, nn

from brainseg.models.mask_dino.fusion import Fusion
from brainseg.models.mask_dino.layers import MLP, caffe2_uniform, init_conv, without_autocast


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
        self.mask_features = init_conv(nn.Conv2d(encoder_channels, mask_channels, kernel_size=1), caffe2_uniform)
        self.mask_embed = MLP(query_channels, query_channels, mask_channels, layers=3)

    def forward(self, queries: Tensor, backbone_feature: Tensor, encoder_feature: Tensor) -> Tensor:
        return self.masks(queries, self.pixel_embedding(backbone_feature, encoder_feature))

    def pixel_embedding(self, backbone_feature: Tensor, encoder_feature: Tensor) -> Tensor:
        """M(T(C_b) + F(C_e)), the same for all queries; computed without autocast."""
        inputs = (x.to(self.mask_features.weight.dtype) for x in (backbone_feature, encoder_feature))
        with without_autocast(backbone_feature.device):
            embedding: Tensor = self.mask_features(self.fusion(*inputs))
        return embedding

    def masks(self, queries: Tensor, pixel_embedding: Tensor) -> Tensor:
        return torch.einsum("bqc,bchw->bqhw", self.mask_embed(queries), pixel_embedding)
