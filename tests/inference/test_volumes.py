"""Volumes in, volumes out: in the grid of the input however it lies, with sequences by name."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from docs.lgg_volumes import write_volumes
from PIL import Image
from torch import nn

from brainseg.data import LGGSegmentation, VolumeDataset, lgg_root
from brainseg.data.nifti import read_grid
from brainseg.inference import Predictor, measure
from brainseg.inference.files import PredictionError, predict
from brainseg.inference.volumes import Scan, find_scans, predict_scan
from brainseg.models import ModelSpec, Postprocessing, UNeXt
from tests.pages import PageReader

SHAPE = (36, 40, 5)
# Turned and flipped against the scanner's frame, with voxels of 1.5 x 1 x 4 mm.
AFFINE = np.array([[0, -1.0, 0, 10], [1.5, 0, 0, -20], [0, 0, -4.0, 5], [0, 0, 0, 1]])


def save(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(voxels, affine)
    image.header["descrip"] = b"scanner"
    image.header["cal_max"] = 500
    nibabel.save(image, path)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    rng = np.random.default_rng(0)
    for case in ("p1", "p2"):
        for sequence in ("t1", "flair"):
            save(folder / case / f"{case}_{sequence}.nii.gz", rng.integers(0, 900, SHAPE).astype(np.int16))
        save(folder / case / f"{case}_seg.nii.gz", rng.integers(0, 2, SHAPE).astype(np.uint8))
    return folder


def bright_in_flair() -> Predictor:
    """A network that marks what is above half of FLAIR's highest value, its second channel."""
    module = nn.Conv2d(2, 1, 1)
    module.weight.data = torch.tensor([0.0, 100.0]).view(1, 2, 1, 1)
    module.bias.data = torch.tensor([-50.0])
    return Predictor(module, spec=ModelSpec(class_names=("tumour",), channel_names=("t1", "flair")), device="cpu")


def test_the_mask_lies_where_the_image_does_whatever_its_orientation(cases: Path, tmp_path: Path) -> None:
    predictor = bright_in_flair()
    (scan,) = find_scans(cases / "p1", predictor.spec.channel_names, None)
    (row,) = predict_scan(predictor, scan, tmp_path)
    flair = nibabel.load(cases / "p1" / "p1_flair.nii.gz")
    mask = nibabel.load(tmp_path / "p1_mask.nii.gz")
    voxels = np.asarray(flair.dataobj)
    np.testing.assert_array_equal(np.asarray(mask.dataobj), (voxels / voxels.max() > 0.5).astype(np.uint8))
    np.testing.assert_array_equal(mask.affine, flair.affine)
    first = nibabel.load(cases / "p1" / "p1_t1.nii.gz").header
    for key in ("pixdim", "qform_code", "sform_code", "descrip", "xyzt_units"):
        np.testing.assert_array_equal(mask.header[key], first[key])
    assert mask.get_data_dtype() == np.uint8
    assert (row.voxels, row.slices) == (int((voxels / voxels.max() > 0.5).sum()), 5)
    assert row.ml == pytest.approx(row.voxels * 6 / 1000)


def test_volumes_in_microns_are_measured_in_mm_and_their_masks_lie_where_they_do(tmp_path: Path) -> None:
    affine = AFFINE.copy()
    affine[:3] *= 1000
    for name, values in (("t1", 0), ("flair", np.arange(np.prod(SHAPE)).reshape(SHAPE))):
        image = nibabel.Nifti1Image(np.broadcast_to(np.int16(values), SHAPE), affine)
        image.header.set_xyzt_units("micron")
        (tmp_path / "p1").mkdir(exist_ok=True)
        nibabel.save(image, tmp_path / "p1" / f"p1_{name}.nii.gz")
    predictor = bright_in_flair()
    (scan,) = find_scans(tmp_path / "p1", predictor.spec.channel_names, None)
    (row,) = predict_scan(predictor, scan, tmp_path)
    assert row.voxels == np.prod(SHAPE) // 2
    assert row.ml == pytest.approx(row.voxels * 6 / 1000)  # of 1.5 x 1 x 4 mm
    mask = nibabel.load(tmp_path / "p1_mask.nii.gz")
    np.testing.assert_array_equal(mask.affine, affine)
    assert mask.header.get_xyzt_units()[0] == "micron"


