"""Which files of a folder are images, what the others are, and names that are spelled in more than one way."""

import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

# What Pillow lists among its formats, and what is no slice.
NO_SLICES = frozenset(
    (
        *("EPS", "PDF", "PALM", "WMF", "FLI", "MPEG"),  # documents, drawings, videos
        *("CUR", "ICNS", "ICO", "XVTHUMB"),  # icons
        *(
            "BUFR",
            "FITS",
            "GRIB",
            "HDF5",
            "IMT",
            "IPTC",
            "MCIDAS",
            "SPIDER",
        ),  # other sciences, with pixels of their own
    )
)
VOLUMES = (".nii.gz", ".nii")
# What systems leave beside the data, and does not begin with a dot.
CLUTTER = frozenset(("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"))
IMAGES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"GIF8", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
OTHERS = (
    (344, b"n+1\0", "a NIfTI volume"),
    (344, b"ni1\0", "a NIfTI volume"),
    (4, b"n+2\0", "a NIfTI volume"),
    (4, b"ni2\0", "a NIfTI volume"),
    (128, b"DICM", "a DICOM file"),
    (0, b"\x08\0\x05\0CS", "a DICOM file"),
    (0, b"NRRD", "an NRRD volume"),
    (0, b"ObjectType =", "a MetaImage volume"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"MATLAB 5.0", "a MATLAB file"),
    (0, b"SIMPLE  =", "a FITS file"),
    (0, b"%PDF", "a PDF document"),
    (0, b"%!PS", "an EPS drawing"),
    (0, b"\xc5\xd0\xd3\xc6", "an EPS drawing"),
    (0, b"\xd7\xcd\xc6\x9a", "a WMF drawing"),
    (0, b"\0\0\x01\xba", "an MPEG video"),
    (4, b"ftypisom", "an MP4 video"),
    (4, b"ftypmp4", "an MP4 video"),
    (4, b"ftypqt", "a QuickTime video"),
    (0, b"\0\0\x01\0", "an icon"),
    (0, b"PK\3\4", "a ZIP archive"),
    (0, b"\0\5\x16\7", "what a Mac keeps beside a file"),
)
# By name, where the content does not tell.
SUFFIXES = {
    ".nii": "a NIfTI volume",
    ".nii.gz": "a NIfTI volume",
    ".dcm": "a DICOM file",
    ".dicom": "a DICOM file",
    ".ima": "a DICOM file",
    ".mgz": "an MGH volume",
    ".mgh": "an MGH volume",
    ".mha": "a MetaImage volume",
    ".mhd": "a MetaImage volume",
}


def find_images(folder: str | Path) -> list[Path]:
    """The image files of a folder, to any depth, sorted; the one rule by which folders are searched here.

    A file is an image if its suffix, in any case, is one of a picture that Pillow reads, or if its first bytes are
    those of one, whatever its name. So a broken image is listed, and named by who reads it, and a PDF, an HDF5 file, a
    video or a text is not. Hidden files and folders (their name begins with a dot, as a Mac's resource forks do) and
    what systems leave (`__MACOSX`, `@eaDir`) are left out. Links are followed.

    Raises:
        FileNotFoundError: no such folder.
        PermissionError: a folder that may not be read.
    """
    folder = Path(folder).expanduser()
    known = _suffixes()
    return [path for path in _visible(folder) if path.suffix.lower() in known or _first_bytes(path).startswith(IMAGES)]


def find_volumes(folder: Path) -> list[Path]:
    """The NIfTI volumes of a folder (.nii, .nii.gz, in any case), searched as `find_images` does."""
    return [path for path in _visible(folder) if path.name.lower().endswith(VOLUMES)]


def volume_name(path: Path) -> str:
    """The name of a volume without its suffix, in one spelling."""
    suffix = next(suffix for suffix in VOLUMES if path.name.lower().endswith(suffix))
    return one_spelling(path.name[: -len(suffix)])


def subfolders(folder: Path, but: str | Path | None = None) -> list[Path]:
    """The folders in a folder, sorted, by the rule of `find_images`, without one that holds our own cache."""
    cache = None if but is None else Path(but).expanduser().resolve()
    found = [path for path in sorted(folder.iterdir()) if path.is_dir() and not _is_clutter(path)]
    return [path for path in found if cache is None or not cache.is_relative_to(path.resolve())]


def stem_of(path: Path) -> str:
    """The name without the suffix of an image; without one it is the whole name."""
    return path.stem if path.suffix.lower() in _suffixes() else path.name


def name_of(path: Path) -> str:
    """`stem_of` in one spelling."""
    return one_spelling(stem_of(path))


def one_spelling(name: str) -> str:
    """The name in Unicode's normal form C: Macs write an umlaut as two characters, others as one."""
    return unicodedata.normalize("NFC", name)


def what_is(path: Path) -> str | None:
    """What a file is that is no image, as far as its content or name tells: "a NIfTI volume"."""
    head = _first_bytes(path)
    if head.startswith(b"\x1f\x8b"):
        try:
            head = zlib.decompressobj(wbits=31).decompress(head, 512)
        except zlib.error:
            head = b""
    for offset, magic, words in OTHERS:
        if head[offset:].startswith(magic):
            return words
    return next((words for suffix, words in SUFFIXES.items() if path.name.lower().endswith(suffix)), None)


def what_lies_in(folder: Path) -> str:
    """What a folder holds that has not what it should: "it holds 20 files such as 1.dcm (a DICOM file)"."""
    paths = list(_visible(folder))
    if not paths:
        return "it is empty"
    images = find_images(folder)
    kind = Counter(path.suffix.lower() for path in images or paths).most_common(1)[0][0]
    first = next(path for path in images or paths if path.suffix.lower() == kind)
    words = None if images else what_is(first)
    named = f"{first.relative_to(folder)}" + (f" ({words})" if words else "")
    return f"it holds {named}" if len(paths) == 1 else f"it holds {len(paths)} files such as {named}"


@cache
def _suffixes() -> set[str]:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError('reading images needs Pillow: pip install "brainseg-torch[data]"') from error
    return {suffix for suffix, name in Image.registered_extensions().items() if name not in NO_SLICES}


def _visible(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """All files but hidden ones, sorted folder by folder; a link that goes in circles ends."""
    if (here := folder.resolve()) in above:
        return
    for path in sorted(folder.iterdir()):
        if _is_clutter(path):
            continue
        if path.is_dir():
            yield from _visible(path, (*above, here))
        else:
            yield path  # a link to nowhere too: whoever reads it names it


def _is_clutter(path: Path) -> bool:
    return path.name.startswith(".") or path.name in CLUTTER


def _first_bytes(path: Path) -> bytes:
    """Enough to tell what a file is; nothing where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(1024)
    except OSError:
        return b""
