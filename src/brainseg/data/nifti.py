"""NIfTI volumes to slices and back: which way they lie, and how large their voxels are."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Axis = Literal["axial", "coronal", "sagittal"]
Spacing = tuple[float, float, float]

# Where slices, rows and columns go: axial slices from the feet to the head, rows from the face to the back of the head,
# columns from the patient's right to the left, as radiologists look at them.
DIRECTIONS: dict[Axis, str] = {"axial": "SPL", "coronal": "AIL", "sagittal": "RIP"}

# By the unit's code in the header; without one it is mm.
MM = {1: 1000.0, 3: 0.001}
LARGEST = 100.0
"""Side of a voxel in mm beyond which a header is wrong."""


@dataclass(frozen=True)
class Grid:
    """The voxels of a volume: how many along each axis of the file, and where they lie.

    Attributes:
        shape: of the file's three axes.
        affine: (4, 4), from indices to mm in RAS coordinates (right, anterior, superior).
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    def to_slices(self, voxels: NDArray[Any], axis: Axis) -> NDArray[Any]:
        """The voxels (X, Y, Z) as slices (S, H, W), upright however the file lies; a view.

        Axial slices count from the feet to the head, coronal ones from the back of the head to the face, sagittal ones
        from the patient's left to the right. The first row is the face of an axial slice, else the top of the head; the
        first column is the patient's right, of a sagittal slice the face.
        """
        return _turned(voxels, *self._orientations(axis))

    def from_slices(self, slices: NDArray[Any], axis: Axis) -> NDArray[Any]:
        """Slices (S, H, W) as the voxels (X, Y, Z) of the file: the inverse of `to_slices`; a view."""
        stored, upright = self._orientations(axis)
        return _turned(slices, upright, stored)

    def spacing(self, axis: Axis) -> Spacing:
        """Distance of neighbouring slices, rows and columns in mm."""
        stored, upright = self._orientations(axis)
        along = {int(direction): place for place, (direction, _) in enumerate(stored)}
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        slices, rows, columns = (float(lengths[along[int(direction)]]) for direction, _ in upright)
        return slices, rows, columns

    def count(self, axis: Axis) -> int:
        """How many slices there are along an axis of the head."""
        stored, upright = self._orientations(axis)
        return self.shape[[int(direction) for direction, _ in stored].index(int(upright[0][0]))]

    def distance(self, other: "Grid") -> float:
        """How far apart two grids of one shape put the same voxel at most, in mm."""
        corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
        corners[:, :3] *= np.array(self.shape) - 1
        return float(np.linalg.norm(corners @ (self.affine - other.affine).T, axis=1).max())

    def _orientations(self, axis: Axis) -> tuple[Any, Any]:
        """Of the file, and of upright slices."""
        orientations = _nibabel().orientations
        return orientations.io_orientation(self.affine), orientations.axcodes2ornt(tuple(DIRECTIONS[axis]))


def stretch_of(spacing: Sequence[float] | None) -> float:
    """Height of a pixel over its width, from the distances of slices, rows and columns; headers round the rest off.

    Where the distances are not known a pixel is a square.
    """
    return 1.0 if spacing is None else round(float(spacing[1]) / float(spacing[2]), 4)


def _turned(voxels: NDArray[Any], start: Any, end: Any) -> NDArray[Any]:
    orientations = _nibabel().orientations
    turned: NDArray[Any] = orientations.apply_orientation(voxels, orientations.ornt_transform(start, end))
    return turned


def read_grid(path: Path) -> Grid:
    """The grid of a volume, from its header alone, in mm whatever the header's unit is.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no volume, a broken header, voxels of more than 100 mm, or other than three axes.
    """
    image = _open(path)
    shape = tuple(int(side) for side in image.shape)
    if len(shape) > 3 and set(shape[3:]) == {1}:
        shape = shape[:3]
    if len(shape) != 3 or 0 in shape:
        raise ValueError(f"{path} has the shape {shape}, expected three axes; save a volume for each sequence or time")
    affine = np.array(image.affine, np.float64)
    affine[:3] *= MM.get(int(image.header["xyzt_units"]) % 8, 1.0)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise ValueError(f"{path} has a broken header: its affine {affine.tolist()} maps voxels to no place; repair it")
    if (side := np.linalg.norm(affine[:3, :3], axis=0).max()) > LARGEST:
        raise ValueError(f"{path} has voxels of {side:g} mm by its header; repair their size, or its unit")
    return Grid((shape[0], shape[1], shape[2]), affine)


def read_voxels(path: Path) -> NDArray[Any]:
    """The voxels (X, Y, Z) of a volume, scaled as its header says.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no volume, a truncated one, or voxels that are no finite numbers.
    """
    image = _open(path)
    try:
        voxels = np.asanyarray(image.dataobj)
    except Exception as error:  # zlib, gzip and numpy have one each for a truncated file
        raise ValueError(f"{path} is truncated or broken ({_line(error)}); copy it again") from error
    if voxels.dtype.kind not in "iufb":
        raise ValueError(f"{path} holds {voxels.dtype} voxels, expected a number each; save it as integers or floats")
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        raise ValueError(f"{path} holds voxels that are not finite numbers; replace them, by 0 outside the head")
    volume: NDArray[Any] = voxels.reshape(voxels.shape[:3])
    return volume


def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise ImportError('reading volumes needs nibabel: pip install "brainseg-torch[data]"') from error
    return nibabel


def _open(path: Path) -> Any:
    nibabel = _nibabel()
    try:
        return nibabel.load(path)
    except FileNotFoundError:
        raise
    except PermissionError as error:
        raise PermissionError(
            f"{path} may not be read (permission denied); ask its owner, or change its mode"
        ) from error
    except Exception as error:
        raise ValueError(
            f"{path} is truncated, no NIfTI volume, or has a broken header ({_line(error)}); copy it again"
        ) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
