"""What `python -m benchmarks` measures."""

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from benchmarks import mask_dino
from benchmarks.__main__ import SUBJECTS
from brainseg.benchmark import create_report, markdown


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_subject_has_cases_with_titles_of_their_own(subject: str) -> None:
    titles = [case.title for case in import_module(f"benchmarks.{subject}").cases()]
    assert titles
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("number", range(1, 6))
def test_the_plain_formulas_of_mask_dino_give_what_ours_does(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_dino, "SIDE", 64)
    mask_dino.slices.cache_clear()
    plain, ours = (candidate.build() for candidate in mask_dino.cases()[number].candidates)
    first, second = ((run.result or run.call)() for run in (plain, ours))
    torch.testing.assert_close(second, first, rtol=1e-4, atol=1e-4)
    mask_dino.slices.cache_clear()


@pytest.mark.slow
def test_the_models_benchmark_runs() -> None:
    table = markdown(create_report("models", import_module("benchmarks.models").cases, quick=True))
    assert "| unext | 1,471,921 | 0.5620 |" in table
    assert "failed (" not in table


@pytest.mark.slow
def test_the_command_writes_its_results(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "training", "--quick", "--threads=1", "--output", str(tmp_path)]
    environment = {**os.environ, "BRAINSEG_LGG": str(tmp_path / "absent")}  # phantoms, whoever runs the test
    root = Path(__file__).parents[2]
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "training.json").read_text())
    assert {row["status"] for row in report["tables"][0]["rows"]} == {"measured"}
    assert (tmp_path / "training.md").read_text() in result.stdout
