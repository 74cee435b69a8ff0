"""The optimized copy computes the same, without a batch norm, and the model stays as it was."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from brainseg.inference import optimize
from brainseg.models import MaskDINO, ResUNet, SegmentationModel, create_model, list_models
from tests.models.contract import assert_close, images, narrow, randomize_statistics


@pytest.mark.parametrize("build", [narrow, pytest.param(create_model, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", list_models())
def test_the_optimized_copy_computes_the_same(name: str, build: Callable[[str], SegmentationModel]) -> None:
    model = build(name).train()
    randomize_statistics(model)
    before = copy.deepcopy(model.state_dict())
    optimized = optimize(model)
    left = [key for key, module in optimized.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(isinstance(model, ResUNet) and key.endswith("norm1") for key in left)  # before its convolution
    assert not optimized.training
    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    tolerance = 1e-4 if isinstance(model, MaskDINO) else 1e-5  # with several attentions in a row
    with torch.no_grad():
        assert_close(optimized(images(2, 3, 97, 129)), model.eval()(images(2, 3, 97, 129)), tolerance)
        exact = optimize(model.double())
        assert_close(exact(images().double()), model(images().double()), 1e-12)


def test_the_optimized_copy_needs_no_gradient() -> None:
    assert not any(p.requires_grad for p in optimize(create_model("unext_tiny")).parameters())


def test_optimizing_twice_changes_nothing() -> None:
    once = optimize(create_model("unext_tiny"))
    with torch.no_grad():
        assert torch.equal(optimize(once)(images()), once(images()))


@pytest.mark.parametrize("channels", [3, 32])
@pytest.mark.parametrize("size", [(8, 6), (7, 9), (1, 2)])
def test_doubling_is_bilinear(size: tuple[int, int], channels: int) -> None:
    x = torch.rand(2, channels, *size)
    model = nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear")).eval()
    assert not isinstance(optimize(model)[0], nn.Upsample)
    torch.testing.assert_close(optimize(model)(x), model(x))


@pytest.mark.parametrize("size", [(8, 6), (7, 9)])
def test_pairs_are_pooled_without_indices(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size)
    model = nn.Sequential(nn.MaxPool2d(2)).eval()
    assert not isinstance(optimize(model)[0], nn.MaxPool2d)
    assert torch.equal(optimize(model)(x), model(x))
    assert torch.equal(optimize(model)(x[0]), model(x[0]))


@pytest.mark.parametrize(
    "module",
    [
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        nn.Upsample(scale_factor=3, mode="bilinear"),
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.MaxPool2d(2, dilation=2),
        nn.MaxPool2d(2, padding=1),
        nn.MaxPool2d(3, stride=2),
    ],
)
def test_what_only_looks_alike_stays(module: nn.Module) -> None:
    x = torch.rand(1, 3, 9, 9)
    assert torch.equal(optimize(nn.Sequential(module))(x), module(x))
