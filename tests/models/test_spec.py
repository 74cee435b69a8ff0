"""The one truth about what trained weights take and give."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from brainseg.models import ModelSpec, SegmentationModel, UNeXt, create_model, load_weights

CHANNELS = (4, 6, 8, 10, 12)
BRATS = ModelSpec(
    task="multiclass",
    class_names=("background", "oedema", "core"),
    image_size=(64, 96),
    crop=(48, 64),
    normalization={"name": "ForegroundZScore", "arguments": {"fraction": 0.1}},
    shown_channel=1,
)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ModelSpec(task="softmax"), "task must be one of 'binary', 'multilabel', 'multiclass', got 'softmax'"),
        (lambda: ModelSpec(class_names=("a", "b")), "'binary' does not go with 2 class"),
        (lambda: ModelSpec(task="multiclass", class_names=("a",)), "'multiclass' does not go with 1 class"),
        (lambda: ModelSpec(class_names="tumour"), "class_names must be a name for each class, got 'tumour'"),
        (lambda: ModelSpec(class_names=(" ",)), "class_names must be a name for each class"),
        (lambda: ModelSpec(task="multilabel", class_names=("a", "a")), "class_names must differ, got 'a' 2 times"),
        (lambda: ModelSpec(threshold=1.5), r"threshold must lie in \[0, 1\], got 1.5"),
        (lambda: ModelSpec(threshold=(0.5, 0.5)), "threshold must be one number, or one for each of 1 classes"),
        (lambda: ModelSpec(label_values=(0,)), r"label_values are of 'multiclass', got \(0,\) for 'binary'"),
        (
            lambda: replace(BRATS, label_values=(0, 4)),
            r"0 and a number to 65535 for each other of background, oedema, core, got \(0, 4\)",
        ),
        (lambda: replace(BRATS, label_values=(0, 4, 4)), "label_values must be"),
        (lambda: replace(BRATS, label_values=(1, 2, 4)), "label_values must be 0 and"),
        (lambda: replace(BRATS, label_values=(0, 2.0, 4)), "label_values must be"),
        (lambda: replace(BRATS, threshold=0.5), "threshold must be None for 'multiclass'"),
        (lambda: ModelSpec(image_size=(64,)), r"image_size must be 2 positive integers, got \(64,\)"),
        (
            lambda: ModelSpec(crop=(48, 48)),
            r"a part of the image at image_size, got crop \(48, 48\) of image_size None",
        ),
        (lambda: replace(BRATS, crop=(96, 64)), r"got crop \(96, 64\) of image_size \(64, 96\)"),
        (lambda: replace(BRATS, crop=(0, 64)), "each of crop must be a positive integer, got 0"),
        (lambda: ModelSpec(normalization={"name": "Rescale"}), "normalization must be {'name': ..., 'arguments'"),
        (
            lambda: ModelSpec(normalization={"name": "Normalize", "arguments": {"mean": torch.ones(3)}}),
            "normalization must hold JSON values",
        ),
        (lambda: ModelSpec(keep_aspect_ratio=1), "keep_aspect_ratio must be True or False, got 1"),
        (lambda: ModelSpec(shown_channel=-1), "shown_channel must be an index from 0 or None, got -1"),
        (lambda: ModelSpec.from_json({"tresh": 0.5}), "no attribute of a spec 'tresh'"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(build: Callable[[], ModelSpec], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("spec", [BRATS, ModelSpec(), ModelSpec.of_classes(3), ModelSpec(threshold=0.3)])
def test_a_spec_survives_json(spec: ModelSpec) -> None:
    assert ModelSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_weights_of_stretched_images_go_on_with_such() -> None:
    values = BRATS.to_json()
    assert values.pop("keep_aspect_ratio") is True
    assert ModelSpec.from_json(values) == replace(BRATS, keep_aspect_ratio=False)


def test_softmax_gives_each_pixel_one_class_and_sigmoids_each_mask_by_itself() -> None:
    logits = torch.tensor([[3.0, -1.0], [2.0, -2.0], [1.0, -3.0]]).view(1, 3, 1, 2)
    assert BRATS.masks(logits).view(3, 2).tolist() == [[True, True], [False, False], [False, False]]
    torch.testing.assert_close(BRATS.probabilities(logits).sum(1), torch.ones(1, 1, 2))
    regions = ModelSpec(task="multilabel", class_names=("a", "b", "c"), threshold=(0.96, 0.5, 0.0))
    assert regions.masks(logits).view(3, 2).tolist() == [[False, False], [True, False], [True, True]]


def test_a_threshold_is_exceeded_strictly_and_half_precision_is_widened() -> None:
    assert ModelSpec().masks(torch.zeros(1, 1, 2, 2)).sum() == 0
    assert ModelSpec().probabilities(torch.zeros(1, 1, 2, 2, dtype=torch.bfloat16)).dtype == torch.float32


def test_logits_of_other_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"logits of shape \(1, 2, 4, 4\) do not fit the 3 class"):
        BRATS.masks(torch.zeros(1, 2, 4, 4))


def test_the_spec_is_saved_with_the_weights(tmp_path: Path) -> None:
    model = UNeXt(num_classes=3, channels=CHANNELS)
    model.spec = BRATS
    model.save_pretrained(tmp_path)
    assert SegmentationModel.from_pretrained(tmp_path).spec == BRATS
    other = UNeXt(num_classes=3, channels=CHANNELS)
    load_weights(other, tmp_path)
    assert other.spec == BRATS
    assert create_model("unext", weights=tmp_path, channels=CHANNELS).spec == BRATS


def test_files_before_the_spec_still_load(tmp_path: Path) -> None:
    model = UNeXt(channels=CHANNELS)
    model.save_pretrained(tmp_path)
    config: dict[str, Any] = json.loads((tmp_path / "config.json").read_text())
    del config["spec"]
    config["normalization"] = {"name": "Rescale", "arguments": {"low": 0.0}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert SegmentationModel.from_pretrained(tmp_path).spec == ModelSpec(normalization=config["normalization"])


@pytest.mark.parametrize("spec", [3, {"task": "cat"}, {"task": "binary", "flavour": 1}, {"threshold": "high"}])
def test_a_damaged_spec_is_refused_with_its_file(tmp_path: Path, spec: object) -> None:
    UNeXt(channels=CHANNELS).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "spec": spec}))
    with pytest.raises(ValueError, match=r"config.json is no model configuration"):
        SegmentationModel.from_pretrained(tmp_path)


def test_another_head_has_no_names_yet() -> None:
    model = UNeXt(num_classes=3, channels=CHANNELS)
    model.spec = BRATS
    model.reset_classifier(2)
    assert model.spec == replace(BRATS, class_names=("background", "class_1"))
    model.reset_classifier(1)
    assert model.spec == replace(
        ModelSpec(), **{k: getattr(BRATS, k) for k in ("image_size", "crop", "normalization", "shown_channel")}
    )


def test_a_spec_of_another_number_of_classes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a spec of 3 class\(es\) .* does not fit a network of num_classes=1"):
        UNeXt(channels=CHANNELS).spec = BRATS


def test_a_run_stands_for_its_best_weights(tmp_path: Path) -> None:
    model = UNeXt(channels=CHANNELS)
    with pytest.raises(FileNotFoundError, match="holds no run and no weights; give the folder of a run, "):
        SegmentationModel.from_pretrained(tmp_path)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(FileNotFoundError, match="its first epoch is not complete"):
        load_weights(model, tmp_path)
    model.save_pretrained(tmp_path / "best")
    assert torch.equal(SegmentationModel.from_pretrained(tmp_path).head.weight, model.head.weight)
    assert torch.equal(create_model("unext", weights=tmp_path, channels=CHANNELS).head.weight, model.head.weight)
