"""`brainseg benchmark`: what it prints and writes, and one line for what is wrong."""

import json
import sys
from pathlib import Path

import pytest
import torch

from brainseg import cli

MODULE = """
from torch import nn

def make():
    return nn.Conv2d(4, 1, 1)

class Wrong(nn.Module):
    def forward(self, images):
        raise ValueError("sides must be odd")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a module of networks in it."""
    (tmp_path / "networks_of_mine.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for place in ("brainseg.cli.keep_freed_memory", "brainseg.memory.keep_freed_memory"):
        monkeypatch.setattr(place, lambda: False)  # the process is that of all tests
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["brainseg", "benchmark", *map(str, arguments)])
    cli.main()


def test_lists_are_combined_printed_and_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = ("--size=32", "--batch=2,3", "--dtype", "float32,bfloat16", "--mode", "inference,training")
    names = ("networks_of_mine:make", "unext_tiny")
    call(monkeypatch, *names, *lists, "--in-channels=4", "--quick", "--output", folder / "results")
    printed = capsys.readouterr()
    assert (folder / "results" / "benchmark.md").read_text() in printed.out
    assert (folder / "results" / "benchmark.svg").is_file()
    report = json.loads((folder / "results" / "benchmark.json").read_text())
    titles = [f"{mode} on cpu, batch {batch}, 32x32" for mode in ("Inference", "Training") for batch in (2, 3)]
    assert [table["title"] for table in report["tables"]] == titles
    assert printed.err.splitlines() == titles
    rows = [f"{name}, {dtype}" for name in names for dtype in ("float32", "bfloat16")]
    assert all([row["name"] for row in table["rows"]] == rows for table in report["tables"])
    assert {row["status"] for table in report["tables"] for row in table["rows"]} == {"measured"}
    assert report["tables"][0]["rows"][0]["facts"] == {"parameters": 5, "GMACs": 4 * 32 * 32 / 1e9}


def test_a_network_that_fails_is_told_at_the_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, "networks_of_mine:Wrong", "networks_of_mine:make", "--in-channels=4", "--size=8", "--quick")
    failed = "networks_of_mine:Wrong failed (ValueError: sides must be odd)"
    assert stopped.value.code == f"Inference on cpu, batch 1, 8x8: {failed}"
    assert "| networks_of_mine:make | 5 |" in capsys.readouterr().out
    assert list(folder.glob("*.json")) == []


WRONG = [
    (["unex"], "did you mean unext"),
    (["nowhere_to_be_found:make"], "there is no module nowhere_to_be_found"),
    (["unext", "unext"], "unext is named 2 times"),
    (["unext", "--batch", "1,,2"], "--batch takes words with commas between them"),
    (["unext", "--batch", "1,two"], "--batch takes positive integers with commas between them"),
    (["unext", "--size", "0"], "size must be a positive integer"),
    (["unext", "--dtype", "float64"], "dtype must be one of"),
    (["unext", "--mode", "training", "--layout", "nhwc"], "layout must be one of"),
    (["unext", "--device", "gpu"], "device must be cpu, cuda or cuda:1"),
    (["unext", "--cuda-graph"], "a CUDA graph needs a CUDA device"),
    (["unext", "--threads", "0"], "threads"),
    (["unext", "--tolerance", "-1"], "tolerance"),
    (["unext", "--output", "networks_of_mine.py"], "networks_of_mine.py"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=lambda value: str(value)[:60])
def test_what_is_wrong_is_told_in_one_line_before_anything_is_measured(
    arguments: list[str],
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = set(folder.iterdir())
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, *arguments)
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert message in line
    assert set(folder.iterdir()) - {folder / "__pycache__"} == before


def test_all_of_ours_are_measured_if_none_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    asked: list[list[str]] = []

    def refuse(_: str, make_cases: object, **__: object) -> None:
        asked.append(make_cases.__self__.networks())  # type: ignore[attr-defined]
        raise ValueError("not today")

    monkeypatch.setattr("brainseg.benchmark.create_report", refuse)
    with pytest.raises(SystemExit):
        call(monkeypatch)
    assert "mask_dino_small" in asked[0]
    assert "unext" in asked[0]


def test_threads_are_as_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    set_threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", set_threads.append)
    call(monkeypatch, "networks_of_mine:make", "--in-channels=4", "--size=8", "--quick", "--threads=3")
    assert set_threads == [3]
