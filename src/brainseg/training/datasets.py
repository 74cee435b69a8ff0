"""The data set and the split that a configuration names."""

from brainseg.data import ImageMaskFolder, LGGSegmentation, SliceDataset, Split, lgg_root, read_split, split_patients
from brainseg.training.config import DataConfig


def find_split(config: DataConfig, *, seed: int) -> Split:
    """The split that the configuration names, else the data set's own split.json, else a fresh one by the seed.

    Raises:
        FileNotFoundError: the data or the named split is not there.
        ValueError: not a split, or one that leaves nobody to train or validate on.
    """
    if config.split is not None:
        return _trainable(read_split(config.split), config.split)
    whole = open_part(config, None, "train")
    if (own := whole.root / "split.json").is_file():
        return _trainable(read_split(own), str(own))
    return _trainable(split_patients(whole.patients, validation=0.2, seed=seed), str(whole.root))


def open_part(config: DataConfig, split: Split | None, part: str) -> SliceDataset:
    """The slices of one part of a split, or all of them."""
    patients = None if split is None else split[part]
    if config.format == "lgg":
        return LGGSegmentation(config.root or lgg_root(), patients, cache_dir=config.cache_dir)
    if config.root is None:
        raise ValueError("data.format=folder needs data.root, the folder that holds images and masks")
    return ImageMaskFolder(config.root, patients, cache_dir=config.cache_dir)


def _trainable(split: Split, source: str) -> Split:
    for part in ("train", "validation"):
        if not split[part]:
            raise ValueError(f"{source} leaves no patient for {part}; a run needs some for both")
    return split
