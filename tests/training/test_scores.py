"""Scores of a run: what is scored of logits and targets, and the names under which it is logged."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from brainseg.metrics import DiceScore
from brainseg.models import ModelSpec
from brainseg.training import TrainConfig, evaluate, train
from brainseg.training.config import DataConfig, ModelConfig
from brainseg.training.scores import create_scores, named, scored_masks, scored_names

MULTICLASS = ModelSpec(task="multiclass", class_names=("background", "oedema", "core"))
LOGITS = torch.tensor([[-1.0, 3.0, 0.0], [-2.0, 2.0, 1.0], [-3.0, 1.0, 2.0]])[None, :, None]  # (1, 3, 1, 3)


def test_the_background_of_exclusive_classes_is_not_scored() -> None:
    assert scored_names(MULTICLASS) == ["oedema", "core"]
    assert scored_names(ModelSpec(task="multilabel", class_names=("background", "core"))) == ["background", "core"]
    assert scored_names(ModelSpec()) == ["foreground"]


@pytest.mark.parametrize("target", ["numbers", "masks", "masks without background"])
def test_of_exclusive_classes_the_likeliest_is_what_was_found(target: str) -> None:
    numbers = torch.tensor([[[1, 0, 2]]])
    masks = torch.nn.functional.one_hot(numbers, 3).movedim(-1, 1).float()
    mask = {"numbers": numbers, "masks": masks, "masks without background": masks[:, 1:]}[target]
    found, true, valid = scored_masks(MULTICLASS, MULTICLASS.masks(LOGITS), {"mask": mask})
    assert found[0, :, 0].tolist() == [[False, False, False], [False, False, True]]
    assert true[0, :, 0].tolist() == [[True, False, False], [False, False, True]]
    assert valid is None or valid.all()


def test_numbers_that_are_ignored_do_not_count() -> None:
    _, true, valid = scored_masks(MULTICLASS, MULTICLASS.masks(LOGITS), {"mask": torch.tensor([[[1, 255, 2]]])})
    assert valid is not None
    assert valid.tolist() == [[[[True, False, True]]]]
    assert not true[..., 1].any()


@pytest.mark.parametrize(
    ("spec", "mask", "message"),
    [
        (
            MULTICLASS,
            torch.tensor([[[1, 3, 2]]]),
            r"hold class 3, and the network's classes are 0 to 2 \(back",
        ),
        (
            ModelSpec.of_classes(3),
            torch.tensor([[[1, 0, 2]]]),
            "hold numbers of classes, .* task is 'multilabel'",
        ),
        (MULTICLASS, torch.zeros(1, 4, 1, 3), r"have 4 mask\(s\), and the network's class\(es\) are background, oed"),
    ],
)
def test_targets_of_other_classes_are_refused(spec: ModelSpec, mask: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scored_masks(spec, spec.masks(LOGITS), {"mask": mask})


def test_each_class_of_several_has_its_dice_by_name_even_with_a_point_in_it() -> None:
    names = ["T1.core", "oedema, all"]
    scores = create_scores(names, prefix="val_")
    prediction = torch.tensor([[[[1, 1, 0, 0]], [[1, 0, 0, 0]]]])
    target = torch.tensor([[[[1, 0, 0, 0]], [[0, 0, 1, 0]]]])
    scores.update(prediction, target, group=["a"])
    values = {name: metric.compute().item() for name, metric in named(scores, names).items()}
    assert values["val_dice_patient_T1.core"] == pytest.approx(2 / 3)
    assert values["val_dice_patient_oedema, all"] == 0
    assert values["val_dice_patient"] == pytest.approx(1 / 3)
    assert [name for name in values if "core" in name] == ["val_dice_patient_T1.core"]
    assert list(named(create_scores(["tumour"]), ["tumour"])) == list(create_scores(["tumour"]))


def test_the_scores_of_classes_count_pixels_no_second_time() -> None:
    scores = create_scores(["core", "oedema"])
    scores.update(torch.ones(1, 2, 4, 4, dtype=torch.bool), torch.ones(1, 2, 4, 4, dtype=torch.bool), group=["a"])
    assert len(scores.compute_groups) == 1
    assert all(isinstance(metric, DiceScore) for name, metric in scores.items() if name.startswith("dice"))


def test_a_run_and_its_evaluation_agree_class_by_class(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for folder in ("images", "masks/0", "masks/1"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for i in range(8):
        masks = np.zeros((2, 32, 32), np.uint8)
        masks[0, 4:20, 4:20] = masks[1, 15:30, 10:30] = 255
        Image.fromarray(masks.max(0) // 2 + random.integers(0, 9, (32, 32), np.uint8)).save(
            tmp_path / "data" / "images" / f"{i}.png"
        )
        for number, mask in enumerate(masks):
            Image.fromarray(mask).save(tmp_path / "data" / "masks" / str(number) / f"{i}.png")
    data = DataConfig(root=str(tmp_path / "data"), format="folder", cache_dir=str(tmp_path / "cache"), batch_size=3)
    config = TrainConfig(model=ModelConfig(name="unext_tiny"), data=data, epochs=2, accelerator="cpu", devices=1)
    config = replace(config, optimizer=replace(config.optimizer, lr=1e-2))
    train(config, tmp_path / "run")
    with (tmp_path / "run" / "metrics.csv").open() as file:
        best = max(csv.DictReader(file), key=lambda row: float(row["val_dice_patient"]))
    summary = evaluate(tmp_path / "run").summary
    assert summary["mean patient Dice, class_0"] != summary["mean patient Dice, class_1"] > 0
    assert float(best["val_dice_patient"]) == pytest.approx(summary["mean patient Dice"], abs=1e-4)
    for name in ("class_0", "class_1"):
        assert float(best[f"val_dice_patient_{name}"]) == pytest.approx(summary[f"mean patient Dice, {name}"], abs=1e-4)
