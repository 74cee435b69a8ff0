"""Kaggle's layout: what is read from it, and one clear error for each way in which it can be wrong."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from brainseg.data import LGGSegmentation, lgg_root, read_split, write_phantoms

FIRST, SECOND = "TCGA_CS_0001_20000101", "TCGA_DU_0002_20000101"
SPLIT = Path(__file__).parents[2] / "docs" / "lgg_split.json"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two patients with three slices each."""
    write_phantoms(tmp_path / "kaggle_3m", patients=2, slices=3, size=32)
    return tmp_path / "kaggle_3m"


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., LGGSegmentation]:
    def _load(*arguments: object, **named: object) -> LGGSegmentation:
        return LGGSegmentation(*arguments, cache_dir=tmp_path / "cache", **named)  # type: ignore[arg-type]

    return _load


Load = Callable[..., LGGSegmentation]


def test_items_are_what_pillow_decodes(root: Path, load: Load) -> None:
    data = load(root)
    assert len(data) == 6
    for sample in data:
        assert list(sample) == ["image", "mask", "patient", "slice"]
        path = root / sample["patient"] / f"{sample['patient']}_{sample['slice']}.tif"
        image = np.asarray(Image.open(path), np.float32) / 255
        mask = np.asarray(Image.open(path.with_stem(f"{path.stem}_mask"))) > 127
        assert sample["image"].dtype == sample["mask"].dtype == torch.float32
        assert torch.equal(sample["image"], torch.from_numpy(image).permute(2, 0, 1))
        assert torch.equal(sample["mask"], torch.from_numpy(mask)[None].float())
    assert {float(value) for sample in data for value in sample["mask"].unique()} == {0.0, 1.0}


def test_channels_stay_in_the_order_of_the_file(root: Path, load: Load) -> None:
    path = root / FIRST / f"{FIRST}_1.tif"
    Image.new("RGB", (32, 32), (255, 51, 0)).save(path)
    image = load(root)[0]["image"]
    assert image.shape == (3, 32, 32)
    assert image[:, 0, 0].tolist() == pytest.approx([1, 0.2, 0])


def test_slices_come_in_numeric_order(tmp_path: Path, load: Load) -> None:
    write_phantoms(tmp_path / "data", patients=2, slices=11, size=32)
    data = load(tmp_path / "data")
    expected = [(patient, number) for patient in (FIRST, SECOND) for number in range(1, 12)]
    assert [(sample["patient"], sample["slice"]) for sample in data] == expected
    assert [files[:2] for files in data.files] == expected


def test_what_lies_beside_the_slices_is_no_problem(root: Path, load: Load) -> None:
    (root / "README.md").write_text("# LGG Segmentation Dataset")
    (root / "data.csv").write_text("Patient,death01\n")
    Image.new("L", (32, 32)).save(root / "figure_1.png")
    (root / ".ipynb_checkpoints").mkdir()
    shutil.copytree(root / SECOND, root / "__MACOSX" / SECOND)
    (root / FIRST / "notes.txt").write_text("")
    for name in ("Thumbs.db", "report.pdf", "data.h5"):
        (root / FIRST / name).write_bytes(b"\0")
    # What a Mac leaves when it copies to a foreign disk.
    for path in list((root / SECOND).iterdir()):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    data = load(root)
    assert len(data) == 6
    assert data.patients == [FIRST, SECOND]


@pytest.mark.parametrize("suffix", ["TIF", "Tif", "tiff", "TIFF", "png", "PNG"])
@pytest.mark.parametrize("of", ["image", "mask", "both"])
def test_suffixes_of_any_case_are_read(root: Path, load: Load, suffix: str, of: str) -> None:
    before = [load(root)[index] for index in range(6)]
    for path in list((root / SECOND).iterdir()):
        if of == "both" or path.stem.endswith("_mask") == (of == "mask"):
            with Image.open(path) as image:
                image.save(path.with_suffix(f".{suffix}"))
            if suffix != "tif":
                path.unlink()
    data = load(root)
    assert len(data) == 6
    for sample, expected in zip(data, before, strict=True):
        assert torch.equal(sample["image"], expected["image"])
        assert torch.equal(sample["mask"], expected["mask"])
        assert (sample["patient"], sample["slice"]) == (expected["patient"], expected["slice"])


def test_names_in_capitals_are_read(root: Path, load: Load) -> None:
    for path in list((root / SECOND).iterdir()):
        path.rename(path.with_name(path.name.upper()))
    assert len(load(root)) == 6


