"""Two processes train as one with all of their images."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.models.mask_dino.processes import SHARES, network, steps

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_three_steps_of_two_processes_have_the_gradients_of_one_with_all_images(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.models.mask_dino.processes", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(len(SHARES)))
    for (loss, expected), (one, gradients), (two, _) in zip(steps(network(), range(4)), first, second, strict=True):
        torch.testing.assert_close((one + two) / 2, loss, rtol=1e-9, atol=0)
        largest = max(float(x.abs().max()) for x in expected)
        for found, wanted in zip(gradients, expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9 * largest)
