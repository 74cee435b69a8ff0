"""Networks that answer with objects: trained by their own criterion, scored as all others and by average precision."""

import csv
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from brainseg.cli.train import parser
from brainseg.data import LGGSegmentation, write_split
from brainseg.inference import Predictor
from brainseg.metrics import MeanAveragePrecision, PanopticQuality
from brainseg.models import MaskDINO, ModelSpec, QueryPredictions, SegmentationModel, list_models
from brainseg.models.mask_dino import Instances, instance_inference, semantic_logits, targets_from_masks
from brainseg.training import SegmentationTask, SliceDataModule, TrainConfig, evaluate, resume, train, write_config
from brainseg.training.config import DataConfig, LossConfig, ModelConfig, ObjectsConfig, OptimizerConfig, to_config
from brainseg.training.datasets import find_split
from brainseg.training.object_scores import ObjectScores
from brainseg.training.objects import object_targets
from tests.models.contract import narrow_arguments
from tests.pages import PageReader

NAMES = list_models("mask_dino_*")


def task(name: str = "mask_dino_small", *, num_classes: int = 1, more: Any = None, **changes: Any) -> SegmentationTask:
    model = ModelConfig(name=name, arguments=narrow_arguments(name))
    data = DataConfig(augmentation="none", input="none")
    return SegmentationTask(
        replace(TrainConfig(model=model, data=data), **changes), in_channels=3, num_classes=num_classes, **(more or {})
    )


def batch() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(2, 1, 64, 96)
    masks[0, 0, 10:40, 20:50] = masks[0, 0, 50:52, 80:82] = 1
    image = torch.rand(2, 3, 64, 96, generator=generator)
    return {"image": image, "mask": masks, "patient": ["a", "b"], "slice": torch.tensor([0, 0])}


def test_a_validation_of_weights_that_are_not_finite_is_left_to_the_run_to_explain() -> None:
    module = task().eval()
    torch.nn.init.constant_(module.model.get_classifier().weight, torch.nan)
    with pytest.warns(RuntimeWarning, match="the loss is not finite"):
        step = module.step(batch())
    assert not step.loss.isfinite()
    module.score(step, slice_index=batch()["slice"])
    assert step.objects is not None
    assert step.objects.found == []


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_that_learns_has_a_gradient(name: str) -> None:
    module = task(name).train()
    for masks in (batch()["mask"], torch.zeros(2, 1, 64, 96)):
        module.zero_grad()
        module.step({**batch(), "mask": masks}, torch.Generator()).loss.backward()
        without = [key for key, p in module.model.named_parameters() if p.requires_grad and p.grad is None]
        assert without == []


def test_a_step_is_the_networks_own_and_scored_by_its_logits() -> None:
    module = task().train()
    given = batch()
    torch.manual_seed(1)
    step = module.step(given, torch.Generator())
    torch.manual_seed(1)
    total, parts = module.model(given["image"], targets_from_masks(given["mask"]))
    assert torch.equal(step.loss, total)
    assert step.parts == {name.removeprefix("loss_"): value for name, value in parts.items()}
    assert {"class", "mask", "dice", "box", "giou", "class_0", "mask_interm", "dice_dn"} <= step.parts.keys()
    assert not step.logits.requires_grad
    validated = module.eval().step(given)
    assert validated.objects is not None
    with torch.no_grad():
        predictions = module.model.forward_queries(given["image"])
    torch.testing.assert_close(validated.logits, semantic_logits(predictions))
    expected = instance_inference(predictions)
    assert [len(found) for found in validated.objects.found] == [len(found) for found in expected]
    torch.testing.assert_close(validated.objects.found[0].scores, expected[0].scores)
    module.score(validated, slice_index=given["slice"])
    metric = MeanAveragePrecision()
    metric.update(expected, targets_from_masks(given["mask"]))
    assert module.val_map is not None
    assert module.val_map.compute() == metric.compute()
    assert "val_map" in module.monitors


