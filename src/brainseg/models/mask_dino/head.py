"""All of Mask DINO behind the backbone."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypedDict, Unpack, get_args

import torch
from torch import Tensor, nn

from brainseg.checks import check_between, check_choice, check_count, check_counts, check_rate
from brainseg.models.mask_dino.criterion import DenoisingMode, SetCriterion, check_things
from brainseg.models.mask_dino.denoising import Denoising, NoisedQueries
from brainseg.models.mask_dino.mask_head import MaskHead
from brainseg.models.mask_dino.pixel_decoder import FEATURES, FeatureOrder, PixelDecoder, check_levels
from brainseg.models.mask_dino.predictions import QueryPredictions
from brainseg.models.mask_dino.query_selection import (
    InitBox,
    LearnedQueries,
    Queries,
    QuerySelection,
    mask_anchors,
)
from brainseg.models.mask_dino.randomness import Rand, torch_rand
from brainseg.models.mask_dino.targets import Target, check_targets, pad_targets
from brainseg.models.mask_dino.transformer_decoder import TransformerDecoder


class HeadArguments(TypedDict, total=False):
    """What `MaskDINOHead` and `MaskDINO` take by keyword; see the former."""

    encoder_features: Sequence[str]
    total_levels: int
    feature_order: FeatureOrder
    conv_dim: int
    mask_dim: int
    hidden_dim: int
    encoder_layers: int
    encoder_heads: int
    encoder_ffn: int
    encoder_drop: float
    fpn_norm: bool
    decoder_layers: int
    decoder_heads: int
    decoder_points: int
    decoder_ffn: int
    decoder_drop: float
    num_queries: int
    two_stage: bool
    learn_content: bool
    init_box: InitBox
    initial_prediction: bool
    denoising: DenoisingMode
    dn_number: int
    dn_noise: float
    softmax_classes: bool
    num_points: int
    oversample: float
    importance: float
    things: Sequence[int] | None


DEFAULTS: HeadArguments = {
    "encoder_features": ("res3", "res4", "res5"),
    "total_levels": 3,
    "feature_order": "high2low",
    "conv_dim": 256,
    "mask_dim": 256,
    "hidden_dim": 256,
    "encoder_layers": 6,
    "encoder_heads": 8,
    "encoder_ffn": 1024,
    "encoder_drop": 0.0,
    "fpn_norm": True,
    "decoder_layers": 9,
    "decoder_heads": 8,
    "decoder_points": 4,
    "decoder_ffn": 2048,
    "decoder_drop": 0.0,
    "num_queries": 300,
    "two_stage": True,
    "learn_content": False,
    "init_box": "bitmask",
    "initial_prediction": True,
    "denoising": "seg",
    "dn_number": 100,
    "dn_noise": 0.4,
    "softmax_classes": False,
    "num_points": 12544,
    "oversample": 3.0,
    "importance": 0.75,
    "things": None,
}
"""The authors' settings for ResNet-50 with three scales."""


