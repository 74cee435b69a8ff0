"""Networks of others that PyTorch itself does not copy."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from brainseg.inference import export, optimize
from brainseg.models import ModelSpec


@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm, nn.utils.parametrizations.weight_norm])
def test_weights_that_are_computed_in_each_call_are_copied(norm: Callable[..., nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # old, and in use
        convs = [norm(nn.Conv2d(inside, outside, 3, padding=1)) for inside, outside in ((3, 64), (64, 64), (64, 1))]
    model = nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.ReLU(), convs[2]).eval()
    images, spec = torch.rand(2, 3, 32, 40), ModelSpec()
    copied = optimize(model)
    export(model, tmp_path / "model.pt2", spec=spec, in_channels=3)
    program = torch.export.load(tmp_path / "model.pt2").module()
    with torch.no_grad():
        expected = model(images)
        tolerance = 1e-5 * float(expected.abs().max())
        for logits in (copied(images), program(images)):
            torch.testing.assert_close(logits, expected, rtol=0, atol=tolerance)
        for parameter in model.parameters():
            parameter.mul_(2)
        assert not torch.allclose(model(images), expected)
        torch.testing.assert_close(copied(images), expected, rtol=0, atol=tolerance)  # its own, and not the model's