def test_objects_are_those_that_the_configuration_asks_for() -> None:
    spec = ModelSpec.of_classes(1)
    counts = [
        [len(target["labels"]) for target in object_targets(batch()["mask"], spec, config)]
        for config in (ObjectsConfig(), ObjectsConfig(components=True), ObjectsConfig(components=True, min_pixels=5))
    ]
    assert counts == [[1, 0], [2, 0], [1, 0]]


def test_the_background_of_a_softmax_is_learned_and_no_object_of_the_scores() -> None:
    more = {"task": "multiclass", "class_names": ("background", "oedema", "core")}
    module = task(num_classes=3, more=more)
    indices = batch()["mask"][:, 0].long() * 2
    indices[1, 0] = 255
    given = {**batch(), "mask": indices}
    with pytest.warns(UserWarning, match="some pixels do not count, and the criterion of MaskDINO takes them for"):
        step = module.eval().step(given)
    assert step.objects is not None
    targets = object_targets(indices, module.model.spec, ObjectsConfig())
    assert [target["labels"].tolist() for target in targets] == [[0, 2], [0]]
    assert int(targets[1]["masks"].sum()) == 63 * 96
    assert [target["labels"].tolist() for target in step.objects.true] == [[2], []]
    assert all(set(found.classes.tolist()) <= {1, 2} for found in step.objects.found)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": LossConfig("DiceLoss")}, "mask_dino_small is trained by its own criterion, and loss.name=DiceLoss"),
        ({"loss": LossConfig(arguments={"smooth": 1})}, r"own criterion, and loss.arguments=\{'smooth': 1\} has no"),
        (
            {"model": ModelConfig("unext_tiny"), "objects": ObjectsConfig(components=True)},
            "unext_tiny answers with masks and knows no objects; leave the section objects out",
        ),
        ({"model": ModelConfig("mask_dino_small", deep_supervision=True)}, "do not fit mask_dino_small: .*deep_superv"),
    ],
)
def test_what_has_no_part_in_a_criterion_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SegmentationTask(
            replace(TrainConfig(), **{"model": ModelConfig("mask_dino_small"), **changes}), in_channels=3, num_classes=1
        )


def test_the_shipped_configuration_and_the_name_alone_train_by_the_criterion() -> None:
    for options in (["--config", "mask_dino_lgg"], ["--model.name", "mask_dino_small"]):
        command = parser()
        config = to_config(command.instantiate(command.parse_args(options)))
        module = SegmentationTask(config, in_channels=3, num_classes=1)
        assert isinstance(module.model, MaskDINO)
        assert module.loss is module.model.criterion
        assert module.run.loss == LossConfig()


@pytest.fixture(scope="module")
def config(data: DataConfig) -> TrainConfig:
    model = ModelConfig("mask_dino_small", {**narrow_arguments("mask_dino_small"), "decoder_drop": 0.1})
    return TrainConfig(
        model=model,
        data=replace(data, sampler="foreground"),
        objects=ObjectsConfig(components=True, min_pixels=4),
        optimizer=OptimizerConfig(lr=1e-3, clip_norm=1.0, multipliers={"backbone": 0.5}),
        epochs=2,
        ema=0.9,
        monitor="val_map",
        accelerator="cpu",
        devices=1,
    )


