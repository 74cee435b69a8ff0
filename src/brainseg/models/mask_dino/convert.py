"""Keys and arguments of official Mask DINO state dicts (detectron2's names), read from what is in them."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

PREFIX = "sem_seg_head."
_PAIR = ("weight", "bias")
_NORM = (*_PAIR, "running_mean", "running_var")

# Number of blocks in each stage.
_RESNETS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
# By the width of the first stage, the blocks of the third and the side of the window.
_SWINS = {
    (96, 6, 7): "swin_tiny_patch4_window7_224",
    (96, 18, 7): "swin_small_patch4_window7_224",
    (128, 18, 7): "swin_base_patch4_window7_224",
    (128, 18, 12): "swin_base_patch4_window12_384",
    (192, 18, 7): "swin_large_patch4_window7_224",
    (192, 18, 12): "swin_large_patch4_window12_384",
}


def mask_dino_keys(given: Mapping[str, Tensor]) -> dict[str, str | None]:
    """Official key -> ours, of a whole model; None for what ours has no need of."""
    config = mask_dino_config(given)
    if config["feature_norms"]:
        backbone = _swin_keys([_blocks(given, f"backbone.layers.{stage}.blocks.") for stage in range(4)])
    else:
        backbone = _resnet_keys(_RESNETS[config["backbone"]])
    head = {f"{PREFIX}{theirs}": f"query_head.{ours}" for theirs, ours in mask_dino_head_keys(config).items()}
    return {**backbone, **head, "criterion.empty_weight": None}


def mask_dino_head_keys(config: Mapping[str, Any]) -> dict[str, str]:
    """Official key without its prefix "sem_seg_head." -> that of `MaskDINOHead` with these arguments.

    A tensor that the authors' model has under several names has several keys here.
    """
    levels, extra = len(config["encoder_features"]), config["total_levels"] - len(config["encoder_features"])
    modules: dict[str, str] = {}
    for i in range(levels + extra):
        modules |= {f"pixel_decoder.input_proj.{i}.{j}": f"pixel_decoder.input_proj.{i}.{j}" for j in (0, 1)}
        if config["conv_dim"] != config["hidden_dim"]:
            modules[f"predictor.input_proj.{i}"] = f"input_proj.{i}"
    for i in range(config["encoder_layers"]):
        theirs, ours = f"pixel_decoder.transformer.encoder.layers.{i}", f"pixel_decoder.layers.{i}"
        modules |= _attention(f"{theirs}.self_attn", f"{ours}.self_attn")
        modules |= _layer(theirs, ours, norms=2)
    finest = min(int(name.removeprefix("res")) for name in config["encoder_features"])
    for i in range(1, max(finest - 1, 2)):  # from res2 to the feature before the finest level
        fusion = "mask_head.fusion" if i == 1 else f"pixel_decoder.fusions.{i - 2}"
        for part in ("adapter", "layer"):
            modules[f"pixel_decoder.{part}_{i}"] = f"{fusion}.{part}.0"
            if config["fpn_norm"]:
                modules[f"pixel_decoder.{part}_{i}.norm"] = f"{fusion}.{part}.1"
    modules["pixel_decoder.mask_features"] = "mask_head.mask_features"
    modules["predictor.class_embed"] = "class_embed"
    modules |= {f"predictor.mask_embed.layers.{j}": f"mask_head.mask_embed.layers.{j}" for j in range(3)}
    if config["two_stage"]:
        modules |= {f"predictor.{name}": f"queries.{name}" for name in ("enc_output", "enc_output_norm")}
    modules |= dict.fromkeys(("predictor.decoder_norm", "predictor.decoder.norm"), "decoder.norm")
    boxes = ["predictor._bbox_embed"]
    for i in range(config["decoder_layers"]):
        layer = f"decoder.layers.{i}"
        modules |= _attention(f"predictor.{layer}.cross_attn", f"{layer}.cross_attn")
        modules |= _layer(f"predictor.{layer}", layer, norms=3)
        modules[f"predictor.{layer}.self_attn.out_proj"] = f"{layer}.self_attn.out_proj"
        boxes += [f"predictor.bbox_embed.{i}", f"predictor.decoder.bbox_embed.{i}"]
    for j in range(2):
        modules[f"predictor.decoder.ref_point_head.layers.{j}"] = f"decoder.ref_point_head.layers.{j}"
    modules |= {f"{box}.layers.{j}": f"decoder.box_embed.layers.{j}" for box in boxes for j in range(3)}

    keys = _with_parts(modules, _PAIR)
    if config["fpn_norm"]:  # convolutions before a norm have no bias
        keys = {k: v for k, v in keys.items() if not re.fullmatch(r"pixel_decoder\.(adapter|layer)_\d+\.bias", k)}
    for i in range(config["decoder_layers"]):
        for part in ("in_proj_weight", "in_proj_bias"):
            keys[f"predictor.decoder.layers.{i}.self_attn.{part}"] = f"decoder.layers.{i}.self_attn.{part}"
    keys["pixel_decoder.transformer.level_embed"] = "pixel_decoder.level_embed"
    keys["predictor.label_enc.weight"] = "denoising.label_enc.weight"
    if config["learn_content"] or not config["two_stage"]:
        keys["predictor.query_feat.weight"] = "queries.content.weight"
    if not config["two_stage"]:
        keys["predictor.query_embed.weight"] = "queries.anchors.weight"
    return keys


def mask_dino_config(given: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of `MaskDINO` that the keys and shapes tell; the rest are the authors' defaults."""
    backbone, channels = _backbone(given)
    stem = "backbone.patch_embed.proj" if backbone.startswith("swin") else "backbone.stem.conv1"
    return {
        "in_channels": _shape(given, f"{stem}.weight", 4)[1],
        "num_classes": _shape(given, f"{PREFIX}predictor.label_enc.weight", 2)[0],
        "backbone": backbone,
        "feature_norms": backbone.startswith("swin"),
        **_head_config(given, channels),
    }


