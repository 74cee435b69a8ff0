"""Predictions of files: masks of the files' size, overlays, and an error that names the file that does not fit."""

import csv
import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image

from brainseg.data import phantom
from brainseg.inference import Ensemble, Predictor, measure, postprocess
from brainseg.inference.files import PAGE, TABLE, PredictionError, predict
from brainseg.inference.settings import NOTE
from brainseg.models import ModelSpec, Postprocessing, UNeXt
from brainseg.transforms import ForegroundZScore
from tests.pages import PageReader


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a network of three channels."""
    torch.manual_seed(0)
    model = UNeXt(channels=(8, 16, 24, 32, 64))
    model.normalization = ForegroundZScore().config
    folder = tmp_path_factory.mktemp("weights")
    model.save_pretrained(folder)
    return folder


def write(path: Path, shape: tuple[int, ...], seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_masks_are_those_of_the_predictor_and_as_large_as_the_image(run: Path, tmp_path: Path) -> None:
    image, _ = phantom(3, size=77, lesion=True)
    pixels = (image.permute(1, 2, 0) * 255).round().byte()
    Image.fromarray(pixels.numpy()).save(tmp_path / "slice.png")
    middle = Predictor.from_pretrained(run).probabilities(tmp_path / "slice.png").median().item()
    assert predict(run, [tmp_path / "slice.png"], tmp_path / "out", threshold=middle) == 1
    with Image.open(tmp_path / "out" / "slice_mask.png") as file:
        mask = np.asarray(file)
    predictor = Predictor.from_pretrained(run, threshold=middle)
    expected = predictor(pixels.permute(2, 0, 1) / 255)[0].numpy()
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(mask, expected * 255)
    with Image.open(tmp_path / "out" / "slice_overlay.png") as overlay:
        assert max(overlay.size) == 512


def test_folders_are_searched_and_their_masks_left_out(run: Path, tmp_path: Path) -> None:
    for name in ("a/x_1.tif", "a/x_1_mask.tif", "b/x_1.png"):
        write(tmp_path / "in" / name, (40, 33, 3))
    (tmp_path / "in" / "notes.txt").write_text("no image")
    assert predict(run, [tmp_path / "in"], tmp_path / "out") == 2
    assert {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png")} == {
        f"{folder}/x_1_{kind}.png" for folder in "ab" for kind in ("mask", "overlay")
    }


def test_results_beside_the_images_are_not_predicted_again(run: Path, tmp_path: Path) -> None:
    write(tmp_path / "x_1.png", (40, 33, 3))
    assert [predict(run, [tmp_path], tmp_path) for _ in range(2)] == [1, 1]


def test_weights_of_several_classes_and_one_channel(tmp_path: Path) -> None:
    torch.manual_seed(0)
    UNeXt(1, 2, channels=(8, 16, 24, 32, 64)).save_pretrained(tmp_path / "weights")
    image = write(tmp_path / "gray.png", (32, 50))
    predict(tmp_path / "weights", [image], tmp_path / "out")
    for number in range(2):
        with Image.open(tmp_path / "out" / f"gray_mask_{number}.png") as mask:
            assert mask.size == (50, 32)


def test_a_file_that_does_not_fit_is_named(run: Path, tmp_path: Path) -> None:
    gray = write(tmp_path / "gray.png", (64, 64))
    with pytest.raises(ValueError, match=r"gray.png: .*3 channels"):
        predict(run, [gray], tmp_path / "out")
    small = write(tmp_path / "small.png", (20, 64, 3))
    with pytest.raises(ValueError, match=r"small.png: .*at least 32"):
        predict(run, [small], tmp_path / "out")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken.png is truncated or no image"):
        predict(run, [broken], tmp_path / "out")


def test_one_bad_image_does_not_throw_away_the_others(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name in ("a", "z"):
        write(folder / f"{name}.png", (40, 33, 3))
    write(folder / "gray.png", (64, 64))
    write(folder / "small.png", (20, 64, 3))
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "lost.png").symlink_to(folder / "nowhere.png")
    with pytest.raises(PredictionError) as caught:
        predict(run, [folder], tmp_path / "out")
    assert caught.value.done == 2
    expected = {
        "broken": "broken.png is truncated or no image",
        "gray": "gray.png: this network was trained on 3 channels; the image has 1",
        "lost": "No such file or directory: .*lost.png",
        "small": "small.png: .* sides of at least 32 pixels",
    }
    for reason, (name, words) in zip(caught.value.reasons, expected.items(), strict=True):
        assert re.search(words, reason)
        assert reason.count(f"{name}.png") == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        TABLE,
        PAGE,
        NOTE,
        *(f"{n}_{k}.png" for n in "az" for k in ("mask", "overlay")),
    }


def test_what_is_no_image_is_left_out_of_folders(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write(folder / "a.PNG", (40, 33, 3))
    for name in ("._a.png", ".DS_Store", "__MACOSX/a.png", "Thumbs.db", "a.pdf", "a.h5", "a.eps", "a.mpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\0")
    assert predict(run, [folder], tmp_path / "out") == 1


def test_a_full_disk_names_the_result_and_leaves_no_part_of_it(
    run: Path, tmp_path: Path, full_disk: Callable[[], AbstractContextManager[None]]
) -> None:
    images = [write(tmp_path / name, (40, 33, 3)) for name in ("a.png", "b.png")]
    with full_disk(), pytest.raises(OSError, match=r": '.*a_overlay\.png'") as caught:
        predict(run, images, tmp_path / "out")
    assert not isinstance(caught.value, PredictionError)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a_mask.png"]


def test_names_that_would_collide_are_an_error(run: Path, tmp_path: Path) -> None:
    first, second = (write(tmp_path / folder / "x.png", (32, 32, 3)) for folder in "ab")
    with pytest.raises(ValueError, match="would share the name x"):
        predict(run, [first, second], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folders_of_one_name_are_not_one_patient(run: Path, tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        write(tmp_path / "in" / patient / "flair" / f"{patient}_1.png", (32, 32, 3))
    folders = [tmp_path / "in" / patient / "flair" for patient in ("p1", "p2")]
    with pytest.raises(ValueError, match=r"p1/flair and .*p2/flair would be one patient, flair; give a folder above"):
        predict(run, folders, tmp_path / "out", patients=True)
    with pytest.raises(ValueError, match="would be one patient, flair"):
        predict(run, [next(folder.iterdir()) for folder in folders], tmp_path / "out", patients=True)
    assert not (tmp_path / "out").exists()
    assert predict(run, folders, tmp_path / "images") == 2  # each by itself they have names of their own
    predict(run, [tmp_path / "in"], tmp_path / "above", patients=True)
    assert [row["patient"] for row in table(tmp_path / "above")] == ["p1/flair", "p2/flair"]


@pytest.mark.parametrize(("given", "message"), [("nowhere", "no file or folder"), ("empty", "holds no images")])
def test_missing_images_are_an_error(run: Path, tmp_path: Path, given: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=message):
        predict(run, [tmp_path / given], tmp_path / "out")


def test_a_folder_without_weights_is_an_error(tmp_path: Path) -> None:
    image = write(tmp_path / "x.png", (32, 32, 3))
    with pytest.raises(FileNotFoundError, match="holds no run and no weights"):
        predict(tmp_path, [image], tmp_path / "out")


def test_classes_that_exclude_each_other_are_a_label_map_and_the_background_has_no_outline(tmp_path: Path) -> None:
    torch.manual_seed(0)
    gray = UNeXt(1, 3, channels=(8, 16, 24, 32, 64))
    gray.spec = ModelSpec(task="multiclass", class_names=("background", "a", "b"))
    gray.save_pretrained(tmp_path / "gray")
    image = write(tmp_path / "slice.png", (48, 40))
    predict(tmp_path / "gray", [image], tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "slice_labels.png",
        "slice_overlay.png",
        TABLE,
        PAGE,
        NOTE,
    }
    with Image.open(tmp_path / "out" / "slice_labels.png") as file:
        labels = np.asarray(file)
    np.testing.assert_array_equal(labels, Predictor.from_pretrained(tmp_path / "gray").labels(image).numpy())


@pytest.mark.parametrize("values", [(0, 2, 4), (0, 1035, 7)])
def test_label_maps_have_the_values_of_those_that_were_learned(values: tuple[int, ...], tmp_path: Path) -> None:
    torch.manual_seed(0)
    gray = UNeXt(1, 3, channels=(8, 16, 24, 32, 64))
    gray.spec = ModelSpec(task="multiclass", class_names=("background", "a", "b"), label_values=values)
    image = write(tmp_path / "slice.png", (48, 40))
    with torch.no_grad():
        gray.head.bias -= Predictor(gray).logits(torch.rand(1, 1, 48, 40)).mean((0, 2, 3))  # each class somewhere
    gray.save_pretrained(tmp_path / "gray")
    strips = []
    for _ in range(2):
        predict(tmp_path / "gray", [image], tmp_path / "out", skip_existing=True)
        strips.append(PageReader(tmp_path / "out" / PAGE).strips)
    numbers = Predictor.from_pretrained(tmp_path / "gray").labels(image).numpy()
    assert set(np.unique(numbers)) == {0, 1, 2}
    with Image.open(tmp_path / "out" / "slice_labels.png") as file:
        np.testing.assert_array_equal(np.asarray(file), np.array(values)[numbers])
    assert strips[0] == strips[1]  # the second page shows what it reads


def test_overlays_are_as_bright_as_all_pictures_and_show_the_channel_that_is_named(run: Path, tmp_path: Path) -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[16:48, 16:48, 1] = 10  # dark, and in one channel alone
    Image.fromarray(pixels).save(tmp_path / "dark.png")
    predict(run, [tmp_path / "dark.png"], tmp_path / "out", threshold=1.0, channel=1)
    with Image.open(tmp_path / "out" / "dark_overlay.png") as file:
        overlay = np.asarray(file.convert("RGB"))
    assert overlay[256, 256].tolist() == [255, 255, 255]
    assert overlay[10, 10].tolist() == [0, 0, 0]


# Patients


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patients of twelve and three slices, named without leading zeros."""
    folder = tmp_path_factory.mktemp("scans")
    for patient, count in (("b", 12), ("a", 3)):
        for number in range(1, count + 1):
            write(folder / patient / f"{patient}_{number}.png", (32, 40, 3), seed=number)
    return folder


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "volumes.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_slices_of_a_patient_are_predicted_together_in_the_order_of_their_numbers(
    run: Path, scans: Path, tmp_path: Path
) -> None:
    slices = [scans / "b" / f"b_{number}.png" for number in range(1, 13)]
    likely = torch.stack([Predictor.from_pretrained(run).probabilities(path) for path in slices])
    middle = likely.median().item()
    steps = Postprocessing(smooth=True, components="largest")
    assert (
        predict(run, [scans], tmp_path, threshold=middle, patients=True, postprocessing=steps, spacing=(5, 1, 1)) == 15
    )
    spec = ModelSpec(threshold=middle)
    expected = postprocess(likely, spec, steps=steps)
    assert 0 < expected.sum() < (likely > middle).sum()
    for path, mask in zip(slices, expected, strict=True):
        with Image.open(tmp_path / "b" / f"{path.stem}_mask.png") as file:
            np.testing.assert_array_equal(np.asarray(file), 255 * mask[0].numpy())
    (of_b,) = [row for row in table(tmp_path) if row["patient"] == "b"]
    (wanted,) = measure(expected, spec, patient="b", spacing=(5, 1, 1))
    assert (int(of_b["voxels"]), int(of_b["slices"])) == (wanted.voxels, wanted.slices)
    assert float(of_b["ml"]) == pytest.approx(wanted.voxels * 5 / 1000)
    assert [row["patient"] for row in table(tmp_path)] == ["a", "b"]


