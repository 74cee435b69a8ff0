"""Splits by patient: complete, balanced, repeatable, and their files."""

import json
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainseg.data import (
    institution,
    read_folds,
    read_slices_leaking,
    read_split,
    split_patients,
    split_slices_leaking,
    write_folds,
    write_split,
)

# Patients of each institution in the LGG data.
LGG = {"CS": 16, "DU": 45, "EZ": 1, "FG": 14, "HT": 34}

sizes = st.dictionaries(st.sampled_from(["CS", "DU", "EZ", "FG", "HT", "other"]), st.integers(1, 40), min_size=1)
seeds = st.integers(0, 2**32)


def patients_of(sizes: dict[str, int]) -> list[str]:
    return [f"TCGA_{place}_{i:04}" if place != "other" else f"mr{i}" for place, n in sizes.items() for i in range(n)]


def assert_balanced(part: list[str], sizes: dict[str, int]) -> None:
    """Each institution has its share of the part, rounded up or down."""
    found = Counter(map(institution, part))
    for place, size in sizes.items():
        assert abs(found[place] - size * len(part) / sum(sizes.values())) < 1


@given(sizes=sizes, seed=seeds, validation=st.floats(0, 0.5), test=st.floats(0, 0.4))
def test_parts_are_disjoint_complete_and_balanced(
    sizes: dict[str, int], seed: int, validation: float, test: float
) -> None:
    patients = patients_of(sizes | {"DU": 5})
    split = split_patients(patients, validation=validation, test=test, seed=seed)
    assert sorted(split["train"] + split["validation"] + split["test"]) == sorted(patients)
    for name, share in (("validation", validation), ("test", test)):
        assert abs(len(split[name]) - share * len(patients)) <= 1
        assert bool(split[name]) == (share > 0)
    for part in split.values():
        assert part == sorted(part)
        assert_balanced(part, sizes | {"DU": 5})


@pytest.mark.parametrize("seed", range(30))
def test_small_test_and_validation_parts_leave_training_balanced(seed: int) -> None:
    split = split_patients(patients_of(LGG), validation=0.15, test=0.15, seed=seed)
    for part in split.values():
        assert_balanced(part, LGG)


@given(sizes=sizes, seed=seeds, folds=st.integers(2, 6), test=st.floats(0, 0.4))
def test_folds_validate_everyone_once_outside_the_test_part(
    sizes: dict[str, int], seed: int, folds: int, test: float
) -> None:
    sizes = sizes | {"HT": 12}
    patients = patients_of(sizes)
    splits = split_patients(patients, test=test, seed=seed, folds=folds)
    assert len(splits) == folds
    held = splits[0]["test"]
    assert sorted(held + [name for split in splits for name in split["validation"]]) == sorted(patients)
    for split in splits:
        assert split["test"] == held
        assert sorted(split["train"] + split["validation"] + held) == sorted(patients)
        assert abs(len(split["validation"]) - (len(patients) - len(held)) / folds) < 1
        assert_balanced(split["validation"], sizes)
    assert_balanced(held, sizes)


def test_a_split_of_the_lgg_patients_has_the_parts_asked_for() -> None:
    split = split_patients(patients_of(LGG), validation=0.2, test=0.1, seed=0)
    assert {part: len(names) for part, names in split.items()} == {"train": 77, "validation": 22, "test": 11}


@given(sizes=sizes, seed=seeds)
def test_a_seed_draws_one_split_however_the_patients_are_ordered(sizes: dict[str, int], seed: int) -> None:
    patients = patients_of(sizes | {"HT": 6})
    first = split_patients(patients, validation=0.2, test=0.2, seed=seed)
    assert split_patients(reversed(patients), validation=0.2, test=0.2, seed=seed) == first
    assert split_patients(set(patients), seed=seed, folds=3) == split_patients(patients, seed=seed, folds=3)


def test_different_seeds_draw_different_splits() -> None:
    draws = [split_patients(patients_of(LGG), test=0.2, seed=seed) for seed in range(20)]
    for part in ("train", "validation", "test"):
        assert len({tuple(draw[part]) for draw in draws}) == 20


def test_a_lone_patient_of_an_institution_validates_as_often_as_others() -> None:
    draws = [split_patients(patients_of(LGG), validation=0.2, seed=seed)["validation"] for seed in range(1000)]
    assert sum("TCGA_EZ_0000" in names for names in draws) / 1000 == pytest.approx(0.2, abs=0.04)


@given(seed=seeds)
def test_a_column_of_a_table_is_stratified_by(seed: int) -> None:
    patients = [f"p{i:02}" for i in range(30)]
    grades = {f"p{i:02}": "high" if i < 20 else "low" for i in range(30)}
    splits = split_patients(patients, seed=seed, folds=5, stratify=grades)
    for split in splits:
        assert Counter(grades[name] for name in split["validation"]) == {"high": 4, "low": 2}
    by_function = split_patients(patients, seed=seed, folds=5, stratify=lambda name: grades[name])
    assert by_function == splits