def test_slices_of_thick_rows_are_seen_as_the_head_is(tmp_path: Path) -> None:
    thick = np.repeat(np.random.default_rng(0).integers(0, 900, (36, 10, 5)), 4, axis=1).astype(np.int16)
    rows = np.diag([1.0, 4.0, 1.0, 1.0])
    for case, voxels, affine in (("thick", thick[:, ::4], AFFINE @ rows), ("thin", thick, AFFINE)):
        save(tmp_path / f"{case}.nii.gz", voxels, affine)
    module = nn.Conv2d(1, 1, 1)
    spec = ModelSpec(image_size=(60, 40))
    predictor = Predictor(module, spec=spec, device="cpu")
    likely = []
    for case in ("thick", "thin"):
        (tmp_path / case).mkdir()
        scan = Scan(case, (tmp_path / f"{case}.nii.gz",))
        predict_scan(predictor, scan, tmp_path / case, probabilities=True)
        likely.append(torch.from_numpy(np.load(tmp_path / case / f"{case}_probabilities.npy")))
    # In AFFINE the file's second axis, of 1 mm, becomes columns.
    assert likely[0].shape == (5, 1, 36, 10)
    expected = torch.nn.functional.avg_pool2d(likely[1][:, 0], (1, 4))[:, None]
    assert (likely[0] - expected).abs().mean() < 0.02


