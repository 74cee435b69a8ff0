"""The optimized copy computes the same, without a batch norm, and the model stays as it was."""

import copy

import pytest
import torch
from torch import nn

from brainseg.inference import optimize
from brainseg.models import create_model, list_models
from tests.models.contract import assert_close, images, randomize_statistics


@pytest.mark.parametrize("name", list_models())
def test_the_optimized_copy_computes_the_same(name: str) -> None:
    model = create_model(name).train()
    randomize_statistics(model)
    before = copy.deepcopy(model.state_dict())
    optimized = optimize(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in optimized.modules())
    assert not optimized.training
    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    with torch.no_grad():
        assert_close(optimized(images(2, 3, 97, 129)), model.eval()(images(2, 3, 97, 129)))
        exact = optimize(model.double())
        assert_close(exact(images().double()), model(images().double()), 1e-12)


def test_the_optimized_copy_needs_no_gradient() -> None:
    assert not any(p.requires_grad for p in optimize(create_model("unext_tiny")).parameters())


def test_optimizing_twice_changes_nothing() -> None:
    once = optimize(create_model("unext_tiny"))
    with torch.no_grad():
        assert torch.equal(optimize(once)(images()), once(images()))
