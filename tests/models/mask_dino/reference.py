"""Literal reference implementation of Mask DINO: an oracle for tests, without a backbone.

Written only from the specification ("mask_dino.md") and the checker's adapter interface, independently of `brainseg`,
which it does not import. Everything is a plain function on a dict {official state key without "sem_seg_head." ->
tensor}; section numbers of the specification are in the comments. Slow on purpose: loops where the specification
counts, explicit corners where it interpolates. One process, dropout 0, in the dtype of the arrays (float64 needs it as
torch's default dtype too). Not included: the "panoptic box loss" of section 8 and forced projection (2.6), which have
no name among the settings.
"""

import math
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment

Tensor = torch.Tensor
State = dict[str, Tensor]
DECODER_HEADS, POINTS = 8, 4  # 14.11, 2.3
WEIGHTS = {"ce": 4.0, "mask": 5.0, "dice": 5.0, "bbox": 5.0, "giou": 2.0}  # 8
OUTPUTS = ("pred_logits", "pred_masks", "pred_boxes")


# ---------------------------------------------------------------- settings and state (2, 12, 13)
def encoder_names(config: dict) -> list[str]:
    """Encoder features, fine to coarse."""
    return sorted(config["encoder_features"])


def fpn_names(config: dict) -> list[str]:
    """The f finest input features, fine to coarse (2.5)."""
    stride = min(2 ** int(name[3:]) for name in config["encoder_features"])  # res2 has stride 4, ...
    return sorted(config["feature_channels"])[: max(int(math.log2(stride)) - 2, 1)]


def extra_source(config: dict) -> str:
    """The encoder feature with the most channels (2.1, read as: of `encoder_features`); the finer one of equals."""
    return max(encoder_names(config), key=lambda name: config["feature_channels"][name])


def class_outputs(config: dict) -> int:
    return config["num_classes"] + bool(config.get("softmax_classes", False))  # 6


def state_shapes(config: dict, feature_channels: dict | None = None) -> dict[str, tuple[int, ...]]:
    """Canonical keys of a model and the shapes of their tensors (13)."""
    channels = feature_channels or config["feature_channels"]
    config = {**config, "feature_channels": channels}
    e, c, m = config["conv_dim"], config["hidden_dim"], config["mask_dim"]
    k, q, levels = config["num_classes"], config["num_queries"], config["total_levels"]
    out: dict[str, tuple[int, ...]] = {}

    def layer(key: str, *shape: int) -> None:
        out[key + ".weight"], out[key + ".bias"] = shape, shape[:1]

    def deformable(key: str, width: int, heads: int) -> None:  # 2.3
        layer(key + ".sampling_offsets", heads * levels * POINTS * 2, width)
        layer(key + ".attention_weights", heads * levels * POINTS, width)
        layer(key + ".value_proj", width, width)
        layer(key + ".output_proj", width, width)

    def mlp(key: str, *widths: int) -> None:
        for i in range(len(widths) - 1):
            layer(f"{key}.layers.{i}", widths[i + 1], widths[i])

    names = encoder_names(config)
    inputs = [channels[name] for name in (names if config["feature_order"] == "low2high" else names[::-1])]
    for i in range(levels):  # 2.1
        if i < len(names):
            layer(f"pixel_decoder.input_proj.{i}.0", e, inputs[i], 1, 1)
        else:
            layer(f"pixel_decoder.input_proj.{i}.0", e, channels[extra_source(config)] if i == len(names) else e, 3, 3)
        layer(f"pixel_decoder.input_proj.{i}.1", e)
    out["pixel_decoder.transformer.level_embed"] = (levels, e)
    for i in range(config["encoder_layers"]):  # 2.4
        key = f"pixel_decoder.transformer.encoder.layers.{i}"
        deformable(key + ".self_attn", e, config["encoder_heads"])
        layer(key + ".norm1", e)
        layer(key + ".linear1", config["encoder_ffn"], e)
        layer(key + ".linear2", e, config["encoder_ffn"])
        layer(key + ".norm2", e)
    layer("pixel_decoder.mask_features", m, e, 1, 1)
    for i, name in enumerate(fpn_names(config), 1):  # 2.5
        for key, shape in ((f"pixel_decoder.adapter_{i}", (e, channels[name], 1, 1)),
                           (f"pixel_decoder.layer_{i}", (e, e, 3, 3))):  # fmt: skip
            out[key + ".weight"] = shape
            if config.get("fpn_norm", "GN"):
                layer(key + ".norm", e)
            else:
                out[key + ".bias"] = (e,)
    if e != c:  # 2.6
        for i in range(levels):
            layer(f"predictor.input_proj.{i}", c, e, 1, 1)
    if config["two_stage"]:  # 3
        layer("predictor.enc_output", c, c)
        layer("predictor.enc_output_norm", c)
    if not config["two_stage"] or config["learn_content"]:
        out["predictor.query_feat.weight"] = (q, c)
    if not config["two_stage"]:
        out["predictor.query_embed.weight"] = (q, 4)
    layer("predictor.class_embed", class_outputs(config), c)  # 6
    out["predictor.label_enc.weight"] = (k, c)  # 4
    mlp("predictor.mask_embed", c, c, c, m)
    layer("predictor.decoder_norm", c)
    for i in range(config["decoder_layers"]):  # 5
        key = f"predictor.decoder.layers.{i}"
        deformable(key + ".cross_attn", c, DECODER_HEADS)
        out[key + ".self_attn.in_proj_weight"], out[key + ".self_attn.in_proj_bias"] = (3 * c, c), (3 * c,)
        layer(key + ".self_attn.out_proj", c, c)
        layer(key + ".linear1", config["decoder_ffn"], c)
        layer(key + ".linear2", c, config["decoder_ffn"])
        for norm in ("norm1", "norm2", "norm3"):
            layer(f"{key}.{norm}", c)
    mlp("predictor.decoder.ref_point_head", 2 * c, c, c)
    mlp("predictor._bbox_embed", c, c, c, 4)
    return out