def test_patients_match_however_their_accents_are_spelled(root: Path, load: Load) -> None:
    composed, decomposed = "Müller", "Mu\u0308ller"
    (root / decomposed).mkdir()
    for path in (root / SECOND).iterdir():
        shutil.copy(path, root / decomposed / path.name.replace(SECOND, composed))
    (root / "split.json").write_text(json.dumps({"train": [composed], "validation": [FIRST]}))
    for name in (composed, decomposed, *read_split(root / "split.json")["train"]):
        data = load(root, [name])
        assert data.patients == [composed]
        assert len(data) == 3
    (root / composed).mkdir()
    for path in (root / decomposed).iterdir():
        shutil.copy(path, root / composed)
    with pytest.raises(ValueError, match="are both slice 1; keep one of them"):
        load(root)


def test_the_cache_may_lie_beside_the_patients(root: Path) -> None:
    for _ in range(2):
        assert len(LGGSegmentation(root, cache_dir=root / "deep" / "cache")) == 6


def test_root_and_cache_may_be_text(root: Path, tmp_path: Path) -> None:
    assert len(LGGSegmentation(str(root), cache_dir=str(tmp_path / "cache"))) == 6


def test_patients_choose_a_part(root: Path, load: Load) -> None:
    data = load(root, [SECOND])
    assert data.patients == [SECOND]
    assert [(sample["patient"], sample["slice"]) for sample in data] == [(SECOND, 1), (SECOND, 2), (SECOND, 3)]
    assert torch.equal(data[1]["image"], load(root)[4]["image"])
    assert data.shapes == [(3, 32, 32)] * 3


def test_nobody_is_a_part_too(root: Path, load: Load) -> None:
    data = load(root, [])
    assert len(data) == 0
    assert data.patients == data.shapes == []
    assert data.num_classes == 1


def test_a_split_chooses_parts(root: Path, load: Load) -> None:
    split = read_split(root / "split.json")
    train, validation = (load(root, split[part]) for part in ("train", "validation"))
    assert len(train) == len(validation) == 3


def test_unknown_patients_are_named(root: Path, load: Load) -> None:
    with pytest.raises(
        ValueError, match=rf"no patient 'A' \(2 of 3 wanted are unknown\); it holds 2, such as '{FIRST}'"
    ):
        load(root, [FIRST, "B", "A"])


def test_slices_may_differ_in_size(root: Path, load: Load) -> None:
    for suffix, mode in (("", "RGB"), ("_mask", "L")):
        Image.new(mode, (40, 33)).save(root / SECOND / f"{SECOND}_2{suffix}.tif")
    assert load(root).shapes == [(3, 32, 32)] * 4 + [(3, 33, 40), (3, 32, 32)]


def remove_mask(root: Path) -> None:
    (root / SECOND / f"{SECOND}_2_mask.tif").unlink()


def remove_slice(root: Path) -> None:
    (root / SECOND / f"{SECOND}_2.tif").unlink()


def resize_mask(root: Path) -> None:
    Image.new("L", (32, 31)).save(root / SECOND / f"{SECOND}_2_mask.tif")


def truncate(root: Path) -> None:
    path = root / SECOND / f"{SECOND}_2.tif"
    path.write_bytes(path.read_bytes()[:1000])


def truncate_mask(root: Path) -> None:
    path = root / SECOND / f"{SECOND}_2_mask.tif"
    path.write_bytes(path.read_bytes()[:300])


def write_text(root: Path) -> None:
    (root / SECOND / f"{SECOND}_2.tif").write_text("moved to the archive")


def empty_file(root: Path) -> None:
    (root / SECOND / f"{SECOND}_2.tif").write_bytes(b"")


def grade_mask(root: Path) -> None:
    Image.fromarray(np.arange(1024, dtype=np.uint8).reshape(32, 32)).save(root / SECOND / f"{SECOND}_2_mask.tif")


def double(root: Path) -> None:
    for suffix in ("", "_mask"):
        shutil.copy(root / SECOND / f"{SECOND}_2{suffix}.tif", root / SECOND / f"{SECOND}_02{suffix}.tif")


def gray(root: Path) -> None:
    Image.new("L", (32, 32)).save(root / SECOND / f"{SECOND}_2.tif")


def frames(root: Path) -> None:
    frame = Image.new("RGB", (32, 32))
    frame.save(root / SECOND / f"{SECOND}_2.tif", save_all=True, append_images=[frame])


