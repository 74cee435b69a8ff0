"""Files that are written whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A name beside the path to write to; the file moves to the path when the block has ended well.

    The name is another one each time: two processes may write the same path.

    Raises:
        OSError: a full or read-only disk, a folder that is absent or may not be written; it names the path.
    """
    partial = path.with_name(f".{uuid4().hex}.{path.name}")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        # A full disk names no file, all else the passing one.
        if error.errno is None or error.filename not in (None, partial, str(partial)):
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):  # on a read-only disk this fails as well
            partial.unlink()
