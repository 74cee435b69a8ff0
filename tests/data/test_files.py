"""One rule for what is an image of a folder, and no file that vanishes."""

import os
from pathlib import Path

import pytest
from PIL import Image

from brainseg.data import find_images
from brainseg.data.files import what_lies_in


def save(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4)).save(path, format=None if path.suffix else "PNG")
    return path


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_images(folder)]


def test_images_are_found_by_suffix_in_any_case_to_any_depth(tmp_path: Path) -> None:
    for name in ("b.TIF", "b/a.Png", "a/c/x.jpeg", "a.tiff"):
        save(tmp_path / name)
    assert names(tmp_path) == ["a/c/x.jpeg", "a.tiff", "b/a.Png", "b.TIF"]


def test_an_image_without_a_suffix_is_found_by_its_content(tmp_path: Path) -> None:
    save(tmp_path / "IM0001")
    (tmp_path / "README").write_text("notes")
    assert names(tmp_path) == ["IM0001"]


@pytest.mark.parametrize(
    "name",
    [
        *(
            "notes.pdf",
            "data.h5",
            "data.hdf",
            "figure.eps",
            "figure.ps",
            "film.mpg",
            "film.mpeg",
            "film.flc",
            "draw.wmf",
        ),
        *("draw.emf", "sky.fits", "wind.grib", "wind.bufr", "icon.ico", "icon.icns", "arrow.cur", "news.iim", "x.palm"),
        *("Thumbs.db", "desktop.ini", "notes.txt", "split.json", "scan.nii.gz", "scan.dcm", "film.mp4"),
        *(".DS_Store", "._x.png", ".x.png", ".ipynb_checkpoints/x.png", "__MACOSX/x.png", "@eaDir/x.png", "Icon\r"),
    ],
)
def test_what_is_no_image_is_left_out(tmp_path: Path, name: str) -> None:
    save(tmp_path / "x.png")
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\0\5\x16\7")
    assert names(tmp_path) == ["x.png"]


def test_a_hidden_folder_is_searched_when_it_is_the_one_that_is_given(tmp_path: Path) -> None:
    save(tmp_path / ".cache" / "x.png")
    assert names(tmp_path / ".cache") == ["x.png"]


def test_broken_images_and_links_to_nowhere_are_found_and_not_forgotten(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"")
    (tmp_path / "moved.png").symlink_to(tmp_path / "nowhere.png")
    assert names(tmp_path) == ["broken.png", "moved.png"]


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    save(tmp_path / "disk" / "x.png")
    (tmp_path / "data").mkdir()
    for name in ("a", "b"):
        (tmp_path / "data" / name).symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "round").symlink_to(tmp_path / "data")
    assert names(tmp_path / "data") == ["a/x.png", "b/x.png"]


def test_a_folder_that_may_not_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a" / "x.png")
    save(tmp_path / "b" / "x.png")
    listed = os.listdir

    def denied(path: str | Path) -> list[str]:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    # The tests may run as root, whom no mode stops.
    monkeypatch.setattr(os, "listdir", denied)
    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(PermissionError, match="b'"):
        find_images(tmp_path)


def test_an_absent_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_images(tmp_path / "nowhere")


def test_a_folder_without_images_is_told_what_it_holds(tmp_path: Path) -> None:
    assert what_lies_in(tmp_path) == "it is empty"
    (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM")
    assert what_lies_in(tmp_path) == "it holds a.dcm (a DICOM file)"
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.dcm").write_bytes(b"")
    (tmp_path / "README.md").write_text("")
    assert what_lies_in(tmp_path) == "it holds 3 files such as a.dcm (a DICOM file)"
