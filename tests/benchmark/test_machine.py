"""What a report says of the machine, and of a card that answers or does not."""

import os
from pathlib import Path

import pytest
import torch

from brainseg.benchmark import environment
from brainseg.benchmark.machine import clocks
from tests.benchmark.conftest import FakeCUDA


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name that answers with what it was asked."""
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\necho "$@" >> "$0.asked"\necho "1410, 1593, 41"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return program


def test_the_versions_are_those_that_run() -> None:
    told = environment()
    assert torch.__version__.startswith(told["versions"]["torch"].partition("+")[0])
    assert told["threads"] == torch.get_num_threads()
    assert told["gpu"] is None


def test_the_card_is_named_with_its_clocks(cuda: FakeCUDA, nvidia_smi: Path) -> None:  # noqa: ARG001
    told = environment(["cpu", "cuda"])
    assert (told["gpu"]["name"], told["gpu"]["memory_gib"]) == ("Card", 80)
    assert (told["gpu"]["driver"], told["gpu"]["max_sm_mhz"], told["gpu"]["max_memory_mhz"]) == ("1410", "1593", "41")
    assert clocks("cuda") == {"sm_mhz": "1410", "memory_mhz": "1593", "celsius": "41"}
    asked = Path(f"{nvidia_smi}.asked").read_text()
    assert "--id=GPU-0-1 --query-gpu=driver_version,clocks.max.sm,clocks.max.mem" in asked


def test_tf32_is_told_as_it_is_set(cuda: FakeCUDA, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    assert environment(["cuda"])["tf32"] == {"matrix products": False, "convolutions": False}


def test_a_card_that_does_not_answer_is_not_known(
    cuda: FakeCUDA,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment(["cuda"])["gpu"]["driver"] == "not known"
    assert clocks("cuda") == {"sm_mhz": "not known", "memory_mhz": "not known", "celsius": "not known"}


def test_a_processor_has_no_clocks() -> None:
    assert clocks("cpu") is None
