"""Mask DINO: queries that answer for objects with a class, a box and a mask."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, overload

import torch
from torch import Tensor, nn

from brainseg.checks import check_count, check_counts
from brainseg.models.base import SegmentationModel, describe_features
from brainseg.models.mask_dino.backbone import REDUCTIONS, SmallBackbone, TimmBackbone
from brainseg.models.mask_dino.head import MaskDINOHead
from brainseg.models.mask_dino.postprocessing import semantic_logits
from brainseg.models.mask_dino.predictions import QueryPredictions, describe_not_finite
from brainseg.models.mask_dino.randomness import Rand
from brainseg.models.mask_dino.targets import Target


class MaskDINO(SegmentationModel):
    """Mask DINO (Li et al. 2022, arXiv:2206.02777, figure 2), equal to the authors' code.

    `forward` gives logits of each class, as every network here; `forward_queries` gives the queries' own predictions,
    from which `criterion` computes the loss that the network is trained with. The defaults are the authors' settings
    for ResNet-50 with three scales.

    Args:
        in_channels: channels of the image, C.
        num_classes: number of classes, K.
        backbone: "small" for a network of our own, or the name of a timm backbone with features of strides 4, 8, 16
            and 32, "hf-hub:org/name" and "local-dir:folder" included. For one that is neither take `MaskDINOHead`.
        channels: widths of the four stages of the small backbone, multiples of 8; default 32, 64, 128, 256.
        pretrained: start a timm backbone from its weights, downloaded, or from those of a file, adapted to
            `in_channels`; `normalization` is then the one that they want.
        pretrained_cfg_overlay: timm's, for weights that want something else: `{"mean": [0.5], "std": [0.25]}`.
        backbone_arguments: of `timm.create_model`, such as `{"drop_path_rate": 0.1}`.
        frozen_norms: batch norms of a timm backbone keep their statistics and weights.
        feature_norms: a layer norm on each feature of a timm backbone, as the published Swin weights have it.
        head: all further arguments are those of `HeadSettings`.

    Attributes:
        criterion: the loss of `forward_queries`, (predictions, targets) -> (total, parts); another `SetCriterion` may
            take its place.

    Shape:
        images (B, C, H, W) floating point, H and W at least 64 -> logits (B, K, H, W), contiguous. Sides are padded to
        a multiple of 32 with zeros.

    Raises:
        ValueError: arguments out of range or that exclude each other; images that do not fit, or hold NaN or infinity,
            as in evaluation logits do.

    Example:
        >>> import torch
        >>> model = MaskDINO(in_channels=1, backbone="small", hidden_dim=64, conv_dim=64, mask_dim=64).eval()
        >>> model(torch.rand(1, 1, 97, 129)).shape
        torch.Size([1, 1, 97, 129])
    """

    stride = 32
    minimum_side = 64
    former_modules: ClassVar[Mapping[str, str]] = {"query_head.decoder.bbox_embed": "query_head.decoder.box_embed"}
    padding_mode = "constant"
    class_modules = ("query_head.class_embed", "query_head.denoising.label_enc")

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 1,
        *,
        backbone: str = "resnet50",
        channels: Sequence[int] | None = None,
        pretrained: bool | str | Path = False,
        pretrained_cfg_overlay: Mapping[str, Any] | None = None,
        backbone_arguments: Mapping[str, Any] | None = None,
        frozen_norms: bool = True,
        feature_norms: bool = False,
        **head: Any,
    ) -> None:
        in_channels = check_count("in_channels", in_channels)
        num_classes = check_count("num_classes", num_classes)
        for name, value in (("frozen_norms", frozen_norms), ("feature_norms", feature_norms)):
            if not isinstance(value, bool):
                raise ValueError(f"{name} must be True or False, got {value!r}")
        if isinstance(backbone, nn.Module):
            raise ValueError(
                "backbone must be a name, so that the model can be saved and built again; for a module of your own use "
                "MaskDINOHead(feature_channels)(features)"
            )
        features: SmallBackbone | TimmBackbone
        if backbone == "small":
            if pretrained or feature_norms or backbone_arguments:
                raise ValueError(
                    "pretrained, backbone_arguments and feature_norms are for a timm backbone; name one by backbone="
                )
            channels = check_counts("channels", (32, 64, 128, 256) if channels is None else channels, 4)
            if any(width % 8 for width in channels):
                raise ValueError(f"channels must be multiples of 8 (group norms), got {channels}")
            features = SmallBackbone(in_channels, channels)
        else:
            if channels is not None:
                raise ValueError(f"channels are the widths of backbone='small', and {backbone!r} has its own")
            features = TimmBackbone(
                backbone,
                in_channels,
                pretrained=pretrained,
                pretrained_cfg_overlay=pretrained_cfg_overlay,
                arguments=backbone_arguments,
                frozen_norms=frozen_norms,
                feature_norms=feature_norms,
            )
            backbone = features.encoder.architecture
        query_head = MaskDINOHead(features.channels, num_classes, **head)
        super().__init__(
            in_channels,
            num_classes,
            backbone=backbone,
            backbone_arguments=features.encoder.arguments or None if isinstance(features, TimmBackbone) else None,
            channels=channels,
            frozen_norms=frozen_norms,
            feature_norms=feature_norms,
            **query_head.settings.to_json(),
        )
        if isinstance(features, TimmBackbone) and pretrained:
            self.normalization = features.encoder.normalization
        self.backbone = features
        self.query_head = query_head
        self.criterion = query_head.criterion
        self.stems = tuple(f"backbone.{stem}" for stem in features.stems)
        self.feature_info = describe_features(
            features.channels, REDUCTIONS, [f"backbone.{box}" for box in features.boxes]
        )

    @overload
    def forward(self, images: Tensor) -> Tensor: ...

    @overload
    def forward(
        self, images: Tensor, targets: Sequence[Target], *, rand: Rand | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]: ...

    def forward(
        self, images: Tensor, targets: Sequence[Target] | None = None, *, rand: Rand | None = None
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Logits of the images; with targets what `criterion` makes of `forward_queries`: (total, parts).

        Wrapped in `DistributedDataParallel` call it so, with targets: gradients are averaged over the processes after
        a call of the wrapper alone, and `forward_queries` of what is inside it is none.
        """
        if targets is None:
            logits: Tensor = super().forward(images)  # type: ignore[assignment]  # which knows no deep supervision
            return logits
        losses: tuple[Tensor, dict[str, Tensor]] = self.criterion(
            self.forward_queries(images, targets, rand=rand), targets, rand=rand
        )
        return losses

    def forward_queries(
        self, images: Tensor, targets: Sequence[Target] | None = None, *, rand: Rand | None = None
    ) -> QueryPredictions:
        """The queries' own predictions.

        Of a model inside `DistributedDataParallel` this would leave its gradients unaveraged: there call the wrapper
        with images and targets, as `forward` says.

        Args:
            images: as for `forward`.
            targets: one for each image: `labels` (n,), `masks` (n, H, W) and, unless they are to be those around the
                masks, `boxes` (n, 4) in units of the image's width and height. In training they are noised to become
                further queries. With targets, or in training, all layers predict masks, as `criterion` needs them.
            rand: (name, shape) -> uniform numbers in [0, 1), for the noise; torch's generator by default.

        Raises:
            ValueError: images or targets that do not fit.
        """
        self._check(images)
        predictions: QueryPredictions = self.query_head(
            self.encode(self._pad(images)), targets, rand=rand, image_size=(images.shape[-2], images.shape[-1])
        )
        return predictions

    def _check(self, images: Tensor) -> None:
        super()._check(images)
        if torch.compiler.is_compiling() or images.is_meta:
            return
        # Attention would spread one such pixel over the whole image, and nothing would be found in it.
        if unsound := describe_not_finite(images):
            raise ValueError(f"pixels of {unsound}; leave such images out, or set the pixels by torch.nan_to_num")

    def encode(self, x: Tensor) -> list[Tensor]:
        features: list[Tensor] = self._run(self.backbone, x)
        return features

    def decode(self, features: list[Tensor]) -> Iterator[Tensor]:
        predictions = self.query_head(features, auxiliary_masks=False)
        if not self.training:  # where loss scaling leaves such steps out
            predictions.check_finite()
        yield semantic_logits(predictions)

    def _logits(self, finest: Tensor, height: int, width: int) -> Tensor:
        return self._cropped(finest, height, width, 1)  # the queries' maps are logits already

    def get_classifier(self) -> nn.Module:
        return self.query_head.class_embed

    def reset_classifier(self, num_classes: int) -> None:
        self.query_head.reset_classifier(num_classes)
        self.config["num_classes"] = self.criterion.num_classes = self.query_head.denoising.num_classes
        self.take_spec(self._spec)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        super().set_grad_checkpointing(enable)
        self.query_head.set_grad_checkpointing(enable)
