"""Configurations: written and read back, and those that ship are the published ones."""

import re
from pathlib import Path

import pytest
import torch

from brainseg import losses
from brainseg.models import create_model
from brainseg.training import SegmentationTask, TrainConfig, read_config, shipped_configs, write_config
from brainseg.training.config import CONFIGS, DataConfig, LossConfig, ModelConfig, ScheduleConfig, decided
from brainseg.training.inputs import INPUTS


def test_a_configuration_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    config = TrainConfig(
        model=ModelConfig(name="unext_small", arguments={"drop": 0.1}, deep_supervision=True),
        data=DataConfig(root="here", image_size=(128, 96)),
        loss=LossConfig(name="DiceLoss", arguments={"smooth": 2.0}),
        schedule=ScheduleConfig(name="multistep", milestones=[3, 5]),
        patience=4,
        devices="auto",
    )
    write_config(config, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml") == config


def test_the_side_of_a_square_is_its_height_and_width(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data: {image_size: 64}")
    assert read_config(tmp_path / "config.yaml").data.size == DataConfig(image_size=64).size == (64, 64)


def test_the_data_folder_that_is_used_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAINSEG_LGG", str(tmp_path / "slices"))
    assert decided(TrainConfig()).data.root == str(tmp_path / "slices")
    monkeypatch.delenv("BRAINSEG_LGG")
    assert decided(TrainConfig()).data.root == str(Path.home() / ".cache" / "brainseg" / "lgg")
    monkeypatch.chdir(tmp_path)
    assert decided(TrainConfig(data=DataConfig(root="here"))).data.root == str(tmp_path / "here")


@pytest.mark.parametrize("weights", ["lgg", "unext/lgg"])
def test_weights_that_ship_are_no_file(weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lgg").mkdir()  # such as that of the data
    config = decided(TrainConfig(model=ModelConfig(name="unext", weights=weights)))
    assert config.model.weights == "lgg"
    module = SegmentationTask(config, in_channels=3, num_classes=1)
    assert torch.equal(module.model.head.weight, create_model("unext", weights="lgg").head.weight)
    assert module.model.spec.normalization == create_model("unext", weights="lgg").spec.normalization
    (tmp_path / "unext" / "lgg").mkdir(parents=True)
    folder = decided(TrainConfig(model=ModelConfig(name="unext", weights="unext/lgg"))).model.weights
    assert folder == str(tmp_path / "unext" / "lgg")


def test_every_name_of_a_loss_and_an_input_is_documented() -> None:
    words = set(re.findall(r"\w+", f"{LossConfig.__doc__} {DataConfig.__doc__}"))
    assert {*INPUTS, *(name for name in losses.__all__ if name.endswith("Loss"))} - words == {"DeepSupervisionLoss"}


def test_the_configurations_that_ship_are_named() -> None:
    assert shipped_configs() == ["course", "course_2", "course_3", "course_fixed", "mask_dino_lgg"]


@pytest.mark.parametrize(
    ("name", "source", "batch_size", "lr"),
    [
        ("course", "course", 8, 1e-4),
        ("course_2", "course", 8, 1e-2),
        ("course_3", "course", 16, 1e-4),
        ("course_fixed", "course_fixed", 8, 1e-4),
    ],
)
def test_shipped_configurations_are_the_published_ones(name: str, source: str, batch_size: int, lr: float) -> None:
    config = read_config(CONFIGS / f"{name}.yaml")
    assert (config.model.name, config.model.deep_supervision, config.epochs) == ("unext", False, 20)
    assert (config.data.batch_size, config.data.augmentation, config.data.input) == (batch_size, "course", source)
    assert (config.loss.name, config.loss.arguments, config.monitor) == ("BCEDiceLoss", {}, "val_iou_batch")
    assert (config.optimizer.name, config.optimizer.lr, config.optimizer.weight_decay) == ("Adam", lr, 1e-4)
    assert (config.schedule.name, config.schedule.minimum_lr) == ("cosine", 1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: many", "epochs"),
        ("epoch: 3", "epoch"),
        ("data: {batch_size: [1]}", "batch_size"),
        ("optimizer: {name: Adagrad}", "Adagrad"),
        ("epochs: 0", "epochs must be 1 or more, got 0"),
        ("patience: 0", "patience must be 1 or more or null"),
        ("devices: 0", "devices must be 1 or more or auto"),
        ("data: {batch_size: 0}", "data.batch_size must be 1 or more"),
        ("data: {workers: -1}", "data.workers must be 0 or more"),
        ("data: {image_size: 0}", "data.image_size must be a positive integer, got 0"),
        ("data: {image_size: [64, -1]}", "data.image_size must be a positive integer, got -1"),
        ("optimizer: {lr: .inf}", "optimizer.lr must be a number above 0, got inf"),
        ("optimizer: {weight_decay: .nan}", "optimizer.weight_decay must be a number from 0, got nan"),
        ("optimizer: {momentum: -0.9}", "optimizer.momentum must be a number from 0"),
        ("schedule: {gamma: 0.0}", "schedule.gamma must be a number above 0"),
        ("schedule: {minimum_lr: -1.0}", "schedule.minimum_lr must be a number from 0"),
        ("optimizer: {lr: -1.0}", "optimizer.lr must be a number above 0"),
        ("optimizer: {nesterov: true, momentum: 0.0}", "needs a momentum"),
        ("optimizer: {lr: 1.0e-6}", "minimum_lr 1e-05 is above optimizer.lr 1e-06"),
        ("schedule: {factor: 2.0}", "factor must lie between 0 and 1"),
        ("epochs: [", "config.yaml"),
        ("\x00", "config.yaml"),
    ],
)
def test_what_is_no_configuration_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_config(path)
    assert "\n" not in str(caught.value)


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no configuration .*nowhere.yaml"):
        read_config(tmp_path / "nowhere.yaml")
