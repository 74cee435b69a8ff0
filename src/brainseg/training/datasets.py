"""The data set, the split and the sampler that a configuration names."""

from brainseg.data import (
    ForegroundSampler,
    ImageMaskFolder,
    LGGSegmentation,
    PatientSampler,
    SliceDataset,
    Split,
    UniformSampler,
    VolumeDataset,
    institution,
    lgg_root,
    read_column,
    read_split,
    split_patients,
)
from brainseg.data.samplers import EpochSampler
from brainseg.training.config import DataConfig


def find_split(config: DataConfig, *, seed: int) -> Split:
    """The split that the configuration names, else the data set's own split.json, else a fresh one by the seed.

    With folds one of these is drawn by the seed, and of the split only the test part is kept.

    Raises:
        FileNotFoundError: the data, the named split or the table to stratify by is not there.
        ValueError: not a split, one that leaves nobody to train or validate on, or more folds than patients.
    """
    if config.split is not None and config.folds is None:
        return _trainable(read_split(config.split), config.split)
    whole = open_part(config, None, "train")
    own = whole.root / "split.json" if config.split is None else config.split
    known = read_split(own) if config.split is not None or (whole.root / "split.json").is_file() else None
    if known is not None and config.folds is None:
        return _trainable(known, str(own))
    table = whole.root / "patients.csv"
    stratify = institution if config.stratify is None else read_column(table, config.stratify)
    if config.folds is None:
        return _trainable(split_patients(whole.patients, validation=0.2, seed=seed, stratify=stratify), str(whole.root))
    assert config.fold is not None
    held = [] if known is None else known["test"]
    rest = [patient for patient in whole.patients if patient not in held]
    fold = split_patients(rest, seed=seed, folds=config.folds, stratify=stratify)[config.fold]
    return {**fold, "test": held}


def open_part(config: DataConfig, split: Split | None, part: str) -> SliceDataset:
    """The slices of one part of a split, or all of them."""
    patients = None if split is None else split[part]
    if config.format == "lgg":
        return LGGSegmentation(config.root or lgg_root(), patients, task=config.task, cache_dir=config.cache_dir)
    if config.root is None:
        holds = "images and masks" if config.format == "folder" else "the cases, or imagesTr and labelsTr"
        raise ValueError(f"data.format={config.format} needs data.root, the folder that holds {holds}")
    if config.format == "volumes":
        return VolumeDataset(
            config.root,
            patients,
            sequences=config.sequences,
            labels=config.classes,
            axis=config.axis,
            task=config.task,
            cache_dir=config.cache_dir,
        )
    return ImageMaskFolder(
        config.root,
        patients,
        patient_pattern=config.patient_pattern,
        classes=config.classes,
        task=config.task,
        cache_dir=config.cache_dir,
    )


def create_sampler(config: DataConfig, dataset: SliceDataset, *, seed: int, world: int, rank: int) -> EpochSampler:
    """The order of the training slices."""
    match config.sampler:
        case "uniform":
            return UniformSampler(dataset, seed=seed, world=world, rank=rank)
        case "foreground":
            return ForegroundSampler(dataset, share=config.foreground_share, seed=seed, world=world, rank=rank)
        case "patient":
            return PatientSampler(dataset, seed=seed, world=world, rank=rank)


def _trainable(split: Split, source: str) -> Split:
    for part in ("train", "validation"):
        if not split[part]:
            raise ValueError(f"{source} leaves no patient for {part}; a run needs some for both")
    return split
