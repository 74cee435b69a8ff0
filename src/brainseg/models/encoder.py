"""Any backbone of timm as the encoder of a network."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from brainseg.models.backbone import create_backbone, find_backbone


class TimmEncoder(nn.Module):
    """A timm backbone (`features_only`): image (B, C, H, W) to features (B, D, H/s, W/s), shallow to deep.

    Args:
        name: as `timm.create_model` takes it, with or without the tag of its weights, or after "hf-hub:" or
            "local-dir:".
        in_channels: channels of the image, C; timm adapts the kernels that read it.
        pretrained: start from timm's weights, which are downloaded or those of the local folder; or a file of weights
            (`.safetensors`, `.pt`, `.pth`) or a folder with one, in whatever names timm knows.
        pretrained_cfg_overlay: timm's: changes to what it knows of the weights, such as `{"mean": ..., "std": ...}`.
        arguments: further ones of `timm.create_model`, such as `{"drop_path_rate": 0.1}`.
        always_partition: a Swin attends in windows of its full size on small maps too, as its authors' code does.

    Attributes:
        architecture: the name without folder or repository, from which the same backbone is built again.
        arguments: those that it takes for that.
        channels: D of each feature.
        reductions: stride s of each feature, each twice the one before.
        boxes: the module that each feature comes from.
        stems: the convolutions that read the image.
        normalization: name and arguments of the transform that timm's weights want. Channel c is scaled as channel
            c modulo 3 of a colour image, whose kernels timm repeats; the one channel of gray images, whose kernels it
            sums, by the mean of the three.
        steps: how often the features halve.

    Raises:
        ConnectionError: weights that are not on this machine, and no connection.
        FileNotFoundError: no such file or folder.
        ValueError: an unknown name, weights that do not fit, or a backbone that no decoder can stand on: its features
            do not halve step by step, or it takes one size of image alone.
    """

    def __init__(
        self,
        name: str,
        in_channels: int,
        *,
        pretrained: bool | str | Path = False,
        pretrained_cfg_overlay: Mapping[str, Any] | None = None,
        arguments: Mapping[str, Any] | None = None,
        always_partition: bool = False,
    ) -> None:
        super().__init__()
        found = find_backbone(name, arguments)
        self.architecture, self.arguments = found.architecture, found.arguments
        self.backbone = create_backbone(
            found,
            in_channels,
            pretrained=pretrained,
            pretrained_cfg_overlay=pretrained_cfg_overlay,
            always_partition=always_partition,
        )
        info: Any = self.backbone.feature_info
        self.channels: list[int] = info.channels()
        self.reductions: list[int] = info.reduction()
        self.steps = len(self.channels) - 1
        if self.steps == 0 or any(deeper != 2 * finer for finer, deeper in pairwise(self.reductions)):
            raise ValueError(
                f"encoder {name!r} has features of strides {self.reductions}, and a decoder needs each to be twice the "
                "one before; take a hierarchical backbone, such as resnet34, convnext_tiny or swin_tiny"
            )
        self.channels_last: bool = getattr(self.backbone, "output_fmt", None) == "NHWC"
        self._try(name, in_channels)
        modules = dict(self.backbone.named_modules())
        self.boxes = [_find(box, modules) for box in info.module_name()]
        configuration: Any = self.backbone.pretrained_cfg
        self.normalization = _normalization(configuration["mean"], configuration["std"], in_channels)
        first = configuration["first_conv"]
        self.stems = tuple(_find(conv, modules) for conv in ([first] if isinstance(first, str) else first or []))

    def forward(self, x: Tensor) -> list[Tensor]:
        features: list[Tensor] = self.backbone(x)
        return [feature.permute(0, 3, 1, 2) for feature in features] if self.channels_last else features

    def _try(self, name: str, in_channels: int) -> None:
        """Looks at the features of an image of a size that no backbone is made for."""
        side = self.reductions[-1]
        image = torch.zeros(1, in_channels, 3 * side, 4 * side)
        training = self.training
        try:
            with torch.no_grad():
                found = [tuple(feature.shape) for feature in self.eval()(image)]
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"encoder {name!r} takes no image of {3 * side}x{4 * side} pixels ({error}); take a backbone that is "
                "not bound to one size"
            ) from error
        finally:
            self.train(training)
        expected = [
            (1, channels, 3 * side // reduction, 4 * side // reduction)
            for channels, reduction in zip(self.channels, self.reductions, strict=True)
        ]
        if found != expected:
            raise ValueError(f"encoder {name!r} gives features of shapes {found}, and a decoder needs {expected}")


def _find(name: str, modules: Mapping[str, nn.Module]) -> str:
    """The box that timm calls so: the dots of some names are gone in a backbone of features alone."""
    known = next((box for box in (name, name.replace(".", "_", 1), f"model.{name}") if box in modules), "")
    return f"backbone.{known}".rstrip(".")


def _normalization(mean: Sequence[float], std: Sequence[float], in_channels: int) -> dict[str, Any]:
    def per_channel(values: Sequence[float]) -> list[float]:
        return [fmean(values)] if in_channels == 1 else [values[c % len(values)] for c in range(in_channels)]

    return {"name": "Normalize", "arguments": {"mean": per_channel(mean), "std": per_channel(std)}}
