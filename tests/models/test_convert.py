"""Official keys to ours: all of them, and nothing else."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from brainseg.models import SegmentationModel, UNet, UNeXt, config_from_state_dict, convert_state_dict
from brainseg.models.convert import _SOURCES
from tests.official import official_state_dict

CHANNELS = (8, 16, 32, 64, 128)
every_source = pytest.mark.parametrize(
    ("source", "network", "number"), [("UNeXt-pytorch", UNeXt, 101), ("brain-segmentation-pytorch", UNet, 118)]
)


@every_source
def test_every_key_of_ours_has_one_official_key(source: str, network: type[SegmentationModel], number: int) -> None:
    keys, _ = _SOURCES[source]
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
