"""Our Mask DINO behind the functions that the parity checker calls; see the checker's docstring for them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from brainseg.models.mask_dino import (
    MaskDINOHead,
    QueryPredictions,
    SetCriterion,
    Target,
    instance_inference,
    panoptic_inference,
    semantic_inference,
)
from brainseg.models.mask_dino.boxes import giou
from brainseg.models.mask_dino.convert import mask_dino_head_keys
from brainseg.models.mask_dino.deformable import deformable_attention
from brainseg.models.mask_dino.pixel_decoder import FEATURES
from brainseg.models.mask_dino.positions import cell_centers, inverse_sigmoid, sine_boxes, sine_map
from brainseg.models.mask_dino.query_selection import box_proposals, mask_anchors
from brainseg.models.mask_dino.settings import HeadSettings

# The authors' names of terms that have another one here.
TERMS = {"class": "ce", "box": "bbox"}

Arrays = Mapping[str, np.ndarray]
Draw = Callable[[str, tuple[int, ...]], np.ndarray]


def build(config: Mapping[str, Any]) -> MaskDINOHead:
    arguments = {field.name: config[field.name] for field in fields(HeadSettings) if field.name in config}
    arguments["fpn_norm"] = config.get("fpn_norm", "GN") == "GN"
    return MaskDINOHead([config["feature_channels"][name] for name in FEATURES], config["num_classes"], **arguments)


def load(model: MaskDINOHead, state: Arrays) -> None:
    keys = mask_dino_head_keys(model.settings.to_json())
    assert keys.keys() >= state.keys(), f"official keys without a place: {sorted(state.keys() - keys.keys())}"
    model.to(torch.from_numpy(next(iter(state.values()))).dtype)
    model.load_state_dict({keys[theirs]: torch.from_numpy(value) for theirs, value in state.items()})


def pixel_decoder(model: MaskDINOHead, features: Arrays, cotangents: Arrays | None = None) -> dict[str, np.ndarray]:
    x = _leaves(features)
    levels, finest = model.pixel_decoder(list(x.values()))
    mask_features = model.mask_head.pixel_embedding(x["res2"], finest)
    memory = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)
    found = {"mask_features": mask_features, "memory": memory}
    if cotangents is not None:
        model.zero_grad()
        sum((found[name] * torch.from_numpy(value)).sum() for name, value in cotangents.items()).backward()
        found |= _gradients(model, x)
    return _arrays(found)


def train_step(model: MaskDINOHead, features: Arrays, targets: Sequence[Arrays], rand: Draw) -> dict[str, np.ndarray]:
    model.train().zero_grad()
    x, objects, draw = _leaves(features), _targets(targets), _tensor_draw(rand)
    found, predictions = _seen(model, lambda: model(list(x.values()), objects, rand=draw))
    total, parts = model.criterion(predictions, objects, rand=draw)
    total.backward()
    found |= _matched(model.criterion, _matching_stages(predictions), objects, draw)
    found |= {"total": total, **_official(parts)}
    return _arrays({**found, **_outputs(predictions), **_gradients(model, x)})


def predict(model: MaskDINOHead, features: Arrays) -> dict[str, np.ndarray]:
    model.eval()
    with torch.no_grad():
        found, predictions = _seen(model, lambda: model([torch.from_numpy(x) for x in features.values()]))
    return _arrays({**found, **_outputs(predictions)})


def postprocess(outputs: Arrays, options: Mapping[str, Any]) -> dict[str, np.ndarray]:
    predictions = QueryPredictions(**{name: torch.from_numpy(value) for name, value in outputs.items()})
    sizes = tuple(options["image_size"]), tuple(options["output_size"])
    things, temperature = options["things"], options["temperature"]
    found: dict[str, Tensor] = {}
    for name, arguments in (
        ("semantic", {}),
        ("semantic_sharp", {"temperature": temperature}),
        ("semantic_late", {"resize_last": True}),
    ):
        maps = semantic_inference(predictions, *sizes, **arguments)
        found |= {f"{name}/{b}": image for b, image in enumerate(maps)}
    for name, kept in (("instance", None), ("instance_things", things)):
        for b, image in enumerate(instance_inference(predictions, *sizes, topk=options["topk"], things=kept)):
            some = image.scores > 0
            found |= {
                f"{name}/{b}/scores": image.scores[some],
                f"{name}/{b}/classes": image.classes[some],
                f"{name}/{b}/boxes": image.boxes[some],
                f"{name}/{b}/area": image.masks[some].float().mean(dim=(1, 2)),
            }
    thresholds = {name: options[name] for name in ("object_mask_threshold", "overlap_threshold")}
    for name, t in (("panoptic", temperature), ("panoptic_plain", None)):
        for b, (segmented, segments) in enumerate(
            panoptic_inference(predictions, things, *sizes, temperature=t, **thresholds)
        ):
            rows = [[segment.id, segment.class_index, int(segment.is_thing)] for segment in segments]
            found |= {f"{name}/{b}/map": segmented, f"{name}/{b}/segments": torch.tensor(rows).view(-1, 3)}
    return _arrays(found)


def criterion(
    config: Mapping[str, Any],
    outputs: Mapping[str, Any],
    targets: Sequence[Arrays],
    dn: Mapping[str, Any] | None,
    rand: Draw,
) -> dict[str, np.ndarray]:
    names = ("num_points", "oversample", "importance", "denoising", "softmax_classes")
    loss = SetCriterion(config["num_classes"], **{name: config[name] for name in names if name in config})
    leaves = {"last": _leaves(outputs["last"])}
    leaves |= {f"aux{i}": _leaves(layer) for i, layer in enumerate(outputs["aux"])}
    if "interm" in outputs:
        leaves["interm"] = _leaves(outputs["interm"])
    if dn is not None:
        leaves["last_dn"] = _leaves(dn["last"])
        leaves |= {f"aux{i}_dn": _leaves(layer) for i, layer in enumerate(dn["aux"])}
    softmax = bool(config.get("softmax_classes"))
    layers = {stage: QueryPredictions(**layer, softmax=softmax) for stage, layer in leaves.items()}
    aux = [layers[f"aux{i}"] for i in range(len(outputs["aux"]))]
    noised = None
    if dn is not None:
        dn_aux = [layers[f"aux{i}_dn"] for i in range(len(dn["aux"]))]
        noised = QueryPredictions(**leaves["last_dn"], aux=dn_aux, softmax=softmax)
    predictions = QueryPredictions(
        **leaves["last"],
        aux=aux,
        interm=layers.get("interm"),
        dn=noised,
        groups=0 if dn is None else dn["groups"],
        softmax=softmax,
    )
    objects, draw = _targets(targets), _tensor_draw(rand)
    total, parts = loss(predictions, objects, rand=draw)
    total.backward()
    found = _matched(loss, _matching_stages(predictions), objects, draw)
    found |= {"total": total, **_official(parts)}
    found |= {f"grad/{stage}/{name}": _grad(x) for stage, layer in leaves.items() for name, x in layer.items()}
    return _arrays(found)


def msda(
    value: np.ndarray,
    shapes: Sequence[Sequence[int]],
    locations: np.ndarray,
    weights: np.ndarray,
    cotangent: np.ndarray,
) -> dict[str, np.ndarray]:
    x = _leaves({"value": value, "locations": locations, "weights": weights})
    sizes = [(height, width) for height, width in shapes]
    output = deformable_attention(x["value"], sizes, x["locations"], x["weights"])
    (output * torch.from_numpy(cotangent)).sum().backward()
    return _arrays({"output": output, **{f"grad/{name}": _grad(leaf) for name, leaf in x.items()}})


def units(name: str, arrays: Arrays) -> dict[str, np.ndarray]:
    a = {key: torch.from_numpy(value) for key, value in arrays.items()}
    shapes = [(height, width) for height, width in a["shapes"].tolist()] if "shapes" in a else []
    found: dict[str, Tensor] = {}
    if name == "proposals":
        boxes, valid = box_proposals(shapes, like=a["memory"])
        found["memory"] = a["memory"] * valid[:, None]
        found["boxes"], found["valid"] = boxes.sigmoid()[None], valid[None]
    elif name == "sine_query":
        found["embedding"] = sine_boxes(a["anchors"], 128)
    elif name == "sine_map":
        channels, height, width = a["size"].tolist()
        embedding = sine_map(height, width, channels, like=torch.zeros(()))
        found["embedding"] = embedding.T.view(1, channels, height, width)
    elif name == "inverse_sigmoid":
        found["logit"] = inverse_sigmoid(a["p"])
    elif name == "mask_boxes":
        found |= {kind: mask_anchors(a["masks"], kind) for kind in ("bitmask", "mask2box")}
    elif name == "giou":
        found["giou"] = giou(a["a"][:, None], a["b"])
    elif name == "reference_points":
        found["points"] = cell_centers(shapes, like=torch.zeros(()))[None]
    return _arrays(found)


def _official(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, value in parts.items():
        _, term, *rest = name.split("_")
        found["loss/" + "_".join(["loss", TERMS.get(term, term), *rest])] = value
    return found


def _seen(model: MaskDINOHead, run: Callable[[], QueryPredictions]) -> tuple[dict[str, Tensor], QueryPredictions]:
    """What a run of the model hands from box to box, and its result."""
    found: dict[str, Tensor] = {}
    scores: list[Tensor] = []

    def decoder(_: nn.Module, inputs: tuple[Any, ...], states: Any) -> None:
        content, anchors, memory, _, blocked = inputs
        if blocked is None:
            blocked = content.new_zeros(content.shape[1], content.shape[1])
        found.update(
            content=content,
            anchors=anchors.sigmoid(),
            memory=memory,
            attn_mask=blocked.long(),
            hidden=states[-1].content,
        )

    hooks = [
        model.decoder.register_forward_hook(decoder),
        model.mask_head.mask_features.register_forward_hook(lambda *x: found.update(mask_features=x[-1])),
        model.class_embed.register_forward_hook(lambda *x: scores.append(x[-1].amax(dim=-1))),
    ]
    predictions = run()
    for hook in hooks:
        hook.remove()
    if predictions.interm is not None:  # the first scores are those of all tokens
        found["topk"] = torch.topk(scores[0], predictions.pred_logits.shape[1], dim=1).indices
    pad = 0 if predictions.dn is None else predictions.dn.pred_logits.shape[1]
    found["dn/groups"], found["dn/pad_size"] = torch.tensor(predictions.groups), torch.tensor(pad)
    return found, predictions


def _matching_stages(predictions: QueryPredictions) -> dict[str, QueryPredictions]:
    stages = {"last": predictions, **{f"aux{i}": layer for i, layer in enumerate(predictions.aux)}}
    return stages if predictions.interm is None else {**stages, "interm": predictions.interm}


def _outputs(predictions: QueryPredictions) -> dict[str, Tensor]:
    stages = _matching_stages(predictions)
    if predictions.dn is not None:
        stages["last_dn"] = predictions.dn
        stages |= {f"aux{i}_dn": layer for i, layer in enumerate(predictions.dn.aux)}
    return {
        f"{stage}/{name}": value
        for stage, layer in stages.items()
        for name in ("pred_logits", "pred_masks", "pred_boxes")
        if (value := getattr(layer, name)) is not None
    }


def _matched(
    loss: SetCriterion, stages: Mapping[str, QueryPredictions], targets: Sequence[Target], draw: Any
) -> dict[str, Tensor]:
    found = {}
    for stage, layer in stages.items():
        costs = loss.matcher.costs(layer, targets, rand=draw, stage=stage)
        pairs = loss.matcher(layer, targets, rand=draw, stage=stage)
        terms = loss.matcher.terms(layer, targets, rand=draw, stage=stage)
        before = 0
        for b, cost in enumerate(costs):
            here = pairs.images == b
            found |= {f"cost_{name}/{stage}/{b}": value for name, value in terms[b].items()}
            found[f"cost/{stage}/{b}"] = cost
            found[f"match/{stage}/{b}"] = torch.stack([pairs.queries[here], pairs.objects[here] - before], dim=1)
            before += cost.shape[1]
    return found


def _gradients(model: MaskDINOHead, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    theirs: dict[str, str] = {}
    for key, ours in mask_dino_head_keys(model.settings.to_json()).items():
        theirs.setdefault(ours, key)
    found = {f"grad/{theirs[key]}": _grad(parameter) for key, parameter in model.named_parameters()}
    return {**found, **{f"grad_in/{name}": _grad(x) for name, x in features.items()}}


def _grad(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def _leaves(arrays: Arrays) -> dict[str, Tensor]:
    return {name: torch.from_numpy(value).clone().requires_grad_() for name, value in arrays.items()}


def _targets(targets: Sequence[Arrays]) -> list[Target]:
    return [{name: torch.from_numpy(value) for name, value in target.items()} for target in targets]  # type: ignore[misc]


def _tensor_draw(rand: Draw) -> Callable[[str, tuple[int, ...]], Tensor]:
    return lambda name, shape: torch.from_numpy(rand(name, shape))


def _arrays(found: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in found.items()}