def test_images_by_themselves_have_a_row_each(run: Path, scans: Path, tmp_path: Path) -> None:
    predict(run, [scans / "a"], tmp_path, probabilities=True)
    assert [row["patient"] for row in table(tmp_path)] == ["a_1", "a_2", "a_3"]
    assert {row["ml"] for row in table(tmp_path)} == {"nan"}
    likely = torch.from_numpy(np.load(tmp_path / "a_2_probabilities.npy"))
    torch.testing.assert_close(likely, Predictor.from_pretrained(run).probabilities(scans / "a" / "a_2.png"))


def test_a_second_call_goes_on_where_the_first_stopped(run: Path, scans: Path, tmp_path: Path) -> None:
    predict(run, [scans / "a"], tmp_path)
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    (tmp_path / "a_2_overlay.png").unlink()
    assert predict(run, [scans / "a"], tmp_path, skip_existing=True) == 3
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == whole
    again = {path.name for path in tmp_path.iterdir() if path.stat().st_mtime_ns != times[path]}
    assert again == {"a_2_mask.png", "a_2_overlay.png", TABLE, PAGE}


def test_a_second_call_with_other_weights_or_options_does_not_go_on(run: Path, scans: Path, tmp_path: Path) -> None:
    other, out = tmp_path / "other", tmp_path / "out"
    UNeXt(channels=(8, 16, 24, 32, 64)).save_pretrained(other)  # without a normalization
    changed = UNeXt.from_pretrained(run)
    changed.head.bias.data += 1e-6
    changed.save_pretrained(tmp_path / "changed")
    predict(run, [scans / "a"], out)
    whole = {path.name: path.read_bytes() for path in out.iterdir()}
    calls: list[tuple[str, Any, dict[str, Any]]] = [
        ("weights, normalization", other, {}),
        ("weights", tmp_path / "changed", {}),
        ("weights", [run, run], {}),
        ("threshold", run, {"threshold": 0.25}),
        ("tta", run, {"tta": True}),
        ("spacing", run, {"spacing": (5, 1, 1)}),
        ("postprocessing, patients", run, {"patients": True, "postprocessing": Postprocessing(smooth=True)}),
    ]
    for what, weights, options in calls:
        with pytest.raises(ValueError, match=rf"out holds results that were made with other {what}; predict without"):
            predict(weights, [scans / "a"], out, skip_existing=True, **options)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == whole
    predict(run, [scans / "a"], out, channel=1, skip_existing=True)  # of pictures
    predict(tmp_path / "changed", [scans / "a"], out)  # from the beginning
    predict(tmp_path / "changed", [scans], out, skip_existing=True)


