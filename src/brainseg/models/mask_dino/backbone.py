"""Features of strides 4, 8, 16 and 32: of a small network of our own, or of any hierarchical backbone of timm."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from brainseg.models.encoder import TimmEncoder

REDUCTIONS = [4, 8, 16, 32]


class SmallBackbone(nn.Module):
    """A residual network with group norms, which do not depend on the batch: for small data, and without timm.

    Args:
        in_channels: channels of the image, C.
        channels: widths of the four stages, each a multiple of 8.

    Shape:
        images (B, C, H, W) -> features of strides 4, 8, 16 and 32.
    """

    stems = ("stem.conv",)

    def __init__(self, in_channels: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = list(channels)
        self.stem = ConvNorm(in_channels, channels[0], stride=2)
        self.stages = nn.ModuleList(ResidualStage(*pair) for pair in pairwise((channels[0], *channels)))
        self.boxes = [f"stages.{i}" for i in range(4)]

    def forward(self, images: Tensor) -> list[Tensor]:
        x = F.relu(self.stem(images))
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class ResidualStage(nn.Module):
    """Halves the map, then adds what two convolutions make of it."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.down = ConvNorm(in_channels, channels, stride=2)
        self.conv1 = ConvNorm(channels, channels)
        self.conv2 = ConvNorm(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.down(x))
        return F.relu(x + self.conv2(F.relu(self.conv1(x))))


class ConvNorm(nn.Module):
    """3x3 convolution and group norm of 8 groups."""

    def __init__(self, in_channels: int, channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm = nn.GroupNorm(8, channels)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.conv(x))
        return normed


class TimmBackbone(nn.Module):
    """The features of strides 4 to 32 of a timm backbone.

    Args:
        name, in_channels, pretrained, pretrained_cfg_overlay, arguments: as for `TimmEncoder`.
        frozen_norms: batch norms keep their statistics and weights, which are no parameters then.
        feature_norms: a layer norm on each feature, as the published Swin weights have it.

    Raises:
        ValueError: as `TimmEncoder`, or a backbone without these strides.
    """

    def __init__(
        self,
        name: str,
        in_channels: int,
        *,
        pretrained: bool | str | Path,
        pretrained_cfg_overlay: Mapping[str, Any] | None,
        arguments: Mapping[str, Any] | None,
        frozen_norms: bool,
        feature_norms: bool,
    ) -> None:
        super().__init__()
        # Swin shrinks its windows to the size of images that it was built for, unless told not to.
        self.encoder = TimmEncoder(
            name,
            in_channels,
            pretrained=pretrained,
            pretrained_cfg_overlay=pretrained_cfg_overlay,
            arguments=arguments,
            always_partition=True,
        )
        from brainseg.models.mask_dino.swin import pad_before_shift  # which loads timm

        pad_before_shift(self.encoder)
        if frozen_norms:
            from timm.layers import freeze_batch_norm_2d  # type: ignore[attr-defined]

            if not pretrained:  # timm starts the last norm of some blocks from 0, where a frozen one would stay
                for module in self.encoder.modules():
                    if isinstance(module, nn.BatchNorm2d):
                        nn.init.ones_(module.weight)
            freeze_batch_norm_2d(self.encoder)  # type: ignore[no-untyped-call]
        reductions = self.encoder.reductions
        if not set(REDUCTIONS) <= set(reductions):
            raise ValueError(
                f"backbone {name!r} has features of strides {reductions}, and Mask DINO needs 4, 8, 16, 32"
            )
        self.chosen = [reductions.index(reduction) for reduction in REDUCTIONS]
        self.channels = [self.encoder.channels[i] for i in self.chosen]
        self.boxes = [f"encoder.{self.encoder.boxes[i]}" for i in self.chosen]
        self.stems = tuple(f"encoder.{stem}" for stem in self.encoder.stems)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in (self.channels if feature_norms else ()))

    def forward(self, images: Tensor) -> list[Tensor]:
        features = self.encoder(images)
        chosen = [features[i] for i in self.chosen]
        if len(self.norms) > 0:
            chosen = [norm(x.movedim(1, -1)).movedim(-1, 1) for norm, x in zip(self.norms, chosen, strict=True)]
        return chosen
