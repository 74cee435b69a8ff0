"""Official keys to ours: all of them, and nothing else."""

import csv
from collections.abc import Callable
from typing import Any

import pytest
import torch

from brainseg.models import (
    MaskDINO,
    SegmentationModel,
    UNet,
    UNeXt,
    config_from_state_dict,
    convert_state_dict,
    create_model,
)
from brainseg.models.convert import _SOURCES
from tests.conftest import SHARED
from tests.official import official_mask_dino, official_state_dict

CHANNELS = (8, 16, 32, 64, 128)
every_source = pytest.mark.parametrize(
    ("source", "network", "number"), [("UNeXt-pytorch", UNeXt, 101), ("brain-segmentation-pytorch", UNet, 118)]
)


@every_source
def test_every_key_of_ours_has_one_official_key(source: str, network: type[SegmentationModel], number: int) -> None:
    find_keys, _ = _SOURCES[source]
    keys = find_keys({})
    assert len(keys) == number
    assert len(set(keys.values())) == number
    assert set(keys.values()) == set(network(channels=CHANNELS).state_dict())  # type: ignore[call-arg]


@every_source
def test_the_arguments_of_an_official_checkpoint_are_read_from_its_shapes(
    source: str, network: type[SegmentationModel], number: int
) -> None:
    model = network(2, 4, channels=CHANNELS)  # type: ignore[call-arg]
    official = official_state_dict(model, source)
    assert len(official) == number
    config = config_from_state_dict(official, source)
    assert config == {"in_channels": 2, "num_classes": 4, "channels": list(CHANNELS)}
    converted = convert_state_dict(official, source)
    network(**config).load_state_dict(converted)
    assert all(torch.equal(converted[key], value) for key, value in model.state_dict().items())


@every_source
def test_the_prefix_of_data_parallel_is_dropped(source: str, network: type[SegmentationModel], number: int) -> None:
    official = official_state_dict(network(channels=CHANNELS), source)  # type: ignore[call-arg]
    prefixed = {f"module.{key}": value for key, value in official.items()}
    assert len(convert_state_dict(prefixed, source)) == number


@every_source
@pytest.mark.parametrize("function", [convert_state_dict, config_from_state_dict])
def test_missing_and_unknown_keys_are_named(
    function: Callable[..., Any], source: str, network: type[SegmentationModel], number: int
) -> None:
    official = official_state_dict(network(channels=CHANNELS), source)  # type: ignore[call-arg]
    first = next(iter(official))
    without = {key: value for key, value in official.items() if key != first}
    assert len(without) == number - 1
    with pytest.raises(ValueError, match=rf"missing keys \['{first}'\], unknown keys \['encoder9.weight'\]"):
        function({**without, "encoder9.weight": torch.zeros(1)}, source)
    with pytest.raises(ValueError, match=r"unknown keys \['epoch', 'state_dict'\]"):
        function({"epoch": torch.zeros(1), "state_dict": torch.zeros(1)}, source)
    with pytest.raises(ValueError, match="missing keys"):
        function({}, source)


@every_source
def test_convolutions_of_another_rank_are_refused(source: str, network: type[SegmentationModel], number: int) -> None:
    flat = {key: value.flatten() for key, value in official_state_dict(network(channels=CHANNELS), source).items()}  # type: ignore[call-arg]
    assert len(flat) == number
    with pytest.raises(ValueError, match="not all"):
        config_from_state_dict(flat, source)


def test_unknown_sources_are_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown source 'unext'; known are 'UNeXt-pytorch', 'brain-segmentation"):
        convert_state_dict({}, "unext")


# Mask DINO, whose keys depend on what is in the file

KEYS = SHARED / "goldens" / "mask_dino"


def fake_checkpoint(name: str) -> dict[str, torch.Tensor]:
    """Every key of the authors' model with its shape, one number a tensor; shared tensors under all their names."""
    if not KEYS.is_dir():
        pytest.skip(f"{KEYS} is absent")
    with (KEYS / f"mask_dino_keys_{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    own = {
        row["key"]: torch.full([int(n) for n in row["shape"].split("x")], number, dtype=getattr(torch, row["dtype"]))
        for number, row in enumerate(rows)
        if not row["same_tensor_as"]
    }
    return {row["key"]: own[row["same_tensor_as"] or row["key"]] for row in rows}


