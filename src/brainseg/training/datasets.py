"""The data set, the split and the sampler that a configuration names."""

from collections.abc import Sequence
from pathlib import Path

from brainseg.data import (
    ForegroundSampler,
    ImageMaskFolder,
    LeakingSplit,
    LGGSegmentation,
    PatientSampler,
    SliceDataset,
    Split,
    UniformSampler,
    VolumeDataset,
    institution,
    lgg_root,
    read_column,
    read_folds,
    read_slices_leaking,
    read_split,
    split_patients,
    split_slices_leaking,
)
from brainseg.data.samplers import EpochSampler
from brainseg.data.split import Stratify, leaks
from brainseg.training.config import DataConfig

Parts = Split | LeakingSplit


def find_split(config: DataConfig, *, seed: int) -> Parts:
    """The split that the configuration names, else the data set's own split.json, else a fresh one by the seed.

    With a fold it is that of `find_folds`.

    Raises:
        FileNotFoundError: the data, the named split or the table to stratify by is not there.
        ValueError: not a split, one that leaves nobody to train or validate on, more folds than patients, or a fold
            that is none of them.
    """
    if config.fold is not None:
        folds = find_folds(config, seed=seed)
        if config.fold >= len(folds):
            raise ValueError(f"data.fold must be one of 0 to {len(folds) - 1}, got {config.fold}")
        return _trainable(folds[config.fold], f"fold {config.fold}")
    if config.split_by == "slice":
        if config.split is not None:
            return _trainable(read_slices_leaking(config.split), config.split)
        return _trainable(_split_slices(config, seed), config.root or "the data")
    if config.split is not None:
        return _trainable(read_split(config.split), config.split)
    whole = open_part(config, None, "train")
    if (own := whole.root / "split.json").is_file():
        return _trainable(read_split(own), str(own))
    stratify = groups(config, whole.root / "patients.csv")
    return _trainable(split_patients(whole.patients, validation=0.2, seed=seed, stratify=stratify), str(whole.root))


def find_folds(config: DataConfig, *, seed: int) -> list[Split]:
    """The folds that the configuration's split holds, or as many as it says, drawn by the seed.

    They are drawn from all patients outside the test part of the named split, else of the data set's own split.json.

    Raises:
        FileNotFoundError: as for `find_split`.
        ValueError: likewise.
    """
    if config.folds is None:
        assert config.split is not None
        return read_folds(config.split)
    whole = open_part(config, None, "train")
    held = _held(config, whole)
    rest = [patient for patient in whole.patients if patient not in held]
    stratify = groups(config, whole.root / "patients.csv")
    folds = split_patients(rest, seed=seed, folds=config.folds, stratify=stratify)
    return [{**fold, "test": held} for fold in folds]


def _held(config: DataConfig, whole: SliceDataset) -> list[str]:
    """The patients who are kept for the end."""
    own = whole.root / "split.json"
    named = config.split is not None or own.is_file()
    return read_split(config.split or own)["test"] if named else []


def _split_slices(config: DataConfig, seed: int) -> LeakingSplit:
    whole = open_part(config, None, "train")
    held = set(_held(config, whole))
    slices = [(files.patient, files.slice) for files in whole.files if files.patient not in held]
    train, validation = split_slices_leaking(len(slices), validation=0.2, seed=seed)
    return {"train": [slices[i] for i in train], "validation": [slices[i] for i in validation], "test": []}


def read_parts(path: str | Path) -> Parts:
    """The split of a run, by patient or by slice."""
    return read_slices_leaking(path) if leaks(path) else read_split(path)


def patients_of(split: Parts, part: str) -> set[str]:
    """The patients of a part, or of its slices."""
    return {*_patients(split[part])}


def _patients(entries: Sequence[str | tuple[str, int]]) -> list[str]:
    return [each if isinstance(each, str) else each[0] for each in entries]


def groups(config: DataConfig, table: Path) -> Stratify:
    """By what fresh splits are stratified: the institution, or the column of the table that the configuration names."""
    return institution if config.stratify is None else read_column(table, config.stratify)


def open_part(config: DataConfig, split: Parts | None, part: str) -> SliceDataset:
    """The slices of one part of a split, or all of them."""
    if split is None:
        return _open(config, None)
    chosen = split[part]
    dataset = _open(config, _patients(chosen))
    slices = [each for each in chosen if not isinstance(each, str)]
    return dataset.only(slices) if slices else dataset


def _open(config: DataConfig, patients: list[str] | None) -> SliceDataset:
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


def _trainable(split: Parts, source: str) -> Parts:
    for part in ("train", "validation"):
        if not split[part]:
            raise ValueError(f"{source} leaves nothing for {part}; a run needs some for both")
    return split
