"""Data of one's own by the configuration: label maps, volumes, folds and samplers, from training to evaluation."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from docs.lgg_volumes import write_volumes
from docs.phantom_maps import write_maps
from PIL import Image

from brainseg.data import (
    ImageMaskFolder,
    LGGSegmentation,
    institution,
    read_split,
    split_patients,
    write_folds,
    write_split,
)
from brainseg.inference import Predictor
from brainseg.models import Postprocessing, SegmentationModel
from brainseg.models.files import read_config
from brainseg.report import read_rows
from brainseg.training import TrainConfig, evaluate, train
from brainseg.training.config import DataConfig, ModelConfig, OptimizerConfig
from brainseg.training.data import SliceDataModule
from brainseg.training.datasets import find_split, open_part
from brainseg.training.subject import batch_size_of, check_classes
from tests.command import call
from tests.pages import PageReader

CLASSES = ["background", "shell", "core"]
PATIENTS = [f"p{number}" for number in range(8)]


def slice_and_labels(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A disc within a disc, each of a brightness of its own."""
    y, x = np.mgrid[:32, :32]
    distance, radius = np.hypot(y - rng.integers(12, 20), x - rng.integers(12, 20)), rng.integers(7, 11)
    labels = (distance < radius).astype(np.uint8) + (distance < radius / 2)
    image = np.array([40, 120, 210])[labels] + rng.normal(0, 8, (32, 32))
    return image.clip(0, 255).astype(np.uint8), labels


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """Eight patients of six slices with label maps of three classes."""
    root, rng = tmp_path_factory.mktemp("maps"), np.random.default_rng(0)
    for patient in PATIENTS:
        for number in range(6):
            for folder, pixels in zip(("images", "masks"), slice_and_labels(rng), strict=True):
                (root / folder / patient).mkdir(parents=True, exist_ok=True)
                picture = Image.fromarray(pixels)
                if folder == "masks":
                    picture = picture.convert("P")
                    picture.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
                picture.save(root / folder / patient / f"{number}.png")
    (root / "classes.json").write_text('["background", "shell", "core"]')
    grades = "".join(f"{p}/{n}.png,{p},{'high' if p < 'p4' else 'low'}\n" for p in PATIENTS for n in range(6))
    (root / "patients.csv").write_text(f"file,patient,grade\n{grades}")
    return DataConfig(format="folder", root=str(root), cache_dir=str(root / "cache"), batch_size=4)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """Four cases of six slices, two sequences, labels 0, 1 and 4."""
    root, rng = tmp_path_factory.mktemp("volumes"), np.random.default_rng(0)
    for case in PATIENTS[:4]:
        slices = [slice_and_labels(rng) for _ in range(6)]
        image, labels = (np.stack(part, axis=-1) for part in zip(*slices, strict=True))
        for name, voxels in (("flair", image), ("t1ce", image[::-1]), ("seg", np.array([0, 1, 4], np.uint8)[labels])):
            (root / case).mkdir(exist_ok=True)
            volume = nibabel.Nifti1Image(np.ascontiguousarray(voxels), np.diag([-1, -1, 4, 1]))
            nibabel.save(volume, root / case / f"{case}_{name}.nii.gz")
    return DataConfig(format="volumes", root=str(root), cache_dir=str(root / "cache"), batch_size=4)


def run_of(data: DataConfig, folder: Path, epochs: int = 1) -> Path:
    model, optimizer = ModelConfig(name="unext_tiny"), OptimizerConfig(lr=1e-2)
    train(TrainConfig(model=model, data=data, optimizer=optimizer, epochs=epochs, accelerator="cpu", devices=1), folder)
    return folder


def test_label_maps_of_three_classes_are_learned(maps: DataConfig, tmp_path: Path) -> None:
    run = run_of(replace(maps, folds=4, fold=1, sampler="patient"), tmp_path / "run", epochs=15)
    evaluation = evaluate(run)
    assert evaluation.summary["mean patient Dice"] > 0.9
    assert list(evaluation.patients[0].class_dice) == ["shell", "core"]
    spec = read_config(run / "best").spec
    assert spec is not None
    assert (spec.task, spec.class_names) == ("multiclass", tuple(CLASSES))
    assert evaluation.case == "patient"
    assert len(evaluation.patients) == 2


@pytest.mark.slow
def test_phantoms_with_label_maps_are_learned_by_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_maps(Path("own"))
    # The command of docs/your_data.md.
    options = "--data.format folder --data.root own --model.name unext_small --optimizer.lr 0.01 --epochs 20 --run run"
    place = "--data.cache_dir cache --accelerator cpu --devices 1"
    call(monkeypatch, "train", *options.split(), *place.split())
    evaluation = evaluate("run")
    assert evaluation.summary["mean patient Dice"] > 0.9
    assert list(evaluation.patients[0].class_dice) == ["oedema", "core"]