# ---------------------------------------------------------------- small functions
def logit5(x: Tensor) -> Tensor:
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=1e-5) / (1 - x).clamp(min=1e-5))


def linear(p: State, key: str, x: Tensor) -> Tensor:
    return x @ p[key + ".weight"].T + p[key + ".bias"]


def layer_norm(p: State, key: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], p[key + ".weight"], p[key + ".bias"], 1e-5)


def group_norm(p: State, key: str, x: Tensor) -> Tensor:
    return F.group_norm(x, 32, p[key + ".weight"], p[key + ".bias"], 1e-5)


def mlp(p: State, key: str, x: Tensor, n: int) -> Tensor:
    for i in range(n):
        x = linear(p, f"{key}.layers.{i}", x)
        if i < n - 1:
            x = x.relu()
    return x


def ffn(p: State, key: str, x: Tensor) -> Tensor:
    return linear(p, key + ".linear2", linear(p, key + ".linear1", x).relu())


def waves(v: Tensor, features: int) -> Tensor:
    """(...) -> (..., features): sin for even k, cos for odd k, of v / 10000^(2*floor(k/2)/features)."""
    columns = []
    for k in range(features):
        u = v / 10000 ** (2 * (k // 2) / features)
        columns.append(u.sin() if k % 2 == 0 else u.cos())
    return torch.stack(columns, -1)


def sine_map(width: int, h: int, w: int) -> Tensor:
    """(E,h,w), 2.2."""
    y = 2 * math.pi * (torch.arange(h) + 1.0) / (h + 1e-6)
    x = 2 * math.pi * (torch.arange(w) + 1.0) / (w + 1e-6)
    wy, wx = waves(y, width // 2), waves(x, width // 2)
    return torch.cat([wy[:, None].expand(h, w, -1), wx[None].expand(h, w, -1)], -1).permute(2, 0, 1)


def sine_query(r: Tensor, width: int) -> Tensor:
    """(...,4) -> (...,2*width), blocks y, x, w, h (5.1)."""
    return torch.cat([waves(2 * math.pi * r[..., i], width // 2) for i in (1, 0, 2, 3)], -1)


def reference_points(shapes: list[tuple[int, int]]) -> Tensor:
    """(S,2), 2.4."""
    return torch.tensor([((j + 0.5) / w, (i + 0.5) / h) for h, w in shapes for i in range(h) for j in range(w)])


def bilinear(image: Tensor, xy: Tensor) -> Tensor:
    """image (C,h,w), xy (N,2) in units of the image -> (C,N): four corners, 0 outside (2.3)."""
    _, h, w = image.shape
    x, y = xy[:, 0] * w - 0.5, xy[:, 1] * h - 0.5
    x0, y0 = x.detach().floor(), y.detach().floor()
    out = image.new_zeros(())
    for dy in (0, 1):
        for dx in (0, 1):
            xi, yi = x0 + dx, y0 + dy
            wx = x - x0 if dx else 1 - (x - x0)
            wy = y - y0 if dy else 1 - (y - y0)
            inside = ((xi >= 0) & (xi < w) & (yi >= 0) & (yi < h)).to(image.dtype)
            index = (yi.clamp(0, h - 1) * w + xi.clamp(0, w - 1)).long()
            out = out + image.flatten(1).index_select(1, index) * (wx * wy * inside)
    return out


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear interpolation of (...,h,w), align_corners False, edges repeated."""
    for axis, n in ((-2, size[0]), (-1, size[1])):
        old = x.shape[axis]
        at = ((torch.arange(n) + 0.5) * (old / n) - 0.5).clamp(min=0)
        low = at.floor().long()
        f = at - low
        f = f[:, None] if axis == -2 else f
        x = x.index_select(axis, low) * (1 - f) + x.index_select(axis, (low + 1).clamp(max=old - 1)) * f
    return x


def corners(b: Tensor) -> Tensor:
    return torch.stack([b[..., 0] - b[..., 2] / 2, b[..., 1] - b[..., 3] / 2,
                        b[..., 0] + b[..., 2] / 2, b[..., 1] + b[..., 3] / 2], -1)  # fmt: skip


def giou(a: Tensor, b: Tensor) -> Tensor:
    """(...,4) cxcywh each, broadcast -> (...), section 7."""
    a, b = corners(a), corners(b)
    inter = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - inter
    return inter / (union + 1e-6) - (hull - union) / (hull + 1e-6)


# ---------------------------------------------------------------- deformable attention (2.3)
def msda_core(value: Tensor, shapes: list[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
    """value (B,S,A,D), locations (B,N,A,L,P,2), weights (B,N,A,L,P) -> (B,N,A*D)."""
    images = []
    for b in range(value.shape[0]):
        heads = []
        for a in range(value.shape[2]):
            start, total = 0, value.new_zeros(())
            for level, (h, w) in enumerate(shapes):
                image = value[b, start : start + h * w, a].T.reshape(-1, h, w)
                start += h * w
                where, weight = locations[b, :, a, level], weights[b, :, a, level]  # (N,P,2), (N,P)
                read = bilinear(image, where.reshape(-1, 2)).reshape(-1, *weight.shape)  # (D,N,P)
                total = total + (read * weight).sum(-1)
            heads.append(total.T)  # (N,D)
        images.append(torch.cat(heads, -1))
    return torch.stack(images)


def deformable_attention(p: State, key: str, q: Tensor, r: Tensor, x: Tensor, shapes: list, heads: int) -> Tensor:
    b, n, levels = q.shape[0], q.shape[1], len(shapes)
    value = linear(p, key + ".value_proj", x).reshape(b, x.shape[1], heads, -1)
    offsets = linear(p, key + ".sampling_offsets", q).reshape(b, n, heads, levels, POINTS, 2)
    weights = linear(p, key + ".attention_weights", q).reshape(b, n, heads, levels * POINTS).softmax(-1)
    weights = weights.reshape(b, n, heads, levels, POINTS)
    r = r[:, :, None, None, None, :]
    if r.shape[-1] == 2:
        size = torch.tensor([(w, h) for h, w in shapes], dtype=q.dtype)[:, None, :]
        locations = r + offsets / size
    else:
        locations = r[..., :2] + offsets / POINTS * r[..., 2:] * 0.5
    return linear(p, key + ".output_proj", msda_core(value, shapes, locations, weights))


# ---------------------------------------------------------------- pixel decoder (2)
def pixel_decode(config: dict, p: State, features: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
    """-> mask features (B,M,h,w), encoded levels (B,E,h_l,w_l) in encoder order."""
    names, low2high = encoder_names(config), config["feature_order"] == "low2high"
    e = config["conv_dim"]

    def project(i: int, x: Tensor, **kwargs: int) -> Tensor:
        key = f"pixel_decoder.input_proj.{i}"
        return group_norm(p, key + ".1", F.conv2d(x, p[key + ".0.weight"], p[key + ".0.bias"], **kwargs))

    main = [project(i, features[name]) for i, name in enumerate(names if low2high else names[::-1])]  # 2.1
    extra, x = [], features[extra_source(config)]
    for i in range(len(names), config["total_levels"]):
        x = project(i, x, stride=2, padding=1)
        extra.append(x)
    maps = main + extra[::-1] if low2high else extra[::-1] + main
    encoded = main + extra if low2high else extra + main  # the quirk: encodings of X1, X2 are not reversed
    shapes = [(m.shape[2], m.shape[3]) for m in maps]
    x = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1)
    embed = p["pixel_decoder.transformer.level_embed"]
    pos = torch.cat([sine_map(e, *m.shape[2:]).flatten(1).T + embed[i] for i, m in enumerate(encoded)])  # 2.2
    r = reference_points(shapes)[None].expand(len(x), -1, -1)
    for i in range(config["encoder_layers"]):  # 2.4
        key = f"pixel_decoder.transformer.encoder.layers.{i}"
        attended = deformable_attention(p, key + ".self_attn", x + pos, r, x, shapes, config["encoder_heads"])
        x = layer_norm(p, key + ".norm1", x + attended)
        x = layer_norm(p, key + ".norm2", x + ffn(p, key, x))
    parts = x.split([h * w for h, w in shapes], 1)
    levels = [t.transpose(1, 2).reshape(-1, e, h, w) for t, (h, w) in zip(parts, shapes, strict=True)]

    def convolve(key: str, x: Tensor, padding: int) -> Tensor:
        if config.get("fpn_norm", "GN"):
            return group_norm(p, key + ".norm", F.conv2d(x, p[key + ".weight"], padding=padding))
        return F.conv2d(x, p[key + ".weight"], p[key + ".bias"], padding=padding)

    finest = levels[0] if low2high else levels[-1]
    previous = finest
    fpn = fpn_names(config)
    for i in range(len(fpn), 0, -1):  # 2.5, coarse to fine
        lateral = convolve(f"pixel_decoder.adapter_{i}", features[fpn[i - 1]], 0)
        y = lateral + resize(finest if low2high else previous, tuple(lateral.shape[2:]))
        previous = convolve(f"pixel_decoder.layer_{i}", y, 1).relu()
    return F.conv2d(previous, p["pixel_decoder.mask_features.weight"], p["pixel_decoder.mask_features.bias"]), levels


def flatten_levels(levels: list[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
    """Levels in encoder order -> tokens (B,S,C) and sizes in the decoder's order (2.6)."""
    levels = levels[::-1]
    return torch.cat([m.flatten(2).transpose(1, 2) for m in levels], 1), [tuple(m.shape[2:]) for m in levels]


# ---------------------------------------------------------------- query selection (3)
def proposals(memory: Tensor, shapes: list[tuple[int, int]]) -> tuple[Tensor, Tensor, Tensor]:
    """-> masked memory (B,S,C), unsigmoided proposals (S,4), valid (S,)."""
    boxes = torch.tensor([((j + 0.5) / w, (i + 0.5) / h, 0.05 * 2**level, 0.05 * 2**level)
                          for level, (h, w) in enumerate(shapes) for i in range(h) for j in range(w)])  # fmt: skip
    valid = ((boxes > 0.01) & (boxes < 0.99)).all(-1)
    unsigmoided = torch.full_like(boxes, math.inf)
    unsigmoided[valid] = torch.log(boxes[valid] / (1 - boxes[valid]))
    return memory.masked_fill(~valid[None, :, None], 0.0), unsigmoided, valid


def mask_anchors(masks: Tensor, kind: str) -> Tensor:
    """Mask logits (n,h,w) -> unsigmoided anchors (n,4), 3.7."""
    n, h, w = masks.shape
    rows = []
    for i in range(n):
        ys, xs = torch.nonzero(masks[i] > 0, as_tuple=True)
        if len(ys) == 0:
            x0, y0, x1, y1 = (0.0, 0.0, 0.0, 0.0) if kind == "bitmask" else (1e8, 1e8, 0.0, 0.0)
        else:
            more = 1.0 if kind == "bitmask" else 0.0
            x0, y0 = float(xs.min()), float(ys.min())
            x1, y1 = float(xs.max()) + more, float(ys.max()) + more
        rows.append([(x0 + x1) / 2 / w, (y0 + y1) / 2 / h, (x1 - x0) / w, (y1 - y0) / h])
    return logit5(torch.tensor(rows).reshape(-1, 4))


# ---------------------------------------------------------------- denoising (4)
def denoising_queries(config: dict, p: State, targets: list[dict], rand) -> dict | None:
    """None, or content (B,pad,C), anchors (B,pad,4) unsigmoided, groups, pad_size."""
    objects = [(b, j) for b, t in enumerate(targets) for j in range(len(t["labels"]))]
    n, m = len(objects), max([len(t["labels"]) for t in targets], default=0)
    g = config["dn_number"] // m if m else 0
    if config["denoising"] == "no" or g == 0:
        return None
    noise, c, k = config["dn_noise"], config["hidden_dim"], config["num_classes"]
    if noise > 0:
        flip, new, shift = rand("dn/flip", (n * g,)), rand("dn/label", (n * g,)), rand("dn/box", (n * g, 4))
    content = [[torch.zeros(c) for _ in range(m * g)] for _ in targets]
    anchors = [[torch.zeros(4) for _ in range(m * g)] for _ in targets]
    for group in range(g):
        for i, (b, j) in enumerate(objects):
            row, slot = group * n + i, group * m + j
            label, box = int(targets[b]["labels"][j]), targets[b]["boxes"][j]
            if noise > 0:
                if flip[row] < noise / 2:
                    label = math.floor(new[row] * k)
                size = torch.stack([box[2] / 2, box[3] / 2, box[2], box[3]])
                box = (box + (2 * torch.as_tensor(shift[row]) - 1) * size * noise).clamp(0, 1)
            content[b][slot] = p["predictor.label_enc.weight"][label]
            anchors[b][slot] = logit5(box)
    return {"content": torch.stack([torch.stack(row) for row in content]),
            "anchors": torch.stack([torch.stack(row) for row in anchors]), "groups": g, "pad_size": m * g}  # fmt: skip


def attention_mask(pad: int, groups: int, queries: int) -> Tensor:
    """(T,T) bool, true = blocked."""
    mask = torch.zeros(pad + queries, pad + queries, dtype=torch.bool)
    size = pad // groups if groups else 0
    for i in range(pad + queries):
        for j in range(pad):
            mask[i, j] = i >= pad or i // size != j // size
    return mask


# ---------------------------------------------------------------- decoder and heads (5, 6)
def box_head(p: State, x: Tensor) -> Tensor:
    return mlp(p, "predictor._bbox_embed", x, 3)


def heads(p: State, t: Tensor, mask_features: Tensor, boxes: Tensor, with_masks: bool = True) -> dict[str, Tensor]:
    e = layer_norm(p, "predictor.decoder_norm", t)
    out = {"pred_logits": linear(p, "predictor.class_embed", e), "pred_boxes": boxes}
    if with_masks:
        out["pred_masks"] = torch.einsum("bqm,bmhw->bqhw", mlp(p, "predictor.mask_embed", e, 3), mask_features)
    return out


def self_attention(p: State, key: str, t: Tensor, pos: Tensor, mask: Tensor) -> Tensor:
    b, n, c = t.shape
    weight, bias = p[key + ".in_proj_weight"], p[key + ".in_proj_bias"]
    parts = [x @ w.T + s for x, w, s in zip((t + pos, t + pos, t), weight.split(c), bias.split(c), strict=True)]
    q, k, v = (x.reshape(b, n, DECODER_HEADS, -1).transpose(1, 2) for x in parts)
    scores = (q @ k.transpose(-1, -2)) / math.sqrt(c / DECODER_HEADS)
    out = scores.masked_fill(mask, -math.inf).softmax(-1) @ v
    return linear(p, key + ".out_proj", out.transpose(1, 2).reshape(b, n, c))


def decode(config: dict, p: State, t: Tensor, anchors: Tensor, memory: Tensor, shapes: list, mask: Tensor):
    """-> h_i and boxes of all layers; anchors are unsigmoided."""
    hidden, boxes = [], []
    r = outer = anchors.sigmoid()  # outer: R_i, with its gradient
    for i in range(config["decoder_layers"]):
        key = f"predictor.decoder.layers.{i}"
        pos = mlp(p, "predictor.decoder.ref_point_head", sine_query(r, config["hidden_dim"]), 2)
        t = layer_norm(p, key + ".norm2", t + self_attention(p, key + ".self_attn", t, pos, mask))
        crossed = deformable_attention(p, key + ".cross_attn", t + pos, r, memory, shapes, DECODER_HEADS)
        t = layer_norm(p, key + ".norm1", t + crossed)
        t = layer_norm(p, key + ".norm3", t + ffn(p, key, t))
        refined = (box_head(p, t) + logit5(r)).sigmoid()
        h = layer_norm(p, "predictor.decoder_norm", t)
        hidden.append(h)
        boxes.append((box_head(p, h) + logit5(outer)).sigmoid())
        r, outer = refined.detach(), refined
    return hidden, boxes


def forward(config: dict, p: State, features: dict[str, Tensor], targets: list | None = None, rand=None) -> dict:
    """Training with targets, evaluation without."""
    training = targets is not None
    mask_features, levels = pixel_decode(config, p, features)
    if config["conv_dim"] != config["hidden_dim"]:  # 2.6
        key = "predictor.input_proj"
        levels = [F.conv2d(m, p[f"{key}.{i}.weight"], p[f"{key}.{i}.bias"]) for i, m in enumerate(levels)]
    memory, shapes = flatten_levels(levels)
    out = {"mask_features": mask_features, "memory": memory, "stages": {}}
    b = len(memory)
    if config["two_stage"]:  # 3
        masked, proposal, _ = proposals(memory, shapes)
        z = layer_norm(p, "predictor.enc_output_norm", linear(p, "predictor.enc_output", masked))
        scores = linear(p, "predictor.class_embed", z).max(-1).values
        top = scores.topk(min(config["num_queries"], scores.shape[1]), 1).indices
        unsigmoided = box_head(p, z) + proposal
        z = torch.stack([z[i, top[i]] for i in range(b)])
        unsigmoided = torch.stack([unsigmoided[i, top[i]] for i in range(b)])
        interm = heads(p, z, mask_features, unsigmoided.sigmoid())
        out["topk"], out["stages"]["interm"] = top, interm
        content, anchors = z.detach(), unsigmoided.detach()
        if config["learn_content"]:
            content = p["predictor.query_feat.weight"][: top.shape[1]].expand(b, -1, -1)
        if config["init_box"] != "no":
            anchors = torch.stack([mask_anchors(m, config["init_box"]) for m in interm["pred_masks"].detach()])
    else:
        content = p["predictor.query_feat.weight"].expand(b, -1, -1)
        anchors = p["predictor.query_embed.weight"].expand(b, -1, -1)
    dn = denoising_queries(config, p, targets, rand) if training else None
    pad, groups = (dn["pad_size"], dn["groups"]) if dn else (0, 0)
    mask = attention_mask(pad, groups, content.shape[1])
    if dn:
        content, anchors = torch.cat([dn["content"], content], 1), torch.cat([dn["anchors"], anchors], 1)
    hidden, boxes = decode(config, p, content, anchors, memory, shapes, mask)
    predictions = []
    if config["initial_prediction"]:
        predictions.append(heads(p, content, mask_features, anchors.sigmoid(), training))
    for i, (h, box) in enumerate(zip(hidden, boxes, strict=True)):
        predictions.append(heads(p, h, mask_features, box, training or i == len(hidden) - 1))
    if training and not dn:
        predictions[-1]["pred_logits"] = predictions[-1]["pred_logits"] + 0 * p["predictor.label_enc.weight"].sum()
    stages = [*(f"aux{i}" for i in range(len(predictions) - 1)), "last"]
    for stage, prediction in zip(stages, predictions, strict=True):
        out["stages"][stage] = {name: x[:, pad:] for name, x in prediction.items()}
        if dn:
            out["stages"][stage + "_dn"] = {name: x[:, :pad] for name, x in prediction.items()}
    out.update(content=content, anchors=anchors.sigmoid(), hidden=hidden[-1], attn_mask=mask.long())
    out["dn/groups"], out["dn/pad_size"] = torch.tensor(groups), torch.tensor(pad)
    return out


# ---------------------------------------------------------------- matcher (7)
def cost_terms(out: dict, b: int, target: dict, points: Tensor) -> dict[str, Tensor]:
    """Each (Q,n), weight 1."""
    logits, boxes = out["pred_logits"][b], out["pred_boxes"][b]
    x = bilinear(out["pred_masks"][b], points)  # (Q,P)
    s = x.sigmoid()
    y_all = bilinear(target["masks"], points) if len(target["labels"]) else None
    terms: dict[str, list[Tensor]] = {"class": [], "mask": [], "dice": [], "box": [], "giou": []}
    for j in range(len(target["labels"])):
        prob = logits[:, int(target["labels"][j])].sigmoid()
        terms["class"].append(0.25 * (1 - prob) ** 2 * -torch.log(prob + 1e-8)
                              - 0.75 * prob**2 * -torch.log(1 - prob + 1e-8))  # fmt: skip
        y = y_all[j]
        terms["mask"].append((y * F.softplus(-x) + (1 - y) * F.softplus(x)).mean(1))
        terms["dice"].append(1 - (2 * (s * y).sum(1) + 1) / (s.sum(1) + y.sum() + 1))
        terms["box"].append((boxes - target["boxes"][j]).abs().sum(1))
        terms["giou"].append(-giou(boxes, target["boxes"][j]))
    return {name: torch.stack(v, 1) if v else torch.zeros(len(logits), 0) for name, v in terms.items()}


def match(cost: Tensor) -> list[tuple[int, int]]:
    """Pairs (query, object), ascending query."""
    cost = torch.where(torch.isfinite(cost), cost, torch.full_like(cost, 1e6))  # 15
    rows, columns = linear_sum_assignment(cost.numpy())
    return sorted(zip(rows.tolist(), columns.tolist(), strict=True))


# ---------------------------------------------------------------- losses (8, 9)
def class_loss(config: dict, logits: Tensor, targets: list[dict], pairs: list[list], n: float) -> Tensor:
    k = config["num_classes"]
    wanted = torch.full(logits.shape[:2], k)
    for b, image in enumerate(pairs):
        for q, j in image:
            wanted[b, q] = targets[b]["labels"][j]
    if config.get("softmax_classes", False):
        weight = torch.where(wanted == k, 0.1, 1.0)
        nll = -logits.log_softmax(-1).gather(-1, wanted[..., None])[..., 0]
        return (weight * nll).sum() / weight.sum()
    y = F.one_hot(wanted, k + 1)[..., :k].to(logits.dtype)
    prob = logits.sigmoid()
    bce = y * F.softplus(-logits) + (1 - y) * F.softplus(logits)
    p_t = prob * y + (1 - prob) * (1 - y)
    return ((0.25 * y + 0.75 * (1 - y)) * (1 - p_t) ** 2 * bce).sum() / n


def stage_losses(config: dict, stage: str, out: dict, targets: list, pairs: list, n: float, rand, names) -> dict:
    """Losses "ce", "mask", .. (only `names`) of one stage."""
    losses = {"ce": class_loss(config, out["pred_logits"], targets, pairs, n)}
    flat = [(b, q, j) for b, image in enumerate(pairs) for q, j in image]
    losses["bbox"] = losses["giou"] = 0 * out["pred_boxes"].sum()
    for b, q, j in flat:
        box, wanted = out["pred_boxes"][b, q], targets[b]["boxes"][j]
        losses["bbox"] = losses["bbox"] + (box - wanted).abs().sum() / n
        losses["giou"] = losses["giou"] + (1 - giou(box, wanted)) / n
    if "mask" in names:
        count, chosen = config["num_points"], int(config["importance"] * config["num_points"])
        losses["mask"] = losses["dice"] = 0 * out["pred_masks"].sum()
        if flat:
            over = rand(f"points/{stage}/over", (len(flat), int(config["oversample"] * count), 2))
            more = rand(f"points/{stage}/rand", (len(flat), count - chosen, 2))
        for row, (b, q, j) in enumerate(flat):
            image, mask = out["pred_masks"][b, q][None], targets[b]["masks"][j][None]
            candidates = torch.as_tensor(over[row])
            order = bilinear(image.detach(), candidates)[0].abs().argsort(stable=True)[:chosen]
            points = torch.cat([candidates[order], torch.as_tensor(more[row])])
            x, y = bilinear(image, points)[0], bilinear(mask, points)[0]
            s = x.sigmoid()
            losses["mask"] = losses["mask"] + (y * F.softplus(-x) + (1 - y) * F.softplus(x)).mean() / n
            losses["dice"] = losses["dice"] + (1 - (2 * (s * y).sum() + 1) / (s.sum() + y.sum() + 1)) / n
    return {name: losses[name] for name in names}


def all_losses(config: dict, stages: dict[str, dict], targets: list, groups: int, pad: int, rand) -> dict:
    """Costs, pairs, losses and "total"; stages as in section 9, those of denoising only when there is some."""
    result: dict = {}
    n = float(max(1, sum(len(t["labels"]) for t in targets)))
    every, two_stage = ("ce", "mask", "dice", "bbox", "giou"), "interm" in stages
    dn_names = {"no": (), "standard": ("ce", "bbox", "giou"), "seg": every}[config["denoising"]]
    total = torch.zeros(())
    for stage in [s for s in stages if not s.endswith("_dn")]:
        suffix = {"last": "", "interm": "_interm"}.get(stage, "_" + stage[3:])
        pairs = []
        for b, target in enumerate(targets):
            points = torch.as_tensor(rand(f"match/{stage}/{b}", (1, config["num_points"], 2)))[0]
            detached = {name: x.detach() for name, x in stages[stage].items()}
            terms = cost_terms(detached, b, target, points)
            cost = 4 * terms["class"] + 5 * terms["mask"] + 5 * terms["dice"] + 5 * terms["box"] + 2 * terms["giou"]
            pairs.append(match(cost))
            result[f"cost/{stage}/{b}"] = cost
            result[f"match/{stage}/{b}"] = torch.tensor(pairs[-1], dtype=torch.long).reshape(-1, 2)
            for name, term in terms.items():
                result[f"cost_{name}/{stage}/{b}"] = term
        found = {suffix: stage_losses(config, stage, stages[stage], targets, pairs, n, rand, every)}
        if stage != "interm" and (two_stage or stage != "aux0"):  # denoising; one-stage mode: not for i = 0
            names, key = dn_names, "_dn" + suffix
            if names and pad:
                m = pad // groups
                pairs = [[(k * m + j, j) for k in range(groups) for j in range(len(t["labels"]))] for t in targets]
                found[key] = stage_losses(config, stage + "_dn", stages[stage + "_dn"], targets, pairs, n * groups,
                                          rand, names)  # fmt: skip
            else:
                found[key] = {name: torch.zeros(()) for name in names}
        for key, losses in found.items():
            for name, loss in losses.items():
                result[f"loss/loss_{name}{key}"] = loss
                total = total + WEIGHTS[name] * loss
    result["total"] = total
    return result


# ---------------------------------------------------------------- post-processing (10, 11)
def to_output(x: Tensor, options: dict) -> Tensor:
    h, w = options["image_size"]
    return resize(x[..., :h, :w], tuple(options["output_size"]))


def class_weights(logits: Tensor, options: dict, sharp: bool) -> Tensor:
    if options.get("softmax_classes", False):
        return logits.softmax(-1)[..., :-1]
    return (logits.sigmoid() / options["temperature"]).softmax(-1) if sharp else logits.sigmoid()


def semantic_inference(logits: Tensor, masks: Tensor, options: dict, sharp: bool = False) -> Tensor:
    return torch.einsum("qk,qhw->khw", class_weights(logits, options, sharp), masks.sigmoid())


def instances(logits: Tensor, masks: Tensor, boxes: Tensor, options: dict, things_only: bool) -> dict[str, Tensor]:
    prob = logits.sigmoid()[:, : logits.shape[1] - bool(options.get("softmax_classes", False))]
    k = prob.shape[1]
    values, index = prob.flatten().topk(min(options["topk"], prob.numel()))
    (big_h, big_w), (h, w), (out_h, out_w) = options["padded_size"], options["image_size"], options["output_size"]
    scale = torch.tensor([out_w * big_w / w, out_h * big_h / h] * 2)
    rows = []
    for value, i in zip(values, index.tolist(), strict=True):
        q, label = i // k, i % k
        on = masks[q] > 0
        score = float(value * (masks[q].sigmoid() * on).sum() / (on.sum() + 1e-6))
        if score > 0 and (label in options["things"] or not things_only):
            rows.append((score, label, corners(boxes[q]) * scale, on.float().mean()))
    rows.sort(key=lambda row: -row[0])
    return {"scores": torch.tensor([r[0] for r in rows]), "classes": torch.tensor([r[1] for r in rows]).long(),
            "boxes": torch.stack([r[2] for r in rows]) if rows else torch.zeros(0, 4),
            "area": torch.tensor([float(r[3]) for r in rows])}  # fmt: skip


def panoptic(logits: Tensor, masks: Tensor, options: dict, sharp: bool) -> dict[str, Tensor]:
    masks = masks.sigmoid()
    scores, labels = logits.sigmoid().max(-1)
    no_object = logits.shape[1] - 1 if options.get("softmax_classes", False) else -1
    keep = [q for q in range(len(scores)) if scores[q] > options["object_mask_threshold"] and labels[q] != no_object]
    if sharp:
        scores, labels = (logits.sigmoid() / options["temperature"]).softmax(-1).max(-1)
    result, segments, stuff = torch.zeros(masks.shape[1:], dtype=torch.long), [], {}
    if keep:
        owner = torch.stack([scores[q] * masks[q] for q in keep]).argmax(0)
    for i, q in enumerate(keep):
        a, o, label = owner == i, masks[q] >= 0.5, int(labels[q])
        region = a & o
        if not a.any() or not o.any() or not region.any():
            continue
        if int(a.sum()) / int(o.sum()) < options["overlap_threshold"]:
            continue
        if label in stuff:
            result[region] = stuff[label]
            continue
        segments.append((len(segments) + 1, label, int(label in options["things"])))
        result[region] = len(segments)
        if label not in options["things"]:
            stuff[label] = len(segments)
    return {"map": result, "segments": torch.tensor(segments, dtype=torch.long).reshape(-1, 3)}


def semantic_logits(logits: Tensor, masks: Tensor, padded_size: tuple, image_size: tuple) -> Tensor:
    """Class logits (B,Q,K), mask logits (B,Q,h,w) -> (B,K,H,W), section 11."""
    m = resize(masks, tuple(padded_size))[..., : image_size[0], : image_size[1]][:, :, None]
    a = logits[..., None, None]
    m, a = torch.broadcast_tensors(m, a)
    return (-torch.logsumexp(torch.stack([-a, -m, -a - m]), 0)).amax(1)


# ---------------------------------------------------------------- adapter (17)
def build(config: dict) -> SimpleNamespace:
    if not config["two_stage"] and config["init_box"] != "no":  # 3
        raise ValueError("one-stage needs init_box 'no'")
    if config["init_box"] != "no" and not config["initial_prediction"]:  # 15
        raise ValueError("mask-enhanced anchors need initial_prediction")
    n, levels = len(config["encoder_features"]), config["total_levels"]
    if levels < n or (n == 1 and levels != 1):  # 2.1
        raise ValueError("total_levels does not fit encoder_features")
    return SimpleNamespace(config=config, state={})


def load(model: SimpleNamespace, state: dict[str, np.ndarray]) -> None:
    shapes = state_shapes(model.config)
    model.state = {key: torch.tensor(np.asarray(state[key])) for key in shapes}
    for key, shape in shapes.items():
        if tuple(model.state[key].shape) != shape:
            raise ValueError(f"{key}: {tuple(model.state[key].shape)}, wanted {shape}")


def to_numpy(values: dict) -> dict[str, np.ndarray]:
    return {name: x.detach().numpy() for name, x in values.items()}


def leaves(arrays: dict) -> dict[str, Tensor]:
    return {name: torch.tensor(np.asarray(a), requires_grad=True) for name, a in arrays.items()}


def gradients(total: Tensor, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """{name: gradient}, zero where the total does not depend on the input."""
    grads = torch.autograd.grad(total, list(inputs.values()), allow_unused=True)
    return {k: torch.zeros_like(x) if g is None else g for (k, x), g in zip(inputs.items(), grads, strict=True)}


def named(x: dict[str, Tensor], p: State) -> dict[str, Tensor]:
    return {**{f"grad_in/{name}": a for name, a in x.items()}, **{f"grad/{key}": w for key, w in p.items()}}


def tensor_targets(targets: list[dict]) -> list[dict]:
    return [{"labels": torch.as_tensor(t["labels"]).long(), "boxes": torch.as_tensor(t["boxes"]),
             "masks": torch.as_tensor(t["masks"])} for t in targets]  # fmt: skip


def pixel_decoder(model: SimpleNamespace, features: dict, cotangents: dict | None = None) -> dict:
    x, p = leaves(features), leaves(model.state)
    mask_features, levels = pixel_decode(model.config, p, x)
    out = {"mask_features": mask_features, "memory": flatten_levels(levels)[0]}
    if cotangents is None:
        return to_numpy(out)
    total = sum((out[name] * torch.as_tensor(c)).sum() for name, c in cotangents.items())
    return to_numpy({**out, **gradients(total, named(x, p))})


def flatten_stages(out: dict) -> dict:
    stages = {f"{stage}/{name}": x for stage, values in out["stages"].items() for name, x in values.items()}
    return {**{name: x for name, x in out.items() if name != "stages"}, **stages}


def train_step(model: SimpleNamespace, features: dict, targets: list[dict], rand) -> dict:
    x, p, targets = leaves(features), leaves(model.state), tensor_targets(targets)
    out = forward(model.config, p, x, targets, rand)
    losses = all_losses(model.config, out["stages"], targets, int(out["dn/groups"]), int(out["dn/pad_size"]), rand)
    return to_numpy({**flatten_stages(out), **losses, **gradients(losses["total"], named(x, p))})


def predict(model: SimpleNamespace, features: dict) -> dict:
    with torch.no_grad():
        return to_numpy(flatten_stages(forward(model.config, model.state, leaves(features))))


def postprocess(outputs: dict, options: dict) -> dict:
    logits, masks, boxes = (torch.as_tensor(outputs[name]) for name in OUTPUTS)
    result = {}
    for b in range(len(logits)):
        padded = resize(masks[b], tuple(options["padded_size"]))
        final = to_output(padded, options)
        result[f"semantic/{b}"] = semantic_inference(logits[b], final, options)
        result[f"semantic_sharp/{b}"] = semantic_inference(logits[b], final, options, sharp=True)
        result[f"semantic_late/{b}"] = to_output(semantic_inference(logits[b], padded, options), options)
        for name, found in (("instance", instances(logits[b], final, boxes[b], options, False)),
                            ("instance_things", instances(logits[b], final, boxes[b], options, True)),
                            ("panoptic", panoptic(logits[b], final, options, True)),
                            ("panoptic_plain", panoptic(logits[b], final, options, False))):  # fmt: skip
            result.update({f"{name}/{b}/{key}": x for key, x in found.items()})
    return to_numpy(result)


def criterion(config: dict, outputs: dict, targets: list[dict], dn: dict | None, rand) -> dict:
    stages = {"last": leaves(outputs["last"])}
    stages.update({f"aux{i}": leaves(x) for i, x in enumerate(outputs.get("aux", []))})
    if outputs.get("interm"):
        stages["interm"] = leaves(outputs["interm"])
    if dn is not None:
        stages["last_dn"] = leaves(dn["last"])
        stages.update({f"aux{i}_dn": leaves(x) for i, x in enumerate(dn.get("aux", []))})
    groups, pad = (dn["groups"], dn["pad_size"]) if dn is not None else (0, 0)
    result = all_losses(config, stages, tensor_targets(targets), groups, pad, rand)
    inputs = {f"grad/{stage}/{name}": x for stage, values in stages.items() for name, x in values.items()}
    return to_numpy({**result, **gradients(result["total"], inputs)})


def msda(value, shapes, locations, weights, cotangent) -> dict:
    x = leaves({"value": value, "locations": locations, "weights": weights})
    out = msda_core(x["value"], [tuple(s) for s in shapes], x["locations"], x["weights"])
    grads = gradients((out * torch.as_tensor(cotangent)).sum(), x)
    return to_numpy({"output": out, **{f"grad/{name}": g for name, g in grads.items()}})


def units(name: str, arrays: dict) -> dict:
    a = {key: torch.as_tensor(x) for key, x in arrays.items()}
    shapes = [tuple(s) for s in a["shapes"].tolist()] if "shapes" in a else []
    if name == "proposals":
        memory, boxes, valid = proposals(a["memory"], shapes)
        return to_numpy({"memory": memory, "boxes": boxes.sigmoid()[None], "valid": valid.long()[None]})
    functions = {
        "sine_query": lambda: {"embedding": sine_query(a["anchors"], 256)},
        "sine_map": lambda: {"embedding": sine_map(*a["size"].tolist())[None]},
        "inverse_sigmoid": lambda: {"logit": logit5(a["p"])},
        "mask_boxes": lambda: {kind: mask_anchors(a["masks"], kind) for kind in ("bitmask", "mask2box")},
        "giou": lambda: {"giou": giou(a["a"][:, None], a["b"][None])},
        "reference_points": lambda: {"points": reference_points(shapes)[None]},
    }
    return to_numpy(functions[name]())
