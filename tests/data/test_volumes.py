"""Volumes as slices: two layouts, sequences by name, classes by value, and an error that names what does not fit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from docs.lgg_volumes import write_volumes

from brainseg.data import LGGSegmentation, VolumeDataset, lgg_root, write_phantoms
from brainseg.data.nifti import Grid

RNG = np.random.default_rng(0)
SHAPE = (6, 5, 4)
AFFINE = np.diag([-1.0, -1.5, 3.0, 1.0])  # LPS, as scanners write
CASES = ("BraTS_001", "BraTS_002")
SEQUENCES = ("flair", "t1", "t1ce")

Load = Callable[..., VolumeDataset]


def save(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)


def voxels_of(case: str, sequence: str) -> np.ndarray:
    rng = np.random.default_rng(sum(map(ord, case + sequence)))
    if sequence == "seg":
        return rng.choice(np.array([0, 1, 2, 4], np.uint8), SHAPE)
    return rng.integers(0, 2000, SHAPE).astype(np.int16)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for case in CASES:
        for sequence in (*SEQUENCES, "seg"):
            save(tmp_path / "data" / case / f"{case}_{sequence}.nii.gz", voxels_of(case, sequence))
    return tmp_path / "data"


@pytest.fixture
def nnunet(tmp_path: Path) -> Path:
    root = tmp_path / "Dataset001"
    for case in CASES:
        for number, sequence in enumerate(SEQUENCES):
            save(root / "imagesTr" / f"{case}_{number:04}.nii.gz", voxels_of(case, sequence))
        save(root / "labelsTr" / f"{case}.nii.gz", voxels_of(case, "seg"))
    describe(
        root, channel_names={"0": "flair", "1": "t1", "2": "t1ce"}, labels={"background": 0, "a": 1, "b": 2, "c": 4}
    )
    return root


def describe(root: Path, **content: Any) -> None:
    (root / "dataset.json").write_text(json.dumps({"file_ending": ".nii.gz", **content}))


@pytest.fixture
def load(tmp_path: Path) -> Load:
    return lambda *given, **named: VolumeDataset(*given, cache_dir=tmp_path / "cache", **named)


def upright(voxels: np.ndarray) -> np.ndarray:
    return Grid(SHAPE, AFFINE).to_slices(voxels, "axial")


def test_slices_of_every_case_come_from_the_feet_to_the_head(root: Path, load: Load) -> None:
    data = load(root)
    assert data.channel_names == SEQUENCES
    assert data.patients == list(CASES)
    assert [(s["patient"], s["slice"]) for s in data] == [(case, number) for case in CASES for number in range(4)]
    for sample in data:
        for channel, sequence in enumerate(SEQUENCES):
            voxels = voxels_of(sample["patient"], sequence).astype(np.float64)
            expected = upright(voxels / voxels.max())[sample["slice"]]
            np.testing.assert_allclose(sample["image"][channel].numpy(), expected, atol=0.51 / 65535)
        labels = upright(voxels_of(sample["patient"], "seg"))[sample["slice"]]
        assert torch.equal(sample["mask"], torch.from_numpy(np.searchsorted([0, 1, 2, 4], labels)))
    assert (data.task, data.class_names) == ("multiclass", ("background", "label_1", "label_2", "label_4"))


def test_every_way_a_file_may_lie_gives_the_same_slices(root: Path, load: Load) -> None:
    before = [load(root)[index] for index in range(8)]
    for path in root.rglob("*.nii.gz"):
        nibabel.save(nibabel.as_closest_canonical(nibabel.load(path)), path)
    after = load(root)
    assert nibabel.aff2axcodes(nibabel.load(path).affine) == tuple("RAS")
    for sample, expected in zip(after, before, strict=True):
        assert torch.equal(sample["image"], expected["image"])
        assert torch.equal(sample["mask"], expected["mask"])


@pytest.mark.parametrize(
    ("axis", "count", "sides", "spacing"),
    [("axial", 4, (5, 6), (3, 1.5, 1)), ("coronal", 5, (4, 6), (1.5, 3, 1)), ("sagittal", 6, (4, 5), (1, 3, 1.5))],
)
def test_an_axis_is_chosen_and_spacing_kept(
    root: Path, load: Load, axis: str, count: int, sides: tuple[int, int], spacing: tuple[float, ...]
) -> None:
    data = load(root, [CASES[1]], axis=axis)
    assert len(data) == count
    assert data.shapes == [(3, *sides)] * count
    assert data.spacings == [spacing] * count


def test_sequences_are_chosen_by_name_in_their_order(root: Path, load: Load) -> None:
    everything = load(root)
    data = load(root, sequences=["T1CE", "flair"])
    assert data.channel_names == ("T1CE", "flair")
    assert torch.equal(data[3]["image"], everything[3]["image"][[2, 0]])


def test_regions_overlap(root: Path, load: Load) -> None:
    regions = {"whole tumour": [1, 2, 4], "core": [1, 4], "enhancing": [4]}
    data = load(root, labels=regions)
    assert (data.task, data.class_names, data.num_classes) == ("multilabel", tuple(regions), 3)
    labels = upright(voxels_of(CASES[0], "seg"))[2]
    expected = np.stack([np.isin(labels, values) for values in regions.values()])
    assert torch.equal(data[2]["mask"], torch.from_numpy(expected).float())
    assert load(root, labels=regions, task="binary")[2]["mask"].shape == (1, 5, 6)


def test_two_readings_of_one_folder_share_the_cache_but_axes_do_not(root: Path, load: Load, tmp_path: Path) -> None:
    load(root)
    load(root, labels={"core": [1, 4]})
    assert len(list((tmp_path / "cache").glob("*/pixels.bin"))) == 1
    load(root, axis="coronal")
    assert len(list((tmp_path / "cache").glob("*/pixels.bin"))) == 2


def test_values_below_0_are_lifted_and_the_rest_keeps_its_zero(root: Path, load: Load) -> None:
    path = root / CASES[0] / f"{CASES[0]}_t1.nii.gz"
    voxels = np.zeros(SHAPE, np.float32)
    voxels[0, 0, 0], voxels[1, 0, 0] = -1, 3
    save(path, voxels)
    data = load(root, [CASES[0]], sequences=["t1"])
    values = torch.cat([sample["image"].flatten() for sample in data]).unique()
    torch.testing.assert_close(values, torch.tensor([0, 0.25, 1]), atol=1e-5, rtol=0)
    save(path, np.full(SHAPE, 5.0, np.float32))
    assert load(root, [CASES[0]], sequences=["t1"])[0]["image"].unique().tolist() == [1.0]
    save(path, np.zeros(SHAPE, np.float32))
    assert load(root, [CASES[0]], sequences=["t1"])[0]["image"].unique().tolist() == [0.0]


def test_hyphens_capitals_and_folders_of_grades_are_read(root: Path, load: Load) -> None:
    expected = load(root)[0]
    for case in CASES:
        (root / "HGG").mkdir(exist_ok=True)
        for path in list((root / case).iterdir()):
            name = path.name.replace(f"{case}_", f"{case}-").replace("flair", "FLAIR").replace(".nii.gz", ".NII.GZ")
            path.rename(path.with_name(name))
        shutil.move(root / case, root / "HGG" / case)
    (root / CASES[0]).mkdir()
    with pytest.raises(
        FileNotFoundError, match=rf"{CASES[0]} holds no volumes, it is empty; copy them again, or move it"
    ):
        load(root)
    (root / CASES[0]).rmdir()
    data = load(root)
    assert len(data) == 8
    assert torch.equal(data[0]["image"], expected["image"])


def test_nnunets_layout_gives_the_same_slices(root: Path, nnunet: Path, load: Load) -> None:
    brats, data = load(root), load(nnunet)
    assert data.channel_names == SEQUENCES
    assert (data.task, data.class_names) == ("multiclass", ("background", "a", "b", "c"))
    for sample, expected in zip(data, brats, strict=True):
        assert torch.equal(sample["image"], expected["image"])
        assert torch.equal(sample["mask"], expected["mask"])
    assert torch.equal(load(nnunet, sequences=["t1ce"])[0]["image"], brats[0]["image"][2:])


def test_nnunets_first_version_regions_and_ignored_value_are_read(nnunet: Path, load: Load) -> None:
    describe(
        nnunet, modality={"0": "FLAIR", "1": "T1", "2": "T1CE"}, labels={"0": "none", "1": "a", "2": "b", "4": "c"}
    )
    data = load(nnunet)
    assert (data.class_names, data.channel_names) == (("none", "a", "b", "c"), ("FLAIR", "T1", "T1CE"))
    channels = {"0": "a", "1": "b", "2": "c"}
    describe(nnunet, channel_names=channels, labels={"background": 0, "whole": [1, 2], "core": [1], "ignore": 4})
    data = load(nnunet)
    labels = upright(voxels_of(CASES[0], "seg"))
    assert (data.task, data.class_names) == ("multilabel", ("whole", "core"))
    assert torch.equal(data[1]["valid"], torch.from_numpy(labels[1] != 4)[None])
    assert torch.equal(data[1]["mask"][1], torch.from_numpy(labels[1] == 1).float())
    describe(nnunet, channel_names=channels, labels={"background": 0, "a": 1, "b": 2, "ignore": 4})
    assert torch.equal(load(nnunet)[1]["mask"], torch.from_numpy(np.where(labels[1] == 4, 255, labels[1])).long())


def first(root: Path, sequence: str) -> Path:
    return root / CASES[0] / f"{CASES[0]}_{sequence}.nii.gz"


def no_label(root: Path) -> None:
    first(root, "seg").unlink()


def no_sequence(root: Path) -> None:
    (root / CASES[1] / f"{CASES[1]}_t1.nii.gz").unlink()


def misnamed_label(root: Path) -> None:
    first(root, "seg").rename(root / CASES[0] / "W39_1998.09.19_Segm.nii.gz")  # as in BraTS 2020


def doubled(root: Path) -> None:
    save(root / CASES[0] / f"{CASES[0]}-T1.nii", voxels_of(CASES[0], "t1"))


def same_case(root: Path) -> None:
    shutil.copytree(root / CASES[0], root / "HGG" / CASES[0])


def other_shape(root: Path) -> None:
    save(first(root, "seg"), np.zeros((6, 5, 3), np.uint8))


def other_place(root: Path) -> None:
    affine = AFFINE.copy()
    affine[2, 3] = 30
    save(first(root, "seg"), voxels_of(CASES[0], "seg"), affine)


def mirrored(root: Path) -> None:
    save(first(root, "t1"), voxels_of(CASES[0], "t1"), np.diag([1.0, -1.5, 3.0, 1.0]))


def truncated(root: Path) -> None:
    content = first(root, "t1").read_bytes()
    first(root, "t1").write_bytes(content[: len(content) - 60])


def broken(root: Path) -> None:
    first(root, "t1").write_bytes(b"no volume")


def interpolated(root: Path) -> None:
    save(first(root, "seg"), np.full(SHAPE, 0.5, np.float32))


def negative(root: Path) -> None:
    save(first(root, "seg"), np.full(SHAPE, -1, np.int16))


def not_finite(root: Path) -> None:
    save(first(root, "t1ce"), np.full(SHAPE, np.nan, np.float32))


def loose(root: Path) -> None:
    save(root / "atlas.nii.gz", voxels_of("a", "t1"))


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (
            no_label,
            FileNotFoundError,
            "BraTS_001 has no label seg; expected BraTS_001_seg.nii.gz beside BraTS_001_flair",
        ),
        (no_sequence, FileNotFoundError, "BraTS_002 has no sequence t1; expected BraTS_002_t1.nii.gz beside"),
        (
            misnamed_label,
            ValueError,
            "W39_1998.09.19_Segm.nii.gz is no volume of the case BraTS_001; expected BraTS_001_<",
        ),
        (doubled, ValueError, "BraTS_001[-_](t1.nii.gz|T1.nii) and .* are one sequence; keep one"),
        (same_case, ValueError, "BraTS_001 and .*BraTS_001 are one case; keep one of them, or rename it"),
        (other_shape, ValueError, "BraTS_001_seg.nii.gz has 6x5x3 voxels and BraTS_001_flair.nii.gz 6x5x4; resample"),
        (
            other_place,
            ValueError,
            "BraTS_001_seg.nii.gz lies up to 30 mm away from BraTS_001_flair.nii.gz by its header",
        ),
        (mirrored, ValueError, "BraTS_001_t1.nii.gz lies up to 10 mm away from BraTS_001_flair.nii.gz by its header"),
        (truncated, ValueError, "BraTS_001_t1.nii.gz is truncated.*; copy it again"),
        (
            broken,
            ValueError,
            "BraTS_001_t1.nii.gz is truncated, no NIfTI volume, or has a broken header .*; copy it again",
        ),
        (interpolated, ValueError, "BraTS_001_seg.nii.gz holds values of 0.5 to 0.5, expected whole numbers from 0 to"),
        (negative, ValueError, "BraTS_001_seg.nii.gz holds values of -1 to -1, expected whole numbers from 0 to"),
        (not_finite, ValueError, "BraTS_001_t1ce.nii.gz holds voxels that are not finite numbers"),
        (loose, ValueError, "atlas.nii.gz lies in no case's folder; give the folder that holds those"),
    ],
)
def test_bad_data_is_named(
    root: Path, load: Load, tmp_path: Path, damage: Callable[[Path], None], error: type[Exception], message: str
) -> None:
    damage(root)
    for _ in range(2):  # a failed attempt hides nothing from the next
        with pytest.raises(error, match=message):
            load(root)
    assert not list((tmp_path / "cache").glob("*/pixels.bin"))


def no_description(root: Path) -> None:
    (root / "dataset.json").unlink()


def no_channels(root: Path) -> None:
    describe(root, labels={"background": 0})


def missing_channel(root: Path) -> None:
    (root / "imagesTr" / f"{CASES[1]}_0001.nii.gz").unlink()


def missing_label(root: Path) -> None:
    (root / "labelsTr" / f"{CASES[1]}.nii.gz").unlink()


def missing_images(root: Path) -> None:
    for number in range(3):
        (root / "imagesTr" / f"{CASES[1]}_{number:04}.nii.gz").unlink()


def unnumbered(root: Path) -> None:
    (root / "imagesTr" / f"{CASES[1]}_0001.nii.gz").rename(root / "imagesTr" / f"{CASES[1]}.nii.gz")


def unknown_value(root: Path) -> None:
    describe(root, channel_names={"0": "a", "1": "b", "2": "c"}, labels={"background": 0, "a": 1, "b": 2, "c": 3})


def pictures(root: Path) -> None:
    describe(root, channel_names={"0": "a"}, labels={"background": 0, "a": 1}, file_ending=".png")


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (no_description, FileNotFoundError, r"there is no .*dataset\.json; nnU-Net's layout needs it"),
        (no_channels, ValueError, r"dataset\.json does not describe a data set \(KeyError\('modality'\)\); expected"),
        (missing_channel, FileNotFoundError, r"imagesTr/BraTS_002_0001\.nii\.gz is missing"),
        (missing_label, FileNotFoundError, r"labelsTr/BraTS_002\.nii\.gz is missing"),
        (missing_images, FileNotFoundError, r"labelsTr/BraTS_002\.nii\.gz is a label without its images"),
        (unnumbered, ValueError, r"imagesTr/BraTS_002\.nii\.gz is not called <case>_0000\.nii\.gz"),
        (unknown_value, ValueError, r"BraTS_001\.nii\.gz holds the value 4, which no class has"),
        (pictures, ValueError, r"Dataset001 holds \.png files, expected \.nii or \.nii\.gz; convert them"),
    ],
)
def test_bad_data_of_nnunets_layout_is_named(
    nnunet: Path, load: Load, damage: Callable[[Path], None], error: type[Exception], message: str
) -> None:
    damage(nnunet)
    with pytest.raises(error, match=message):
        load(nnunet)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sequences": ["t3"]}, "BraTS_001 has no sequence t3; expected"),
        ({"sequences": "flair"}, r"sequences must be names that differ, such as \['flair', 't1ce'\], got 'flair'"),
        ({"sequences": ["t1", "t1"]}, "sequences must be names that differ"),
        ({"sequences": []}, "sequences must be names that differ"),
        ({"axis": "transversal"}, "axis must be one of 'axial', 'coronal', 'sagittal', got 'transversal'"),
        ({"patients": ["BraTS_003"]}, "holds no patient 'BraTS_003'"),
        ({"labels": {"a": 1, "b": 3}}, "seg.nii.gz holds the value 2, which no class has"),
        ({"labels": {"core": [1, 4], "enhancing": [3]}}, "no label map holds a value of 'enhancing'"),
    ],
)
def test_what_cannot_be_is_refused(root: Path, load: Load, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load(root, **arguments)


def test_an_unknown_sequence_of_nnunets_is_told_the_known_ones(nnunet: Path, load: Load) -> None:
    with pytest.raises(ValueError, match=r"there is no sequence 't1c'; did you mean t1ce"):
        load(nnunet, sequences=["t1c"])


def test_folders_without_volumes_are_told_what_they_hold(tmp_path: Path, load: Load) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "1.dcm").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"data holds no volumes: .* but it holds 1\.dcm \(a DICOM file\)"):
        load(tmp_path / "data")
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere; give the one that holds the cases"):
        load(tmp_path / "nowhere")


def test_what_a_mac_leaves_is_no_volume(root: Path, load: Load) -> None:
    for path in list((root / CASES[0]).iterdir()):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    shutil.copytree(root / CASES[0], root / "__MACOSX" / CASES[0])
    assert len(load(root)) == 8


def same_slices(slices: LGGSegmentation, tmp_path: Path) -> None:
    write_volumes(slices, tmp_path / "volumes", spacing=(5, 1, 1.5))
    volumes = VolumeDataset(
        tmp_path / "volumes", sequences=slices.channel_names, labels={"tumour": 1}, cache_dir=tmp_path / "cache"
    )
    assert (volumes.patients, volumes.class_names, volumes.task) == (slices.patients, ("tumour",), "binary")
    assert set(volumes.spacings) == {(5, 1, 1.5)}
    for sample, expected in zip(volumes, slices, strict=True):
        assert torch.equal(sample["mask"], expected["mask"])
        assert torch.equal(sample["image"], expected["image"])


def test_slices_written_as_volumes_come_back(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "lgg", patients=2, slices=4, size=48)
    same_slices(LGGSegmentation(tmp_path / "lgg", cache_dir=tmp_path / "cache"), tmp_path)


@pytest.mark.slow
def test_real_slices_written_as_volumes_come_back(tmp_path: Path) -> None:
    if not lgg_root().is_dir():
        pytest.skip(f"no LGG data in {lgg_root()}")
    patients = LGGSegmentation(lgg_root()).patients[:2]
    same_slices(LGGSegmentation(lgg_root(), patients), tmp_path)
