"""Phantoms: in range, repeatable, and a lesion, bright in FLAIR, in a third of them; as files in Kaggle's layout."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from brainseg.data import LGGSegmentation, institution, phantom, read_split, write_phantoms


def test_a_seed_draws_one_slice() -> None:
    first, again, other = phantom(3), phantom(3), phantom(4)
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.mask, again.mask)
    assert not torch.equal(first.image, other.image)


def test_drawing_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    phantom(0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("size", [32, 97, 256])
def test_shapes_types_and_ranges(size: int) -> None:
    image, mask = phantom(1, size=size, lesion=True)
    assert image.shape == (3, size, size)
    assert mask.shape == (1, size, size)
    assert image.dtype == mask.dtype == torch.float32
    assert 0 <= image.min() < image.max() <= 1
    assert set(mask.unique().tolist()) == {0.0, 1.0}


def test_about_a_third_has_a_lesion() -> None:
    share = sum(bool(phantom(seed, size=32).mask.any()) for seed in range(400)) / 400
    assert share == pytest.approx(1 / 3, abs=0.08)


@pytest.mark.parametrize("seed", range(20))
def test_a_lesion_is_bright_in_flair_and_there_when_asked_for(seed: int) -> None:
    image, mask = phantom(seed, lesion=True)
    flair, inside = image[1], mask[0] > 0
    assert inside.sum() > 200
    assert flair[inside].mean() > 1.3 * flair[~inside & (flair > 0.2)].mean()
    assert not phantom(seed, lesion=False).mask.any()


def test_too_small_a_size_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 32 pixels, got 31"):
        phantom(0, size=31)


def test_written_phantoms_are_a_data_set(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "data", patients=3, slices=6, size=33)
    data = LGGSegmentation(tmp_path / "data", cache_dir=tmp_path / "cache")
    assert [(sample["patient"], sample["slice"]) for sample in data] == [
        (patient, number) for patient in data.patients for number in range(1, 7)
    ]
    assert data.shapes == [(3, 33, 33)] * 18
    assert [sample["slice"] for sample in data if sample["mask"].any()] == [3, 4] * 3
    assert len({sample["image"].numpy().tobytes() for sample in data}) == 18


@pytest.mark.parametrize(
    ("slices", "lesions"), [(1, [1]), (2, [1, 2]), (3, [2]), (4, [2, 3]), (5, [3]), (12, [5, 6, 7, 8])]
)
def test_about_the_middle_third_of_written_slices_has_a_lesion(tmp_path: Path, slices: int, lesions: list[int]) -> None:
    write_phantoms(tmp_path, patients=2, slices=slices, size=32)
    for folder in (path for path in tmp_path.iterdir() if path.is_dir()):
        masks = {n: np.asarray(Image.open(folder / f"{folder.name}_{n}_mask.tif")) for n in range(1, slices + 1)}
        assert [n for n, mask in masks.items() if mask.any()] == lesions


def test_written_pixels_are_rounded(tmp_path: Path) -> None:
    write_phantoms(tmp_path, patients=2, slices=3, size=32, seed=5)
    written = np.asarray(Image.open(tmp_path / "TCGA_DU_0002_20000101" / "TCGA_DU_0002_20000101_2.tif"))
    drawn = [phantom(seed, size=32, lesion=True).image.permute(1, 2, 0).numpy() for seed in range(60)]
    assert min(np.abs(written / 255 - image).max() for image in drawn) <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("patients", [2, 3, 4, 8, 12])
def test_a_quarter_of_the_written_patients_validates_of_every_institution_alike(tmp_path: Path, patients: int) -> None:
    write_phantoms(tmp_path, patients=patients, slices=0)
    split = read_split(tmp_path / "split.json")
    assert sorted(split["train"] + split["validation"]) == sorted(
        path.name for path in tmp_path.iterdir() if path.is_dir()
    )
    assert len(split["validation"]) == max(1, patients // 4)
    counts = Counter(map(institution, split["validation"]))
    assert max(counts.values()) <= -(-patients // 16)


def test_a_seed_writes_one_data_set(tmp_path: Path) -> None:
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        write_phantoms(tmp_path / name, patients=2, slices=2, size=32, seed=seed)
    first, again, other = (
        {path.name: path.read_bytes() for path in sorted((tmp_path / name).glob("*/*.tif"))}
        for name in ("first", "again", "other")
    )
    assert first == again
    images = [name for name in first if "mask" not in name]
    assert not {first[name] for name in images} & {other[name] for name in images}


def test_too_few_patients_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected at least 2 patients, got 1"):
        write_phantoms(tmp_path / "data", patients=1, slices=3)
    assert not (tmp_path / "data").exists()