def test_a_patient_without_a_group_is_named() -> None:
    with pytest.raises(ValueError, match=r"patient 'b' has no group to stratify by \(2 of 3 have none\)"):
        split_patients(["a", "b", "c"], seed=0, stratify={"a": "high"})


def test_a_part_that_is_asked_for_has_somebody() -> None:
    split = split_patients(["a", "b"], validation=0.2, seed=0)
    assert len(split["train"]) == len(split["validation"]) == 1


@pytest.mark.parametrize(
    ("patients", "shares", "message"),
    [
        (["a", "b", "a"], {}, "patient 'a' is given twice; give each once"),
        (["ü", "u\u0308"], {}, "patient 'ü' is given twice; give each once"),
        ([], {}, "of 0 patients none is left to train on"),
        (["a"], {}, "of 1 patients none is left to train on"),
        (["a", "b"], {"test": 0.2}, "of 2 patients none is left to train on"),
        (["a", "b"], {"validation": 0.5, "test": 0.5}, "must be shares whose sum is below 1"),
        (["a", "b"], {"validation": -0.1}, "must be shares whose sum is below 1"),
        (["a", "b"], {"validation": 20}, "must be shares whose sum is below 1"),
        (["a", "b"], {"folds": 3}, "folds=3 must lie between 2 and the 2 patients"),
        (["a", "b"], {"folds": 1}, "folds=1 must lie between 2 and the 2 patients"),
        (["a", "b", "c"], {"folds": 3, "test": 0.2}, "folds=3 must lie between 2 and the 2 patients"),
    ],
)
def test_impossible_splits_are_refused(patients: list[str], shares: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_patients(patients, seed=0, **shares)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("patient", "expected"),
    [("TCGA_DU_5851_19950428", "DU"), ("TCGA_HT_1", "HT"), ("patient_7", "other"), ("TCGA_DUX_5851", "other")],
)
def test_institutions_are_read_from_barcodes(patient: str, expected: str) -> None:
    assert institution(patient) == expected


@given(slices=st.integers(1, 300), validation=st.floats(0, 1), seed=st.integers(0, 2**32 - 1))
def test_a_split_by_slice_takes_each_slice_once(slices: int, validation: float, seed: int) -> None:
    train, held = split_slices_leaking(slices, validation=validation, seed=seed)
    assert sorted(train + held) == list(range(slices))
    assert 0 <= len(held) - validation * slices <= 1
    assert split_slices_leaking(slices, validation=validation, seed=seed) == (train, held)


def test_splits_by_slice_differ_by_seed() -> None:
    assert split_slices_leaking(50, seed=0) != split_slices_leaking(50, seed=1)


def test_a_split_by_slice_is_that_of_scikit_learn() -> None:
    """What `train_test_split(range(10), test_size=0.2, random_state=41)` answers."""
    assert split_slices_leaking(10, seed=41) == ([7, 8, 1, 9, 2, 4, 3, 0], [5, 6])
    with pytest.raises(ValueError, match=r"seed=-1 of a split by slice must lie between"):
        split_slices_leaking(10, seed=-1)


