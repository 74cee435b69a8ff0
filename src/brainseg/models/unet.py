"""U-Net: double convolutions, skips by concatenation; its own encoder or any backbone of timm."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from brainseg.checks import check_count, check_counts
from brainseg.models.base import SegmentationModel, describe_features
from brainseg.models.encoder import TimmEncoder


class UNet(SegmentationModel):
    """U-Net (Ronneberger et al. 2015, arXiv:1505.04597, figure 1) with padded convolutions and batch norms.

    This is the network of Buda et al. 2019 (arXiv:1906.03720) up to their sigmoid: the paper's convolutions shrink the
    map and know no norms; here a mask has the size of its image, and the published weights fit.

    Args:
        in_channels: channels of the image, C.
        num_classes: channels of the logits, K; 1 for a binary mask, 0 for the decoder's features alone.
        channels: widths of the encoder's blocks and, last, of the bottleneck, each step half the size of the one
            before; default 64, 128, 256, 512, 1024. With `encoder` the widths of the decoder's blocks, coarse to fine,
            one for each step up; default the first of 256, 128, 64, 32, 16.
        encoder: name of a timm backbone in place of the double convolutions, "hf-hub:org/name" and "local-dir:folder"
            included. Most start at stride 2 or 4, and so the decoder ends there; the rest of the way the logits are
            upsampled bilinearly.
        pretrained: start the backbone from timm's weights, downloaded, or from those of a file, adapted to
            `in_channels`; `normalization` is then the one that they want (`TimmEncoder`).
        pretrained_cfg_overlay: timm's, for weights that want something else: `{"mean": [0.5], "std": [0.25]}`.
        encoder_arguments: of `timm.create_model`, such as `{"drop_path_rate": 0.1}`.
        deep_supervision: in training mode, return the logits of every decoder block.

    Shape:
        images (B, C, H, W) floating point, H and W at least 32 -> logits (B, K, H, W), contiguous.

    Raises:
        ConnectionError: a backbone or weights of the Hub that are not on this machine, and no connection.
        ValueError: arguments out of range; an unknown encoder, or one whose features do not halve step by step or that
            takes one size of image alone; images that do not fit.

    Example:
        >>> model = UNet(in_channels=1, num_classes=2, channels=(8, 16, 32, 64, 128)).eval()
        >>> model(torch.rand(1, 1, 97, 129)).shape
        torch.Size([1, 2, 97, 129])
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 1,
        *,
        channels: Sequence[int] | None = None,
        encoder: str | None = None,
        pretrained: bool | str | Path = False,
        pretrained_cfg_overlay: Mapping[str, Any] | None = None,
        encoder_arguments: Mapping[str, Any] | None = None,
        deep_supervision: bool = False,
    ) -> None:
        if encoder is None and (pretrained or encoder_arguments):
            raise ValueError("pretrained= starts a timm backbone; name one by encoder=, or use load_weights")
        backbone = None
        if encoder is not None:
            backbone = TimmEncoder(
                encoder,
                check_count("in_channels", in_channels),
                pretrained=pretrained,
                pretrained_cfg_overlay=pretrained_cfg_overlay,
                arguments=encoder_arguments,
            )
        steps = None if backbone is None else backbone.steps
        if channels is None:
            channels = (64, 128, 256, 512, 1024) if steps is None else (256, 128, 64, 32, 16)[:steps]
        channels = check_counts("channels", channels, steps)
        super().__init__(
            in_channels,
            num_classes,
            channels=channels,
            encoder=None if backbone is None else backbone.architecture,
            encoder_arguments=None if backbone is None else backbone.arguments or None,
            deep_supervision=deep_supervision,
        )

        self.encoder: nn.ModuleList | TimmEncoder
        if backbone is None:
            widths, ups = channels, channels[-2::-1]
            self.encoder = nn.ModuleList(
                DoubleBlock(*pair) for pair in pairwise((self.config["in_channels"], *widths[:-1]))
            )
            self.pool = nn.MaxPool2d(kernel_size=2)
            self.bottleneck = DoubleBlock(*widths[-2:])
            self.stems = ("encoder.0.conv1",)
            reductions = [2**k for k in range(len(widths))]
            boxes = [*(f"encoder.{k}" for k in range(len(ups))), "bottleneck"]
        else:
            widths, ups = backbone.channels, channels
            self.encoder = backbone
            self.stems = tuple(f"encoder.{stem}" for stem in backbone.stems)
            reductions = backbone.reductions
            boxes = [f"encoder.{box}" for box in backbone.boxes]
        self.stride, self.decoder_stride = reductions[-1], reductions[0]
        self.feature_info = describe_features(widths, reductions, boxes)
        *skips, deepest = widths
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(*pair, kernel_size=2, stride=2) for pair in pairwise((deepest, *ups))
        )
        self.decoder = nn.ModuleList(
            DoubleBlock(width + skip, width) for width, skip in zip(ups, reversed(skips), strict=True)
        )
        self._build_heads(ups)
        if backbone is not None and pretrained:
            self.normalization = backbone.normalization

    def encode(self, x: Tensor) -> list[Tensor]:
        if isinstance(self.encoder, TimmEncoder):
            features: list[Tensor] = self._run(self.encoder, x)
            return features
        features = []
        for block in self.encoder:
            features.append(self._run(block, x))
            x = self.pool(features[-1])
        return [*features, self._run(self.bottleneck, x)]

    def decode(self, features: list[Tensor]) -> Iterator[Tensor]:
        x = features.pop()
        for up, block in zip(self.up, self.decoder, strict=True):
            x = self._run(block, torch.cat([self._run(up, x), features.pop()], dim=1))
            yield x


class DoubleBlock(nn.Module):
    """Twice: 3x3 convolution, batch norm, ReLU."""

    conv_chains = (("conv1", "norm1", "relu1"), ("conv2", "norm2", "relu2"))

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.relu2 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.norm1(self.conv1(x)))
        output: Tensor = self.relu2(self.norm2(self.conv2(x)))
        return output
