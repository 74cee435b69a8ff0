"""What a run is made of: the fields of `config.yaml` and the options of `brainseg train`.

Does not import Lightning, so that the command line can list its options without waiting for it.
"""

import json
import math
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from brainseg._names import no_such
from brainseg._whole import written_whole
from brainseg.checks import check_counts

Task = Literal["binary", "multilabel", "multiclass"]

CONFIGS = Path(__file__).parent / "configs"


@dataclass
class ModelConfig:
    """The network.

    Attributes:
        name: a registered name; `brainseg models` lists them.
        arguments: of its constructor; in_channels and num_classes follow the data unless they are given.
        weights: to start from: folder of a run or of weights, a run's last.ckpt, a file with a state dict, the tag of
            weights that ship with the network, such as lgg of unext, hf-hub:org/name for those of a repository of the
            Hugging Face Hub, or local-dir:folder; None for a fresh initialisation.
        deep_supervision: train with a head behind every decoder box.
    """

    name: str = "unext"
    arguments: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    deep_supervision: bool = False


@dataclass
class DataConfig:
    """The slices.

    Attributes:
        root: folder of the data; None for the folder that BRAINSEG_LGG names, else ~/.cache/brainseg/lgg.
        format: lgg for Kaggle's layout, folder for images/* and masks/*, volumes for NIfTI files as BraTS or nnU-Net
            lay them out.
        split: JSON file with the patients of each part; None for split.json in the root, or where there is none a
            split of 80 to 20 per cent by the run's seed.
        split_by: patient, or slice as the published experiments did, whose scores are memory: slices of one patient
            train and validate. By slice `split` is such a run's split.json; None for 80 to 20 per cent by the run's
            seed of the slices of all patients outside the test part of split.json in the root.
        folds: number of folds of a cross-validation, drawn by the run's seed from all patients outside the split's test
            part; with `fold` in place of the split.
        fold: which of them validates, from 0; the others train. Without `folds` those of the split, if `brainseg split`
            wrote it with folds.
        stratify: column of patients.csv in the root whose groups fresh splits and folds share out in proportion; None
            for the institution that a TCGA barcode names.
        task: binary (one mask), multilabel (masks that may overlap) or multiclass (a softmax over classes that exclude
            each other, background first); None for what the masks are.
        classes: of label maps, names of the values 0, 1, ... or the value or values of each name, such as
            {"whole": [1, 2, 4], "core": [1, 4]}; names of several masks. None for classes.json in the root.
        patient_pattern: of format folder, a regular expression of the whole name of each image with a group patient;
            None for patients.csv, or folders, or a patient for each image.
        sequences: of format volumes, names of the channels in their order; None for all.
        axis: of format volumes, along which slices are cut.
        sampler: uniform shows every slice once an epoch, foreground a share of `foreground_share` with foreground,
            patient all patients equally often.
        foreground_share: of the slices that the sampler foreground shows.
        batch_size: slices a step on each device.
        image_size: height and width to which slices and masks are resized, such as [128, 96], or the side of a square;
            what has another shape, of volumes in mm, keeps it and is filled up with background. None leaves them.
        input: how channels are scaled: foreground_z_score, course, course_fixed, or none; None for what the network's
            weights were trained with, and foreground_z_score where they do not say.
        augmentation: course for flips and quarter turns, strong for those of nnU-Net, none for none.
        workers: processes that read; slices come from a memory map, so that 0 is enough for small networks.
        cache_dir: where decoded slices are kept; None for the user's cache folder.
    """

    root: str | None = None
    format: Literal["lgg", "folder", "volumes"] = "lgg"
    split: str | None = None
    split_by: Literal["patient", "slice"] = "patient"
    folds: int | None = None
    fold: int | None = None
    stratify: str | None = None
    task: Task | None = None
    classes: list[str] | dict[str, int | list[int]] | None = None
    patient_pattern: str | None = None
    sequences: list[str] | None = None
    axis: Literal["axial", "coronal", "sagittal"] = "axial"
    sampler: Literal["uniform", "foreground", "patient"] = "uniform"
    foreground_share: float = 0.5
    batch_size: int = 8
    image_size: tuple[int, int] | int | None = None
    input: str | None = None
    augmentation: Literal["course", "strong", "none"] = "course"
    workers: int = 0
    cache_dir: str | None = None

    def __post_init__(self) -> None:
        _check(self.batch_size >= 1, f"data.batch_size must be 1 or more, got {self.batch_size}")
        _check(self.workers >= 0, f"data.workers must be 0 or more, got {self.workers}")
        _check(
            0 <= self.foreground_share <= 1, f"data.foreground_share must lie in [0, 1], got {self.foreground_share}"
        )
        _check(
            self.folds is None or self.fold is not None,
            "data.folds and data.fold go together: --data.folds 5 --data.fold 0",
        )
        _check(
            self.split_by == "patient" or (self.fold is None and self.stratify is None),
            "data.split_by=slice knows no patients: it goes without data.folds, data.fold and data.stratify",
        )
        if self.fold is not None:
            known = self.folds is not None or self.split is not None
            _check(known, f"data.fold={self.fold} needs data.folds, or a data.split that holds folds (brainseg split)")
            _check(self.fold >= 0, f"data.fold must be 0 or more, got {self.fold}")
        if self.folds is not None and self.fold is not None:
            _check(self.folds >= 2, f"data.folds must be 2 or more, got {self.folds}")
            _check(self.fold < self.folds, f"data.fold must be one of 0 to {self.folds - 1}, got {self.fold}")
        for name, needed in (("patient_pattern", "folder"), ("sequences", "volumes")):
            given = getattr(self, name)
            _check(given is None or self.format == needed, f"data.{name} goes with data.format={needed}, got {given}")
        _check(
            self.classes is None or self.format != "lgg",
            "data.classes goes with data.format=folder or volumes, not lgg",
        )
        if self.image_size is not None:
            sides = (self.image_size,) * 2 if isinstance(self.image_size, int) else self.image_size
            height, width = check_counts("data.image_size", sides, 2)
            self.image_size = (height, width)

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of what the network sees, None for that of the files."""
        assert not isinstance(self.image_size, int)
        return self.image_size


@dataclass
class LossConfig:
    """The loss.

    Attributes:
        name: a class of `brainseg.losses`; None for BCEDiceLoss, for CEDiceLoss where classes exclude each other (task
            multiclass), and for networks with a criterion of their own (mask_dino_*), which take no other. There are
            BCEDiceLoss, BCELoss, BoundaryLoss, CEDiceLoss, CrossEntropyLoss, DiceFocalLoss, DiceLoss, FocalLoss,
            FocalTverskyLoss, GeneralizedDiceLoss, JaccardLoss, LovaszLoss, MCCLoss, SoftClDiceLoss, TverskyLoss.
        arguments: of its constructor, which keeps its own defaults for those that are not given; None for the recipe's
            {batch: true, smooth: 1.0} of BCEDiceLoss, and none for every other loss.
    """

    name: str | None = None
    arguments: dict[str, Any] | None = None

    def decided(self, *, multiclass: bool) -> "LossConfig":
        """With the name and the arguments that a run of this task has."""
        name = self.name or ("CEDiceLoss" if multiclass else "BCEDiceLoss")
        recipe = {"batch": True, "smooth": 1.0} if name == "BCEDiceLoss" else {}
        return LossConfig(name, recipe if self.arguments is None else self.arguments)


@dataclass
class ObjectsConfig:
    """The objects of a mask, for networks that answer with objects (mask_dino_*).

    Attributes:
        components: each connected component of a mask (8 neighbours) is an object; else each mask is one.
        min_pixels: smaller objects are left out, of those that are learned and of those that val_map counts.
    """

    components: bool = False
    min_pixels: int = 1

    def __post_init__(self) -> None:
        _check(self.min_pixels >= 1, f"objects.min_pixels must be 1 or more, got {self.min_pixels}")


@dataclass
class OptimizerConfig:
    """The optimiser.

    Attributes:
        name: AdamW; Adam, which adds the weight decay to the gradient (L2); SGD; or the class path of another, such as
            torch.optim.NAdam.
        lr: learning rate at the start.
        weight_decay: factor of the weights; None for the optimiser's own, 0.01 of AdamW and 0 of Adam and SGD.
        momentum: of SGD.
        nesterov: of SGD.
        arguments: of its constructor, besides those above, such as {betas: [0.9, 0.95]}.
        multipliers: of the learning rate in modules of the network by name, such as {encoder: 0.1}.
        layer_decay: factor of the learning rate from each layer of the encoder to the one before it, such as 0.75;
            decoder and heads learn at the rate itself. None for one rate.
        clip_norm: the norm to which larger gradients are cut; None for none.
    """

    name: str = "AdamW"
    lr: float = 1e-3
    weight_decay: float | None = None
    momentum: float = 0.9
    nesterov: bool = False
    arguments: dict[str, Any] = field(default_factory=dict)
    multipliers: dict[str, float] = field(default_factory=dict)
    layer_decay: float | None = None
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        known = ("Adam", "AdamW", "SGD")
        _check("." in self.name or self.name in known, f"{no_such('optimizer', self.name, known)} or a class path")
        _check(0 < self.lr < math.inf, f"optimizer.lr must be a number above 0, got {self.lr}")
        decay = self.weight_decay
        _check(decay is None or 0 <= decay < math.inf, f"optimizer.weight_decay must be a number from 0, got {decay}")
        _check(0 <= self.momentum < math.inf, f"optimizer.momentum must be a number from 0, got {self.momentum}")
        _check(self.momentum > 0 or not self.nesterov, "optimizer.nesterov needs a momentum above 0")
        for module, multiplier in self.multipliers.items():
            number = f"optimizer.multipliers must be numbers from 0, got {multiplier} for {module}"
            _check(0 <= multiplier < math.inf, number)
        decay = self.layer_decay
        _check(decay is None or 0 < decay <= 1, f"optimizer.layer_decay must lie between 0 and 1, got {decay}")
        clip = self.clip_norm
        _check(clip is None or 0 < clip < math.inf, f"optimizer.clip_norm must be a number above 0, got {clip}")


@dataclass
class ScheduleConfig:
    """How the learning rate goes on, epoch by epoch.

    Attributes:
        name: cosine to `minimum_lr` over all epochs; poly there by a power of the part that is left; plateau multiplies
            by `factor` when the validation loss has not fallen for longer than `patience` epochs, not below
            `minimum_lr`; multistep multiplies by `gamma` at each of `milestones`; constant.
        warmup: epochs in which the rate rises evenly to that of the start; not of plateau.
        minimum_lr: of cosine, poly and plateau.
        power: of poly.
        factor: of plateau.
        patience: of plateau, in epochs.
        milestones: of multistep, in epochs.
        gamma: of multistep.
    """

    name: Literal["cosine", "poly", "plateau", "multistep", "constant"] = "cosine"
    warmup: int = 0
    minimum_lr: float = 1e-5
    power: float = 0.9
    factor: float = 0.1
    patience: int = 2
    milestones: list[int] = field(default_factory=lambda: [1, 2])
    gamma: float = 2 / 3

    def __post_init__(self) -> None:
        _check(self.warmup >= 0, f"schedule.warmup must be 0 or more epochs, got {self.warmup}")
        _check(self.name != "plateau" or not self.warmup, "schedule.warmup goes with schedules that know their epochs")
        _check(0 < self.power < math.inf, f"schedule.power must be a number above 0, got {self.power}")
        _check(0 < self.factor < 1, f"schedule.factor must lie between 0 and 1, got {self.factor}")
        _check(self.patience >= 0, f"schedule.patience must be 0 or more, got {self.patience}")
        _check(0 <= self.minimum_lr < math.inf, f"schedule.minimum_lr must be a number from 0, got {self.minimum_lr}")
        _check(0 < self.gamma < math.inf, f"schedule.gamma must be a number above 0, got {self.gamma}")


@dataclass
class TrainConfig:
    """A run.

    Attributes:
        model: the network.
        data: the slices.
        loss: what is minimised.
        objects: what networks that answer with objects are to find.
        optimizer: how.
        schedule: with which learning rates.
        epochs: how often every training slice is seen.
        monitor: column of metrics.csv that names the best epoch: val_loss (lowest), or val_dice_ or val_iou_ with
            slice, patient, dataset or batch, of several classes val_dice_patient_ with the name of one, of mask_dino_*
            val_map (highest; of equal ones that with the lowest val_loss).
        patience: stop after so many epochs without a better `monitor`; None never stops early.
        ema: share of its past that the running mean of the weights keeps at each step, such as 0.999; the mean is then
            what is validated and saved as best. None for the weights themselves.
        seed: of weights, order and augmentation.
        precision: Lightning's: 32-true, bf16-mixed, 16-mixed, bf16-true, 16-true, 64-true.
        accelerator: Lightning's: auto, cpu, gpu.
        devices: how many on each machine, or auto.
        nodes: how many machines.
        strategy: Lightning's: auto, ddp.
        logger: Lightning's: csv, tensorboard or wandb, each epoch's values to `logs` in the run's folder.
        callbacks: Lightning's or one's own, each by {class_path: ..., init_args: {...}}.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    objects: ObjectsConfig = field(default_factory=ObjectsConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    epochs: int = 20
    monitor: str = "val_dice_patient"
    patience: int | None = None
    ema: float | None = None
    seed: int = 0
    precision: str = "32-true"
    accelerator: str = "auto"
    devices: int | Literal["auto"] = "auto"
    nodes: int = 1
    strategy: str = "auto"
    logger: Literal["csv", "tensorboard", "wandb"] | None = None
    callbacks: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        _check(self.epochs >= 1, f"epochs must be 1 or more, got {self.epochs}")
        _check(self.patience is None or self.patience >= 1, f"patience must be 1 or more or null, got {self.patience}")
        _check(self.devices == "auto" or self.devices >= 1, f"devices must be 1 or more or auto, got {self.devices}")
        _check(self.ema is None or 0 < self.ema < 1, f"ema must lie between 0 and 1, got {self.ema}")
        _check(self.nodes >= 1, f"nodes must be 1 or more, got {self.nodes}")
        _check(self.schedule.warmup < self.epochs, f"schedule.warmup must end before {self.epochs} epochs are over")
        falls = self.schedule.name in ("constant", "multistep") or self.schedule.minimum_lr <= self.optimizer.lr
        _check(falls, f"schedule.minimum_lr {self.schedule.minimum_lr} is above optimizer.lr {self.optimizer.lr}")


def _check(right: bool, message: str) -> None:
    if not right:
        raise ValueError(message)


def shipped_configs() -> list[str]:
    """Names of the configurations that come with the package."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def read_config(path: Path) -> TrainConfig:
    """Reads a run's config.yaml.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a configuration, or fields that are unknown or of another type.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    if not path.is_file():
        raise FileNotFoundError(f"there is no configuration {path}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TrainConfig)
    try:
        return to_config(parser.instantiate(parser.parse_path(path)))
    except (ArgumentError, TypeError) as error:
        raise ValueError(f"{path} is no configuration of a run: {' '.join(str(error).split())}") from error


def to_config(options: Any) -> TrainConfig:
    """The configuration among parsed options."""
    return TrainConfig(**{option.name: options[option.name] for option in fields(TrainConfig)})


def write_config(config: TrainConfig, path: Path) -> None:
    """Writes config.yaml for `read_config`, in one move."""
    import yaml  # type: ignore[import-untyped]

    with written_whole(path) as partial:
        partial.write_text(yaml.safe_dump(plain(config), sort_keys=False))


def decided(config: TrainConfig) -> TrainConfig:
    """The configuration with what it leaves open decided, but for the loss, and paths that hold wherever it is read.

    Raises:
        ValueError: fields that were set to something that cannot be.
    """
    root = config.data.root
    if root is None and config.data.format == "lgg":
        from brainseg.data import lgg_root

        root = str(lgg_root())
    return replace(
        config,
        model=replace(config.model, weights=_weights(config.model)),
        data=replace(
            config.data,
            root=_absolute(root),
            split=_absolute(config.data.split),
            cache_dir=_absolute(config.data.cache_dir),
        ),
        optimizer=replace(config.optimizer),
        schedule=replace(config.schedule),
    )


def _absolute(path: str | None) -> str | None:
    return None if path is None else str(Path(path).expanduser().absolute())


def _weights(config: ModelConfig) -> str | None:
    from brainseg.models import hub

    given = config.weights
    if given is None or given.startswith(hub.PREFIX):
        return given
    return shipped_tag(config) or _absolute(given.removeprefix(hub.LOCAL))


def shipped_tag(config: ModelConfig) -> str | None:
    """The tag of weights that ship with the network, if these are meant: by tag, or by a name that no folder has."""
    from brainseg.models import list_weights

    given = config.weights or ""
    tag = given.removeprefix(f"{config.name}/")
    meant = given == tag or not Path(given).exists()
    return tag if meant and f"{config.name}/{tag}" in list_weights() else None


def plain(config: TrainConfig) -> dict[str, Any]:
    """The configuration as JSON values."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return values
