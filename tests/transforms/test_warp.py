"""The sampling that compilers call is an operator that they may trust."""

import pytest
import torch

from brainseg.transforms.warp import MODES


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # what opcheck reads itself
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("padding", MODES.values())
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_its_gradient_and_its_shape_are_those_of_grid_sample(
    mode: str, padding: str, layout: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 5, 6, generator=generator).to(memory_format=layout).requires_grad_()
    grid = (2.4 * torch.rand(2, 4, 7, 2, generator=generator) - 1.2).requires_grad_()
    torch.library.opcheck(torch.ops.brainseg.grid_sample.default, (x, grid, mode, padding, False))
    results = []
    for sample in (torch.ops.brainseg.grid_sample.default, torch.nn.functional.grid_sample):
        moved = sample(x, grid, mode, padding, False)
        results.append((moved, *torch.autograd.grad(moved.square().sum(), (x, grid))))
    torch.testing.assert_close(results[0], results[1])
