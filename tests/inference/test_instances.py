"""Objects of files: those of the network at the size of the file, as a map, a list and a picture."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from brainseg.data import write_phantoms
from brainseg.inference import Ensemble, Predictor
from brainseg.inference.files import PredictionError
from brainseg.inference.instances import predict_instances
from brainseg.models import MaskDINO, ModelSpec, QueryPredictions, UNet
from brainseg.models.mask_dino import instance_inference
from brainseg.transforms import ForegroundZScore, Resize


def small(**arguments: object) -> MaskDINO:
    torch.manual_seed(0)
    widths = {"hidden_dim": 32, "conv_dim": 32, "mask_dim": 32, "channels": (8, 8, 16, 16), "num_queries": 10}
    layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_heads": 4, "decoder_heads": 4}
    return MaskDINO(backbone="small", **{**widths, **layers, **arguments}).eval()


def say_three_squares(images: Tensor) -> QueryPredictions:
    """Class 1 at x 8 to 24 surely, class 0 at x 16 to 32 less so, and doubtfully the whole image."""
    masks = torch.full((len(images), 3, 16, 24), -500.0)
    masks[:, 0, 2:6, 4:8] = masks[:, 1, 2:6, 2:6] = masks[:, 2] = 500
    logits = torch.tensor([[1.0, -9.0], [-9.0, 3.0], [-1.0, -2.0]]).expand(len(images), 3, 2)
    boxes = torch.tensor([[24, 16, 16, 16], [16, 16, 16, 16], [48, 32, 96, 64]]) / torch.tensor([96, 64, 96, 64])
    return QueryPredictions(logits, masks, boxes.expand(len(images), 3, 4))


@pytest.fixture
def answers() -> MaskDINO:
    model = small(in_channels=1, num_classes=2)
    model.forward_queries = say_three_squares
    model.spec = ModelSpec(task="multilabel", class_names=("oedema", "core"))
    return model


# The predictor


@pytest.mark.parametrize("size", [(64, 96), (96, 64), None])
def test_objects_are_those_of_the_network_at_the_size_of_the_image(size: tuple[int, int] | None) -> None:
    model = small(num_classes=2)
    model.spec = replace(model.spec, image_size=size, normalization=ForegroundZScore().config)
    images = torch.rand(2, 3, 70, 101)
    found = Predictor(model, device="cpu").instances(images, min_score=None)
    seen = images if size is None else Resize(size, keep_aspect_ratio=True)(images)
    with torch.inference_mode():
        predictions = model.forward_queries(ForegroundZScore()(seen))
    content = {(64, 96): (64, 92), (96, 64): (44, 64), None: (70, 101)}[size]
    expected = instance_inference(predictions, image_size=content, output_size=(70, 101))
    for one, other in zip(found, expected, strict=True):
        assert one.masks.shape == (20, 70, 101)
        for name in ("scores", "classes", "boxes", "masks"):
            assert torch.equal(getattr(one, name), getattr(other, name))


def test_doubtful_objects_are_left_out_unless_they_are_asked_for(answers: MaskDINO) -> None:
    predictor, image = Predictor(answers, device="cpu"), torch.rand(1, 64, 96)
    found = predictor.instances(image)
    assert found.classes.tolist() == [1, 0]
    torch.testing.assert_close(found.scores, torch.tensor([3.0, 1.0]).sigmoid())
    assert found.boxes.round(decimals=4).tolist() == [[8, 8, 24, 24], [16, 8, 32, 24]]
    assert len(predictor.instances(image, min_score=0.8)) == 1
    assert len(predictor.instances(image, min_score=None)) == 6
    with pytest.raises(ValueError, match="min_score must lie in"):
        predictor.instances(image, min_score=2)


def test_the_background_is_no_object(answers: MaskDINO) -> None:
    answers.spec = ModelSpec(task="multiclass", class_names=("background", "core"))
    assert Predictor(answers, device="cpu").instances(torch.rand(1, 64, 96)).classes.tolist() == [1]


def test_a_predictor_without_objects_says_so(answers: MaskDINO) -> None:
    image = torch.rand(1, 64, 96)
    with pytest.raises(ValueError, match="UNet answers for pixels and not for objects"):
        Predictor(UNet(1, channels=(4, 8)), device="cpu").instances(image)
    for options in ({"tta": True}, {"windows": True, "image_size": (64, 64)}):
        with pytest.raises(ValueError, match="predict instances without"):
            Predictor(answers, device="cpu", **options).instances(image)
    with pytest.raises(ValueError, match="predict instances with one of the members"):
        Ensemble([Predictor(answers, device="cpu")]).instances(image)
    with pytest.raises(ValueError, match="trained on 1 channel; the image has 3"):
        Predictor(answers, device="cpu").instances(torch.rand(3, 64, 96))


# Files


@pytest.fixture
def shipped(answers: MaskDINO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Predictor, "from_pretrained", lambda _: Predictor(answers, device="cpu"))


def write(path: Path, shape: tuple[int, ...] = (64, 96)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)).save(path)
    return path


@pytest.mark.usefixtures("shipped")
def test_an_image_gets_a_map_a_list_and_an_overlay(tmp_path: Path) -> None:
    image = write(tmp_path / "in" / "p" / "x_1.png")
    assert predict_instances(tmp_path, [tmp_path / "in"], tmp_path / "out", spacing=(5, 0.5, 0.5)) == 1
    with Image.open(tmp_path / "out/p/x_1_instances.png") as file:
        labels = np.asarray(file)
    square = np.ones((16, 16), dtype=bool)
    square[[0, 0, -1, -1], [0, -1, 0, -1]] = False  # bilinear from a quarter of the size rounds the corners
    expected = np.zeros((64, 96), dtype=np.uint8)
    for number, left in ((2, 16), (1, 8)):
        expected[8:24, left : left + 16][square] = number
    np.testing.assert_array_equal(labels, expected)
    rows = json.loads((tmp_path / "out/p/x_1_instances.json").read_text())
    assert rows == [
        {"id": 1, "class": "core", "score": 0.9526, "box": [8, 8, 24, 24], "pixels": 252, "ml": 0.315},
        {"id": 2, "class": "oedema", "score": 0.7311, "box": [16, 8, 32, 24], "pixels": 252, "ml": 0.315},
    ]
    with Image.open(tmp_path / "out/p/x_1_overlay.png") as overlay:
        assert max(overlay.size) == 512
    before = (tmp_path / "out/p/x_1_instances.json").stat().st_mtime_ns
    again: dict[str, Any] = {"spacing": (5, 0.5, 0.5), "skip_existing": True}
    assert predict_instances(tmp_path, [image.parents[1]], tmp_path / "out", **again) == 1
    assert (tmp_path / "out/p/x_1_instances.json").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="results that were made with other min_score; predict without"):
        predict_instances(tmp_path, [image.parents[1]], tmp_path / "out", min_score=0.9, **again)
    predict_instances(tmp_path, [image.parents[1]], tmp_path / "out", min_score=0.9)
    assert len(json.loads((tmp_path / "out/p/x_1_instances.json").read_text())) == 1


@pytest.mark.usefixtures("shipped")
def test_without_spacing_there_are_no_millilitres_and_without_objects_no_rows(tmp_path: Path) -> None:
    image = write(tmp_path / "x.png")
    predict_instances(tmp_path, [image], tmp_path)
    assert "ml" not in json.loads((tmp_path / "x_instances.json").read_text())[0]
    predict_instances(tmp_path, [tmp_path], tmp_path, min_score=0.99)  # what lies beside the image is no image
    assert json.loads((tmp_path / "x_instances.json").read_text()) == []
    with Image.open(tmp_path / "x_instances.png") as labels:
        assert labels.getextrema() == (0, 0)
    assert len(list(tmp_path.iterdir())) == 5  # the image, three results and settings.json


@pytest.mark.usefixtures("shipped")
def test_an_image_that_does_not_fit_is_named_and_the_others_are_done(tmp_path: Path) -> None:
    write(tmp_path / "in" / "colour.png", (64, 96, 3))
    write(tmp_path / "in" / "gray.png")
    with pytest.raises(
        PredictionError, match=r"colour\.png: this network was trained on 1 channel; the image has 3"
    ) as caught:
        predict_instances(tmp_path, [tmp_path / "in"], tmp_path / "out")
    assert caught.value.done == 1
    assert (tmp_path / "out" / "gray_instances.json").is_file()


@pytest.mark.usefixtures("shipped")
def test_volumes_and_numbers_that_are_none_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    image = write(tmp_path / "x.png")
    (tmp_path / "x.nii.gz").touch()
    for images, options, words in (
        ([tmp_path / "x.nii.gz"], {}, "is a volume, and instances are those of image files"),
        ([image], {"min_score": 50}, "min_score must lie in"),
        ([image], {"spacing": (1, 0, 1)}, "spacing"),
    ):
        with pytest.raises(ValueError, match=words):
            predict_instances(tmp_path, images, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_saved_network_predicts_by_its_folder(tmp_path: Path) -> None:
    small().save_pretrained(tmp_path / "weights")
    write_phantoms(tmp_path / "lgg", patients=2, slices=1, size=64)
    assert predict_instances(tmp_path / "weights", [tmp_path / "lgg"], tmp_path / "out", min_score=0) == 2
    (rows, _) = (json.loads(path.read_text()) for path in (tmp_path / "out").rglob("*_instances.json"))
    assert len(rows) == 10
