"""Files that are written whole or not at all."""

import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

PASSING = re.compile(r"\.(?P<place>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{16}\.")
LONGEST = 24 * 3600  # seconds that nothing is written to a file that still becomes one


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A name beside the path to write to; the file moves to the path when the block has ended well.

    The name is another one each time: two processes may write the same path.

    Raises:
        OSError: a full or read-only disk, a folder that is absent or may not be written; it names the path.
    """
    with passing_name(path) as partial:
        try:
            yield partial
            partial.replace(path)
        except OSError as error:
            # A full disk names no file, all else the passing one.
            if error.errno is None or error.filename not in (None, partial, str(partial)):
                raise
            raise type(error)(error.errno, error.strerror, str(path)) from error


def check_folder(folder: Path) -> None:
    """FileExistsError where a file is in the place of a folder, or of one above it, before any work is done."""
    for place in (folder, *folder.parents):
        if place.is_file():
            raise FileExistsError(f"{place} is a file; give a folder for the results")


@contextmanager
def passing_name(path: Path) -> Iterator[Path]:
    """A hidden name beside the path, for a file or a folder that is removed when the block ends.

    What a process that was killed has left under such names in the folder is removed by the next one that writes there.
    """
    folder, process = path.absolute().parent, os.getpid()
    _sweep(folder, process)
    passing = path.with_name(f".{_place()}-{process}-{uuid4().hex[:16]}.{path.name}")
    try:
        yield passing
    finally:
        _remove(passing)


@cache
def _sweep(folder: Path, process: int) -> None:  # noqa: ARG001
    """Once a process, since a folder may hold many thousands of files."""
    with suppress(OSError):  # that the folder is absent or may not be read is said where it is written to
        for path in folder.iterdir():
            if (name := PASSING.match(path.name)) and _is_left(path, name):
                _remove(path)


def _is_left(path: Path, name: re.Match[str]) -> bool:
    """Whether nobody writes to it any more: its process is dead, or, as far as other machines go, it is too old."""
    if name["place"] == _place() and not _lives(int(name["process"])):
        return True
    try:
        return time.time() - path.stat().st_mtime > LONGEST
    except OSError:  # its process has just ended
        return False


@cache
def _place() -> str:
    """The machine since it was started, and the container: there alone a process is known by its number."""
    facts = platform.node()
    with suppress(OSError):
        facts += Path("/proc/sys/kernel/random/boot_id").read_text() + str(Path("/proc/self/ns/pid").readlink())
    return sha256(facts.encode()).hexdigest()[:8]


def _lives(process: int) -> bool:
    if os.name != "posix":  # where this would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def _remove(path: Path) -> None:
    with suppress(OSError):  # on a read-only disk this fails as well
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
