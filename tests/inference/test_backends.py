"""Every backend gives the masks of PyTorch; what a backend does not take is refused."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from brainseg.inference import Predictor
from brainseg.inference.backends import Backend
from brainseg.models import ModelSpec, UNet
from brainseg.transforms import ForegroundZScore
from tests.command import call
from tests.models.contract import images, randomize_statistics

BACKENDS = [
    "onnxruntime",
    pytest.param(
        "compile",
        marks=[pytest.mark.slow, pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")],
    ),
]


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "compiler"))


def network() -> UNet:
    torch.manual_seed(0)
    model = UNet(channels=(4, 8), num_classes=2).eval()
    randomize_statistics(model)
    model.spec = replace(model.spec, normalization=ForegroundZScore().config, image_size=(48, 64))
    return model


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_gives_the_logits_of_pytorch(backend: Backend) -> None:
    model = network()
    plain = Predictor(model, device="cpu", tta=True)
    other = Predictor(model, device="cpu", tta=True, backend=backend)
    for batch, height, width in ((1, 64, 80), (3, 33, 97)):
        x = images(batch, 3, height, width).sigmoid()
        torch.testing.assert_close(other.logits(x), plain.logits(x), atol=1e-4, rtol=1e-4)
        assert torch.equal(other(x), plain(x))


def test_a_network_of_others_is_run_by_onnxruntime() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Upsample(scale_factor=2), nn.MaxPool2d(2), nn.Conv2d(4, 1, 3, padding=1)).eval()
    predictors = [Predictor(module, spec=ModelSpec(), device="cpu", backend=x) for x in ("torch", "onnxruntime")]
    x = torch.rand(2, 4, 64, 48)
    plain, other = (predictor.logits(x) for predictor in predictors)
    torch.testing.assert_close(other, plain, atol=1e-5, rtol=1e-5)


def test_a_backend_keeps_the_weights_that_it_was_made_with() -> None:
    model = network()
    predictor, x = Predictor(model, device="cpu", backend="onnxruntime"), torch.rand(1, 3, 64, 64)
    before = predictor.logits(x)
    nn.init.zeros_(model.head.weight)
    assert torch.equal(predictor.logits(x), before)


def test_what_a_backend_does_not_take_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="backend must be one of 'torch', 'compile', 'onnxruntime', got 'tensorrt'"):
        Predictor(network(), backend="tensorrt")
    with pytest.raises(ValueError, match=r"float32, the network is torch\.float64 on cpu; give device='cpu' and"):
        Predictor(network().double(), device="cpu", backend="onnxruntime")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        ImportError, match=r"the backend onnxruntime needs it: pip install \"brainseg-torch\[export\]\""
    ):
        Predictor(network(), device="cpu", backend="onnxruntime")


def test_the_command_predicts_by_a_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network().save_pretrained(tmp_path / "weights")
    pixels = np.random.default_rng(0).integers(0, 255, (64, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "slice.png")
    for backend in ("torch", "onnxruntime"):
        paths = (tmp_path / "weights", tmp_path / "slice.png", "-o", tmp_path / backend)
        call(monkeypatch, "predict", *paths, "--probabilities", "--backend", backend)
    plain, other = (np.load(tmp_path / x / "slice_probabilities.npy") for x in ("torch", "onnxruntime"))
    assert plain.std() > 0.01
    np.testing.assert_allclose(other, plain, atol=1e-5)
    assert not np.array_equal(other, plain)  # another program has computed them