def test_volumes_train_and_are_evaluated(volumes: DataConfig, tmp_path: Path) -> None:
    classes: Any = {"whole": [1, 4], "core": [4]}
    run = run_of(replace(volumes, classes=classes, sequences=["t1ce", "flair"], task="multilabel"), tmp_path / "run")
    written = yaml.safe_load((run / "config.yaml").read_text())["data"]
    assert (written["classes"], written["sequences"], written["axis"]) == (classes, ["t1ce", "flair"], "axial")
    evaluation = evaluate(run)
    assert list(evaluation.patients[0].class_dice) == ["whole", "core"]
    reader = PageReader(evaluation.folder / "report.html")
    assert [name for name, _ in reader.tables[0][0][:3]] == ["patient", "dice whole", "dice core"]
    assert {len(outlines) for strip in reader.strips.values() for each in strip for outlines in each["outlines"]} == {2}
    spec = read_config(run / "best").spec
    assert spec is not None
    assert (spec.task, spec.class_names) == ("multilabel", ("whole", "core"))

    # Steps of the weights are done to all slices together, as `predict` does: nothing is larger than half a litre.
    assert evaluation.together
    model = SegmentationModel.from_pretrained(run / "best")
    model.spec = replace(model.spec, threshold=0.0, postprocessing=Postprocessing(min_volume=500.0))
    model.save_pretrained(tmp_path / "weights")
    of_slices = {
        "data": replace(volumes, classes=classes, sequences=None, task="multilabel"),
        "output": tmp_path / "each",
    }
    each = evaluate(tmp_path / "weights", **of_slices, patients=False)
    together = evaluate(tmp_path / "weights", **{**of_slices, "output": tmp_path / "together"})
    assert (each.summary["mean patient sensitivity"], together.summary["mean patient sensitivity"]) == (1, 0)


def test_slices_of_thick_rows_train_and_are_evaluated_in_the_shape_of_the_head(tmp_path: Path) -> None:
    thick = np.random.default_rng(0).integers(1, 255, (40, 10, 3)).astype(np.uint8)
    for case, spacing in (("p0", 1.0), ("p1", 4.0)):
        (tmp_path / "data" / case).mkdir(parents=True)
        for name, voxels in (("t1", thick), ("seg", np.ones_like(thick))):
            volume = nibabel.Nifti1Image(voxels, np.diag([-1, -spacing, 5, 1]))
            nibabel.save(volume, tmp_path / "data" / case / f"{case}_{name}.nii.gz")
    config = DataConfig(format="volumes", root=str(tmp_path / "data"), cache_dir=str(tmp_path / "cache"))
    data = SliceDataModule(
        replace(config, image_size=(40, 40)), {"train": ["p0"], "validation": ["p1"], "test": []}, seed=0
    )
    for dataset, rows in ((data.train_set, 10), (data.val_set, 40)):
        sample = dataset[0]
        batch = data.collate([sample])
        seen = batch["image"].abs().sum((0, 1, 3)).nonzero().flatten()
        assert seen.tolist() == list(range(rows))
        expected = F.interpolate(sample["image"][None], (rows, 40), mode="bilinear", antialias=True)
        torch.testing.assert_close(batch["image"][..., :rows, :], expected)
        assert batch["mask"].sum() == rows * 40
    both = open_part(config, None, "all")
    assert both.stretches == [1.0] * 3 + [4.0] * 3
    assert batch_size_of(config, both) == 1  # a batch is of one shape
    assert batch_size_of(config, data.val_set) == config.batch_size


def test_weights_know_the_values_of_the_label_maps_that_they_were_trained_on(
    volumes: DataConfig, tmp_path: Path
) -> None:
    run = run_of(volumes, tmp_path / "run")
    spec = read_config(run / "best").spec
    assert spec is not None
    assert (spec.class_names, spec.label_values) == (("background", "label_1", "label_4"), (0, 1, 4))


def oblique(root: Path) -> None:
    """Lays every volume of a folder otherwise: axes in another order, two turned round, and the head tilted."""
    tilt = nibabel.eulerangles.euler2mat(0.3, -0.2, 0.25)
    for path in root.rglob("*.nii.gz"):
        volume = nibabel.load(path)
        turned = volume.as_reoriented(nibabel.io_orientation(volume.affine)[[2, 0, 1]] * [1, -1])
        affine = turned.affine.copy()
        affine[:3] = tilt @ affine[:3]
        nibabel.save(nibabel.Nifti1Image(np.asarray(turned.dataobj), affine), path)


