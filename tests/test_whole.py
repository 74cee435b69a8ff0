"""Files that are whole or not there, whatever the disk does."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from brainseg._whole import _place, written_whole


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


KILLED = """
import os, signal, sys
from pathlib import Path
from brainseg._whole import passing_name, written_whole

target = Path(sys.argv[1])
with written_whole(target) as file, passing_name(target) as folder:
    file.write_text("half")
    folder.mkdir()
    (folder / "part").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def left_by_a_killed_process(target: Path) -> list[Path]:
    result = subprocess.run([sys.executable, "-c", KILLED, str(target)], check=False)
    assert result.returncode == -signal.SIGKILL
    return list(target.parent.iterdir())


def test_what_a_killed_process_left_goes_when_the_folder_is_written_to(tmp_path: Path) -> None:
    left = left_by_a_killed_process(tmp_path / "split.json")
    assert len(left) == 2
    with written_whole(tmp_path / "split.json") as file:
        file.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["split.json"]


def test_what_others_are_writing_stays(tmp_path: Path) -> None:
    passing = [".env", ".0123456789abcdef.json"]  # of nobody
    passing.append(f".{_place()}-{os.getppid()}-0123456789abcdef.split.json")  # of a process that lives
    passing.append(".00000000-1-0123456789abcdef.split.json")  # of another machine
    for name in passing:
        (tmp_path / name).write_text("half")
    old = tmp_path / ".00000000-1-fedcba9876543210.split.json"
    old.write_text("half")
    os.utime(old, times=(0, time.time() - 25 * 3600))
    with written_whole(tmp_path / "split.json") as file:
        file.write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == {"split.json", *passing}
