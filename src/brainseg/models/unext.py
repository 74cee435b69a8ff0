"""UNeXt: a U-shaped network of convolutions and tokenized, shifted MLPs."""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainseg.checks import check_count, check_counts, check_rate
from brainseg.models.base import SegmentationModel, describe_features


class UNeXt(SegmentationModel):
    """UNeXt (Valanarasu and Patel 2022, arXiv:2203.04967, figure 2), as the authors' code computes it.

    Three convolution stages, two tokenized MLP stages, and the way back up with added skips. The paper's text gives
    other widths and shifts the width first; the published weights and counts belong to the code, and so does this.

    Args:
        in_channels: channels of the image, C.
        num_classes: channels of the logits, K; 1 for a binary mask, 0 for the decoder's features alone.
        channels: widths of the five stages.
        depths: shifted blocks in stage 4 (and on the way up to it), and in stage 5 (likewise).
        mlp_ratio: hidden width of a shifted MLP over its width.
        shift_size: number of channel groups; group n moves by n - shift_size // 2 pixels.
        drop: rate of the dropout inside the shifted MLPs.
        drop_path: rate r of the stochastic depth: block k of the N in stages 4 and 5 has r * k / N, from k = 0, and the
            blocks on the way up have the rates of the stage that they answer to.
        deep_supervision: in training mode, return the logits of all five decoder boxes.

    Shape:
        images (B, C, H, W) floating point, H and W at least 32 -> logits (B, K, H, W), contiguous.

    Raises:
        ValueError: arguments out of range; images that do not fit.

    Example:
        >>> model = UNeXt(in_channels=1, num_classes=2).eval()
        >>> model(torch.rand(1, 1, 97, 129)).shape
        torch.Size([1, 2, 97, 129])
    """

    stride = 32
    stems = ("stages.0.conv",)

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 1,
        *,
        channels: Sequence[int] = (16, 32, 128, 160, 256),
        depths: Sequence[int] = (1, 1),
        mlp_ratio: float = 1.0,
        shift_size: int = 5,
        drop: float = 0.0,
        drop_path: float = 0.0,
        deep_supervision: bool = False,
    ) -> None:
        channels = check_counts("channels", channels, 5)
        depths = check_counts("depths", depths, 2)
        shift_size = check_count("shift_size", shift_size)
        drop, drop_path = check_rate("drop", drop), check_rate("drop_path", drop_path)
        if isinstance(mlp_ratio, bool | str) or not 1 <= min(channels[2:]) * mlp_ratio < math.inf:
            raise ValueError(f"mlp_ratio must leave every hidden width at least 1, got {mlp_ratio!r}")
        super().__init__(
            in_channels,
            num_classes,
            channels=channels,
            depths=depths,
            mlp_ratio=float(mlp_ratio),
            shift_size=shift_size,
            drop=drop,
            drop_path=drop_path,
            deep_supervision=deep_supervision,
        )

        # The authors' line of rates stops short of its end, so no block reaches drop_path itself.
        rates = [drop_path * k / sum(depths) for k in range(sum(depths))]
        shallow, deep = rates[: depths[0]], rates[depths[0] :]

        def blocks(width: int, rates: list[float]) -> nn.Sequential:
            mlp = {"hidden_channels": int(width * mlp_ratio), "shift_size": shift_size}
            return nn.Sequential(*(ShiftedBlock(width, **mlp, drop=drop, drop_path=rate) for rate in rates))

        a, b, c, d, e = channels
        self.stages = nn.ModuleList(
            [
                ConvStage(in_channels, a),
                ConvStage(a, b),
                ConvStage(b, c),
                TokenizedStage(c, d, blocks(d, shallow)),
                TokenizedStage(d, e, blocks(e, deep)),
            ]
        )
        self.decoder = nn.ModuleList(
            [
                TokenizedUp(e, d, blocks(d, shallow)),
                TokenizedUp(d, c, blocks(c, deep)),
                ConvUp(c, b),
                ConvUp(b, a),
                LastUp(a, a),
            ]
        )
        self._build_heads((d, c, b, a, a))
        self.feature_info = describe_features(channels, [2**k for k in range(1, 6)], [f"stages.{i}" for i in range(5)])

    def encode(self, x: Tensor) -> list[Tensor]:
        features = []
        # In this layout, channels_last, a map of tokens and an image are the same memory.
        x = _to_map(_to_tokens(x).contiguous())
        for stage in self.stages:
            x = self._run(stage, x)
            features.append(x)
        return features

    def decode(self, features: list[Tensor]) -> Iterator[Tensor]:
        *ups, last = self.decoder
        x = features.pop()
        for up in ups:
            x = self._run(up, x, features.pop())
            yield x
        yield self._run(last, x)


class ConvStage(nn.Module):
    """Stages 1 to 3: 3x3 convolution, batch norm, 2x2 max pooling, ReLU."""

    conv_chains = (("conv", "norm", "pool", "relu"),)

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        self.norm = nn.BatchNorm2d(out_channels)
        self.pool = nn.MaxPool2d(kernel_size=2)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        # The ReLU comes after the pooling, on a quarter of the pixels; the norm cannot: its weights may be negative.
        output: Tensor = self.relu(self.pool(self.norm(self.conv(x))))
        return output