def test_a_run_that_goes_on_ends_with_the_bits_of_one_that_was_not_cut_off(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(config, tmp_path / "straight")
    with monkeypatch.context() as patch:
        original = SegmentationTask.on_train_epoch_start

        def cut(module: SegmentationTask) -> None:
            if module.current_epoch == 1:
                raise KeyError("cut off")
            original(module)

        patch.setattr(SegmentationTask, "on_train_epoch_start", cut)
        with pytest.raises(KeyError, match="cut off"):
            train(config, tmp_path / "cut")
    resume(tmp_path / "cut")
    tables = [(tmp_path / name / "metrics.csv").read_text() for name in ("straight", "cut")]
    assert tables[0] == tables[1]
    straight, cut_off = (
        torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"] for name in ("straight", "cut")
    )
    assert all(torch.equal(value, cut_off[name]) for name, value in straight.items())
    rows = list(csv.DictReader(tables[0].splitlines()))
    assert len(rows) == 2
    names = {f"{part}_loss_{name}" for part in ("train", "val") for name in ("class", "mask", "box_interm", "giou_dn")}
    assert names | {"val_dice_patient", "val_iou_dataset", "val_map", "train_dice_batch"} <= rows[0].keys()
    assert float(rows[1]["train_loss"]) < float(rows[0]["train_loss"])
    best = json.loads((tmp_path / "straight" / "best" / "metrics.json").read_text())
    assert best["val_map"] == max(float(row["val_map"]) for row in rows)
    assert isinstance(SegmentationModel.from_pretrained(tmp_path / "straight"), MaskDINO)


def bright(model: MaskDINO, images: torch.Tensor, *_: Any, **__: Any) -> QueryPredictions:
    """What a network might answer that knows lesions by their brightness: two readings of it, and half of the image."""
    flair = F.avg_pool2d(model._pad(images)[:, 1], 4)
    half = torch.linspace(1, -1, flair.shape[1])[:, None].expand_as(flair)
    masks = torch.stack([4 * (flair - 1.0), 4 * (flair - 1.9), half], dim=1)
    logits = (
        torch.tensor([2.0, 0.5, 1.0]).expand(len(images), -1)[..., None].expand(-1, -1, model.config["num_classes"])
    )
    boxes = torch.full((len(images), 3, 4), 0.5)
    return QueryPredictions(logits, masks, boxes, image_size=(images.shape[-2], images.shape[-1]))


@pytest.mark.parametrize("image_size", [None, (96, 64)])
def test_an_evaluation_scores_objects_as_validation_does(
    image_size: tuple[int, int] | None, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MaskDINO, "forward_queries", bright)
    config = replace(config, ema=None, data=replace(config.data, image_size=image_size))
    split = find_split(config.data, seed=config.seed)
    module = SegmentationTask(config, in_channels=3, num_classes=1).eval()
    for slices in SliceDataModule(config.data, split, seed=config.seed).val_dataloader():
        module.score(module.step(slices), slice_index=slices["slice"])
    run = tmp_path / "run"
    module.outcome.save_pretrained(run / "best")
    write_config(config, run / "config.yaml")
    write_split(split, run / "split.json")
    evaluation = evaluate(run)

    predictor = Predictor.from_pretrained(run, device="cpu")
    thresholds: dict[str, Any] = {"": None, "50": [0.5], "75": [0.75]}
    metrics: dict[str, Any] = {
        f"mask AP{name}": MeanAveragePrecision(iou_thresholds=t) for name, t in thresholds.items()
    }
    quality, objects, shown = PanopticQuality(), 0, 0
    for sample in LGGSegmentation(str(config.data.root), split["validation"], cache_dir=config.data.cache_dir):
        targets = targets_from_masks(sample["mask"][None], components=True)
        objects += len(targets[0]["labels"])
        for metric in metrics.values():
            metric.update([predictor.instances(sample["image"], min_score=None)], targets)
        found = predictor.instances(sample["image"], min_score=0.5)
        shown += len(found)
        quality.update([found], targets)
    expected = {name: metric.compute().item() for name, metric in metrics.items()}
    expected |= {"PQ, score from 0.5": quality.compute().item()}
    assert 0 < expected["PQ, score from 0.5"] < expected["mask AP"] < 1
    assert module.val_map is not None
    if image_size is None:  # else validation compares masks at that size
        assert expected["mask AP"] == pytest.approx(module.val_map.compute().item(), abs=1e-6)
    expected |= {"objects": objects, "objects found, score from 0.5": shown}
    written = json.loads((evaluation.folder / "summary.json").read_text())
    page = {cells[0][0]: cells[1][0] for cells in PageReader(evaluation.folder / "report.html").tables[1]}
    assert {name: evaluation.summary[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert {name: written[name] for name in expected} == {name: evaluation.summary[name] for name in expected}
    assert page["mask AP"] == f"{expected['mask AP']:.3f}"
    assert page["objects"] == str(objects)


def test_objects_of_several_classes_are_scored_each_and_the_background_is_not() -> None:
    spec = ModelSpec(task="multiclass", class_names=("background", "oedema", "core", "necrosis"))
    spec = replace(spec, image_size=(32, 40))  # of which 64x64 pixels are 32x32
    scores = ObjectScores(spec, ObjectsConfig(components=True, min_pixels=4))
    masks = torch.zeros(1, 64, 64, dtype=torch.long)
    masks[0, :10, :10], masks[0, 20:24, :4], masks[0, 40:43, :5] = 1, 2, 2  # of the last not 4 pixels at 32x32
    found = torch.zeros(3, 64, 64, dtype=torch.bool)
    found[0, :10, :10] = found[1, 20:24, :3] = found[2, 50:, 50:] = True
    instances = Instances(torch.tensor([0.9, 0.8, 0.4]), torch.tensor([1, 2, 2]), torch.zeros(3, 4), found)
    scores.update([instances], {"mask": masks})
    summary = scores.summary()
    assert (summary["objects"], summary["objects found, score from 0.5"]) == (2, 2)
    assert summary["mask AP, oedema"] == 1
    assert summary["mask AP, core"] == pytest.approx(0.6)  # an IoU of 0.75 is enough six times of ten
    assert summary["mask AP"] == pytest.approx(0.8)
    assert math.isnan(summary["mask AP, necrosis"])
    assert "mask AP, background" not in summary
    assert summary["mask AP75, core"] == 1
    assert summary["PQ, score from 0.5, core"] == pytest.approx(0.75)
    assert summary["PQ, score from 0.5"] == pytest.approx(0.875)


def test_objects_are_as_large_as_the_network_sees_them_in_mm() -> None:
    masks = torch.zeros(1, 1, 64, 64)
    masks[0, 0, :5, :4], masks[0, 0, 20:30, :10] = 1, 1
    nothing = Instances(torch.zeros(0), torch.zeros(0, dtype=torch.long), torch.zeros(0, 4), torch.zeros(0, 64, 64) > 0)
    counts = {}
    for stretch in (1.0, 4.0):  # of rows of 4 mm the head is 32x8 pixels of 32x32: 16 of the file are one
        scores = ObjectScores(ModelSpec(image_size=(32, 32)), ObjectsConfig(components=True, min_pixels=4))
        scores.update([nothing], {"mask": masks}, stretch=stretch)
        counts[stretch] = scores.summary()["objects"]
    assert counts == {1.0: 2, 4.0: 1}


@pytest.mark.slow
def test_two_processes_train_and_score_objects_as_one(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, ema=None, epochs=1)
    write_config(replace(config, devices=2, strategy="ddp"), tmp_path / "config.yaml")
    script, run = tmp_path / "command.py", tmp_path / "run"
    script.write_text("from brainseg.cli import main\nmain()\n")
    command = [sys.executable, str(script), "train", "--config", str(tmp_path / "config.yaml"), "--run", str(run)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    (row,) = csv.DictReader((run / "metrics.csv").read_text().splitlines())
    weights = ModelConfig("mask_dino_small", config.model.arguments, weights=str(run))
    module = SegmentationTask(replace(config, model=weights), in_channels=3, num_classes=1).eval()
    data = SliceDataModule(config.data, find_split(config.data, seed=config.seed), seed=config.seed)
    with torch.no_grad():
        for slices in data.val_dataloader():
            module.score(module.step(slices), slice_index=slices["slice"])
    assert module.val_map is not None
    assert float(row["val_map"]) == pytest.approx(float(module.val_map.compute()), abs=1e-6)
    alone = module.val_scores["dice_patient"].compute()
    assert float(row["val_dice_patient"]) == pytest.approx(float(alone), abs=1e-6)