def test_a_network_sees_the_slices_that_the_data_set_gives(cases: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = UNeXt(2, 3, channels=(4, 6, 8, 10, 12))
    names = ("background", "a", "b")
    channels = ("flair", "t1")
    size = (32, 48)
    model.spec = ModelSpec(
        task="multiclass",
        class_names=names,
        label_values=(0, 2, 400),
        channel_names=channels,
        axis="coronal",
        image_size=size,
    )
    model.save_pretrained(tmp_path / "weights")
    assert predict(tmp_path / "weights", [cases], tmp_path / "out", probabilities=True) == 2
    data = VolumeDataset(cases, ["p2"], sequences=("flair", "t1"), axis="coronal", cache_dir=tmp_path / "cache")
    predictor = Predictor(model, device="cpu")
    likely = torch.stack([predictor.probabilities(data[i]["image"], stretch=4.0) for i in range(len(data))])
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "out" / "p2_probabilities.npy")), likely)
    assert {path.name for path in (tmp_path / "out").glob("p2*")} == {"p2_labels.nii.gz", "p2_probabilities.npy"}
    written = nibabel.load(tmp_path / "out" / "p2_labels.nii.gz")
    expected = np.array(model.spec.label_values)[likely.argmax(1).numpy()]
    grid = read_grid(cases / "p2" / "p2_flair.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj), grid.from_slices(expected, "coronal"))
    assert written.get_data_dtype() == np.uint16
    rows = measure(predictor.spec.masks_of_probabilities(likely), model.spec, patient="p2", spacing=data.spacings[0])
    lines = (tmp_path / "out" / "volumes.csv").read_text().splitlines()
    assert [line.split(",")[:3] for line in lines if line.startswith("p2")] == [
        ["p2", row.label, str(row.voxels)] for row in rows
    ]
    reader = PageReader(tmp_path / "out" / "report.html")  # rows of 4 mm and columns of 1 mm are shown as they are
    assert {given["transform"] for _, given in reader.elements if "transform" in given} == {"scale(1 4.0)", "scale(.5)"}
    assert [len(reader.strips[case]) for case in ("p1", "p2")] == [len(data)] * 2


def test_components_go_by_the_spacing_of_the_header(tmp_path: Path) -> None:
    voxels = np.zeros(SHAPE, np.int16)
    voxels[5:9, 5:9, 1] = voxels[20, 20, 3] = 900  # 96 mm^3 and 6 mm^3
    save(tmp_path / "one.nii.gz", voxels)
    module = nn.Conv2d(1, 1, 1)
    module.weight.data.fill_(100.0)
    module.bias.data.fill_(-50.0)
    predictor = Predictor(module, spec=ModelSpec(postprocessing=Postprocessing(min_volume=0.007)), device="cpu")
    (row,) = predict_scan(predictor, Scan("one", (tmp_path / "one.nii.gz",)), tmp_path)
    assert (row.voxels, row.components) == (16, 1)
    assert np.asarray(nibabel.load(tmp_path / "one_mask.nii.gz").dataobj)[20, 20, 3] == 0


def weights(folder: Path, in_channels: int, **spec: Any) -> Path:
    torch.manual_seed(0)
    model = UNeXt(in_channels, channels=(4, 6, 8, 10, 12))
    model.spec = replace(model.spec, **spec)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("channels", "sequences", "message"),
    [
        (3, None, r"has 2 sequences \(p1_flair.nii.gz, p1_t1.nii.gz\); this network was trained on 3 channels"),
        (2, ("flair", "t2"), "has no sequence t2; expected p1_t2.nii.gz beside p1_flair.nii.gz, p1_t1.nii.gz"),
        (1, ("flair", "t1"), "this network was trained on 1 channel: name"),
    ],
)
def test_sequences_that_do_not_fit_are_named(
    cases: Path, tmp_path: Path, channels: int, sequences: tuple[str, ...] | None, message: str
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        predict(weights(tmp_path / "w", channels), [cases], tmp_path / "out", sequences=sequences)
    assert not (tmp_path / "out").exists()


def test_sequences_in_another_order_than_that_of_the_weights_are_refused(cases: Path, tmp_path: Path) -> None:
    model = weights(tmp_path / "w", 2, channel_names=("t1", "FLAIR"))
    with pytest.raises(ValueError, match="the weights take the channels t1, FLAIR, and the data gives flair, t1; give"):
        predict(model, [cases], tmp_path / "out", sequences=("flair", "t1"))
    assert not (tmp_path / "out").exists()
    assert predict(model, [cases], tmp_path / "out", sequences=("flair", "flair")) == 2  # in place of what is missing


def test_images_of_nnunet_come_by_the_names_of_its_description(cases: Path, tmp_path: Path) -> None:
    folder = tmp_path / "Dataset001" / "imagesTs"
    folder.mkdir(parents=True)
    for case in ("p1", "p2"):
        for number, sequence in enumerate(("t1", "flair")):
            content = (cases / case / f"{case}_{sequence}.nii.gz").read_bytes()
            (folder / f"{case}_{number:04}.nii.gz").write_bytes(content)
    first, second = (folder / f"p1_{number:04}.nii.gz" for number in range(2))
    scans = find_scans(folder, ("flair", "t1"), 2)  # without a description they come in the network's order
    assert ([scan.name for scan in scans], scans[0].images) == (["p1", "p2"], (first, second))
    description = '{"channel_names": {"0": "T1", "1": "FLAIR"}, "labels": {"background": 0, "tumour": 1}}'
    (folder.parent / "dataset.json").write_text(description)
    assert find_scans(folder, ("flair", "t1"), 2)[0].images == (second, first)
    with pytest.raises(FileNotFoundError, match=r"p1 has no sequence t2; .*beside p1_0000.nii.gz, p1_0001.nii.gz"):
        find_scans(folder, ("flair", "t2"), 2)
    assert find_scans(folder, None, 2)[0].images == (second, first)  # by name, as a data set without names


def test_results_beside_the_volumes_are_not_predicted_again(cases: Path, tmp_path: Path) -> None:
    images = [cases / "p1" / f"p1_{name}.nii.gz" for name in ("flair", "t1")]
    copies = [tmp_path / "p1" / path.name for path in images]
    numbered = [tmp_path / "imagesTs" / f"p1_{number:04}.nii.gz" for number in range(2)]
    for path, *places in zip(images, copies, numbered, strict=True):
        for place in places:
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(path.read_bytes())
    model = weights(tmp_path / "weights", 2)
    for folder in ("p1", "imagesTs"):
        output = tmp_path / folder
        assert [predict(model, [tmp_path / folder], output, skip_existing=again) for again in (False, True)] == [1, 1]
    (tmp_path / "p1" / "p1_mask_0.nii.gz").write_bytes(images[0].read_bytes())
    (scan,) = find_scans(tmp_path / "p1", None, 2)
    assert scan.images == tuple(copies)
    (scan,) = find_scans(tmp_path / "p1", ("t1", "mask"), 2)  # of a network that takes the mask of a brain
    assert scan.images == (copies[1], tmp_path / "p1" / "p1_mask.nii.gz")


def test_a_folder_of_labels_alone_is_an_error(cases: Path, tmp_path: Path) -> None:
    (tmp_path / "p1").mkdir()
    (tmp_path / "p1" / "p1_seg.nii.gz").write_bytes((cases / "p1" / "p1_seg.nii.gz").read_bytes())
    with pytest.raises(FileNotFoundError, match=r"holds labels and masks alone, such as p1_seg.nii.gz; give the"):
        predict(weights(tmp_path / "weights", 2), [tmp_path / "p1"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_images_beside_volumes_are_not_left_out_without_a_word(tmp_path: Path) -> None:
    save(tmp_path / "in" / "p1" / "p1_t1.nii.gz", np.zeros(SHAPE, np.int16))
    Image.new("L", (40, 40)).save(tmp_path / "in" / "slice.png")
    Image.new("L", (40, 40)).save(tmp_path / "in" / "old_overlay.png")
    model = weights(tmp_path / "weights", 1)
    with pytest.raises(ValueError, match=r"holds volumes, and images such as slice.png; predict"):
        predict(model, [tmp_path / "in"], tmp_path / "out")
    assert predict(model, [tmp_path / "in" / "p1", tmp_path / "in" / "slice.png"], tmp_path / "out") == 2


def test_the_spacing_of_volumes_is_not_given(cases: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="spacing of volumes is that of their headers; leave it out"):
        predict(weights(tmp_path / "weights", 2), [cases], tmp_path / "out", spacing=(5, 1, 1))


def test_two_files_of_one_sequence_are_named(tmp_path: Path) -> None:
    for name in ("p1_t1.nii", "p1-T1.nii.gz"):
        save(tmp_path / "p1" / name, np.zeros(SHAPE, np.uint8))
    with pytest.raises(ValueError, match=r"p1[-_](t1.nii|T1.nii.gz) and .* are one sequence; keep one of them"):
        find_scans(tmp_path, None, None)


def test_one_bad_volume_does_not_throw_away_the_others_and_a_second_call_goes_on(cases: Path, tmp_path: Path) -> None:
    for case in ("p1", "p2"):
        for path in (cases / case).iterdir():
            (tmp_path / "in" / case).mkdir(parents=True, exist_ok=True)
            (tmp_path / "in" / case / path.name).write_bytes(path.read_bytes())
    good = (tmp_path / "in" / "p1" / "p1_t1.nii.gz").read_bytes()
    (tmp_path / "in" / "p1" / "p1_t1.nii.gz").write_bytes(good[:2000])
    model = weights(tmp_path / "w", 2, channel_names=("flair", "t1"))
    with pytest.raises(PredictionError, match=r"p1: .*p1_t1.nii.gz is truncated") as failed:
        predict(model, [tmp_path / "in"], tmp_path / "out")
    assert failed.value.done == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "p2_mask.nii.gz",
        "volumes.csv",
        "report.html",
        "settings.json",
    }
    time = (tmp_path / "out" / "p2_mask.nii.gz").stat().st_mtime_ns
    (tmp_path / "in" / "p1" / "p1_t1.nii.gz").write_bytes(good)
    assert predict(model, [tmp_path / "in"], tmp_path / "out", skip_existing=True) == 2
    assert (tmp_path / "out" / "p1_mask.nii.gz").is_file()
    assert (tmp_path / "out" / "p2_mask.nii.gz").stat().st_mtime_ns == time
    predict(model, [tmp_path / "in"], tmp_path / "afresh")
    again, afresh = (PageReader(tmp_path / folder / "report.html").strips for folder in ("out", "afresh"))
    assert again == afresh
    assert list(again) == ["p1", "p2"]


def test_real_slices_are_segmented_as_pictures_and_as_volumes_alike(tmp_path: Path) -> None:
    patients = [lgg_root() / name for name in ("TCGA_CS_6667_20011105", "TCGA_HT_7884_19980913")]
    if not all(path.is_dir() for path in patients):
        pytest.skip(f"no LGG data in {lgg_root()}")
    slices = LGGSegmentation(lgg_root(), [path.name for path in patients])
    write_volumes(slices, tmp_path / "volumes", spacing=(5, 1, 1))
    lgg = Path("unext/lgg")
    predict(lgg, [tmp_path / "volumes"], tmp_path / "masks")
    predict(lgg, patients, tmp_path / "pictures", patients=True, spacing=(5, 1, 1))
    for path in patients:
        voxels = np.asarray(nibabel.load(tmp_path / "masks" / f"{path.name}_mask.nii.gz").dataobj)
        assert voxels.any()
        files = (files.images[0].stem for files in slices.files if files.patient == path.name)
        for name, mask in zip(files, voxels.T, strict=True):
            picture = np.asarray(Image.open(tmp_path / "pictures" / f"{name}_mask.png"))
            np.testing.assert_array_equal(picture, 255 * mask)
    tables = [(tmp_path / folder / "volumes.csv").read_bytes() for folder in ("masks", "pictures")]
    assert tables[0] == tables[1]