def floats(root: Path) -> None:
    Image.new("F", (32, 32)).save(root / SECOND / f"{SECOND}_2.tif")


def integers(root: Path) -> None:
    Image.new("I", (32, 32)).save(root / SECOND / f"{SECOND}_2.tif")


def empty_patient(root: Path) -> None:
    (root / "TCGA_FG_0003_20000101").mkdir()


def other_names(root: Path) -> None:
    for path in list((root / SECOND).iterdir()):
        path.rename(path.with_name(path.name.replace(SECOND, "slice").replace("_", "-")))


def volumes(root: Path) -> None:
    shutil.rmtree(root / SECOND)
    (root / SECOND).mkdir()
    (root / SECOND / "flair.nii.gz").write_bytes(b"")


def one_deeper(root: Path) -> None:
    shutil.move(root / SECOND, root / "moved")
    shutil.move(root / "moved", root / SECOND / SECOND)


def other_format(root: Path) -> None:
    for suffix in ("", "_mask"):
        with Image.open(root / SECOND / f"{SECOND}_2{suffix}.tif") as image:
            image.save(root / SECOND / f"{SECOND}_2{suffix}.bmp")
        (root / SECOND / f"{SECOND}_2{suffix}.tif").unlink()


def other_name(root: Path) -> None:
    (root / SECOND / f"{SECOND}_2_mask.tif").rename(root / SECOND / f"{SECOND}_2_label.tif")


def in_a_folder(root: Path) -> None:
    (root / SECOND / "more").mkdir()
    Image.new("RGB", (32, 32)).save(root / SECOND / "more" / f"{SECOND}_4.tif")


def beside_patients(root: Path) -> None:
    shutil.move(root / SECOND / f"{SECOND}_2.tif", root)
    (root / SECOND / f"{SECOND}_2_mask.tif").unlink()


def of_another(root: Path) -> None:
    shutil.move(root / SECOND / f"{SECOND}_2.tif", root / FIRST)


def two_formats(root: Path) -> None:
    Image.new("RGB", (32, 32)).save(root / SECOND / f"{SECOND}_2.PNG")


def lost_link(root: Path) -> None:
    (root / SECOND / f"{SECOND}_2.tif").unlink()
    (root / SECOND / f"{SECOND}_2.tif").symlink_to(root / "nowhere.tif")


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (remove_mask, FileNotFoundError, f"{SECOND}_2.tif has no mask; expected {SECOND}_2_mask.tif beside it"),
        (remove_slice, FileNotFoundError, f"{SECOND}_2_mask.tif is a mask without its slice; copy the slice again"),
        (resize_mask, ValueError, f"{SECOND}_2_mask.tif is 31x32 pixels and its image {SECOND}_2.tif 32x32; export"),
        (truncate, ValueError, f"{SECOND}_2.tif is truncated or no image .*; copy it again"),
        (truncate_mask, ValueError, f"{SECOND}_2_mask.tif is truncated or no image .*; copy it again"),
        (write_text, ValueError, f"{SECOND}_2.tif is truncated or no image .*; copy it again"),
        (empty_file, ValueError, f"{SECOND}_2.tif is truncated or no image .*; copy it again"),
        (grade_mask, ValueError, f"{SECOND}_2_mask.tif holds the values 0, 1, 2, 3, 4, ..., expected 0 and 255"),
        (double, ValueError, f"{SECOND}_0?2.tif and {SECOND}_0?2.tif are both slice 2; keep one of them"),
        (gray, ValueError, f"{SECOND}_2.tif has 1 channel, expected 3 .*; use ImageMaskFolder for other images"),
        (frames, ValueError, f"{SECOND}_2.tif holds 2 frames, expected one slice; save a file a slice"),
        (floats, ValueError, f"{SECOND}_2.tif holds floating-point pixels, expected 8 or 16 bits; save it"),
        (
            empty_patient,
            FileNotFoundError,
            "TCGA_FG_0003_20000101 holds no slices, it is empty; expected <patient>_<slice>",
        ),
        (
            other_names,
            FileNotFoundError,
            f"{SECOND} holds no slices, it holds 6 files such as slice-1-mask.tif; expected",
        ),
        (volumes, FileNotFoundError, rf"{SECOND} holds no slices, it holds flair.nii.gz \(a NIfTI volume\); expected"),
        (one_deeper, FileNotFoundError, f"{SECOND} holds no slices, it holds 6 files such as {SECOND}/{SECOND}_1.tif"),
        (
            other_format,
            ValueError,
            f"{SECOND}_2.bmp is no slice of {SECOND}; expected <patient>_<slice>.tif .*.tiff, .png",
        ),
        (
            other_name,
            ValueError,
            f"{SECOND}_2_label.tif is no slice of {SECOND}; expected .*: rename it, or move it away",
        ),
        (in_a_folder, ValueError, f"more/{SECOND}_4.tif is no slice of {SECOND}; expected"),
        (beside_patients, ValueError, f"{SECOND}_2.tif lies beside the patients' folders; move it to {SECOND}"),
        (of_another, ValueError, f"{SECOND}_2.tif lies in the folder of {FIRST}; move it to its patient's"),
        (two_formats, ValueError, f"{SECOND}_2.PNG and {SECOND}_2.tif are both slice 2; keep one of them"),
        (lost_link, FileNotFoundError, f"{SECOND}_2.tif"),
        (integers, ValueError, f"{SECOND}_2.tif holds signed or 32-bit pixels, expected 8 or 16 bits; save it"),
    ],
)
def test_bad_data_is_named(
    root: Path, load: Load, damage: Callable[[Path], None], error: type[Exception], message: str
) -> None:
    damage(root)
    for _ in range(2):  # a failed attempt hides nothing from the next
        with pytest.raises(error, match=message):
            load(root)


