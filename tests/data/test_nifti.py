"""Volumes to slices and back, whichever way the file lies."""

import gzip
import struct
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from brainseg.data.nifti import Axis, Grid, read_grid, read_voxels

RNG = np.random.default_rng(0)
SHAPE = (4, 5, 6)
# Voxels are numbered by where they lie: 100 a step to the right, 10 to the front, 1 to the head.
WHERE = (100 * np.arange(4)[:, None, None] + 10 * np.arange(5)[:, None] + np.arange(6)).astype(np.int16)
MM = (1.0, 2.0, 3.0)
CODES = ["".join(code) for order in permutations(("LR", "PA", "IS")) for code in product(*order)]


def lying(code: str) -> tuple[np.ndarray, Grid]:
    """The same head in a file whose axes go where the code says."""
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(tuple(code)))
    voxels = nibabel.orientations.apply_orientation(WHERE, turn)
    affine = np.diag([*MM, 1.0]) @ inv_ornt_aff(turn, SHAPE)
    assert "".join(nibabel.aff2axcodes(affine)) == code
    return voxels, Grid(voxels.shape, affine)


def save(path: Path, voxels: np.ndarray, affine: Any = None) -> Path:
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)
    return path


def test_there_are_48_ways_to_lie() -> None:
    assert len(set(CODES)) == 48


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
def test_slices_stand_upright_however_the_file_lies(code: str, axis: Axis) -> None:
    voxels, grid = lying(code)
    slices = grid.to_slices(voxels, axis)
    right, front, head = slices // 100, slices // 10 % 10, slices % 10
    along, down, across = {
        "axial": (head, 4 - front, 3 - right),
        "coronal": (front, 5 - head, 3 - right),
        "sagittal": (right, 5 - head, 4 - front),
    }[axis]
    for values, place in ((along, 0), (down, 1), (across, 2)):
        shape = [1, 1, 1]
        shape[place] = -1
        np.testing.assert_array_equal(
            values, np.broadcast_to(np.arange(slices.shape[place]).reshape(shape), slices.shape)
        )
    assert grid.spacing(axis) == {"axial": (3, 2, 1), "coronal": (2, 3, 1), "sagittal": (1, 3, 2)}[axis]
    assert grid.count(axis) == len(slices)
    np.testing.assert_array_equal(grid.from_slices(slices, axis), voxels)


def test_an_oblique_file_is_cut_along_its_nearest_axes() -> None:
    turn = np.eye(4)
    angle = np.radians(20)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    _, straight = lying("LPS")
    grid = Grid(straight.shape, turn @ straight.affine)
    voxels = RNG.integers(0, 9, SHAPE)
    np.testing.assert_array_equal(grid.to_slices(voxels, "axial"), straight.to_slices(voxels, "axial"))
    assert grid.spacing("axial") == pytest.approx((3, 2, 1))


@pytest.mark.parametrize(("unit", "mm"), [("mm", 1.0), ("unknown", 1.0), ("meter", 1000.0), ("micron", 0.001)])
def test_grids_are_in_mm_whatever_the_unit_of_the_header(unit: str, mm: float, tmp_path: Path) -> None:
    affine = np.diag([2.0 / mm, 3.0 / mm, 5.0 / mm, 1.0])
    affine[:3, 3] = 7.0 / mm
    image = nibabel.Nifti1Image(WHERE, affine)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "a.nii.gz")
    grid = read_grid(tmp_path / "a.nii.gz")
    assert grid.spacing("axial") == pytest.approx((5, 3, 2))
    np.testing.assert_allclose(grid.affine[:3, 3], 7, rtol=1e-6)