@pytest.mark.parametrize(
    ("name", "keys", "parameters"),
    [
        ("r50", 716, (23_454_912, 6_035_904, 14_325_620)),
        pytest.param("swinl", 816, (195_201_204, 12_828_224, 14_769_716), marks=pytest.mark.slow),
    ],
)
def test_an_official_mask_dino_is_loaded_whole(name: str, keys: int, parameters: tuple[int, ...]) -> None:
    official = fake_checkpoint(name)
    assert len(official) == keys
    model = MaskDINO(**config_from_state_dict(official, "MaskDINO"))
    model.load_state_dict(convert_state_dict(official, "MaskDINO"))
    head = model.query_head
    pixel_decoder = [*head.pixel_decoder.parameters(), *head.mask_head.fusion.parameters()]
    pixel_decoder += head.mask_head.mask_features.parameters()
    everything, backbone = (sum(p.numel() for p in module.parameters()) for module in (model, model.backbone))
    of_pixels = sum(p.numel() for p in pixel_decoder)
    assert (backbone, of_pixels, everything - backbone - of_pixels) == parameters
    # No two tensors of the file have one number, and so every place shows whose it got.
    box_head = official["sem_seg_head.predictor._bbox_embed.layers.2.bias"]
    assert torch.equal(head.decoder.box_embed.layers[2].bias, box_head)
    places = [float(tensor.flatten()[0]) for tensor in model.state_dict().values()]
    assert len(set(places)) == len(places)


def test_the_arguments_of_an_official_mask_dino_are_read_from_its_file() -> None:
    config = config_from_state_dict(fake_checkpoint("r50"), "MaskDINO")
    model = create_model("mask_dino_resnet50", num_classes=80)
    assert {name: model.config[name] for name in config} == config


def test_damaged_mask_dino_files_are_refused() -> None:
    official = fake_checkpoint("r50")
    alias = "sem_seg_head.predictor.bbox_embed.3.layers.0.weight"
    with pytest.raises(ValueError, match=rf"{alias} and \S+_bbox_embed\S+ must be the same tensor"):
        convert_state_dict({**official, alias: official[alias] + 1}, "MaskDINO")
    without = {key: value for key, value in official.items() if key != alias}
    assert convert_state_dict(without, "MaskDINO").keys() == convert_state_dict(official, "MaskDINO").keys()
    del without["backbone.res3.1.conv2.norm.bias"]
    with pytest.raises(ValueError, match=r"missing keys \['backbone.res3.1.conv2.norm.bias'\], unknown keys \['x'\]"):
        convert_state_dict({**without, "x": torch.zeros(1)}, "MaskDINO")
    for missing in ("backbone.stem.conv1.weight", "sem_seg_head.predictor.label_enc.weight"):
        with pytest.raises(ValueError, match="this is no state dict of MaskDINO"):
            convert_state_dict({key: value for key, value in official.items() if key != missing}, "MaskDINO")


@pytest.mark.parametrize(
    "arguments",
    [
        {"two_stage": False, "init_box": "no", "num_queries": 7},
        {"learn_content": True, "num_queries": 7, "total_levels": 4},
        {"encoder_features": ["res2", "res3", "res4", "res5"], "total_levels": 5, "feature_order": "low2high"},
        {"encoder_features": ["res4", "res5"], "total_levels": 2, "fpn_norm": False, "encoder_heads": 4},
        {"conv_dim": 64, "hidden_dim": 32, "softmax_classes": True, "encoder_features": ["res5"], "total_levels": 1},
    ],
)
def test_arguments_of_other_mask_dinos_are_read_from_their_keys(arguments: dict[str, Any]) -> None:
    narrow = {"conv_dim": 32, "mask_dim": 16, "hidden_dim": 64, "encoder_layers": 2, "decoder_layers": 2}
    model = MaskDINO(2, 3, backbone="resnet101", **{**narrow, **arguments})
    own, official = model.state_dict(), official_mask_dino(model)
    config = config_from_state_dict(official, "MaskDINO")
    assert {name: model.config[name] for name in config} == config
    converted = convert_state_dict(official, "MaskDINO")
    assert converted.keys() == own.keys()
    assert all(torch.equal(converted[key], value) for key, value in own.items())
