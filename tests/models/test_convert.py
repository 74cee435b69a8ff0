"""Official keys to ours: all of them, and nothing else."""

import pytest
import torch

from brainseg.models import UNeXt, config_from_state_dict, convert_state_dict
from brainseg.models.convert import _unext_keys

OFFICIAL = {theirs: torch.zeros(1) for theirs in _unext_keys()}


def test_every_key_of_ours_has_one_official_key() -> None:
    assert len(OFFICIAL) == 101
    assert set(convert_state_dict(OFFICIAL, "UNeXt-pytorch")) == set(UNeXt().state_dict())


def test_the_prefix_of_data_parallel_is_dropped() -> None:
    prefixed = {f"module.{key}": value for key, value in OFFICIAL.items()}
    assert set(convert_state_dict(prefixed, "UNeXt-pytorch")) == set(UNeXt().state_dict())


@pytest.mark.parametrize("function", [convert_state_dict, config_from_state_dict])
def test_missing_and_unknown_keys_are_named(function: object) -> None:
    without = {key: value for key, value in OFFICIAL.items() if key != "ebn1.running_var"}
    assert callable(function)
    with pytest.raises(ValueError, match=r"missing keys \['ebn1.running_var'\], unknown keys \['encoder9.weight'\]"):
        function({**without, "encoder9.weight": torch.zeros(1)}, "UNeXt-pytorch")
    with pytest.raises(ValueError, match=r"unknown keys \['epoch', 'state_dict'\]"):
        function({"epoch": torch.zeros(1), "state_dict": torch.zeros(1)}, "UNeXt-pytorch")
    with pytest.raises(ValueError, match="missing keys"):
        function({}, "UNeXt-pytorch")


def test_unknown_sources_are_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown source 'unext'; known are 'UNeXt-pytorch'"):
        convert_state_dict(OFFICIAL, "unext")