def _head_config(given: Mapping[str, Tensor], channels: Mapping[str, int]) -> dict[str, Any]:
    pixel_decoder, predictor = f"{PREFIX}pixel_decoder.", f"{PREFIX}predictor."
    encoder = f"{pixel_decoder}transformer.encoder.layers."
    levels, conv_dim = _shape(given, f"{pixel_decoder}transformer.level_embed", 2)
    names = {width: name for name, width in channels.items()}
    features = []
    for i in range(levels):
        _, width, side, _ = _shape(given, f"{pixel_decoder}input_proj.{i}.0.weight", 4)
        if side == 1:
            features.append(names.get(width, f"of {width} channels"))
    if unknown := set(features) - set(channels):
        raise ValueError(f"this is no state dict of MaskDINO: its pixel decoder reads features {sorted(unknown)}")
    classes, hidden_dim = _shape(given, f"{predictor}class_embed.weight", 2)
    num_classes, _ = _shape(given, f"{predictor}label_enc.weight", 2)
    two_stage = f"{predictor}enc_output.weight" in given
    content = f"{predictor}query_feat.weight"
    (offsets,) = _shape(given, f"{encoder}0.self_attn.sampling_offsets.bias", 1)
    if classes not in (num_classes, num_classes + 1) or not levels:
        raise ValueError(
            f"this is no state dict of MaskDINO: {classes} class outputs for {num_classes} classes, {levels} levels"
        )
    return {
        "encoder_features": sorted(features),
        "total_levels": levels,
        "feature_order": "low2high" if len(features) > 1 and features == sorted(features) else "high2low",
        "conv_dim": conv_dim,
        "mask_dim": _shape(given, f"{pixel_decoder}mask_features.weight", 4)[0],
        "hidden_dim": hidden_dim,
        "encoder_layers": _blocks(given, encoder),
        "encoder_heads": offsets // (levels * 4 * 2),  # of 4 points (x, y), always
        "encoder_ffn": _shape(given, f"{encoder}0.linear1.weight", 2)[0],
        "fpn_norm": f"{pixel_decoder}layer_1.norm.weight" in given,
        "decoder_layers": _blocks(given, f"{predictor}decoder.layers."),
        "decoder_ffn": _shape(given, f"{predictor}decoder.layers.0.linear1.weight", 2)[0],
        "num_queries": _shape(given, content, 2)[0] if content in given else 300,
        "two_stage": two_stage,
        "learn_content": two_stage and content in given,
        "init_box": "bitmask" if two_stage else "no",
        "softmax_classes": classes == num_classes + 1,
    }


