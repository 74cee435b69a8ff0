"""ResUNet: a U-Net of residual units with full pre-activation."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from brainseg.checks import check_counts
from brainseg.models.base import SegmentationModel, describe_features


class ResUNet(SegmentationModel):
    """Deep residual U-Net (Zhang, Liu and Wang 2018, arXiv:1711.10684, figure 2): units, a bridge, units on the way up.

    Args:
        in_channels: channels of the image, C.
        num_classes: channels of the logits, K; 1 for a binary mask, 0 for the decoder's features alone.
        channels: widths of the encoder's units and, last, of the bridge, each step half the size of the one before.
        downsample: "stride" halves in the first convolution of a unit (the paper), "pool" by max pooling before it.
        upsample: "bilinear" has no parameters (the paper does not say which interpolation), "transposed" is a 2x2
            convolution that keeps the width.
        deep_supervision: in training mode, return the logits of every decoder unit.

    Shape:
        images (B, C, H, W) floating point, H and W at least 32 -> logits (B, K, H, W), contiguous.

    Raises:
        ValueError: arguments out of range; images that do not fit.

    Example:
        >>> model = ResUNet(in_channels=1, num_classes=2, channels=(8, 16, 32, 64)).eval()
        >>> model(torch.rand(1, 1, 97, 129)).shape
        torch.Size([1, 2, 97, 129])
    """

    stems = ("encoder.0.conv1", "encoder.0.shortcut_conv")

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 1,
        *,
        channels: Sequence[int] = (64, 128, 256, 512),
        downsample: Literal["stride", "pool"] = "stride",
        upsample: Literal["bilinear", "transposed"] = "bilinear",
        deep_supervision: bool = False,
    ) -> None:
        channels = check_counts("channels", channels)
        if downsample not in ("stride", "pool"):
            raise ValueError(f"downsample must be 'stride' or 'pool', got {downsample!r}")
        if upsample not in ("bilinear", "transposed"):
            raise ValueError(f"upsample must be 'bilinear' or 'transposed', got {upsample!r}")
        super().__init__(
            in_channels,
            num_classes,
            channels=channels,
            downsample=downsample,
            upsample=upsample,
            deep_supervision=deep_supervision,
        )
        self.stride = 2 ** (len(channels) - 1)

        def up(width: int) -> nn.Module:
            if upsample == "transposed":
                return nn.ConvTranspose2d(width, width, kernel_size=2, stride=2)
            return nn.Upsample(scale_factor=2, mode="bilinear")

        first, *wider = (
            ResidualUnit(*pair, stride=1 if k == 0 or downsample == "pool" else 2, preactivation=k > 0)
            for k, pair in enumerate(pairwise((self.config["in_channels"], *channels)))
        )
        self.pool = nn.MaxPool2d(kernel_size=2) if downsample == "pool" else nn.Identity()
        self.encoder = nn.ModuleList([first, *wider[:-1]])
        self.bridge = wider[-1]
        self.up = nn.ModuleList(up(width) for width in channels[:0:-1])
        self.decoder = nn.ModuleList(
            ResidualUnit(deeper + width, width) for deeper, width in pairwise(reversed(channels))
        )
        self._build_heads(channels[-2::-1])
        boxes = [*(f"encoder.{k}" for k in range(len(wider))), "bridge"]
        self.feature_info = describe_features(channels, [2**k for k in range(len(channels))], boxes)

    def encode(self, x: Tensor) -> list[Tensor]:
        features = []
        for unit in self.encoder:
            features.append(self._run(unit, x))
            x = self.pool(features[-1])
        return [*features, self._run(self.bridge, x)]

    def decode(self, features: list[Tensor]) -> Iterator[Tensor]:
        x = features.pop()
        for up, unit in zip(self.up, self.decoder, strict=True):
            x = self._run(unit, torch.cat([self._run(up, x), features.pop()], dim=1))
            yield x


class ResidualUnit(nn.Module):
    """Norm, ReLU, 3x3 convolution, twice, plus a 1x1 convolution and norm of the input; no ReLU after the sum."""

    conv_chains = (("conv1", "norm2", "relu2"), ("shortcut_conv", "shortcut_norm"))

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, preactivation: bool = True) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels) if preactivation else None  # the first unit reads the image as it is
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        # A 1x1 convolution of this stride in two steps: as one, in channels_last and of fewer than 16 channels, its
        # gradient on the CPU writes beyond its memory (oneDNN issue 6035, in every torch up to 2.14).
        self.subsample = nn.AvgPool2d(kernel_size=1, stride=stride) if stride > 1 else nn.Identity()
        self.shortcut_conv = nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)
        self.shortcut_norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        main = x if self.norm1 is None else self.relu1(self.norm1(x))
        main = self.conv2(self.relu2(self.norm2(self.conv1(main))))
        output: Tensor = main + self.shortcut_norm(self.shortcut_conv(self.subsample(x)))
        return output
