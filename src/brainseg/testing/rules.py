"""What the checks of a network share: how it is built, what it is shown, when numbers are the same."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from brainseg.models import SegmentationModel

Build = Callable[..., SegmentationModel]
"""Builds a fresh network from `in_channels`, `num_classes` and other arguments of its constructor."""
Step = Callable[[SegmentationModel, Tensor], None]
"""The forward and backward pass of a training step on images (B, C, H, W)."""


def expect(right: bool, message: str) -> None:
    """AssertionError with the message unless it is right; unlike `assert`, under `python -O` too."""
    if not right:
        raise AssertionError(message)


def expect_close(found: Tensor, expected: Tensor, what: str, tolerance: float = 1e-5) -> None:
    """Shapes are equal, and no number is off by more than this part of the largest one."""
    expect(found.shape == expected.shape, f"{what}: shape {tuple(found.shape)}, expected {tuple(expected.shape)}")
    off, most = (found - expected).abs().max().item(), expected.abs().max().item()
    expect(off <= tolerance * most, f"{what}: off by {off:.3g} where the largest number is {most:.3g}")


def expect_equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: str) -> None:
    """The same tensors, bit by bit, under the same names."""
    expect(found.keys() == expected.keys(), f"{what}: other names, {sorted(found.keys() ^ expected.keys())[:3]}")
    other = [key for key in expected if not torch.equal(found[key], expected[key])]
    expect(not other, f"{what}: other numbers in {other[:3]}")


def images(batch: int = 2, channels: int = 3, height: int = 64, width: int = 96, seed: int = 0) -> Tensor:
    """Standard normal ones (B, C, H, W), the same at every call."""
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))


def seeded(build: Build, **arguments: object) -> SegmentationModel:
    """The network with the same fresh weights at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(**arguments)


def trained(build: Build, **arguments: object) -> SegmentationModel:
    """As `seeded`, in eval mode, with norms as after some training."""
    model = seeded(build, **arguments).eval()
    randomize_statistics(model)
    return model


def randomize_statistics(model: nn.Module) -> None:
    """Norms as after some training, a few weights negative: fresh ones hide what they are multiplied with."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.weight, module.bias, module.running_mean, module.running_var):
                assert value is not None
            nn.init.normal_(module.weight, generator=generator)
            nn.init.normal_(module.running_mean, std=0.1, generator=generator)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5, generator=generator)  # type: ignore[arg-type]


def step_of_outputs(model: SegmentationModel, x: Tensor) -> None:
    """A training step on the mean square of the outputs, which reaches every parameter of most networks."""
    outputs = model(x)
    parts = outputs if isinstance(outputs, list) else [outputs]
    torch.stack([part.square().mean() for part in parts]).sum().backward()  # type: ignore[no-untyped-call]