def test_lgg_slices_and_the_same_as_volumes_end_in_the_same_masks_and_scores(
    data: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    slices = LGGSegmentation(str(data.root), cache_dir=data.cache_dir)
    write_volumes(slices, Path("volumes"), spacing=(4, 1, 1.5))
    oblique(Path("volumes"))
    split = (Path(str(data.root)) / "split.json").read_text()
    (tmp_path / "volumes" / "split.json").write_text(split)
    options = (
        "--data.format volumes --data.root volumes --data.batch_size 4 --data.cache_dir cache --model.name unext_tiny"
    )
    names = ("--data.sequences", "[t1, flair, t1ce]")  # alphabetical they would be others
    call(monkeypatch, "train", *f"{options} --epochs 1 --run run --accelerator cpu --devices 1".split(), *names)
    model = SegmentationModel.from_pretrained("run/best")
    assert model.spec.channel_names == slices.channel_names
    # What an epoch has taught finds something at a threshold of its own.
    likely = torch.stack([Predictor(model, device="cpu").probabilities(sample["image"]) for sample in slices])
    model.spec = replace(model.spec, threshold=likely.quantile(0.97).item())
    model.save_pretrained("run/best")

    patients = read_split("volumes/split.json")["validation"]
    call(monkeypatch, "predict", "run", *(f"volumes/{patient}" for patient in patients), "-o", "masks")
    pictures = [Path(str(data.root)) / patient for patient in patients]
    call(monkeypatch, "predict", "run", *pictures, "-o", "pictures", "--patients", "--spacing", 4, 1, 1.5)
    tables = [read_rows(Path(folder) / "volumes.csv") for folder in ("masks", "pictures")]
    for ours, theirs in zip(*tables, strict=True):
        assert [ours[key] for key in ("patient", "voxels", "slices")] == [
            theirs[key] for key in ("patient", "voxels", "slices")
        ]
        assert float(ours["ml"]) == pytest.approx(float(theirs["ml"]))
    scores = {row.patient: row.dice for row in evaluate("run").patients}
    assert list(scores) == patients
    for patient in patients:
        volumes = (f"masks/{patient}_mask.nii.gz", f"volumes/{patient}/{patient}_seg.nii.gz")
        mask, true = (np.asarray(nibabel.load(path).dataobj) > 0 for path in volumes)
        assert mask.any()
        upright = np.asarray(nibabel.as_closest_canonical(nibabel.load(volumes[0])).dataobj)[::-1, ::-1].T
        for files, expected in zip((f for f in slices.files if f.patient == patient), upright, strict=True):
            name = f"pictures/{files.images[0].stem}_mask.png"
            np.testing.assert_array_equal(np.asarray(Image.open(name)), 255 * expected)
        assert 2 * (mask & true).sum() / (mask.sum() + true.sum()) == pytest.approx(scores[patient], abs=1e-6)


def test_numbers_of_other_classes_are_not_compared_and_images_are_no_patients(
    maps: DataConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(maps, tmp_path / "run")
    other = tmp_path / "other"
    for folder in ("images", "masks"):
        (other / folder).mkdir(parents=True)
        for patient in PATIENTS:
            source = Path(str(maps.root)) / folder / patient / "0.png"
            (other / folder / f"{patient}.png").write_bytes(source.read_bytes())
    (other / "classes.json").write_text('["background", "core", "shell"]')
    with pytest.raises(
        ValueError,
        match="the classes of the data are background, core, shell and those of the network background, shell",
    ):
        evaluate(run, root=other, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (other / "classes.json").write_text('["background", "shell", "core"]')
    evaluation = evaluate(run, root=other, output=tmp_path / "out")
    assert evaluation.case == "image"
    evaluation.show()
    assert "By image, each counted as a patient: whose they are is not known" in " ".join(
        capsys.readouterr().out.split()
    )


def test_values_that_name_classes_are_compared(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.array([[0, 1, 3]], np.uint8)).save(tmp_path / folder / "a.png")
    data = ImageMaskFolder(tmp_path, task="multiclass", cache_dir=tmp_path / "cache")
    check_classes(("background", "label_1", "label_3"), data)
    with pytest.raises(ValueError, match=r"data are background, label_1, label_3 and those of the network .* label_2;"):
        check_classes(("background", "label_1", "label_2"), data)


@pytest.mark.parametrize(
    ("layout", "task", "names"),
    [
        ("folder", None, ("background", "shell", "core")),
        ("folder", "multilabel", ("shell", "core")),
        ("folder", "binary", ("foreground",)),
        ("volumes", None, ("background", "label_1", "label_4")),
        ("volumes", "binary", ("foreground",)),
        ("lgg", None, ("tumour",)),
        ("lgg", "multiclass", ("background", "tumour")),
    ],
)
def test_the_task_decides_what_masks_are(
    maps: DataConfig,
    volumes: DataConfig,
    data: DataConfig,
    layout: str,
    task: Any,
    names: tuple[str, ...],
) -> None:
    config = {"folder": maps, "volumes": volumes, "lgg": data}[layout]
    slices = open_part(replace(config, task=task), None, "train")
    assert slices.class_names == names
    assert slices[0]["mask"].dim() == (2 if names[0] == "background" else 3)


def test_folds_validate_everyone_once_and_share_out_a_column(maps: DataConfig) -> None:
    config = replace(maps, folds=4, stratify="grade", fold=0)
    folds = [find_split(replace(config, fold=fold), seed=3)["validation"] for fold in range(4)]
    assert sorted(name for fold in folds for name in fold) == PATIENTS
    for fold in folds:
        assert Counter("high" if name < "p4" else "low" for name in fold) == {"high": 1, "low": 1}


def test_folds_of_a_file_are_taken_as_they_are(maps: DataConfig, tmp_path: Path) -> None:
    folds = split_patients(PATIENTS, seed=7, folds=3, test=0.25)
    write_folds(folds, tmp_path / "folds.json")
    config = replace(maps, split=str(tmp_path / "folds.json"), fold=1)
    assert find_split(config, seed=0) == folds[1]
    with pytest.raises(ValueError, match=r"data\.fold must be one of 0 to 2, got 3"):
        find_split(replace(config, fold=3), seed=0)


def test_folds_keep_the_test_part_of_the_data_sets_split(data: DataConfig, tmp_path: Path) -> None:
    everyone = open_part(data, None, "train").patients
    write_split({"train": everyone[2:], "validation": [], "test": everyone[:2]}, tmp_path / "split.json")
    folds = [
        find_split(replace(data, split=str(tmp_path / "split.json"), folds=5, fold=fold), seed=0) for fold in range(5)
    ]
    assert sorted(name for fold in folds for name in fold["validation"]) == everyone[2:]
    for fold in folds:
        assert fold["test"] == everyone[:2]
        assert sorted(fold["train"] + fold["validation"]) == everyone[2:]
        assert len({institution(name) for name in fold["validation"]}) == 2
    own = read_split(Path(str(data.root)) / "split.json")
    assert find_split(data, seed=0) == own


@pytest.mark.parametrize("sampler", ["uniform", "foreground", "patient"])
def test_samplers_are_those_of_the_configuration(data: DataConfig, sampler: Any) -> None:
    config = replace(data, sampler=sampler, foreground_share=0.75)
    module = SliceDataModule(config, find_split(config, seed=0), seed=0)
    full = sum(int(mask.any()) for batch in module.train_dataloader() for mask in batch["mask"])
    share = {"foreground": 34 / 45, "uniform": 9 / 45, "patient": 9 / 45}[sampler]
    assert full == pytest.approx(share * 44, abs=1)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"folds": 5}, "data.folds and data.fold go together"),
    ({"fold": 0}, "data.fold=0 needs data.folds, or a data.split that holds folds"),
    ({"split": "folds.json", "fold": -1}, "data.fold must be 0 or more, got -1"),
    ({"folds": 1, "fold": 0}, "data.folds must be 2 or more, got 1"),
    ({"folds": 5, "fold": 5}, "data.fold must be one of 0 to 4, got 5"),
    ({"foreground_share": 2.0}, r"data.foreground_share must lie in \[0, 1\], got 2.0"),
    ({"sequences": ["flair"]}, "data.sequences goes with data.format=volumes"),
    ({"format": "volumes", "patient_pattern": ".*"}, "data.patient_pattern goes with data.format=folder"),
    ({"classes": ["tumour"]}, "data.classes goes with data.format=folder or volumes, not lgg"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG)
def test_fields_that_do_not_go_together_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataConfig(**fields)


@pytest.mark.parametrize(("layout", "holds"), [("folder", "images and masks"), ("volumes", "the cases, or imagesTr")])
def test_a_format_without_a_root_says_what_it_needs(layout: Any, holds: str) -> None:
    with pytest.raises(
        ValueError, match=re.escape(f"data.format={layout} needs data.root, the folder that holds {holds}")
    ):
        find_split(DataConfig(format=layout), seed=0)
