"""Batch losses of two processes are those of one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from brainseg import losses
from tests.losses.processes import LOSSES, SHARES, images, indices, network, report

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("processes")
    command = [sys.executable, "-m", "tests.losses.processes", str(folder)]
    result = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-12)
    for one, other in zip(found["gradients"], expected["gradients"], strict=True):
        found_gradient, expected_gradient = (torch.tensor(x, dtype=torch.float64) for x in (one, other))
        torch.testing.assert_close(found_gradient, expected_gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("with_valid", [True, False])
@pytest.mark.parametrize("name", LOSSES)
def test_two_processes_have_the_loss_and_the_gradients_of_one(
    processes: list[dict[str, Any]], name: str, with_valid: bool
) -> None:
    expected = report(getattr(losses, name)(batch=True), network(), range(4), with_valid=with_valid)
    for reports in processes:
        assert_equal(reports[f"{name} {with_valid}"], expected)


@pytest.mark.parametrize("name", ["indices", "compiled"])
def test_a_process_whose_pixels_are_all_ignored_has_the_loss_of_the_other(
    processes: list[dict[str, Any]], name: str
) -> None:
    expected = indices(network(), range(4))
    for reports in processes:
        assert_equal(reports[name], expected)


@pytest.mark.parametrize(("name", "batch"), [("not gathered", True), ("validation", True), ("each image", False)])
def test_nothing_is_exchanged_unless_asked_for_or_without_gradients_or_for_single_images(
    processes: list[dict[str, Any]], name: str, batch: bool
) -> None:
    x, target, _ = images()
    for reports, rows in zip(processes, SHARES, strict=True):
        expected = losses.dice_loss(network()(x[rows]), target[rows], batch=batch)
        assert reports[name] == pytest.approx(expected.item(), rel=1e-12)
