"""`brainseg experiment`: the published runs by name, by slice and by patient, in one folder that is gone on with."""

from pathlib import Path

import pytest

from brainseg.data import read_slices_leaking, read_split, write_phantoms
from brainseg.training import experiments
from brainseg.training.config import CONFIGS
from brainseg.training.experiments import EXPERIMENTS, configure
from tests.command import call


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Phantoms in a folder of the working directory, and configurations as they ship but for network and epochs."""
    write_phantoms(tmp_path / "lgg", patients=6, slices=4, size=64)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "configs").mkdir()
    for path in CONFIGS.glob("course*.yaml"):
        text = path.read_text().replace("name: unext\n", "name: unext_tiny\n").replace("epochs: 20", "epochs: 2")
        (tmp_path / "configs" / path.name).write_text(text)
    monkeypatch.setattr(experiments, "CONFIGS", tmp_path / "configs")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "batch_size", "lr", "split_by", "seed"),
    [
        ("course-1", 8, 1e-4, "slice", 41),
        ("course-2", 8, 1e-2, "slice", 41),
        ("course-3", 16, 1e-4, "slice", 41),
        ("course-1-patients", 8, 1e-4, "patient", 0),
        ("course-2-patients", 8, 1e-2, "patient", 0),
        ("course-3-patients", 16, 1e-4, "patient", 0),
    ],
)
def test_an_experiment_is_a_published_configuration_on_a_split(
    name: str, batch_size: int, lr: float, split_by: str, seed: int
) -> None:
    config = configure(name)
    assert (config.data.batch_size, config.optimizer.lr, config.data.input) == (batch_size, lr, "course")
    assert (config.data.split_by, config.seed, config.epochs, config.devices) == (split_by, seed, 20, 1)


def test_without_a_name_they_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    call(monkeypatch, "experiment")
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()] == [*EXPERIMENTS]
    assert "0.8546" in printed
    with pytest.raises(SystemExit):
        call(monkeypatch, "experiment", "course-4")
    assert "course-4" in capsys.readouterr().err


def test_a_published_experiment_is_split_by_slice_and_goes_on_where_it_was(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.warns(UserWarning, match="memory"):
        call(monkeypatch, "experiment", "course-1", "--data", "lgg")
    run = small / "runs" / "course-1"
    assert len(read_slices_leaking(run / "split.json")["validation"]) == 5  # a fifth of 24, rounded up
    tables = {path.name: path.read_bytes() for path in (run / "evaluation" / "validation").glob("*.csv")}
    assert {"patients.csv", "slices.csv"} <= tables.keys()
    assert "scores are memory" in capsys.readouterr().out

    (run / "evaluation" / "validation" / "slices.csv").unlink()
    epochs = (run / "metrics.csv").read_text()
    with pytest.warns(UserWarning, match="memory"):
        call(monkeypatch, "experiment", "course-1", "--data", "lgg")
    assert (run / "metrics.csv").read_text() == epochs
    assert tables == {path.name: path.read_bytes() for path in (run / "evaluation" / "validation").glob("*.csv")}

    capsys.readouterr()
    with pytest.raises(SystemExit):
        call(monkeypatch, "experiment", "course-2", "--data", "lgg", "--run", run)
    assert "is another run than course-2, in optimizer.lr; give another folder" in capsys.readouterr().err


def test_by_patient_it_takes_the_split_that_is_named(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = read_split(small / "lgg" / "split.json")
    (small / "lgg" / "split.json").rename(small / "mine.json")
    call(monkeypatch, "experiment", "course-3-patients", "--data", "lgg", "--split", "mine.json", "--run", "run")
    assert read_split(small / "run" / "split.json") == split
