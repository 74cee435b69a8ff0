"""The pictures of a page: small, and kept in a file until the page is written, so that memory does not grow."""

import json
from base64 import b64encode
from collections.abc import Iterator, Sequence
from io import BytesIO
from tempfile import TemporaryFile
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from brainseg.visualization.outlines import outline_path

SIDE = 256
"""Pixels of the longer side of a picture, at most."""
DARK = 0.1
"""Share of the brightest pixel below which the frame around the head is cut off: as it is in `ForegroundZScore`."""


class Slice(NamedTuple):
    """What is known of a slice before its picture is read.

    Attributes:
        label: number or name.
        start: of the picture and the outlines, in the file.
        length: likewise.
        box: columns and rows of the picture: first, first, number, number.
        true: pixels of all classes; None if nothing is known to be true.
        found: likewise.
        stretch: height of a pixel over its width.
    """

    label: str
    start: int
    length: int
    box: tuple[int, int, int, int]
    true: int | None
    found: int
    stretch: float


Kept = tuple[str, Slice, bytes]
"""Patient, slice, and the line of the file."""


class Pictures:
    """Slices of patients with outlines, written to a passing file as they come; leave the `with` block to delete it.

    A slice of 256 x 256 pixels takes about 8 kB: WebP, cut to the head, outlines as paths.

    Raises:
        ImportError: Pillow or matplotlib is not installed.
        OSError: the folder for passing files (TMPDIR) is full or may not be written.
    """

    def __init__(self) -> None:
        try:
            import contourpy  # noqa: F401  what matplotlib finds outlines with
            import PIL.Image  # noqa: F401
        except ImportError as error:
            raise ImportError(f'pictures of a page need {error.name}: pip install "brainseg-torch[train]"') from error
        self._file = TemporaryFile()  # noqa: SIM115  closed by the block of this class
        self._end = 0
        self.slices: dict[str, list[Slice]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(
        self,
        patient: str,
        label: str | int,
        image: NDArray[np.float32],
        prediction: NDArray[np.bool_],
        target: NDArray[np.bool_] | None = None,
        *,
        stretch: float = 1.0,
    ) -> None:
        """Keeps a slice.

        Args:
            patient: name.
            label: of the slice.
            image: (H, W) or (3, H, W) in [0, 1], as `brightened` gives it.
            prediction: (K, H, W).
            target: likewise; None if what is true is not known.
            stretch: height of a pixel over its width, in mm of the scan; the same for all slices of a patient.
        """
        masks = [prediction] if target is None else [target, prediction]
        x, y, width, height = box = _box(image, np.concatenate(masks))
        cut = image[..., y : y + height, x : x + width]
        outlines = [[outline_path(mask) for mask in each] for each in masks]
        record = {"label": str(label), "box": box, "picture": _encoded(cut), "outlines": outlines}
        # As in a page: a name cannot end the element that holds it.
        line = json.dumps(record, separators=(",", ":")).replace("<", "\\u003c").encode("ascii")
        true = None if target is None else int(target.any(0).sum())
        self._keep(patient, Slice(str(label), 0, len(line), box, true, int(prediction.any(0).sum()), stretch), line)

    def contents(self) -> list[Kept]:
        """All slices, for the pictures of another process."""
        return [(patient, each, self._read(each)) for patient, slices in self.slices.items() for each in slices]

    def extend(self, contents: Sequence[Kept]) -> None:
        """Keeps the slices of other pictures, as their `contents` gives them."""
        for patient, each, line in contents:
            self._keep(patient, each, line)

    def records(self, patient: str) -> Iterator[str]:
        """Label, box, picture and outlines of each slice of a patient, as JSON that may stand in a page."""
        for each in self.slices[patient]:
            yield self._read(each).decode("ascii")

    def _keep(self, patient: str, each: Slice, line: bytes) -> None:
        self._file.seek(self._end)
        self._file.write(line)
        self.slices.setdefault(patient, []).append(each._replace(start=self._end))
        self._end += len(line)

    def _read(self, each: Slice) -> bytes:
        self._file.seek(each.start)
        return self._file.read(each.length)


def _box(image: NDArray[np.float32], masks: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """First column, first row, columns and rows of what is not dark or masked; at least one pixel."""
    seen = masks.any(0) | (image.reshape(-1, *image.shape[-2:]) > DARK * image.max()).any(0)
    if not seen.any():
        return image.shape[-1] // 2, image.shape[-2] // 2, 1, 1
    (left, right), (top, bottom) = (np.flatnonzero(seen.any(axis))[[0, -1]].tolist() for axis in (0, 1))
    return left, top, right - left + 1, bottom - top + 1


def _encoded(image: NDArray[np.float32]) -> str:
    from PIL import Image

    pixels = (image * 255).round().astype(np.uint8)
    picture = Image.fromarray(pixels if pixels.ndim == 2 else np.ascontiguousarray(np.moveaxis(pixels, 0, -1)))
    picture.thumbnail((SIDE, SIDE))
    stream = BytesIO()
    picture.save(stream, "WEBP", quality=60, method=2)
    return b64encode(stream.getvalue()).decode("ascii")
