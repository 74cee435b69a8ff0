"""Several processes write what one writes, byte for byte."""

import os
import signal
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from brainseg.inference.files import PredictionError, predict
from brainseg.inference.processes import check_devices
from brainseg.models import Postprocessing, UNeXt


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    UNeXt(1, channels=(4, 4, 8, 8, 16)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three patients of images, one of them with a broken slice, and two volumes."""
    folder, rng = tmp_path_factory.mktemp("inputs"), np.random.default_rng(0)
    for name in ("p_2/1", "p_2/2", "p_10/1", "p_11/1"):
        path = folder / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 36)).astype(np.uint8)).save(path)
    (folder / "images" / "p_11" / "2.png").write_bytes(b"no image")
    for name in ("v_1", "v_2"):
        voxels = rng.integers(0, 900, (36, 40, 3)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-1, -1, 4, 1])), folder / f"{name}.nii.gz")
    return [folder / "images", folder / "v_1.nii.gz", folder / "v_2.nii.gz"]


def call(weights: Path, inputs: list[Path], output: Path, **chosen: Any) -> dict[str, bytes]:
    """What is in the folder afterwards."""
    steps = Postprocessing(smooth=True, components="largest")
    options = {"patients": True, "postprocessing": steps, "spacing": (4, 1, 1), "probabilities": True, "threshold": 0.4}
    with pytest.raises(PredictionError, match=r"p_11/2.png is truncated or no image") as failed:
        predict(weights, inputs, output, **options, **chosen)
    assert failed.value.done == 5
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in output.rglob("*") if path.is_file()}


def test_two_processes_write_what_one_writes_and_what_an_earlier_call_left(
    weights: Path, inputs: list[Path], tmp_path: Path
) -> None:
    one = call(weights, inputs, tmp_path / "one" / "masks")
    two = call(weights, inputs, tmp_path / "two" / "masks", devices=2)
    assert one == two
    # Killed after a patient's files were written and before its row.
    table = tmp_path / "two" / "masks" / "volumes.csv"
    table.write_text("".join(line for line in table.read_text().splitlines(keepends=True) if "p_2" not in line))
    (tmp_path / "two" / "masks" / "v_2_mask.nii.gz").unlink()
    assert call(weights, inputs, tmp_path / "two" / "masks", skip_existing=True) == one


def ended(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_process_that_is_killed_is_told(
    weights: Path, inputs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original: Any = ProcessPoolExecutor.submit
    monkeypatch.setattr(ProcessPoolExecutor, "submit", lambda pool, *_: original(pool, ended))
    with pytest.raises(ChildProcessError, match=r"a process was ended from outside.*go on with --skip-existing"):
        predict(weights, inputs, tmp_path, patients=True, devices=2)


def test_devices_are_as_many_as_there_are_gpus_or_any_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"devices must be .*, got 0"):
        check_devices(0, "torch")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert check_devices(3, "torch") == [None] * 3
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert check_devices(2, "torch") == ["cuda:0", "cuda:1"]
    assert check_devices(3, "onnxruntime") == [None] * 3
    with pytest.raises(ValueError, match="devices must be at most 2, the number of GPUs here, got 3"):
        check_devices(3, "compile")
