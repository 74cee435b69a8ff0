"""`brainseg cross-validate`: from a file of folds to an ensemble that predicts, and one line for what is wrong."""

from pathlib import Path

import pytest

from brainseg.data import write_phantoms
from tests.command import call


def test_folds_of_a_file_become_tables_and_an_ensemble_that_predicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_phantoms("lgg", patients=4, slices=2, size=64)
    data = ("--data.root", "lgg", "--data.cache_dir", "cache")
    options = ("--model.name=unext_tiny", "--model.arguments={channels: [4, 4, 8, 8, 8]}", "--data.batch_size=4")
    place = ("--accelerator=cpu", "--devices=1")
    call(monkeypatch, "split", *data, "--folds=2", "-o", "folds.json")
    command = ("cross-validate", *data, "--data.split=folds.json", *options, *place, "-o", "cv")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        call(monkeypatch, *command, "--epochs=1", "--data.fold=1")
    assert "a cross-validation runs all folds" in capsys.readouterr().err
    call(monkeypatch, *command, "--epochs=1", "--fold=0")
    assert "Fold 0 is done; others are not" in capsys.readouterr().out
    call(monkeypatch, *command, "--epochs=1")
    printed = capsys.readouterr().out
    assert "Fold 1 of 0 to 1: 2 validate" in printed
    assert "Fold 0 of" not in printed
    assert "mean patient Dice, fold 1" in printed
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, *command, "--epochs=2")
    assert stopped.value.code == 2
    assert "error: cv was begun with other options: epochs; give those" in capsys.readouterr().err
    call(monkeypatch, "predict", "cv", "lgg", "-o", "masks")
    assert len(list(Path("masks").rglob("*_mask.png"))) == 8
