"""What docs/recipe/score.py reads of a run of `brainseg train`."""

from pathlib import Path

import torch
from docs.recipe import score

from brainseg.data import read_split
from brainseg.inference import Predictor


def test_a_run_of_the_command_is_scored_by_its_last_weights_on_the_patients_that_it_has_not_seen(run: Path) -> None:
    network, spec = score.read_network(run)
    last = torch.load(run / "last.ckpt", weights_only=True)["state_dict"]
    assert not network.training
    assert spec == Predictor.from_pretrained(run).spec
    assert all(any(torch.equal(value, each) for each in last.values()) for value in network.state_dict().values())
    unseen = read_split(run / "split.json")["validation"]
    assert score.fold_of(run, [["nobody"], unseen[::-1]]) == 1
    assert score.slices_of(run) == 1
