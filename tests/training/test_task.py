"""The task: optimisers, schedules, losses and metrics by name, each as the configuration says."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from brainseg import losses
from brainseg.cli.train import parser
from brainseg.losses import BCEDiceLoss, CEDiceLoss, DeepSupervisionLoss
from brainseg.models import ModelSpec, UNeXt, create_model
from brainseg.training import SegmentationTask, TrainConfig, read_config
from brainseg.training.config import (
    DataConfig,
    LossConfig,
    ModelConfig,
    to_config,
)
from brainseg.training.task import augmented
from brainseg.transforms import course_augmentation, strong_augmentation


def task(**changes: object) -> SegmentationTask:
    config = TrainConfig(model=ModelConfig(name="unext_tiny"), **changes)  # type: ignore[arg-type]
    return SegmentationTask(config, in_channels=3, num_classes=1)


@pytest.mark.parametrize("name", ["course", "strong", "none"])
def test_augmentation_is_the_configured_one(name: str) -> None:
    parts = {"course": course_augmentation().config, "strong": strong_augmentation().config, "none": None}
    augmentation = task(data=DataConfig(augmentation=name)).augmentation  # type: ignore[arg-type]
    assert (None if augmentation is None else augmentation.config) == parts[name]


def by_command(options: list[str]) -> TrainConfig:
    command = parser()
    return to_config(command.instantiate(command.parse_args(options)))


LOSSES = [
    name for name in losses.__all__ if name.endswith("Loss") and name not in ("DeepSupervisionLoss", "BCEDiceLoss")
]


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_that_is_named_has_its_own_defaults(name: str, tmp_path: Path) -> None:
    """By option, by file and in Python; and it trains."""
    (tmp_path / "config.yaml").write_text(f"loss: {{name: {name}}}")
    by_option = by_command(["--loss.name", name]).loss
    expected = getattr(losses, name)()
    for config in (by_option, read_config(tmp_path / "config.yaml").loss, LossConfig(name=name)):
        module = task(loss=config)
        assert repr(module.loss) == repr(expected)
    batch = {"image": torch.rand(2, 3, 32, 32), "mask": torch.rand(2, 1, 32, 32).round()}
    step = module.step(batch, torch.Generator())
    step.loss.backward()
    assert step.loss.isfinite()
    assert module.model.head.weight.grad.abs().sum() > 0


def test_the_default_loss_has_the_arguments_of_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("loss: {name: BCEDiceLoss}")
    by_option = by_command(["--loss.name", "BCEDiceLoss"]).loss
    for config in (LossConfig(), by_option, read_config(tmp_path / "config.yaml").loss):
        assert repr(task(loss=config).loss) == repr(BCEDiceLoss(batch=True, smooth=1.0))
    assert repr(task(loss=LossConfig(arguments={})).loss) == repr(BCEDiceLoss())
    assert repr(task(loss=LossConfig(arguments={"smooth": 2.0})).loss) == repr(BCEDiceLoss(smooth=2.0))


@pytest.fixture(scope="module")
def multiclass(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a network of background, oedema and core."""
    folder = tmp_path_factory.mktemp("multiclass")
    model = create_model("unext_tiny", num_classes=3)
    model.spec = ModelSpec(task="multiclass", class_names=("background", "oedema", "core"))
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("masks", [2, 3])
def test_classes_that_exclude_each_other_train_by_softmax_and_are_scored_by_the_likeliest(
    multiclass: Path, masks: int
) -> None:
    config = TrainConfig(model=ModelConfig(name="unext_tiny", weights=str(multiclass)))
    module = SegmentationTask(
        config, in_channels=3, num_classes=masks, class_names=[f"class_{k}" for k in range(masks)]
    )
    assert module.model.spec.task == "multiclass"
    assert module.model.spec.class_names == ("background", "oedema", "core")
    assert (module.run.loss.name, repr(module.loss)) == ("CEDiceLoss", repr(CEDiceLoss()))
    generator = torch.Generator().manual_seed(0)
    indices = torch.randint(3, (2, 32, 32), generator=generator)
    every = F.one_hot(indices, 3).movedim(-1, 1).float()
    batch = {"image": torch.rand(2, 3, 32, 32, generator=generator), "mask": every[:, 3 - masks :]}
    step = module.eval().step(batch)
    torch.testing.assert_close(step.parts["ce"], F.cross_entropy(step.logits, indices))
    found, true, _ = step.masks(module.model.spec)
    likeliest = step.logits.argmax(1)
    assert torch.equal(found, torch.stack([likeliest == 1, likeliest == 2], dim=1))
    assert torch.equal(true, every[:, 1:].bool())
    assert module.val_scores["dice_patient"].num_classes == 2