def test_a_split_by_slice_keeps_its_order_and_says_that_it_leaks(tmp_path: Path) -> None:
    split = {"train": [("Gliom Zürich", 7), ("a", 1)], "validation": [("a", 3), ("a", 2)], "test": []}
    write_split(split, tmp_path / "split.json")
    assert read_slices_leaking(tmp_path / "split.json") == split
    assert "scores on this split are memory" in (tmp_path / "split.json").read_text()
    with pytest.raises(ValueError, match=r"split\.json splits slices: .* memory; .*data\.split_by=slice"):
        read_split(tmp_path / "split.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": ["a"]}, r"does not split slices; for a split by patient leave out data\.split_by=slice"),
        ({"leaks": "", "train": ["a 1"], "validation": ["a 1"]}, r"names 'a 1' twice"),
        ({"leaks": "", "train": ["a"]}, r"holds 'a', expected a patient and the number"),
        ({"leaks": "", "train": [["a", 1]]}, r"holds \['a', 1\], expected a patient"),
    ],
)
def test_what_is_no_split_by_slice_is_refused(tmp_path: Path, content: object, message: str) -> None:
    (tmp_path / "split.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_slices_leaking(tmp_path / "split.json")


@pytest.mark.parametrize("validation", [-0.1, 1.1, 20])
def test_a_split_by_slice_needs_a_share(validation: float) -> None:
    with pytest.raises(ValueError, match=r"validation=.* must be a share between 0 and 1"):
        split_slices_leaking(10, validation=validation, seed=0)


def test_a_split_survives_its_file(tmp_path: Path) -> None:
    split = split_patients([*patients_of(LGG), "Gliom Zürich"], validation=0.2, test=0.1, seed=0)
    write_split(split, tmp_path / "split.json")
    assert read_split(tmp_path / "split.json") == split
    assert [path.name for path in tmp_path.iterdir()] == ["split.json"]


def test_files_of_the_home_folder_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_split({"train": ["a"]}, "~/split.json")
    assert (tmp_path / "split.json").is_file()
    assert read_split("~/split.json")["train"] == ["a"]


def test_parts_that_a_file_leaves_out_are_empty(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text('{"validation": ["b"], "train": ["a"]}')
    assert read_split(path) == {"train": ["a"], "validation": ["b"], "test": []}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("train: a", r"split\.json is no JSON .*; expected"),
        ("\x80", r"split\.json is no JSON .*; expected"),
        (["a", "b"], r"split\.json is no split; expected"),
        ({"train": ["a"], "val": ["b"]}, r"split\.json is no split; expected"),
        ({"train": []}, r"split\.json is no split; expected"),
        ({"train": "a"}, r"split\.json is no split; expected"),
        ({"train": ["a"], "test": {"b": 1}}, r"split\.json is no split; expected"),
        ({"train": ["a", 3]}, r"split\.json holds names that are no strings"),
        ({"train": ["a", ["b"]]}, r"split\.json holds names that are no strings"),
        ({"train": ["a", "b"], "test": ["b"]}, r"split\.json names b 2 times; a patient belongs to one part"),
        ('{"train": ["a"], "train": ["b"]}', r"split\.json is no JSON \(it names 'train' twice\); expected"),
        ({"train": ["ü"], "test": ["u\u0308"]}, r"split\.json names ü 2 times; a patient belongs to one part"),
        ({"train": ["a", "a"]}, r"split\.json names a 2 times; a patient belongs to one part"),
    ],
)
def test_files_that_are_no_split_are_named(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "split.json"
    path.write_bytes(content.encode("latin-1") if isinstance(content, str) else json.dumps(content).encode())
    with pytest.raises(ValueError, match=message):
        read_split(path)


def test_accents_come_in_one_spelling_and_files_of_windows_are_read(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_bytes(b"\xef\xbb\xbf" + '{"train": ["Mu\u0308ller"]}'.encode())
    assert read_split(path)["train"] == ["M\u00fcller"]
    assert split_patients(["a", "u\u0308"], seed=0) == split_patients(["a", "\u00fc"], seed=0)


def test_a_full_disk_names_the_split_and_leaves_the_old_one(
    tmp_path: Path, full_disk: Callable[[], AbstractContextManager[None]]
) -> None:
    path = tmp_path / "split.json"
    write_split({"train": ["a"]}, path)
    with full_disk(), pytest.raises(OSError, match=rf": '{path}'"):
        write_split({"train": [f"patient {number}" for number in range(1000)]}, path)
    assert list(tmp_path.iterdir()) == [path]
    assert read_split(path)["train"] == ["a"]


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"there is no split .*nowhere\.json; split_patients, or brainseg split, makes one"
    ):
        read_split(tmp_path / "nowhere.json")


def test_folds_come_back_from_their_file_and_are_no_split(tmp_path: Path) -> None:
    path = tmp_path / "folds.json"
    folds = split_patients(patients_of(LGG), test=0.1, seed=0, folds=4)
    write_folds(folds, path)
    assert read_folds(path) == folds
    with pytest.raises(ValueError, match=r"folds\.json holds 4 folds, expected one split; name one with data\.fold"):
        read_split(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": ["a"], "validation": ["b"]}, r"folds\.json holds no folds; expected"),
        ({"folds": [{"train": ["a"]}]}, r"folds\.json holds no folds; expected"),
        ({"folds": {"train": ["a"]}}, r"folds\.json holds no folds; expected"),
        ({"folds": [{"train": ["a"]}, {"trian": ["a"]}]}, r"folds\.json, fold 1, is no split; expected"),
        ({"folds": [{"train": ["a"]}, {"train": ["a"], "test": ["a"]}]}, r"folds\.json, fold 1, names a 2 times"),
        (
            {"folds": [{"train": ["a"], "validation": ["b"]}, {"train": ["c"], "validation": ["b"]}]},
            r"folds\.json has b validate in the folds 0 and 1; keep one",
        ),
    ],
)
def test_files_that_hold_no_folds_are_named(tmp_path: Path, content: object, message: str) -> None:
    (tmp_path / "folds.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_folds(tmp_path / "folds.json")
