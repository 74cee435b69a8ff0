"""All of Mask DINO behind the backbone."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from brainseg.checks import check_count, check_counts
from brainseg.models.mask_dino.criterion import SetCriterion, check_things
from brainseg.models.mask_dino.denoising import Denoising, NoisedQueries
from brainseg.models.mask_dino.mask_head import MaskHead
from brainseg.models.mask_dino.objects import gather_objects
from brainseg.models.mask_dino.pixel_decoder import FEATURES, PixelDecoder
from brainseg.models.mask_dino.positions import at_least_float32
from brainseg.models.mask_dino.predictions import QueryPredictions
from brainseg.models.mask_dino.query_selection import LearnedQueries, Queries, QuerySelection, mask_anchors
from brainseg.models.mask_dino.randomness import Rand, torch_rand
from brainseg.models.mask_dino.settings import HeadSettings
from brainseg.models.mask_dino.targets import Target
from brainseg.models.mask_dino.transformer_decoder import TransformerDecoder


class MaskDINOHead(nn.Module):
    """Mask DINO for anybody's backbone (Li et al. 2022, arXiv:2206.02777, figure 2).

    Args:
        feature_channels: channels of the features of strides 4, 8, 16 and 32, called res2 to res5.
        num_classes: number of classes K.
        settings: those of `HeadSettings` that differ from its defaults.

    Attributes:
        settings: all `HeadSettings`.
        criterion: the `SetCriterion` of these settings.

    Shape:
        features res2 to res5, (B, D, H/4, W/4) to (B, D, H/32, W/32) -> `QueryPredictions`.

    Raises:
        ValueError: arguments out of range or that exclude each other; features or targets that do not fit.

    Example:
        >>> head = MaskDINOHead((16, 32, 64, 128), num_classes=2, hidden_dim=64, conv_dim=64, mask_dim=64).eval()
        >>> features = [torch.rand(1, 16 * 2**i, 32 // 2**i, 32 // 2**i) for i in range(4)]
        >>> head(features).pred_masks.shape
        torch.Size([1, 300, 32, 32])
    """

    def __init__(self, feature_channels: Sequence[int], num_classes: int = 1, **settings: Any) -> None:
        super().__init__()
        channels = check_counts("feature_channels", feature_channels, len(FEATURES))
        num_classes = check_count("num_classes", num_classes)
        s = HeadSettings.of(settings)
        self.feature_channels = channels
        self.pixel_decoder = PixelDecoder(
            channels,
            encoder_features=s.encoder_features,
            levels=s.total_levels,
            feature_order=s.feature_order,
            channels=s.conv_dim,
            layers=s.encoder_layers,
            heads=s.encoder_heads,
            ffn=s.encoder_ffn,
            drop=s.encoder_drop,
            norm=s.fpn_norm,
        )
        # In the order of the encoder's levels, as official files number them.
        self.input_proj = nn.ModuleList(
            nn.Conv2d(s.conv_dim, s.hidden_dim, kernel_size=1)
            for _ in range(s.total_levels if s.conv_dim != s.hidden_dim else 0)
        )
        self.class_embed = nn.Linear(s.hidden_dim, num_classes + s.softmax_classes)
        self.mask_head = MaskHead(channels[0], s.conv_dim, s.hidden_dim, s.mask_dim, norm=s.fpn_norm)
        self.queries: QuerySelection | LearnedQueries
        if s.two_stage:
            self.queries = QuerySelection(s.hidden_dim, s.num_queries, learn_content=s.learn_content)
        else:
            self.queries = LearnedQueries(s.hidden_dim, s.num_queries)
        self.denoising = Denoising(num_classes, s.hidden_dim, number=s.dn_number, noise=s.dn_noise)
        self.decoder = TransformerDecoder(
            s.hidden_dim,
            s.total_levels,
            layers=s.decoder_layers,
            heads=s.decoder_heads,
            points=s.decoder_points,
            ffn=s.decoder_ffn,
            drop=s.decoder_drop,
        )
        self.criterion = SetCriterion(
            num_classes,
            num_points=s.num_points,
            oversample=s.oversample,
            importance=s.importance,
            denoising=s.denoising,
            softmax_classes=s.softmax_classes,
            things=s.things,
        )
        self.settings = replace(s, things=self.criterion.things)

    def forward(
        self,
        features: Sequence[Tensor],
        targets: Sequence[Target] | None = None,
        *,
        rand: Rand | None = None,
        auxiliary_masks: bool | None = None,
        image_size: tuple[int, int] | None = None,
    ) -> QueryPredictions:
        """Predictions of all queries.

        Args:
            features: res2 to res5.
            targets: one for each image, with masks of its size before or after padding; in training they are noised to
                become further queries.
            rand: (name, shape) -> uniform numbers in [0, 1), for the noise; torch's generator by default.
            auxiliary_masks: layers before the last predict masks too, as `criterion` needs them; by default in training
                and with targets.
            image_size: height and width of the images before they were padded, if they were; results are cropped to it.
        """
        self._check(features)
        levels, finest = self.pixel_decoder(features)
        pixel_embedding = self.mask_head.pixel_embedding(features[0], finest)
        if len(self.input_proj) > 0:
            levels = [project(x) for project, x in zip(reversed(self.input_proj), levels, strict=True)]
        shapes = [(x.shape[-2], x.shape[-1]) for x in levels]
        memory = torch.cat([x.flatten(2).transpose(1, 2) for x in levels], dim=1)  # (B, S, C)

        queries, interm = self._select(memory, shapes, pixel_embedding)
        objects = noised = None
        if targets is not None:
            objects = gather_objects(
                targets,
                (4 * features[0].shape[-2], 4 * features[0].shape[-1]),
                batch=len(memory),
                num_classes=self.denoising.num_classes,
                device=memory.device,
                dtype=at_least_float32(memory.dtype),
                image_size=image_size,
            )
            if self.training and self.settings.denoising != "no":
                noised = self.denoising(objects, rand or torch_rand(memory.device))
        blocked = None
        if noised is not None:
            blocked = noised.blocked(queries.content.shape[1])
            queries = _join(noised.queries, queries)

        states = self.decoder(queries.content, queries.anchors, memory, shapes, blocked)
        if not self.settings.initial_prediction:
            states = states[1:]
        if auxiliary_masks is None:
            auxiliary_masks = self.training or targets is not None
        layers = [
            self._predict(
                state.content, state.boxes, pixel_embedding if auxiliary_masks or state is states[-1] else None
            )
            for state in states
        ]
        return replace(self._assemble(layers, interm, noised), image_size=image_size, objects=objects)

    def reset_classifier(self, num_classes: int) -> None:
        """Fresh class head and denoising table of `num_classes` classes; the rest stays."""
        num_classes = check_count("num_classes", num_classes)
        check_things(self.criterion.things, num_classes)
        like = self.class_embed.weight
        width = self.settings.hidden_dim
        self.class_embed = nn.Linear(width, num_classes + self.settings.softmax_classes).to(like)
        self.denoising.label_enc = nn.Embedding(num_classes, width).to(like)
        for module in (self.class_embed, self.denoising.label_enc):
            module.train(self.training)
        self.criterion.num_classes = num_classes

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Layers of encoder and decoder are recomputed in the backward pass."""
        self.pixel_decoder.grad_checkpointing = self.decoder.grad_checkpointing = enable

    def _select(
        self, memory: Tensor, shapes: Sequence[tuple[int, int]], pixel_embedding: Tensor
    ) -> tuple[Queries, QueryPredictions | None]:
        """Input of the decoder, and what the chosen tokens predict by themselves."""
        if isinstance(self.queries, LearnedQueries):
            return self.queries(len(memory)), None
        tokens, anchors = self.queries(memory, shapes, self.class_embed, self.decoder.box_embed)
        interm = self._predict(tokens, anchors.sigmoid(), pixel_embedding)
        queries = self.queries.start(tokens, anchors)
        if self.settings.init_box != "no":
            queries = replace(queries, anchors=mask_anchors(interm.masks, self.settings.init_box))
        return queries, interm

    def _predict(self, content: Tensor, boxes: Tensor, pixel_embedding: Tensor | None) -> QueryPredictions:
        # The states of the decoder's layers are normalised already: twice, as trained weights expect.
        content = self.decoder.norm(content)
        masks = None if pixel_embedding is None else self.mask_head.masks(content, pixel_embedding)
        return QueryPredictions(self.class_embed(content), masks, boxes, softmax=self.settings.softmax_classes)

    def _assemble(
        self, layers: list[QueryPredictions], interm: QueryPredictions | None, noised: NoisedQueries | None
    ) -> QueryPredictions:
        """The last layer's predictions, which hold the others; denoising queries apart."""
        if noised is None:
            *aux, last = layers
            logits = last.pred_logits
            if self.training:  # the table of labels takes part in every step, as DistributedDataParallel wants
                logits = logits + 0 * self.denoising.label_enc.weight.sum()
            return replace(last, pred_logits=logits, aux=aux, interm=interm)
        pad = noised.pad_size
        *dn_aux, dn = (_part(layer, slice(None, pad)) for layer in layers)
        *aux, last = (_part(layer, slice(pad, None)) for layer in layers)
        return replace(last, aux=aux, interm=interm, dn=replace(dn, aux=dn_aux), groups=noised.groups)

    def _check(self, features: Sequence[Tensor]) -> None:
        if torch.compiler.is_compiling():
            return
        if isinstance(features, Mapping) or not all(isinstance(x, Tensor) for x in features):
            raise TypeError(f"features must be a list of tensors, fine to coarse, got {type(features).__name__}")
        found = [tuple(x.shape) for x in features]
        channels = [shape[1] for shape in found if len(shape) == 4]
        if channels != self.feature_channels or len({shape[0] for shape in found}) > 1:
            raise ValueError(
                f"features must be (B, D, H/s, W/s) for s = 4, 8, 16, 32 with D = {self.feature_channels}, got {found}"
            )
        height, width = found[0][2:]
        sides = [(-(-height // 2**i), -(-width // 2**i)) for i in range(len(found))]
        if [shape[2:] for shape in found] != sides:
            raise ValueError(f"features must have sides {sides}, got {found}; pad images to a multiple of 32")
        if any(not x.is_floating_point() for x in features):
            raise ValueError(f"features must be floating point, got {[x.dtype for x in features]}")


def _join(first: Queries, second: Queries) -> Queries:
    return Queries(torch.cat([first.content, second.content], dim=1), torch.cat([first.anchors, second.anchors], dim=1))


def _part(layer: QueryPredictions, which: slice) -> QueryPredictions:
    masks = None if layer.pred_masks is None else layer.pred_masks[:, which]
    return replace(
        layer, pred_logits=layer.pred_logits[:, which], pred_masks=masks, pred_boxes=layer.pred_boxes[:, which]
    )
