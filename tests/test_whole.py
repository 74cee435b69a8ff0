"""Files that are whole or not there, whatever the disk does."""

import errno
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from brainseg._whole import written_whole


def test_a_full_disk_names_the_file_and_leaves_the_old_one(
    tmp_path: Path, full_disk: Callable[[], AbstractContextManager[None]]
) -> None:
    path = tmp_path / "split.json"
    path.write_text("old")
    with (
        full_disk(),
        pytest.raises(OSError, match=rf"\[Errno {errno.EFBIG}\] .*: '{path}'"),
        written_whole(path) as file,
    ):
        file.write_text("x" * 100_000)
    assert [file.name for file in tmp_path.iterdir()] == ["split.json"]
    assert path.read_text() == "old"


def test_an_absent_folder_is_named_by_the_file_that_was_wanted(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "split.json"
    with pytest.raises(FileNotFoundError, match=rf": '{path}'"), written_whole(path) as file:
        file.write_text("x")


def test_a_read_only_disk_is_named_by_the_file_that_was_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    for name in ("write_text", "unlink"):  # the tests may run as root, whom no mode stops
        monkeypatch.setattr(Path, name, read_only)
    path = tmp_path / "split.json"
    with pytest.raises(OSError, match=rf"Read-only file system: '{path}'"), written_whole(path) as file:
        file.write_text("x")


def test_the_error_of_another_file_stays_its_own(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"other\.json"), written_whole(tmp_path / "a") as file:
        file.write_text((tmp_path / "other.json").read_text())
    assert not list(tmp_path.iterdir())
