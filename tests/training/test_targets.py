"""Masks to the targets of a task."""

import pytest
import torch

from brainseg.models import ModelSpec
from brainseg.training.targets import to_target, valid_of

SPEC = ModelSpec(task="multiclass", class_names=("background", "oedema", "core"))
OEDEMA = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
CORE = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
INDICES = torch.tensor([[[1, 0], [2, 0]]])


@pytest.mark.parametrize("background", [None, torch.zeros(2, 2), 1 - OEDEMA - CORE])
def test_masks_become_the_indices_of_their_classes(background: torch.Tensor | None) -> None:
    masks = torch.stack([*([] if background is None else [background]), OEDEMA, CORE])[None]
    target = to_target(masks, SPEC)
    assert target.dtype == torch.int64
    assert torch.equal(target, INDICES)
    assert torch.equal(to_target(INDICES, SPEC), INDICES)


def test_sigmoids_take_masks_as_they_are() -> None:
    masks = torch.stack([OEDEMA, CORE])[None]
    spec = ModelSpec(task="multilabel", class_names=("oedema", "core"))
    assert to_target(masks, spec) is masks


def test_masks_that_overlap_or_are_too_few_are_refused() -> None:
    with pytest.raises(ValueError, match=r"masks overlap.*train one of task 'multilabel'"):
        to_target(torch.ones(1, 2, 2, 2), SPEC)
    with pytest.raises(ValueError, match="have 1 masks and the network the classes background, oedema, core"):
        to_target(torch.ones(1, 1, 2, 2), SPEC)


def test_numbers_of_classes_count_where_they_are_not_255() -> None:
    numbers = torch.tensor([[[1, 255], [0, 2]]])
    assert valid_of({"mask": numbers})["valid"].tolist() == [[[True, False], [True, True]]]
    assert valid_of({"mask": torch.ones(1, 1, 2, 2)}) == {}
    valid = torch.ones(1, 1, 2, 2, dtype=torch.bool)
    assert valid_of({"mask": torch.ones(1, 1, 2, 2), "valid": valid})["valid"] is valid
