"""Official state dicts in our keys, and the arguments that their shapes tell."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from brainseg.models.files import without_prefix
from brainseg.models.mask_dino.convert import mask_dino_config, mask_dino_keys

_PAIR = ("weight", "bias")
_BATCH_NORM = (*_PAIR, "running_mean", "running_var", "num_batches_tracked")


def _unext_keys() -> dict[str, str]:
    """Official key -> ours, for `UNext` and `UNext_S` of jeya-maria-jose/UNeXt-pytorch."""
    pairs = {"final": "head"}
    norms = {}
    for i in range(1, 4):
        pairs[f"encoder{i}"] = f"stages.{i - 1}.conv"
        norms[f"ebn{i}"] = f"stages.{i - 1}.norm"
    for i in range(1, 6):
        pairs[f"decoder{i}"] = f"decoder.{i - 1}.conv"
    for i in range(1, 5):
        norms[f"dbn{i}"] = f"decoder.{i - 1}.norm"
    for i in (3, 4):
        pairs[f"patch_embed{i}.proj"] = f"stages.{i}.embed.proj"
        pairs[f"patch_embed{i}.norm"] = f"stages.{i}.embed.norm"
        pairs[f"norm{i}"] = f"stages.{i}.norm"
        pairs[f"dnorm{i}"] = f"decoder.{i - 3}.token_norm"
    for i in (1, 2):
        for theirs, ours in (
            (f"block{i}.0", f"stages.{i + 2}.blocks.0"),
            (f"dblock{i}.0", f"decoder.{i - 1}.blocks.0"),
        ):
            pairs[f"{theirs}.norm2"] = f"{ours}.norm"
            pairs[f"{theirs}.mlp.dwconv.dwconv"] = f"{ours}.mlp.dwconv"
            for linear in ("fc1", "fc2"):
                pairs[f"{theirs}.mlp.{linear}"] = f"{ours}.mlp.{linear}"
    return {
        f"{theirs}.{part}": f"{ours}.{part}"
        for table, parts in ((pairs, _PAIR), (norms, _BATCH_NORM))
        for theirs, ours in table.items()
        for part in parts
    }


def _unet_keys() -> dict[str, str]:
    """Official key -> ours, for `UNet` of mateuszbuda/brain-segmentation-pytorch, which counts decoders from above."""
    blocks = {f"encoder{i}.enc{i}": f"encoder.{i - 1}." for i in range(1, 5)}
    blocks |= {f"decoder{i}.dec{i}": f"decoder.{4 - i}." for i in range(1, 5)}
    blocks["bottleneck.bottleneck"] = "bottleneck."
    keys = {f"conv.{part}": f"head.{part}" for part in _PAIR}
    for i in range(1, 5):
        keys |= {f"upconv{i}.{part}": f"up.{4 - i}.{part}" for part in _PAIR}
    for theirs, ours in blocks.items():
        for j in (1, 2):
            keys[f"{theirs}conv{j}.weight"] = f"{ours}conv{j}.weight"
            keys |= {f"{theirs}norm{j}.{part}": f"{ours}norm{j}.{part}" for part in _BATCH_NORM}
    return keys


def _unext_config(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    stages = ("encoder1", "encoder2", "encoder3", "patch_embed3.proj", "patch_embed4.proj")
    return _config(state_dict, stages, "final")


def _unet_config(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    blocks = (*(f"encoder{i}.enc{i}conv1" for i in range(1, 5)), "bottleneck.bottleneckconv1")
    return _config(state_dict, blocks, "conv")


def _config(state_dict: Mapping[str, Tensor], stages: Iterable[str], head: str) -> dict[str, Any]:
    """What the first convolution of each stage, and the head, tell by their shapes."""
    *convs, last = (state_dict[f"{name}.weight"] for name in (*stages, head))
    if any(conv.dim() != 4 for conv in (*convs, last)):
        raise ValueError("the convolutions of this state dict are not all (out, in, height, width)")
    return {
        "in_channels": convs[0].shape[1],
        "num_classes": last.shape[0],
        "channels": [conv.shape[0] for conv in convs],
    }


# For each source two functions of what is given: official key -> ours, or None where ours has no use for it; arguments.
_SOURCES: dict[
    str,
    tuple[Callable[[Mapping[str, Tensor]], Mapping[str, str | None]], Callable[[Mapping[str, Tensor]], dict[str, Any]]],
] = {
    "UNeXt-pytorch": (lambda _: _unext_keys(), _unext_config),
    "brain-segmentation-pytorch": (lambda _: _unet_keys(), _unet_config),
    "MaskDINO": (mask_dino_keys, mask_dino_config),
}


def convert_state_dict(state_dict: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """An official state dict in our keys, for a model built with `config_from_state_dict`.

    Weights want the input that they were trained on. The training code of UNeXt-pytorch reads images in the order
    blue, green, red, takes ImageNet's mean and deviation of values in [0, 1] off them, and divides by 255 once more.
    That of brain-segmentation-pytorch clips a patient's volume to its 10th to 99th percentile and standardises each
    channel over the whole volume; its network ends in a sigmoid, of which ours gives the logits. Mask DINO takes red,
    green, blue, standardised by ImageNet's mean and deviation.

    Args:
        state_dict: as the official code saves it; a `module.` in front of every key is dropped.
        source: "UNeXt-pytorch" (github.com/jeya-maria-jose/UNeXt-pytorch, classes `UNext` and `UNext_S`),
            "brain-segmentation-pytorch" (github.com/mateuszbuda/brain-segmentation-pytorch, class `UNet`) or "MaskDINO"
            (github.com/IDEA-Research/MaskDINO, with a ResNet or Swin backbone).

    Returns:
        a new dict of the same tensors.

    Raises:
        ValueError: an unknown source, missing or unknown keys, or names of one tensor that hold different ones.
    """
    keys, given = _read(state_dict, source)
    converted: dict[str, Tensor] = {}
    first: dict[str, str] = {}
    for theirs, ours in keys.items():
        if ours is None or theirs not in given:
            continue
        if ours in converted and not torch.equal(converted[ours], given[theirs]):
            raise ValueError(f"{theirs} and {first[ours]} must be the same tensor, and differ: the file is damaged")
        converted.setdefault(ours, given[theirs])
        first.setdefault(ours, theirs)
    return converted


def config_from_state_dict(state_dict: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """The constructor's arguments that the shapes of an official state dict tell.

    Args:
        state_dict: as for `convert_state_dict`.
        source: as for `convert_state_dict`.

    Returns:
        `in_channels`, `num_classes` and `channels`, of `UNeXt` for "UNeXt-pytorch" and of `UNet` for
        "brain-segmentation-pytorch"; those of `MaskDINO` that leave a trace in "MaskDINO". Without one are the number
        of queries unless they are learned (300), `init_box` ("bitmask" with two stages), `initial_prediction` (True).

    Raises:
        ValueError: as `convert_state_dict`.

    Example:
        >>> from brainseg.models import UNeXt
        >>> official = torch.load("model.pth", weights_only=True)  # doctest: +SKIP
        >>> model = UNeXt(**config_from_state_dict(official, "UNeXt-pytorch"))  # doctest: +SKIP
        >>> model.load_state_dict(convert_state_dict(official, "UNeXt-pytorch"))  # doctest: +SKIP
    """
    _, given = _read(state_dict, source)
    _, config = _SOURCES[source]
    return config(given)


def _read(state_dict: Mapping[str, Tensor], source: str) -> tuple[Mapping[str, str | None], dict[str, Tensor]]:
    """The table of the source's keys, and the state dict with all that ours needs and no others."""
    if source not in _SOURCES:
        raise ValueError(f"unknown source {source!r}; known are {', '.join(map(repr, _SOURCES))}")
    find_keys, _ = _SOURCES[source]
    given = without_prefix(state_dict)
    keys = find_keys(given)
    found = {keys[key] for key in given.keys() & keys.keys()}
    missing = sorted(theirs for theirs, ours in keys.items() if ours is not None and ours not in found)
    unknown = sorted(given.keys() - keys.keys())
    if missing or unknown:
        raise ValueError(
            f"this is no state dict of {source}: missing keys {missing or 'none'}, unknown keys {unknown or 'none'}; "
            "of a training checkpoint give the part that holds the weights"
        )
    return keys, given
