"""Samplers: what an epoch shows, equal on all processes and after a restart."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, DistributedSampler

from brainseg.data import ForegroundSampler, ImageMaskFolder, PatientSampler, UniformSampler
from brainseg.data.samplers import EpochSampler

# Slices of each patient, and how many of them show something.
PATIENTS = {"a": (9, 2), "b": (3, 0), "c": (1, 1), "d": (7, 1)}
SLICES = 20
SAMPLERS = [UniformSampler, ForegroundSampler, PatientSampler]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ImageMaskFolder:
    root = tmp_path_factory.mktemp("data")
    for patient, (slices, full) in PATIENTS.items():
        for folder in ("images", "masks"):
            (root / folder / patient).mkdir(parents=True)
            for number in range(slices):
                shown = folder == "masks" and number < full
                Image.fromarray(np.full((2, 2), 255 * shown, np.uint8)).save(root / folder / patient / f"{number}.png")
    return ImageMaskFolder(root, cache_dir=root / "cache")


Make = Callable[..., EpochSampler]


@pytest.mark.parametrize("make", SAMPLERS)
@given(seed=st.integers(0, 2**31), epoch=st.integers(0, 1000), world=st.integers(1, SLICES))
def test_processes_share_what_one_would_see(
    make: Make, dataset: ImageMaskFolder, seed: int, epoch: int, world: int
) -> None:
    def draw(**arguments: int) -> list[int]:
        sampler = make(dataset, seed=seed, **arguments)
        sampler.set_epoch(epoch)
        indices = list(sampler)
        assert len(indices) == len(sampler)
        return indices

    alone = draw()
    assert len(alone) == SLICES
    shares = [draw(world=world, rank=rank) for rank in range(world)]
    assert {len(share) for share in shares} == {SLICES // world}
    assert [index for indices in zip(*shares, strict=True) for index in indices] == alone[: SLICES // world * world]


@pytest.mark.parametrize("make", SAMPLERS)
def test_an_epoch_follows_from_seed_and_number_alone(make: Make, dataset: ImageMaskFolder) -> None:
    def draw(seed: int, epoch: int) -> tuple[int, ...]:
        sampler = make(dataset, seed=seed)
        sampler.set_epoch(epoch)
        return tuple(sampler)

    sampler = make(dataset, seed=3)
    list(sampler)  # what was drawn before has no influence
    sampler.set_epoch(5)
    torch.manual_seed(0)
    assert tuple(sampler) == tuple(sampler) == draw(3, 5)
    assert len({draw(seed, epoch) for seed, epoch in ((3, 5), (3, 6), (4, 5), (0, 0))}) == 4


@given(seed=st.integers(0, 2**31), epoch=st.integers(0, 100), world=st.integers(1, 6))
def test_uniform_is_torchs_own_order(dataset: ImageMaskFolder, seed: int, epoch: int, world: int) -> None:
    for rank in range(world):
        torchs: DistributedSampler[object] = DistributedSampler(
            dataset, num_replicas=world, rank=rank, shuffle=True, seed=seed * 1_000_003, drop_last=True
        )
        ours = UniformSampler(dataset, seed=seed, world=world, rank=rank)
        for sampler in (torchs, ours):
            sampler.set_epoch(epoch)
        assert list(ours) == list(torchs)


@given(seed=st.integers(0, 2**31), share=st.floats(0, 1))
def test_the_share_of_slices_with_foreground_is_exact(dataset: ImageMaskFolder, seed: int, share: float) -> None:
    drawn = Counter(ForegroundSampler(dataset, share=share, seed=seed))
    shows = dataset.has_foreground
    full = {index: count for index, count in drawn.items() if shows[index]}
    assert sum(full.values()) == round(share * SLICES)
    for kind in (True, False):
        counts = [drawn[index] for index in range(SLICES) if shows[index] == kind]
        assert max(counts) - min(counts) <= 1


@given(seed=st.integers(0, 2**31))
def test_patients_come_equally_often(dataset: ImageMaskFolder, seed: int) -> None:
    drawn = Counter(PatientSampler(dataset, seed=seed))
    for patient in PATIENTS:
        counts = [drawn[index] for index in range(SLICES) if dataset.files[index].patient == patient]
        assert sum(counts) == SLICES / len(PATIENTS)
        assert max(counts) - min(counts) <= 1


def test_over_epochs_no_slice_is_forgotten(dataset: ImageMaskFolder) -> None:
    for make in SAMPLERS:
        sampler, drawn = make(dataset, seed=0), Counter[int]()
        for epoch in range(50):
            sampler.set_epoch(epoch)
            drawn.update(sampler)
        assert len(drawn) == SLICES


def test_who_gets_the_odd_slice_changes(dataset: ImageMaskFolder) -> None:
    part = ImageMaskFolder(dataset.root, ["a", "b", "d"], cache_dir=dataset.root / "cache")  # 19 slices, 3 patients
    more = set()
    for seed in range(30):
        counts = Counter(part.files[index].patient for index in PatientSampler(part, seed=seed))
        assert sorted(counts.values()) == [6, 6, 7]
        more.add(counts.most_common(1)[0][0])
    assert more == {"a", "b", "d"}


def test_a_loader_takes_them(dataset: ImageMaskFolder) -> None:
    loader = DataLoader(dataset, batch_size=5, sampler=ForegroundSampler(dataset, share=1, seed=0))
    assert all(bool(mask.any()) for batch in loader for mask in batch["mask"])


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (UniformSampler, {"world": 21}, "20 slices cannot be shared over 21 processes; use at most 20"),
        (PatientSampler, {"world": 2, "rank": 2}, "rank must be a process of 0 to 1, got 2"),
        (UniformSampler, {"world": 0}, "world must be a positive integer, got 0"),
        (ForegroundSampler, {"share": 1.5}, r"share must lie in \[0, 1\], got 1.5"),
    ],
)
def test_what_cannot_be_is_refused(
    make: Make, arguments: dict[str, float], message: str, dataset: ImageMaskFolder
) -> None:
    with pytest.raises(ValueError, match=message):
        make(dataset, seed=0, **arguments)


def test_a_share_that_no_slice_can_fill_is_refused(dataset: ImageMaskFolder) -> None:
    empty, full = (ImageMaskFolder(dataset.root, [name], cache_dir=dataset.root / "cache") for name in "bc")
    with pytest.raises(ValueError, match=r"is with foreground, and share=0.5 needs 2 such; take the uniform sampler"):
        ForegroundSampler(empty, seed=0)
    with pytest.raises(ValueError, match=r"is without foreground, and share=0.0 needs 1 such"):
        ForegroundSampler(full, share=0.0, seed=0)
    assert list(ForegroundSampler(full, share=1, seed=0)) == [0]