class MaskDINOHead(nn.Module):
    """Mask DINO for anybody's backbone (Li et al. 2022, arXiv:2206.02777, figure 2).

    Args:
        feature_channels: channels of the features of strides 4, 8, 16 and 32, called res2 to res5.
        num_classes: number of classes K.
        encoder_features: names of the features that become levels of the encoder.
        total_levels: number of levels L; those beyond the features are convolved from the coarsest.
        feature_order: order of the levels, "high2low" from coarse to fine, or "low2high".
        conv_dim: width E of the pixel decoder, a multiple of 32.
        mask_dim: width in which queries and pixels meet.
        hidden_dim: width C of the queries.
        encoder_layers, encoder_heads, encoder_ffn, encoder_drop: of the pixel decoder's transformer.
        fpn_norm: group norms in the convolutions of the mask head.
        decoder_layers, decoder_heads, decoder_points, decoder_ffn, decoder_drop: of the decoder.
        num_queries: number of queries Q; an image with fewer tokens has as many as tokens.
        two_stage: queries come from the encoder's tokens; False: they are learned.
        learn_content: with two stages, learn the content queries and take the anchors alone from the tokens.
        init_box: with two stages, anchors from the masks of the chosen tokens: "bitmask", "mask2box", or "no".
        initial_prediction: predict before the first layer too, which `init_box` needs.
        denoising: "seg" with masks, "standard" without, "no".
        dn_number, dn_noise: see `Denoising`.
        softmax_classes: classes exclude each other, and "no object" is one more.
        num_points, oversample, importance, things: see `SetCriterion`.

    Attributes:
        arguments: all of these but the first two, as JSON values.
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

    def __init__(
        self, feature_channels: Sequence[int], num_classes: int = 1, **arguments: Unpack[HeadArguments]
    ) -> None:
        super().__init__()
        channels = check_counts("feature_channels", feature_channels, len(FEATURES))
        num_classes = check_count("num_classes", num_classes)
        a = checked_arguments(arguments)
        a["things"] = check_things(a["things"], num_classes)
        self.arguments = a
        self.feature_channels = channels
        levels, width = a["total_levels"], a["hidden_dim"]
        self.pixel_decoder = PixelDecoder(
            channels,
            encoder_features=a["encoder_features"],
            levels=levels,
            feature_order=a["feature_order"],
            channels=a["conv_dim"],
            layers=a["encoder_layers"],
            heads=a["encoder_heads"],
            ffn=a["encoder_ffn"],
            drop=a["encoder_drop"],
            norm=a["fpn_norm"],
        )
        # In the order of the encoder's levels, as official files number them.
        self.input_proj = nn.ModuleList(
            nn.Conv2d(a["conv_dim"], width, kernel_size=1) for _ in range(levels if a["conv_dim"] != width else 0)
        )
        self.class_embed = nn.Linear(width, num_classes + a["softmax_classes"])
        self.mask_head = MaskHead(channels[0], a["conv_dim"], width, a["mask_dim"], norm=a["fpn_norm"])
        self.queries: QuerySelection | LearnedQueries
        if a["two_stage"]:
            self.queries = QuerySelection(width, a["num_queries"], learn_content=a["learn_content"])
        else:
            self.queries = LearnedQueries(width, a["num_queries"])
        self.denoising = Denoising(num_classes, width, number=a["dn_number"], noise=a["dn_noise"])
        self.decoder = TransformerDecoder(
            width,
            levels,
            layers=a["decoder_layers"],
            heads=a["decoder_heads"],
            points=a["decoder_points"],
            ffn=a["decoder_ffn"],
            drop=a["decoder_drop"],
        )
        self.criterion = SetCriterion(
            num_classes,
            num_points=a["num_points"],
            oversample=a["oversample"],
            importance=a["importance"],
            denoising=a["denoising"],
            softmax_classes=a["softmax_classes"],
            things=a["things"],
        )

    def forward(
        self,
        features: Sequence[Tensor],
        targets: Sequence[Target] | None = None,
        *,
        rand: Rand | None = None,
        auxiliary_masks: bool | None = None,
    ) -> QueryPredictions:
        """Predictions of all queries.

        Args:
            features: res2 to res5.
            targets: one for each image, with masks of its size before or after padding; in training they are noised to
                become further queries.
            rand: (name, shape) -> uniform numbers in [0, 1), for the noise; torch's generator by default.
            auxiliary_masks: layers before the last predict masks too, as `criterion` needs them; by default in training
                and with targets.
        """
        self._check(features)
        levels, finest = self.pixel_decoder(features)
        pixel_embedding = self.mask_head.pixel_embedding(features[0], finest)
        if len(self.input_proj) > 0:
            levels = [project(x) for project, x in zip(reversed(self.input_proj), levels, strict=True)]
        shapes = [(x.shape[-2], x.shape[-1]) for x in levels]
        memory = torch.cat([x.flatten(2).transpose(1, 2) for x in levels], dim=1)  # (B, S, C)

        queries, interm = self._select(memory, shapes, pixel_embedding)
        noised = None
        if targets is not None:
            check_targets(targets, len(memory), self.denoising.num_classes, memory.device)
            padded = pad_targets(targets, 4 * features[0].shape[-2], 4 * features[0].shape[-1])
            if self.training and self.arguments["denoising"] != "no":
                noised = self.denoising(padded, rand or torch_rand(memory.device))
        blocked = None
        if noised is not None:
            blocked = noised.blocked(queries.content.shape[1])
            queries = _join(noised.queries, queries)

        states = self.decoder(queries.content, queries.anchors, memory, shapes, blocked)
        if not self.arguments["initial_prediction"]:
            states = states[1:]
        if auxiliary_masks is None:
            auxiliary_masks = self.training or targets is not None
        layers = [
            self._predict(
                state.content, state.boxes, pixel_embedding if auxiliary_masks or state is states[-1] else None
            )
            for state in states
        ]
        return self._assemble(layers, interm, noised)

    def reset_classifier(self, num_classes: int) -> None:
        """Fresh class head and denoising table of `num_classes` classes; the rest stays."""
        num_classes = check_count("num_classes", num_classes)
        check_things(self.criterion.things, num_classes)
        like = self.class_embed.weight
        width = self.arguments["hidden_dim"]
        self.class_embed = nn.Linear(width, num_classes + self.arguments["softmax_classes"]).to(like)
        self.denoising.label_enc = nn.Embedding(num_classes, width).to(like)
        for module in (self.class_embed, self.denoising.label_enc):
            module.train(self.training)
        self.denoising.num_classes = self.criterion.num_classes = num_classes

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Layers of encoder and decoder are recomputed in the backward pass."""
        self.pixel_decoder.grad_checkpointing = self.decoder.grad_checkpointing = enable

    def _select(
        self, memory: Tensor, shapes: Sequence[tuple[int, int]], pixel_embedding: Tensor
    ) -> tuple[Queries, QueryPredictions | None]:
        """Input of the decoder, and what the chosen tokens predict by themselves."""
        if isinstance(self.queries, LearnedQueries):
            return self.queries(len(memory)), None
        tokens, anchors = self.queries(memory, shapes, self.class_embed, self.decoder.bbox_embed)
        interm = self._predict(tokens, anchors.sigmoid(), pixel_embedding)
        queries = self.queries.start(tokens, anchors)
        if self.arguments["init_box"] != "no":
            queries = replace(queries, anchors=mask_anchors(interm.masks, self.arguments["init_box"]))
        return queries, interm

    def _predict(self, content: Tensor, boxes: Tensor, pixel_embedding: Tensor | None) -> QueryPredictions:
        # The states of the decoder's layers are normalised already: twice, as trained weights expect.
        content = self.decoder.norm(content)
        masks = None if pixel_embedding is None else self.mask_head.masks(content, pixel_embedding)
        softmax = self.arguments["softmax_classes"]
        return QueryPredictions(self.class_embed(content), masks, boxes, softmax=softmax)

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