class TokenizedStage(nn.Module):
    """Stages 4 and 5: patch embedding, shifted blocks, layer norm."""

    def __init__(self, in_channels: int, out_channels: int, blocks: nn.Sequential) -> None:
        super().__init__()
        self.embed = PatchEmbed(in_channels, out_channels)
        self.blocks = blocks
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return _to_map(self.norm(self.blocks(self.embed(x))))


class PatchEmbed(nn.Module):
    """Overlapping patches: 3x3 convolution of stride 2, layer norm; a map (B, C, H, W) to tokens (B, H/2, W/2, D)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=2, padding=1)
        self.norm = nn.LayerNorm(out_channels)
        _init_conv(self.proj)

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.norm(_to_tokens(self.proj(x)))
        return tokens


class ShiftedBlock(nn.Module):
    """Tokenized MLP block: tokens (B, H, W, C) plus the shifted MLP of their layer norm."""

    def __init__(
        self, channels: int, hidden_channels: int, *, shift_size: int = 5, drop: float = 0.0, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.mlp = ShiftedMLP(channels, hidden_channels, shift_size=shift_size, drop=drop)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor) -> Tensor:
        residual: Tensor = self.drop_path(self.mlp(self.norm(tokens)))
        return tokens + residual


class ShiftedMLP(nn.Module):
    """Shift over the height, linear, depthwise 3x3 convolution, GELU, shift over the width, linear.

    The paper shifts the width first; the authors' code, and so the published weights, the height.
    """

    conv_chains = (("dwconv", "gelu"),)

    def __init__(self, channels: int, hidden_channels: int, *, shift_size: int = 5, drop: float = 0.0) -> None:
        super().__init__()
        self.shift_size = shift_size
        self.fc1 = nn.Linear(channels, hidden_channels)
        self.dwconv = nn.Conv2d(hidden_channels, hidden_channels, kernel_size=3, padding=1, groups=hidden_channels)
        self.gelu = nn.GELU()
        self.fc2 = nn.Linear(hidden_channels, channels)
        self.drop = nn.Dropout(drop)
        for linear in (self.fc1, self.fc2):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
        _init_conv(self.dwconv)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.fc1(shift(tokens, "height", self.shift_size))
        x = self.drop(_to_tokens(self.gelu(self.dwconv(_to_map(x)))))
        x = self.fc2(shift(x, "width", self.shift_size))
        dropped: Tensor = self.drop(x)
        return dropped


class DropPath(nn.Module):
    """Stochastic depth per image (Huang et al. 2016, arXiv:1603.09382): zero at this rate, else over 1 - rate."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if self.rate == 0 or not self.training:
            return x
        keep = 1 - self.rate
        return x * x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(keep).div_(keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


class ConvUp(nn.Module):
    """Up 3 and 4: 3x3 convolution, batch norm, bilinear x2, ReLU, then the skip is added."""

    conv_chains = (("conv", "norm"),)

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        self.norm = nn.BatchNorm2d(out_channels)
        self.upsample = nn.Upsample(scale_factor=2, mode="bilinear")

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return F.relu(self.upsample(self.norm(self.conv(x))), inplace=True) + skip


class TokenizedUp(ConvUp):
    """Up 1 and 2: as up 3 and 4, then shifted blocks and a layer norm."""

    def __init__(self, in_channels: int, out_channels: int, blocks: nn.Sequential) -> None:
        super().__init__(in_channels, out_channels)
        self.blocks = blocks
        self.token_norm = nn.LayerNorm(out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        tokens = _to_tokens(super().forward(x, skip))
        return _to_map(self.token_norm(self.blocks(tokens)))


class LastUp(nn.Module):
    """Up 5: 3x3 convolution, bilinear x2, ReLU; no norm and no skip."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        self.upsample = nn.Upsample(scale_factor=2, mode="bilinear")

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.upsample(self.conv(x)), inplace=True)


def shift(tokens: Tensor, axis: str, shift_size: int = 5) -> Tensor:
    """Moves groups of channels along one axis of the map; zeros enter at the border.

    Channels are cut into `shift_size` groups of ceil(C / shift_size); group n moves by n - shift_size // 2 pixels:
    towards lower indices first, the middle group not at all.

    Args:
        tokens: (B, H, W, C).
        axis: "height" or "width".
        shift_size: number of groups.

    Returns:
        (B, H, W, C).
    """
    dim, pad = {"height": (1, (0, 0, 0, 0)), "width": (2, (0, 0))}[axis]
    length, reach = tokens.shape[dim], shift_size // 2
    # The last group is smaller when the width is no multiple, as in the authors' code: trained weights depend on it.
    group = math.ceil(tokens.shape[-1] / shift_size)
    groups = torch.split(F.pad(tokens, (*pad, reach, reach)), group, dim=-1)
    return torch.cat([x.narrow(dim, 2 * reach - n, length) for n, x in enumerate(groups)], dim=-1)


def _to_tokens(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)  # (B, H, W, C)


def _to_map(tokens: Tensor) -> Tensor:
    return tokens.permute(0, 3, 1, 2)  # (B, C, H, W)


def _init_conv(conv: nn.Conv2d) -> None:
    fan_out = math.prod(conv.kernel_size) * conv.out_channels // conv.groups
    nn.init.normal_(conv.weight, std=math.sqrt(2 / fan_out))
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
