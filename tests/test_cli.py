"""The command: what it prints and leaves, and one line and exit code 2 for what is wrong."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import brainseg.training.fit
from brainseg import cli
from brainseg.data import write_phantoms
from brainseg.models import create_model, list_models, summary
from brainseg.training import SegmentationTask, TrainConfig
from brainseg.training.inputs import INPUTS
from brainseg.training.task import AUGMENTATIONS
from tests.command import call


def test_train_evaluate_and_predict_from_a_folder_of_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_phantoms(tmp_path / "lgg", patients=4, slices=3, size=64)
    run = tmp_path / "run"
    monkeypatch.setenv("BRAINSEG_LGG", str(tmp_path / "lgg"))
    options = ("--model.name=unext_tiny", "--epochs=1", "--accelerator=cpu", "--devices=1", "--optimizer.lr=0.002")
    data = (f"--data.cache_dir={tmp_path / 'cache'}", "--data.image_size=64")
    call(monkeypatch, "train", "--config", "course_fixed", *data, *options, "--run", run)
    printed = capsys.readouterr().out
    assert f"brainseg evaluate {run}" in printed
    # No terminal: an epoch leaves a line, and nothing is drawn over.
    assert [line.split()[0] for line in printed.splitlines() if line] == ["epoch", "The"]
    assert "\r" not in printed
    config = (run / "config.yaml").read_text()
    assert f"root: {tmp_path / 'lgg'}" in config  # of the variable, which may be another later
    monkeypatch.delenv("BRAINSEG_LGG")
    assert "name: unext_tiny" in config
    assert "lr: 0.002" in config
    assert "monitor: val_iou_batch" in config

    call(monkeypatch, "train", "--resume", run, "--epochs", 1, "--devices=1", "--accelerator", "cpu")
    call(monkeypatch, "evaluate", run, "--part", "train", "-o", tmp_path / "tables")
    assert "mean patient Dice" in capsys.readouterr().out
    assert (tmp_path / "tables" / "patients.csv").is_file()

    call(monkeypatch, "predict", run, tmp_path / "lgg", "-o", tmp_path / "masks")
    assert "Masks and overlays of 12 images" in capsys.readouterr().out
    assert len(list((tmp_path / "masks").rglob("*_mask.png"))) == 12


def test_predict_writes_the_objects_of_a_network_with_queries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_phantoms(tmp_path / "lgg", patients=2, slices=1, size=64)
    create_model("mask_dino_small").save_pretrained(tmp_path / "weights")
    options = ("--instances", "--min-score", 0, "--spacing", 5, 1, 1)
    call(monkeypatch, "predict", tmp_path / "weights", tmp_path / "lgg", "-o", tmp_path / "out", *options)
    assert "Label maps and overlays of 2 images" in capsys.readouterr().out
    assert len(list((tmp_path / "out").rglob("*_instances.json"))) == 2


def test_predict_names_what_failed_and_finishes_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    create_model("unext_tiny").save_pretrained(tmp_path / "weights")
    (tmp_path / "in").mkdir()
    for name, mode in (("a", "RGB"), ("gray", "L"), ("z", "RGB")):
        Image.new(mode, (32, 32)).save(tmp_path / "in" / f"{name}.png")
    (tmp_path / "in" / "broken.png").write_bytes(b"")
    with pytest.raises(SystemExit) as caught:
        call(monkeypatch, "predict", tmp_path / "weights", tmp_path / "in", "-o", tmp_path / "out")
    assert caught.value.code == 1
    printed = capsys.readouterr()
    assert "Masks and overlays of 2 images" in printed.out
    broken, gray = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert "broken.png is truncated or no image" in broken
    assert "gray.png: this network was trained on 3 channels; the image has 1" in gray
    assert {path.name for path in (tmp_path / "out").glob("*_mask.png")} == {"a_mask.png", "z_mask.png"}


@pytest.mark.parametrize(("options", "expected"), [([], 1), (["--keep_freed_memory=false"], 0)])
@pytest.mark.parametrize(
    "command", ["train", "cross-validate", "experiment", "evaluate", "predict", "demo", "benchmark"]
)
def test_freed_memory_is_kept_unless_an_option_says_no(
    command: str, options: list[str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: called.append(True))
    monkeypatch.setattr(import_module(f"brainseg.cli.{command.replace('-', '_')}"), "run", lambda _: None)
    needed = {"evaluate": ["run"], "predict": ["weights", "x.png", "-o", "out"], "cross-validate": ["-o", "out"]}
    call(monkeypatch, command, *needed.get(command, []), *options)
    assert len(called) == expected


def test_without_a_model_the_weights_that_ship_predict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_phantoms(tmp_path / "lgg", patients=2, slices=3, size=64)
    call(monkeypatch, "predict", tmp_path / "lgg", "-o", tmp_path / "masks")
    call(monkeypatch, "predict", "unext/lgg", tmp_path / "lgg", "-o", tmp_path / "named")
    assert "Masks and overlays of 6 images" in capsys.readouterr().out
    masks = sorted((tmp_path / "masks").rglob("*_mask.png"))
    assert len(masks) == 6
    for mask in masks:
        assert mask.read_bytes() == (tmp_path / "named" / mask.relative_to(tmp_path / "masks")).read_bytes()


def test_a_folder_of_images_with_two_classes_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for folder in ("images", "masks/0", "masks/1"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        for name in "abcdef":
            pixels = rng.integers(0, 256, (40, 48)) if folder == "images" else 255 * rng.integers(0, 2, (40, 48))
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "data" / folder / f"{name}.png")
    call(
        monkeypatch,
        *("train", "--data.format=folder", f"--data.root={tmp_path / 'data'}", "--data.input=none"),
        *(f"--data.cache_dir={tmp_path / 'cache'}", "--data.batch_size=2", "--model.name=unext_tiny", "--epochs=1"),
        *("--accelerator=cpu", "--devices=1", "--data.image_size=[32,32]", "--run", tmp_path / "run"),
    )
    call(monkeypatch, "evaluate", tmp_path / "run")
    assert (tmp_path / "run" / "evaluation" / "validation" / "cases.png").is_file()


def test_a_run_that_diverges_is_told_in_one_line_with_exit_code_1(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--model.name=unext_tiny", "--accelerator=cpu", "--devices=1", "--data.batch_size=2")
    data = (f"--data.root={folder / 'lgg'}", f"--data.cache_dir={folder / 'cache'}")
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, "train", *data, *options, "--optimizer.lr", 1e30, "--run", tmp_path / "run")
    assert stopped.value.code == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line]
    assert line.startswith("error: epoch 1: train_loss is nan, so the run ends; likely causes: a learning rate")
    assert not (tmp_path / "run" / "best").exists()


def test_ctrl_c_is_told_in_one_line_with_exit_code_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt("interrupted in epoch 2 of 3; go on with: brainseg train --resume run")

    monkeypatch.setattr(brainseg.training.fit, "train", interrupted)
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, "train")
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "error: interrupted in epoch 2 of 3; go on with: brainseg train --resume run\n"


def test_help_names_what_can_be_chosen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        call(monkeypatch, "train", "--help")
    words = set(re.findall(r"\w+", capsys.readouterr().out))
    assert words >= {*INPUTS, *AUGMENTATIONS, "none", "FocalLoss", "MCCLoss", "AdamW", "plateau", "val_loss", "course"}


@pytest.mark.parametrize("columns", ["20", "400"])
def test_models_never_cuts_a_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    call(monkeypatch, "models", "un*")
    printed = capsys.readouterr().out
    assert all(name in printed for name in list_models("un*"))
    assert "…" not in printed


@pytest.mark.parametrize("kind", ["run", "best", "last.ckpt", "prefixed.pt"])
def test_weights_are_taken_from_wherever_a_network_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    trained = create_model("unext_tiny")
    trained.save_pretrained(tmp_path / "run" / "best")
    state = trained.state_dict()
    torch.save({"state_dict": {f"model.{key}": value for key, value in state.items()}}, tmp_path / "run" / "last.ckpt")
    averaged = {f"module._orig_mod.{key}": value for key, value in state.items()}
    torch.save({**averaged, "n_averaged": torch.tensor(3)}, tmp_path / "run" / "prefixed.pt")
    configs: list[TrainConfig] = []
    monkeypatch.setattr(brainseg.training.fit, "train", lambda config, _: configs.append(config))
    path = tmp_path / "run" if kind == "run" else tmp_path / "run" / kind
    call(monkeypatch, "train", "--model.name=unext_tiny", "--model.weights", path, "--data.root=somewhere")
    task = SegmentationTask(configs[0], in_channels=3, num_classes=1)
    assert all(torch.equal(value, state[name]) for name, value in task.model.state_dict().items())


def test_models_lists_what_networks_cost(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    call(monkeypatch, "models", "unext")
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "unext" in line]
    training = summary(create_model("unext")).activation_bytes / 2**20
    assert row.replace("│", "").split() == ["unext", "UNeXt", "1,471,921", "0.5620", "1.1240", f"{training:.1f}"]


def test_models_counts_for_the_size_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, "models", "unet", "--size", 512)
    printed = capsys.readouterr().out
    assert "512x512" in printed
    assert f"{4 * 48.16738714:.4f}" in printed


WRONG = [
    ([], "expected"),
    (["trian"], "trian"),
    (["train", "--epochs", "many"], "epochs"),
    (["train", "--epoks", "3"], "epoks"),
    (["train", "--config", "no_such"], "no_such"),
    (["train", "--config", "broken.yaml"], "broken.yaml"),
    (["train", "--config", "unknown.yaml"], "epoks"),
    (["train", "--data.root", "nowhere"], "nowhere; give the one that holds the patients' folders"),
    (["train", "--data.root", "."], "holds no patients"),
    (["train", "--data.root", "lgg", "--data.cache_dir=cache", "--model.name", "unext_medium"], "did you mean"),
    (
        ["train", "--data.root", "lgg", "--data.cache_dir=cache", "--model.name", "segformer"],
        "; there are unext_tiny, ",
    ),
    (["train", "--data.image_size", "0"], "data.image_size must be a positive integer, got 0"),
    (["train", "--data.image_size", "large"], "data.image_size"),
    (["train", "--data.root", "lgg", "--data.cache_dir=cache", "--data.input", "curse"], "did you mean course"),
    (["train", "--data.root", "lgg", "--data.cache_dir=cache", "--data.split", "none.json"], "there is no split"),
    (["train", "--loss", "FocalLoss"], "there is no FocalLoss; perhaps --loss.name is meant"),
    (["train", "--data", "slices"], "there is no slices; perhaps --data.root is meant"),
    (["train", "--resume", "nowhere"], "holds no run"),
    (["train", "--resume", "nowhere", "--epochs", "3"], "holds no run"),
    (["train", "--resume", "nowhere", "--data.root=lgg", "--data.workers", "1", "--accelerator=cpu"], "holds no run"),
    (["train", "--resume", "nowhere", "--seed", "0"], "takes --seed from the run's own config.yaml; leave the other"),
    (["train", "--resume", "nowhere", "--model.name=unext"], "takes --model.name from"),
    (["train", "--resume", "nowhere", "--config", "course"], "takes --config from"),
    (["train", "--resume", "nowhere", "--run", "runs/other"], "takes --run from"),
    (["train", "--replan"], "--replan goes with --resume"),
    (["train", "--data.root", "lgg", "--data.cache_dir=cache", "--precision", "7"], "precision"),
    (["train", "--data.root", "lgg", "--data.cache_dir=cache", "--strategy", "dpp"], "strategy"),
    (["evaluate", "nowhere"], "holds no run"),
    (["evaluate"], "evaluate.model"),
    (["predict", "nowhere", "x.png", "-o", "out"], "there is no model and no image nowhere; give the folder of a run"),
    (["predict", "unext/lgg", "-o", "out"], "unext/lgg is a model, and no images were given"),
    (
        ["predict", "runs/first/last.CKPT", "x.png", "-o", "out"],
        "last.CKPT is a file of weights; give the folder of its",
    ),
    (["predict", "x.png", "best/model.safetensors", "-o", "out"], "model.safetensors is a file of weights; give"),
    (["predict", "lgg", "runs/first", "-o", "out"], "runs/first is a model, and stands where images do; name it first"),
    (["predict", "runs", "-o", "out"], "runs/first is a model, and stands where images do"),
    (["predict", "lgg", "-o", "out", "--instances"], "UNeXt answers for pixels and not for objects"),
    (
        ["predict", "lgg", "-o", "out", "--instances", "--tta"],
        "--tta is of masks; leave it out, or leave out --instances",
    ),
    (
        ["predict", "unext/lgg", "unext/lgg", "lgg", "-o", "out", "--instances"],
        "objects of several networks have no mean",
    ),
    (["predict", "lgg", "-o", "out", "--min-score", "0.9"], "--min-score is of objects, with --instances"),
    (["predict", "lgg", "-o", "broken.yaml"], "error: broken.yaml is a file; give a folder for the results"),
    (["predict", "lgg", "-o", "broken.yaml/out"], "error: broken.yaml is a file; give a folder for the results"),
    (["predict", "lgg", "-o", "broken.yaml", "--instances"], "error: broken.yaml is a file; give a folder"),
    (["evaluate", "unext/lgg", "--data.root", "lgg", "-o", "broken.yaml"], "broken.yaml is a file; give a folder"),
    (
        ["evaluate", "unext/lgg", "--data.root", "lgg", "--data.cache_dir", "broken.yaml/cache", "-o", "out"],
        "error: the cache broken.yaml/cache cannot be written (Not a directory); make room, or give another cache_dir",
    ),
    (["models", "resnet*"], "no network is called resnet*"),
    (["models", "--size", "20"], "sides of at least 32 pixels"),
    (["demo", "--output", "lgg"], "not the demo's"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli")
    write_phantoms(path / "lgg", patients=4, slices=3, size=32)
    (path / "runs" / "first").mkdir(parents=True)
    (path / "runs" / "first" / "config.yaml").touch()
    (path / "broken.yaml").write_text("epochs: [")
    (path / "unknown.yaml").write_text("epoks: 3")
    return path


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=lambda value: str(value)[:60])
def test_what_is_wrong_is_told_in_one_line(
    arguments: list[str],
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    before = {path for path in folder.rglob("*") if "cache" not in path.parts}
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, *arguments)
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    (line,) = [line for line in printed.splitlines() if line.startswith("error:")]
    assert message in line
    assert "Traceback" not in printed
    assert {path for path in folder.rglob("*") if "cache" not in path.parts} == before


def test_without_its_extra_the_command_names_it() -> None:
    code = "import sys; sys.modules['jsonargparse'] = None; from brainseg.cli import main; main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.strip() == 'brainseg needs jsonargparse: pip install "brainseg-torch[train]"'


@pytest.mark.slow
def test_the_demo_trains_evaluates_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, "demo", "--output", tmp_path / "demo")
    picture = tmp_path / "demo" / "run" / "evaluation" / "validation" / "cases.png"
    overlay = tmp_path / "demo" / "real" / "example_overlay.png"
    printed = capsys.readouterr().out
    for path in (picture, overlay):
        assert str(path) in printed
        assert path.is_file()
