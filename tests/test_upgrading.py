"""What 0.1 wrote is read: `files_0_1` holds a run of two epochs on phantoms, made by brainseg 0.1.0."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from brainseg.data import write_phantoms
from brainseg.inference import Predictor
from brainseg.models import MaskDINO, SegmentationModel, create_model
from brainseg.models.files import WEIGHTS
from tests.models.contract import narrow

FILES = Path(__file__).parent / "files_0_1"
RUN = FILES / "run"


def logits(model: torch.nn.Module) -> torch.Tensor:
    """Of an image that is the same everywhere."""
    image = torch.arange(3 * 48 * 64).view(1, 3, 48, 64).float().mul(0.37).sin()
    with torch.inference_mode():
        found: torch.Tensor = model.eval()(image)[0, 0]
    return found


@pytest.mark.parametrize("path", ["run", "run/best", "run/best/model.safetensors", "run/last.ckpt"])
def test_weights_answer_as_they_did(path: str) -> None:
    model = create_model("unext", weights=FILES / path, channels=(5, 5, 5, 5, 10))
    expected = json.loads((FILES / "logits.json").read_text())
    assert logits(model).double().mean().item() == pytest.approx(expected["mean"], abs=1e-6)
    assert logits(model)[0, ::8].tolist() == pytest.approx(expected["first row, every eighth"], abs=1e-5)


def test_what_weights_want_is_kept(tmp_path: Path) -> None:
    model = SegmentationModel.from_pretrained(RUN)
    assert model.spec.normalization == {"name": "ForegroundZScore", "arguments": {"fraction": 0.1}}
    assert Predictor(model)(torch.rand(3, 64, 64)).shape[-2:] == (64, 64)
    model.save_pretrained(tmp_path)
    assert SegmentationModel.from_pretrained(tmp_path).spec == model.spec


def test_mask_dino_has_new_names_for_a_part(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = narrow("mask_dino_small")
    model.save_pretrained(tmp_path)
    now = {key: value.clone() for key, value in load_file(tmp_path / WEIGHTS).items()}  # the file is written over
    former = {key.replace("decoder.box_embed.", "decoder.bbox_embed."): value for key, value in now.items()}
    assert len(former.keys() - now.keys()) == 6
    save_file(former, tmp_path / WEIGHTS)
    again = MaskDINO.from_pretrained(tmp_path)
    assert all(torch.equal(value, now[key]) for key, value in again.state_dict().items())


def test_a_run_is_evaluated_and_not_resumed(tmp_path: Path) -> None:
    training = pytest.importorskip("brainseg.training")
    run = shutil.copytree(RUN, tmp_path / "run")
    write_phantoms(tmp_path / "lgg", patients=4, slices=3, size=64)
    evaluation = training.evaluate(run, root=tmp_path / "lgg", output=tmp_path / "evaluation")
    assert [row.patient for row in evaluation.patients] == ["TCGA_DU_0002_20000101"]
    with pytest.raises(ValueError, match=r"is a run of brainseg 0\.1.*model\.weights="):
        training.resume(run)