@pytest.mark.parametrize("name", [*LOSSES, "BCEDiceLoss"])
def test_pixels_that_do_not_count_have_no_gradient(name: str) -> None:
    module = task(loss=LossConfig(name=name), data=DataConfig(augmentation="none"))
    logits = torch.zeros(2, 1, 32, 32, requires_grad=True)
    valid = torch.ones(2, 1, 32, 32, dtype=torch.bool)
    valid[..., :16] = False
    target = torch.rand(2, 1, 32, 32).round()
    loss, _ = module.compute_loss(logits, target, valid=valid)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[..., :16].abs().max() == 0
    assert gradient[..., 16:].abs().max() > 0


def test_where_pixels_count_is_moved_with_the_images() -> None:
    images = torch.rand(2, 3, 32, 32)
    valid = images[:, :1] > 0.5
    batch = {"image": images, "mask": (images[:, 1:2] > 0.5).float(), "valid": valid}
    moved = augmented(batch, course_augmentation(), torch.Generator().manual_seed(1))
    assert not torch.equal(moved["image"], images)
    assert torch.equal(moved["valid"], moved["image"][:, :1] > 0.5)
    assert torch.equal(moved["mask"], (moved["image"][:, 1:2] > 0.5).float())


def test_what_a_data_set_says_of_its_masks_is_taken_over() -> None:
    names = ("background", "oedema", "core")
    module = SegmentationTask(
        TrainConfig(model=ModelConfig(name="unext_tiny")),
        in_channels=3,
        num_classes=3,
        task="multiclass",
        class_names=names,
    )
    assert (module.model.spec.task, module.model.spec.class_names) == ("multiclass", names)
    assert {"val_loss", "val_iou_batch", "val_dice_patient", "val_dice_patient_core"} <= set(module.monitors)
    single = SegmentationTask(
        TrainConfig(model=ModelConfig(name="unext_tiny")), in_channels=3, num_classes=1, class_names=("tumour",)
    )
    assert single.model.spec.class_names == ("tumour",)


def test_deep_supervision_trains_every_head() -> None:
    module = task()
    assert isinstance(module.loss, BCEDiceLoss)
    config = TrainConfig(model=ModelConfig(name="unext_tiny", deep_supervision=True))
    deep = SegmentationTask(config, in_channels=3, num_classes=1)
    assert isinstance(deep.loss, DeepSupervisionLoss)
    logits = deep.train()(torch.rand(2, 3, 32, 32))
    total, parts = deep.compute_loss(logits, torch.zeros(2, 1, 32, 32))
    total.backward()
    assert set(parts) == {"bce", "dice"}
    assert all(head.weight.grad.abs().sum() > 0 for head in deep.model.auxiliary_heads)


def test_the_network_follows_the_data_unless_its_arguments_are_given() -> None:
    module = SegmentationTask(TrainConfig(), in_channels=3, num_classes=2)
    assert (module.model.config["in_channels"], module.model.config["num_classes"]) == (3, 2)


def test_training_starts_from_weights(tmp_path: Path) -> None:
    saved = UNeXt(channels=(8, 16, 24, 32, 64))
    saved.save_pretrained(tmp_path / "weights")
    config = TrainConfig(model=ModelConfig(name="unext_tiny", weights=str(tmp_path / "weights")))
    module = SegmentationTask(config, in_channels=3, num_classes=1)
    for name, value in module.model.state_dict().items():
        torch.testing.assert_close(value, saved.state_dict()[name], rtol=0, atol=0)


