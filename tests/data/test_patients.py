"""Whose image it is: by an expression, a table or folders, and which slice."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brainseg.data import ImageMaskFolder


def write(root: Path, *names: str) -> None:
    for folder in ("images", "masks"):
        for name in names:
            path = root / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((4, 5), np.uint8)).save(path)


def items(root: Path, *names: list[str], pattern: str | None = None) -> tuple[str, list[tuple[str, int, str]]]:
    data = ImageMaskFolder(root / "data", *names, patient_pattern=pattern, cache_dir=root / "cache")
    for files in data.files:
        assert files.masks[0].relative_to(root / "data" / "masks") == files.images[0].relative_to(
            root / "data" / "images"
        )
    return data.case, [(files.patient, files.slice, files.images[0].stem) for files in data.files]


def test_without_more_each_image_is_a_case(tmp_path: Path) -> None:
    write(tmp_path / "data", "a_1", "a_2")
    assert items(tmp_path) == ("image", [("a_1", 0, "a_1"), ("a_2", 0, "a_2")])


def test_folders_are_patients_and_slices_come_in_numeric_order(tmp_path: Path) -> None:
    write(tmp_path / "data", "b/s10", "b/s9", "a/x", "a/y", "a/deeper/z")
    expected = [("a", 0, "z"), ("a", 1, "x"), ("a", 2, "y"), ("b", 9, "s9"), ("b", 10, "s10")]
    assert items(tmp_path) == ("patient", expected)
    assert items(tmp_path, ["b"]) == ("patient", expected[3:])


def test_folders_of_patients_may_be_called_like_classes(tmp_path: Path) -> None:
    write(tmp_path / "data", "0/x", "1/x")
    assert items(tmp_path) == ("patient", [("0", 0, "x"), ("1", 0, "x")])


def test_each_class_has_the_folders_of_the_patients(tmp_path: Path) -> None:
    write(tmp_path / "data", "a/x", "b/x")
    for k in "01":
        for patient in "ab":
            (tmp_path / "data" / "masks" / k / patient).mkdir(parents=True)
            source = tmp_path / "data" / "masks" / patient / "x.png"
            (tmp_path / "data" / "masks" / k / patient / "x.png").write_bytes(source.read_bytes())
    for patient in "ab":
        (tmp_path / "data" / "masks" / patient / "x.png").unlink()
        (tmp_path / "data" / "masks" / patient).rmdir()
    data = ImageMaskFolder(tmp_path / "data", cache_dir=tmp_path / "cache")
    assert (data.patients, data.num_classes) == (["a", "b"], 2)


def test_an_expression_names_patient_and_slice(tmp_path: Path) -> None:
    write(tmp_path / "data", "a_left_2", "a_left_10", "b_right_1")
    assert items(tmp_path, pattern=r"(?P<patient>[a-z])_.*") == (
        "patient",
        [("a", 2, "a_left_2"), ("a", 10, "a_left_10"), ("b", 1, "b_right_1")],
    )
    case, found = items(tmp_path, pattern=r"(?P<patient>\w_\w+)_(?P<slice>\d+)")
    assert found == [("a_left", 2, "a_left_2"), ("a_left", 10, "a_left_10"), ("b_right", 1, "b_right_1")]
    assert case == "patient"


def test_a_table_names_patients_and_wins_over_folders(tmp_path: Path) -> None:
    write(tmp_path / "data", "one/x", "two/y", "z")
    (tmp_path / "data" / "patients.csv").write_text("file,patient\none/x.png,A\nimages/two/y,A\nz,B\n")
    assert items(tmp_path) == ("patient", [("A", 0, "x"), ("A", 1, "y"), ("B", 0, "z")])
    assert items(tmp_path, pattern="(?P<patient>.).*")[1][0] == ("o", 0, "x")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,patient\nx,A\n", r"patients\.csv does not name y \(1 are missing\); add its row"),
        ("file,patient\nx,A\ny,A\nz,B\n", r"patients\.csv names z, which .*images does not hold"),
        ("file,patient\nx,A\nx.png,B\ny,A\n", r"patients\.csv gives x\.png to two patients"),
        ("file,who\nx,A\n", r"patients\.csv has no column 'patient'; it has file, who"),
    ],
)
def test_a_table_that_does_not_fit_is_named(tmp_path: Path, table: str, message: str) -> None:
    write(tmp_path / "data", "x", "y")
    (tmp_path / "data" / "patients.csv").write_text(table)
    with pytest.raises(ValueError, match=message):
        items(tmp_path)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "is no regular expression"),
        (r"\w+", "has no group patient; write"),
        (r"(?P<patient>a)_\d", r"images/b_1\.\* does not fit patient_pattern"),
        (r"(?P<patient>.)_(?P<slice>\w)", r"images/b_x\.\* has the slice 'x', expected a number"),
        (r"(?P<patient>.)_.(?P<slice>\d)?", r"has the slice None, expected a number"),
    ],
)
def test_an_expression_that_does_not_fit_is_named(tmp_path: Path, pattern: str, message: str) -> None:
    write(tmp_path / "data", "a_1", "b_1", *(["b_x"] if "w" in pattern else []))
    with pytest.raises(ValueError, match=message):
        items(tmp_path, pattern=pattern)


def test_two_images_of_one_slice_are_named(tmp_path: Path) -> None:
    write(tmp_path / "data", "a_1", "a_01")
    with pytest.raises(ValueError, match=r"a_01\.png and a_1\.png are both slice 1 of a"):
        items(tmp_path, pattern=r"(?P<patient>.)_(?P<slice>\d+)")
