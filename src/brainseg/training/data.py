"""The slices of a run, as Lightning wants them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Sampler, default_collate

from brainseg.data import Sample, SliceDataset
from brainseg.training.config import DataConfig
from brainseg.training.datasets import Parts, create_sampler, open_part
from brainseg.transforms import Resize


class SliceDataModule(LightningDataModule):
    """Training and validation slices of a split.

    Training slices are drawn by seed and epoch alone, so that a resumed run sees them in the same order; an incomplete
    last batch is left out. Validation takes each slice once, on however many processes.

    Args:
        config: the data section of a run.
        split: patients of each part, or slices.
        seed: of the order.
        keep_aspect_ratio: as in `ModelSpec`; runs from before there was a choice go on with stretched slices.
    """

    def __init__(self, config: DataConfig, split: Parts, *, seed: int, keep_aspect_ratio: bool = True) -> None:
        super().__init__()
        self.config, self.seed = config, seed
        self.train_set = open_part(config, split, "train")
        self.val_set = open_part(config, split, "validation")
        stretches = _stretches(self.train_set) | _stretches(self.val_set)
        self.collate = Collate(config.size, keep_aspect_ratio=keep_aspect_ratio, stretches=stretches)
        _check_shapes([*self.train_set.shapes, *self.val_set.shapes], one_size=config.size is None)

    def train_dataloader(self) -> DataLoader[Sample]:
        world, rank = self._processes()
        sampler = create_sampler(self.config, self.train_set, seed=self.seed, world=world, rank=rank)
        return self._loader(self.train_set, batch_size=self.config.batch_size, sampler=sampler, drop_last=True)

    def check_share(self, world: int) -> None:
        """Raises ValueError if one of so many processes has no whole batch to train on, or no slice to validate."""
        if self.config.batch_size > (share := len(self.train_set) // world):
            raise ValueError(
                f"a batch of {self.config.batch_size} slices is more than there are to train on: {share} for each of "
                f"{world} process(es); give a smaller data.batch_size"
            )
        if len(self.val_set) < world:
            EvenBatches(len(self.val_set), self.config.batch_size, world=world, rank=0)  # which says what is wrong

    def val_dataloader(self) -> DataLoader[Sample]:
        world, rank = self._processes()
        if world == 1:
            return self._loader(self.val_set, batch_size=self.config.batch_size)
        batches = EvenBatches(len(self.val_set), self.config.batch_size, world=world, rank=rank)
        return self._loader(self.val_set, batch_sampler=batches)

    def _processes(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def _loader(self, dataset: SliceDataset, **arguments: Any) -> DataLoader[Sample]:
        workers = self.config.workers
        return DataLoader(
            dataset,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=self.collate,
            # Loaders seed their workers from torch's own state by default, and a resumed run makes other loaders.
            generator=torch.Generator(),
            **arguments,
        )


class Collate:
    """Samples to a batch, resized if a size is given.

    Args:
        size: height and width, or None to leave them.
        keep_aspect_ratio: as in `Resize`; pixels that fill up are background.
        stretches: as in `Resize`, of patients whose pixels are no squares.
    """

    def __init__(
        self, size: tuple[int, int] | None, *, keep_aspect_ratio: bool, stretches: Mapping[str, float] | None = None
    ) -> None:
        def resize(stretch: float) -> Resize | None:
            return None if size is None else Resize(size, keep_aspect_ratio=keep_aspect_ratio, stretch=stretch)

        self.resize = resize(1.0)
        self.of_patients = {patient: resize(stretch) for patient, stretch in (stretches or {}).items()}

    def __call__(self, samples: list[Sample]) -> dict[str, Any]:
        if self.resize is not None:
            samples = [self._resized(sample) for sample in samples]
        batch: dict[str, Any] = default_collate(samples)
        return batch

    def _resized(self, sample: Sample) -> Sample:
        resize = self.of_patients.get(sample["patient"], self.resize)
        assert resize is not None
        images, masks = resize(sample["image"][None], sample["mask"][None])
        resized: Sample = {**sample, "image": images[0], "mask": masks[0]}
        if "valid" in sample:
            resized["valid"] = resize(sample["image"][None], sample["valid"][None])[1][0]
        return resized


def _stretches(dataset: SliceDataset) -> dict[str, float]:
    """Of the patients whose pixels are no squares."""
    each = zip(dataset.files, dataset.stretches, strict=True)
    return {files.patient: stretch for files, stretch in each if stretch != 1}


class EvenBatches(Sampler[list[int]]):
    """Every index once, shared over the processes in equal numbers of batches.

    Equal numbers, since a process that ran out of batches would leave the others waiting for its buffers. Where the
    counts force it a batch holds one more than `batch_size`.

    Args:
        count: how many indices there are.
        batch_size: how many a batch holds.
        world: number of processes.
        rank: of this one.

    Raises:
        ValueError: more processes than indices.
    """

    def __init__(self, count: int, batch_size: int, *, world: int, rank: int) -> None:
        if count < world:
            raise ValueError(f"{count} slices cannot be shared over {world} processes; use at most {count} devices")
        share = np.arange(rank, count, world)
        number = min(-(-count // (world * batch_size)), count // world)
        self.batches: list[list[int]] = [part.tolist() for part in np.array_split(share, number)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


def _check_shapes(shapes: Sequence[tuple[int, int, int]], *, one_size: bool) -> None:
    first = shapes[0]
    for shape in shapes:
        if shape[0] != first[0]:
            raise ValueError(f"some images have {first[0]} channels and some {shape[0]}; convert all to gray or colour")
        if one_size and shape != first:
            raise ValueError(
                f"some images are {first[1]}x{first[2]} pixels and some {shape[1]}x{shape[2]}; give data.image_size "
                "to resize all"
            )