def test_the_input_is_that_of_the_weights_unless_one_is_named(tmp_path: Path) -> None:
    trained = {"name": "Normalize", "arguments": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    model = create_model("unext_tiny")
    model.normalization = trained
    model.save_pretrained(tmp_path / "weights")
    weights = ModelConfig(name="unext_tiny", weights=str(tmp_path / "weights"))
    module = SegmentationTask(TrainConfig(model=weights), in_channels=3, num_classes=1)
    assert module.model.normalization == trained
    assert module.input is not None
    assert module.input.config == trained
    named = TrainConfig(model=weights, data=DataConfig(input="none"))
    assert SegmentationTask(named, in_channels=3, num_classes=1).model.normalization is None
    assert task().model.normalization == {"name": "ForegroundZScore", "arguments": {"fraction": 0.1}}


def test_a_run_from_weights_that_see_a_part_trains_and_scores_whole_slices() -> None:
    config = TrainConfig(model=ModelConfig(name="unext", weights="lgg"), data=DataConfig(image_size=64))
    module = SegmentationTask(config, in_channels=3, num_classes=1)
    assert (module.model.spec.image_size, module.model.spec.crop) == ((64, 64), None)


def test_the_normalization_is_saved_with_the_network() -> None:
    assert task(data=DataConfig(input="course_fixed")).model.normalization == {
        "name": "Normalize",
        "arguments": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    }


def test_channels_and_axis_are_those_of_the_volumes_in_the_order_of_the_weights(tmp_path: Path) -> None:
    data = DataConfig(format="volumes", axis="coronal")
    names, classes = ("t1", "Flair", "t1ce"), {"in_channels": 3, "num_classes": 1}
    module = SegmentationTask(TrainConfig(data=data), channel_names=names, **classes)
    assert (module.model.spec.channel_names, module.model.spec.axis) == (names, "coronal")
    module.model.save_pretrained(tmp_path / "weights")
    again = TrainConfig(data=data, model=ModelConfig(weights=str(tmp_path / "weights")))
    with pytest.raises(
        ValueError, match="the weights take the channels t1, Flair, t1ce, and the data gives flair, t1, t"
    ):
        SegmentationTask(again, channel_names=("flair", "t1", "t1ce"), **classes)
    others = SegmentationTask(again, channel_names=("t1", "flair", "t2"), **classes)  # to learn from others is a choice
    assert others.model.spec.channel_names == ("t1", "flair", "t2")
    images = replace(again, data=DataConfig(format="folder"))
    assert SegmentationTask(images, **classes).model.spec == module.model.spec
    assert SegmentationTask(images, in_channels=1, num_classes=1).model.spec.channel_names is None


def test_names_that_nobody_chose_do_not_replace_those_of_the_weights(tmp_path: Path) -> None:
    model = create_model("unext_tiny")
    model.spec = ModelSpec(class_names=("tumour",))
    model.save_pretrained(tmp_path / "weights")
    config = TrainConfig(model=ModelConfig(name="unext_tiny", weights=str(tmp_path / "weights")))
    for names, expected in ((["label_1"], "tumour"), (["foreground"], "tumour"), (["lesion"], "lesion")):
        module = SegmentationTask(config, in_channels=3, num_classes=1, class_names=names)
        assert module.model.spec.class_names == (expected,)


@pytest.mark.parametrize(("layout", "channel"), [("lgg", 1), ("folder", None)])
def test_pictures_of_lgg_slices_show_flair(layout: str, channel: int | None) -> None:
    assert task(data=DataConfig(format=layout)).model.spec.shown_channel == channel  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": ModelConfig(name="unet3")}, "no model 'unet3'; did you mean"),
        ({"model": ModelConfig(arguments={"depth": 3})}, "model.arguments do not fit unext: .*depth"),
        ({"loss": LossConfig(name="BCEDice")}, "no loss 'BCEDice'; did you mean BCEDiceLoss"),
        ({"loss": LossConfig(arguments={"smoth": 1})}, "loss.arguments do not fit BCEDiceLoss: .*smoth"),
    ],
)
def test_unknown_names_and_arguments_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SegmentationTask(replace(TrainConfig(), **changes), in_channels=3, num_classes=1)  # type: ignore[arg-type]
