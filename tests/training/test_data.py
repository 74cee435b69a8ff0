"""Batches of a run: the same order for the same seed and epoch, and each validation slice once on all processes."""

from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from brainseg.data import read_split
from brainseg.training.config import DataConfig
from brainseg.training.data import EvenBatches, SliceDataModule
from brainseg.training.datasets import find_split


@given(count=st.integers(1, 60), batch_size=st.integers(1, 9), world=st.integers(1, 7))
def test_processes_share_every_index_once_in_equally_many_batches(count: int, batch_size: int, world: int) -> None:
    if count < world:
        with pytest.raises(ValueError, match="cannot be shared"):
            EvenBatches(count, batch_size, world=world, rank=0)
        return
    shares = [list(EvenBatches(count, batch_size, world=world, rank=rank)) for rank in range(world)]
    assert sorted(chain.from_iterable(chain.from_iterable(shares))) == list(range(count))
    assert len({len(share) for share in shares}) == 1
    assert min(len(batch) for share in shares for batch in share) >= 1
    assert max(len(batch) for share in shares for batch in share) <= batch_size + 1


def module(config: DataConfig, seed: int = 0) -> SliceDataModule:
    return SliceDataModule(config, find_split(config, seed=seed), seed=seed)


def order(data: SliceDataModule, epoch: int) -> list[tuple[str, int]]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    return [key for batch in loader for key in zip(batch["patient"], batch["slice"].tolist(), strict=True)]


def test_the_order_depends_on_seed_and_epoch_alone(data: DataConfig) -> None:
    first = order(module(data), epoch=1)
    assert order(module(data), epoch=1) == first
    assert order(module(data), epoch=2) != first
    assert order(module(data, seed=1), epoch=1) != first
    assert len(first) == len(set(first)) == 44  # 45 slices in whole batches of 4


def test_reading_processes_change_nothing(data: DataConfig) -> None:
    assert order(module(replace(data, workers=2)), epoch=0) == order(module(data), epoch=0)


def test_slices_are_resized_and_masks_stay_masks(data: DataConfig) -> None:
    batch = next(iter(module(replace(data, image_size=(32, 48))).val_dataloader()))
    assert batch["image"].shape == (4, 3, 32, 48)
    assert batch["mask"].shape == (4, 1, 32, 48)
    assert set(batch["mask"].unique().tolist()) <= {0.0, 1.0}
    assert batch["image"][..., 32:].eq(0).all()  # square slices stay so
    assert batch["image"][..., :32].amin(1).gt(0).any()


def test_the_split_is_the_data_sets_own_unless_one_is_named(data: DataConfig) -> None:
    own = find_split(data, seed=5)
    assert own == read_split(f"{data.root}/split.json")


def test_a_batch_larger_than_the_data_is_refused(data: DataConfig) -> None:
    module(replace(data, batch_size=15)).check_share(3)
    with pytest.raises(ValueError, match=r"15 slices cannot be shared over 16 processes"):
        module(replace(data, batch_size=1)).check_share(16)
    with pytest.raises(ValueError, match=r"a batch of 16 slices is more .*: 15 for each of 3 process\(es\)"):
        module(replace(data, batch_size=16)).check_share(3)


def test_images_of_several_sizes_or_channels_are_refused(tmp_path: Path) -> None:
    config = DataConfig(root=str(tmp_path), format="folder", cache_dir=str(tmp_path / "cache"))
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for name, side in (("a", 32), ("b", 32), ("c", 40)):
            Image.fromarray(np.zeros((32, side), np.uint8)).save(tmp_path / folder / f"{name}.png")
    split = {"train": ["a", "b"], "validation": ["c"], "test": []}
    with pytest.raises(ValueError, match=r"32x32 pixels and some 32x40; give data.image_size"):
        SliceDataModule(config, split, seed=0)
    SliceDataModule(replace(config, image_size=(32, 32)), split, seed=0)
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "images" / "c.png")
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "masks" / "c.png")
    with pytest.raises(ValueError, match=r"c.png has 3 channels|1 channels and some 3"):
        SliceDataModule(config, split, seed=0)