def test_voxels_of_a_metre_are_a_wrong_header(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(WHERE, np.eye(4))
    image.header.set_xyzt_units("meter")
    nibabel.save(image, tmp_path / "a.nii.gz")
    with pytest.raises(ValueError, match=r"a.nii.gz has voxels of 1000 mm by its header; repair their size, or its"):
        read_grid(tmp_path / "a.nii.gz")


def test_the_distance_of_grids_is_that_of_their_farthest_voxel() -> None:
    grid = Grid(SHAPE, np.eye(4))
    moved, stretched = np.eye(4), np.diag([1.0, 1.0, 1.5, 1.0])
    moved[:3, 3] = (3, 0, 4)
    assert grid.distance(Grid(SHAPE, moved)) == pytest.approx(5)
    assert grid.distance(Grid(SHAPE, stretched)) == pytest.approx(0.5 * 5)
    assert grid.distance(grid) == 0


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_voxels_are_what_nibabel_reads(tmp_path: Path, suffix: str, dtype: Any) -> None:
    voxels = RNG.integers(0, 200, SHAPE).astype(dtype)
    path = save(tmp_path / f"a{suffix}", voxels, np.diag([-1, 2, 3, 1]))
    np.testing.assert_array_equal(read_voxels(path), voxels)
    grid = read_grid(path)
    assert grid.shape == SHAPE
    np.testing.assert_array_equal(grid.affine, np.diag([-1, 2, 3, 1]))


def test_the_scale_of_the_header_counts(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.arange(120, dtype=np.int16).reshape(SHAPE), np.eye(4))
    image.header.set_slope_inter(0.5, 10)
    nibabel.save(image, tmp_path / "a.nii")
    assert read_voxels(tmp_path / "a.nii").ravel()[:3].tolist() == [10, 10.5, 11]


def test_a_fourth_axis_of_one_is_none(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", np.zeros((*SHAPE, 1), np.uint8))
    assert read_grid(path).shape == read_voxels(path).shape == SHAPE


def broken_header(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[40:42] = struct.pack("<h", 99)  # the number of axes
    path.write_bytes(content)


def broken_affine(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[280:328] = bytes(48)  # the rows of the sform
    path.write_bytes(content)


def text(path: Path) -> None:
    path.write_text("moved to the archive")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def four_axes(path: Path) -> None:
    save(path, np.zeros((*SHAPE, 2), np.uint8))


def two_axes(path: Path) -> None:
    save(path, np.zeros(SHAPE[:2], np.uint8))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (broken_header, r"a\.nii is truncated, no NIfTI volume, or has a broken header .*; copy it again"),
        (broken_affine, r"a\.nii has a broken header: its affine .* maps voxels to no place; repair it"),
        (text, r"a\.nii is truncated, no NIfTI volume, or has a broken header .*; copy it again"),
        (empty, r"a\.nii is truncated, no NIfTI volume, or has a broken header .*; copy it again"),
        (four_axes, r"a\.nii has the shape \(4, 5, 6, 2\), expected three axes; save a volume for each sequence"),
        (two_axes, r"a\.nii has the shape \(4, 5\), expected three axes"),
    ],
)
def test_a_volume_without_a_grid_is_named(tmp_path: Path, damage: Any, message: str) -> None:
    path = save(tmp_path / "a.nii", np.zeros(SHAPE, np.uint8))
    damage(path)
    with pytest.raises(ValueError, match=message):
        read_grid(path)


def test_an_absent_volume_stays_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.nii"):
        read_grid(tmp_path / "nowhere.nii")


@pytest.mark.parametrize("packed", [False, True])
def test_a_truncated_volume_is_named(tmp_path: Path, packed: bool) -> None:
    path = save(tmp_path / "a.nii", RNG.integers(0, 9999, (20, 20, 20)).astype(np.int16))
    content = gzip.compress(path.read_bytes()) if packed else path.read_bytes()
    cut = path.with_name("a.nii.gz") if packed else path
    cut.write_bytes(content[: len(content) // 2])
    assert read_grid(cut).shape == (20, 20, 20)
    with pytest.raises(ValueError, match=rf"{cut.name} is truncated or broken .*; copy it again"):
        read_voxels(cut)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_no_finite_numbers_are_named(tmp_path: Path, value: float) -> None:
    path = save(tmp_path / "a.nii", np.full(SHAPE, value, np.float32))
    with pytest.raises(ValueError, match=r"a\.nii holds voxels that are not finite numbers; replace them"):
        read_voxels(path)


def test_colours_are_no_voxels(tmp_path: Path) -> None:
    colours = np.zeros(SHAPE, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    with pytest.raises(ValueError, match=r"a\.nii holds .* voxels, expected a number each"):
        read_voxels(save(tmp_path / "a.nii", colours))