def test_of_several_slices_without_a_mask_the_first_is_named(root: Path, load: Load) -> None:
    for mask in root.glob("*/*_mask.tif"):
        mask.unlink()
    with pytest.raises(FileNotFoundError, match=f"{FIRST}_1.tif has no mask"):
        load(root)


def test_an_absent_root_is_named(tmp_path: Path, load: Load) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere; give the one that holds the patients"):
        load(tmp_path / "nowhere")


def test_a_file_is_no_root(root: Path, load: Load) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*split\.json"):
        load(root / "split.json")


def test_an_empty_root_says_what_it_should_hold(tmp_path: Path, load: Load) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        FileNotFoundError,
        match=r"empty holds no patients: expected a folder for each patient with <pat.*, but it is empty",
    ):
        load(tmp_path / "empty")


def test_a_root_one_level_too_high_is_told_the_folder(root: Path, load: Load) -> None:
    with pytest.raises(FileNotFoundError, match=f"holds no patients: they are one level lower; give {root}$"):
        load(root.parent)


@pytest.mark.parametrize("relative", [False, True])
def test_a_root_one_level_too_low_is_told_the_folder(
    root: Path, load: Load, monkeypatch: pytest.MonkeyPatch, relative: bool
) -> None:
    monkeypatch.chdir(root / FIRST)
    with pytest.raises(FileNotFoundError, match=f"holds no patients: it is a patient's own folder; give .* {root}$"):
        load("." if relative else root / FIRST)


def test_nothing_is_cached_of_a_wrong_root(root: Path, tmp_path: Path, load: Load) -> None:
    with pytest.raises(FileNotFoundError):
        load(root.parent)
    assert not (tmp_path / "cache").exists()


def test_the_data_is_looked_for_where_the_variable_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BRAINSEG_LGG", "~/data")
    assert lgg_root() == tmp_path / "data"
    for value in (None, ""):
        monkeypatch.setenv("BRAINSEG_LGG", "") if value == "" else monkeypatch.delenv("BRAINSEG_LGG")
        assert lgg_root() == tmp_path / ".cache" / "brainseg" / "lgg"


def test_the_real_slices_are_all_read(tmp_path: Path) -> None:
    if not lgg_root().is_dir():
        pytest.skip(f"no LGG data in {lgg_root()}")
    # The decoded pixels take half a gigabyte: not kept with the other leftovers of tests.
    cache_dir = tmp_path / "cache"
    try:
        data = LGGSegmentation(lgg_root(), cache_dir=cache_dir)
        assert len(data.patients) == 76
        assert len(data) == len(list(lgg_root().glob("*/*_mask.tif")))
        assert set(data.shapes) == {(3, 256, 256)}
        tumour = [bool(data[i]["mask"].any()) for i in range(len(data))]
    finally:
        shutil.rmtree(cache_dir, ignore_errors=True)
    assert 0.3 < sum(tumour) / len(tumour) < 0.4
    assert {name for names in json.loads(SPLIT.read_text()).values() for name in names} <= set(data.patients)