def test_results_that_a_call_began_to_replace_are_not_gone_on_from(
    run: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict(run, [scans / "a"], tmp_path)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("brainseg.inference.files.do", killed)
    with pytest.raises(KeyboardInterrupt):
        predict(run, [scans / "a"], tmp_path, threshold=0.9)
    with pytest.raises(ValueError, match=r"with what is not known: .*settings\.json is not there"):
        predict(run, [scans / "a"], tmp_path, skip_existing=True)


def test_small_components_without_spacing_are_refused_before_anything_is_predicted(
    run: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brainseg.inference.files.do", None)
    with pytest.raises(ValueError, match=r"min_volume=0\.1 ml needs the spacing"):
        predict(run, [scans / "a"], tmp_path / "out", patients=True, postprocessing=Postprocessing(min_volume=0.1))
    assert not (tmp_path / "out").exists()


def test_probabilities_that_an_earlier_call_did_not_write_are_written(run: Path, scans: Path, tmp_path: Path) -> None:
    predict(run, [scans / "a"], tmp_path)
    predict(run, [scans / "a"], tmp_path, probabilities=True, skip_existing=True)
    assert len(list(tmp_path.glob("a_?_probabilities.npy"))) == 3


def test_a_patient_with_a_broken_slice_is_named_and_the_others_are_predicted(
    run: Path, scans: Path, tmp_path: Path
) -> None:
    for path in (scans / "a").iterdir():
        (tmp_path / "in" / "a").mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / "a" / path.name).write_bytes(path.read_bytes())
        write(tmp_path / "in" / "c" / path.name, (32, 40, 3))
    (tmp_path / "in" / "a" / "a_2.png").write_bytes(b"no image")
    write(tmp_path / "in" / "d" / "d_1.png", (32, 40, 3))
    write(tmp_path / "in" / "d" / "d_2.png", (40, 40, 3))
    with pytest.raises(PredictionError) as failed:
        predict(run, [tmp_path / "in"], tmp_path / "out", patients=True)
    assert failed.value.done == 3
    assert [reason.partition(" ")[0].rpartition("/")[2] for reason in failed.value.reasons] == ["a_2.png", "d_2.png:"]
    assert [row["patient"] for row in table(tmp_path / "out")] == ["c"]


def test_several_models_are_an_ensemble(run: Path, scans: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    UNeXt(channels=(8, 16, 24, 32, 64)).save_pretrained(tmp_path / "other")
    predict([run, tmp_path / "other"], [scans / "a"], tmp_path / "out", probabilities=True, tta=True)
    ensemble = Ensemble.from_folders([run, tmp_path / "other"], tta=True)
    likely = torch.from_numpy(np.load(tmp_path / "out" / "a_1_probabilities.npy"))
    torch.testing.assert_close(likely, ensemble.probabilities(scans / "a" / "a_1.png"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"postprocessing": Postprocessing(smooth=True)}, "predict with patients=True"),
        ({"spacing": (1.0, 0.0, 1.0)}, "spacing must be three positive numbers"),
        ({"patients": True, "postprocessing": Postprocessing(min_volume=1)}, "min_volume=1.0 ml needs the spacing"),
        ({"sequences": ["t1", "flair", "t1ce"]}, "sequences are volumes, and none was given"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_anything_is_written(
    run: Path, scans: Path, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        predict(run, [scans / "a"], tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_the_page_shows_the_table_all_slices_and_what_could_not_be_predicted(run: Path, tmp_path: Path) -> None:
    for name in ("p_2/1", "p_2/10", "p_2/9", "p_10/1"):
        write(tmp_path / "in" / f"{name}.png", (40, 33, 3))
    write(tmp_path / "in" / "z" / "1.png", (40, 33))
    with pytest.raises(PredictionError):
        predict(run, [tmp_path / "in"], tmp_path / "out", patients=True, spacing=(5, 1, 1), threshold=0.4)
    reader = PageReader(tmp_path / "out" / PAGE)
    with (tmp_path / "out" / TABLE).open(newline="") as file:
        rows = [list(row.values()) for row in csv.DictReader(file)]
    assert [row[0] for row in rows] == ["p_2", "p_10"]
    assert [[exact for _, exact in row] for row in reader.tables[0][1:]] == rows
    assert {patient: [each["label"] for each in strip] for patient, strip in reader.strips.items()} == {
        "p_2": ["1", "9", "10"],
        "p_10": ["1"],
    }
    assert "Not predicted: " in reader.text
    assert f"{tmp_path / 'in' / 'z' / '1.png'}: this network was trained on 3 channels" in reader.text


def test_a_page_that_cannot_be_written_is_known_before_the_work(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match="jinja2"):
        predict(run, [write(tmp_path / "a.png", (40, 33, 3))], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_table_of_something_else_is_not_kept(run: Path, tmp_path: Path) -> None:
    (tmp_path / TABLE).write_text("patient,label\np,tumour\n")
    with pytest.raises(ValueError, match=r"volumes.csv is no table of this version: .*voxels.*; predict without"):
        predict(run, [write(tmp_path / "a.png", (40, 33, 3))], tmp_path, skip_existing=True)


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_a_page_shows_what_an_earlier_call_predicted(
    task: Literal["multilabel", "multiclass"], scans: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = UNeXt(3, 3, channels=(8, 16, 24, 32, 64))
    model.spec = ModelSpec(task=task, class_names=("a", "b", "c"))
    model.save_pretrained(tmp_path / "weights")
    strips = []
    for _ in range(2):
        predict(tmp_path / "weights", [scans / "a"], tmp_path / "out", patients=True, skip_existing=True)
        strips.append(PageReader(tmp_path / "out" / PAGE).strips)
    assert strips[0] == strips[1]
    assert {len(each["outlines"][0]) for strip in strips[0].values() for each in strip} == {3 - (task == "multiclass")}
    for mask in (tmp_path / "out").glob("a_1_*[!y].png"):
        mask.unlink()
    predict(tmp_path / "weights", [scans / "a"], tmp_path / "out", patients=True, skip_existing=True)
    reader = PageReader(tmp_path / "out" / PAGE)
    assert [each["label"] for each in reader.strips["a"]] == ["2", "3"]
    assert f"Not shown: {scans / 'a' / 'a_1.png'}: " in reader.text