def _backbone(given: Mapping[str, Tensor]) -> tuple[str, dict[str, int]]:
    """Timm's name of the backbone, and the channels of its features."""
    if "backbone.stem.conv1.weight" in given:
        blocks = tuple(_blocks(given, f"backbone.res{i}.") for i in range(2, 6))
        channels = {f"res{i}": _shape(given, f"backbone.res{i}.0.conv3.weight", 4)[0] for i in range(2, 6)}
        for name, number in _RESNETS.items():
            if number == blocks:
                return name, channels
        raise ValueError(f"the ResNet of this state dict has {blocks} blocks; known are {_RESNETS}")
    channels = {f"res{i + 2}": _shape(given, f"backbone.norm{i}.weight", 1)[0] for i in range(4)}
    places, _ = _shape(given, "backbone.layers.0.blocks.0.attn.relative_position_bias_table", 2)
    window = (math.isqrt(places) + 1) // 2
    swin = (channels["res2"], _blocks(given, "backbone.layers.2.blocks."), window)
    if swin in _SWINS:
        return _SWINS[swin], channels
    raise ValueError(f"the Swin of this state dict has width, blocks and window {swin}; known are {_SWINS}")


def _resnet_keys(blocks: Iterable[int]) -> dict[str, str | None]:
    convs = {"stem.conv1": ("conv1", "bn1")}
    for stage, number in enumerate(blocks, start=1):
        for block in range(number):
            theirs, ours = f"res{stage + 1}.{block}", f"layer{stage}.{block}"
            convs |= {f"{theirs}.conv{i}": (f"{ours}.conv{i}", f"{ours}.bn{i}") for i in (1, 2, 3)}
        convs[f"res{stage + 1}.0.shortcut"] = (f"layer{stage}.0.downsample.0", f"layer{stage}.0.downsample.1")
    keys: dict[str, str | None] = {}
    for theirs, (conv, norm) in convs.items():
        keys[f"backbone.{theirs}.weight"] = f"backbone.encoder.backbone.{conv}.weight"
        for part in _NORM:
            keys[f"backbone.{theirs}.norm.{part}"] = f"backbone.encoder.backbone.{norm}.{part}"
    return keys


def _swin_keys(blocks: Iterable[int]) -> dict[str, str | None]:
    modules = {"patch_embed.proj": "patch_embed.proj", "patch_embed.norm": "patch_embed.norm"}
    others: dict[str, str | None] = {}
    for stage, number in enumerate(blocks):
        for block in range(number):
            theirs, ours = f"layers.{stage}.blocks.{block}", f"layers_{stage}.blocks.{block}"
            parts = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
            modules |= {f"{theirs}.{part}": f"{ours}.{part}" for part in parts}
            table = "attn.relative_position_bias_table"
            others[f"backbone.{theirs}.{table}"] = f"backbone.encoder.backbone.{ours}.{table}"
            others[f"backbone.{theirs}.attn.relative_position_index"] = None  # timm computes it
        if stage < 3:  # timm merges patches at the start of the next stage
            theirs, ours = f"layers.{stage}.downsample", f"layers_{stage + 1}.downsample"
            modules[f"{theirs}.norm"] = f"{ours}.norm"
            others[f"backbone.{theirs}.reduction.weight"] = f"backbone.encoder.backbone.{ours}.reduction.weight"
    under = {f"backbone.{theirs}": f"backbone.encoder.backbone.{ours}" for theirs, ours in modules.items()}
    under |= {f"backbone.norm{stage}": f"backbone.norms.{stage}" for stage in range(4)}
    return {**_with_parts(under, _PAIR), **others}


def _attention(theirs: str, ours: str) -> dict[str, str]:
    parts = ("sampling_offsets", "attention_weights", "value_proj", "output_proj")
    return {f"{theirs}.{part}": f"{ours}.{part}" for part in parts}


def _layer(theirs: str, ours: str, *, norms: int) -> dict[str, str]:
    linears = {f"{theirs}.linear{i}": f"{ours}.ffn.linear{i}" for i in (1, 2)}
    return {**linears, **{f"{theirs}.norm{i}": f"{ours}.norm{i}" for i in range(1, norms + 1)}}


def _with_parts(modules: Mapping[str, str], parts: Iterable[str]) -> dict[str, str]:
    parts = tuple(parts)
    return {f"{theirs}.{part}": f"{ours}.{part}" for theirs, ours in modules.items() for part in parts}


def _blocks(given: Mapping[str, Tensor], prefix: str) -> int:
    """Number of blocks whose keys follow the prefix."""
    return len({key.removeprefix(prefix).partition(".")[0] for key in given if key.startswith(prefix)})


def _shape(given: Mapping[str, Tensor], key: str, rank: int) -> tuple[int, ...]:
    if key not in given:
        raise ValueError(
            f"this is no state dict of MaskDINO: missing key {key!r}; give what its file has under 'model'"
        )
    shape = tuple(given[key].shape)
    if len(shape) != rank:
        raise ValueError(f"this is no state dict of MaskDINO: {key!r} has shape {shape}, expected {rank} axes")
    return shape