def checked_arguments(given: HeadArguments) -> dict[str, Any]:
    """All arguments, defaults included, as JSON values; errors for those out of range or that exclude each other."""
    if unknown := set(given) - set(DEFAULTS):
        raise TypeError(f"Mask DINO takes no {', '.join(sorted(unknown))}; it takes {', '.join(DEFAULTS)}")
    a: dict[str, Any] = {**DEFAULTS, **given}
    a["encoder_features"] = list(a["encoder_features"])
    for name, default in DEFAULTS.items():
        if isinstance(default, bool):
            if not isinstance(a[name], bool):
                raise ValueError(f"{name} must be True or False, got {a[name]!r}")
        elif isinstance(default, int):
            a[name] = check_count(name, a[name])
    for name in ("encoder_drop", "decoder_drop"):
        a[name] = check_rate(name, a[name])
    for name, choices in (("feature_order", FeatureOrder), ("init_box", InitBox), ("denoising", DenoisingMode)):
        check_choice(name, a[name], get_args(choices))
    for name, low, high in (("dn_noise", 0, 1), ("importance", 0, 1), ("oversample", 1, 1000)):
        a[name] = check_between(name, a[name], low, high)
    check_levels(a["encoder_features"], a["total_levels"])
    for name, divisor in (
        ("conv_dim", 32),
        ("conv_dim", a["encoder_heads"]),
        ("hidden_dim", a["decoder_heads"]),
        ("hidden_dim", 4),
    ):
        if a[name] % divisor:
            raise ValueError(f"{name} must be a multiple of {divisor} (group norms, heads or sines), got {a[name]}")
    if not a["two_stage"] and (a["init_box"] != "no" or a["learn_content"]):
        raise ValueError(
            "one-stage queries are learned: two_stage=False needs init_box='no' and learn_content=False, got "
            f"init_box={a['init_box']!r} and learn_content={a['learn_content']}"
        )
    if a["init_box"] != "no" and not a["initial_prediction"]:
        raise ValueError(
            f"init_box={a['init_box']!r} takes boxes from initial predictions; set initial_prediction=True"
        )
    return a


def _join(first: Queries, second: Queries) -> Queries:
    return Queries(torch.cat([first.content, second.content], dim=1), torch.cat([first.anchors, second.anchors], dim=1))


def _part(layer: QueryPredictions, which: slice) -> QueryPredictions:
    masks = None if layer.pred_masks is None else layer.pred_masks[:, which]
    return replace(
        layer, pred_logits=layer.pred_logits[:, which], pred_masks=masks, pred_boxes=layer.pred_boxes[:, which]
    )
