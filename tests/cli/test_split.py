"""`brainseg split`: what it writes and says, and one line for what is wrong."""

from pathlib import Path

import pytest

from brainseg.data import institution, read_folds, read_split, split_patients, write_phantoms
from tests.command import call


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight patients of four institutions, half of them of a high grade."""
    root = tmp_path_factory.mktemp("split") / "lgg"
    write_phantoms(root, patients=8, slices=1, size=32)
    patients = sorted(path.name for path in root.iterdir() if path.is_dir())
    rows = [f"{patient},{'high' if number < 4 else 'low'}\n" for number, patient in enumerate(patients)]
    (root.parent / "grades.csv").write_text("patient,grade\n" + "".join(rows))
    return root


def split(root: Path, monkeypatch: pytest.MonkeyPatch, *options: object) -> None:
    data = (f"--data.root={root}", f"--data.cache_dir={root.parent / 'cache'}")
    call(monkeypatch, "split", *data, *options)


def test_a_split_is_that_of_split_patients(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "split.json"
    split(root, monkeypatch, "-o", path, "--validation", 0.25, "--test", 0.25, "--seed", 3)
    names = [folder.name for folder in root.iterdir() if folder.is_dir()]
    assert read_split(path) == split_patients(names, validation=0.25, test=0.25, seed=3)
    printed = capsys.readouterr().out
    assert "Patients by institution" in printed
    assert f"brainseg train --data.split {path}" in printed


def test_folds_share_out_a_column_of_a_table(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--folds", 4, "--data.stratify", "grade", "--table", root.parent / "grades.csv")
    split(root, monkeypatch, "-o", tmp_path / "folds.json", *options)
    folds = read_folds(tmp_path / "folds.json")
    high = sorted(folder.name for folder in root.iterdir() if folder.is_dir())[:4]
    assert [sum(name in high for name in fold["validation"]) for fold in folds] == [1, 1, 1, 1]
    assert len({name for fold in folds for name in fold["validation"]}) == 8
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "fold" in line]
    assert rows[0] == ["│", "fold", "0", "│", "2", "│", "1", "│", "1", "│"]


def test_folds_are_by_institution_where_no_column_is_named(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split(root, monkeypatch, "-o", tmp_path / "folds.json", "--folds", 2)
    for fold in read_folds(tmp_path / "folds.json"):
        assert sorted(map(institution, fold["validation"])) == ["CS", "DU", "FG", "HT"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--folds", 9), "folds=9 must lie between 2 and the 8 patients"),
        (("--folds", 2, "--validation", 0.2), "--validation is the share of one split"),
        (("--table", "grades.csv"), "--table grades.csv needs --data.stratify"),
        (("--data.stratify", "age"), "there is no table"),
        (("--validation", 0.9, "--test", 0.2), "must be shares whose sum is below 1"),
        (("--data.batch_size", 3), "batch_size"),
    ],
)
def test_what_cannot_be_drawn_is_told_in_one_line_and_nothing_is_written(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[object, ...],
    message: str,
) -> None:
    with pytest.raises(SystemExit) as stopped:
        split(root, monkeypatch, "-o", tmp_path / "out.json", *options)
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line]
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_a_split_is_never_overwritten(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "split.json").write_text("{}")
    with pytest.raises(SystemExit):
        split(root, monkeypatch, "-o", tmp_path / "split.json")
    assert "is there already and never overwritten" in capsys.readouterr().err
    assert (tmp_path / "split.json").read_text() == "{}"
