"""Settings as tables and rows, and the whole way from names to files, on the processor and on a card that is none."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from brainseg.benchmark import Grid, create_report, failures, markdown, write_report
from tests.benchmark.conftest import FakeCUDA


class Small(nn.Module):
    """Two convolutions, made by `small`."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.layers(images)
        return out


class Shifted(Small):
    """Almost the same."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + 1


class Hungry(Small):
    """Wants more memory than there is."""

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[0] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 EiB")
        return super().forward(images)


SMALL, SHIFTED, HUNGRY = (f"{__name__}:{name}" for name in ("Small", "Shifted", "Hungry"))


def titles(grid: Grid) -> dict[str, list[str]]:
    return {case.title: [candidate.name for candidate in case.candidates] for case in grid.cases()}


def test_there_is_a_table_for_every_device_mode_size_and_batch() -> None:
    grid = Grid(
        ["unext_tiny"], devices=("cpu", "cuda"), sizes=(64, 96), batches=(1, 2), modes=("inference", "training")
    )
    assert len(titles(grid)) == 16
    assert titles(grid)["Training on cuda, batch 2, 96x96"] == ["unext_tiny"]


def test_rows_are_networks_in_every_dtype_layout_and_way() -> None:
    grid = Grid(
        ["unext", "unet"],
        dtypes=("float32", "bfloat16"),
        layouts=("contiguous", "channels_last"),
        optimize=True,
        compile=True,
    )
    (rows,) = titles(grid).values()
    assert len(rows) == 2 * 2 * 2 * 3
    assert rows[:4] == [
        "unext, float32, contiguous",
        "unext, float32, contiguous, optimized",
        "unext, float32, contiguous, optimized, compiled",
        "unext, float32, channels_last",
    ]
    training = titles(replace(grid, modes=("training",), dtypes=("float32",), layouts=("contiguous",)))
    assert list(training.values()) == [["unext", "unext, compiled", "unet", "unet, compiled"]]


def test_what_is_as_exact_must_give_what_the_first_row_of_its_network_gives() -> None:
    grid = Grid(["unext"], dtypes=("bfloat16", "float32"), compile=True)
    (case,) = grid.cases()
    assert {candidate.name: candidate.equal_to for candidate in case.candidates} == {
        "unext, bfloat16": None,
        "unext, bfloat16, compiled": None,
        "unext, float32": None,
        "unext, float32, compiled": "unext, float32",
    }


def test_networks_must_equal_the_first_where_that_is_asked() -> None:
    report = create_report("equal", Grid([SMALL, SHIFTED], sizes=(16,), tolerance=1e-3).cases, quick=True)
    small, shifted = report["tables"][0]["rows"]
    assert small["status"] == "measured"
    assert shifted["status"].startswith("failed (it is 1.0e+00 off")
    assert failures(report) == [f"Inference on cpu, batch 1, 16x16: {SHIFTED} {shifted['status']}"]
    assert failures(create_report("not", Grid([SMALL, SHIFTED], sizes=(16,)).cases, quick=True)) == []


def test_cuda_graphs_and_tf32_are_rows_of_cuda_alone() -> None:
    grid = Grid(["unext"], devices=("cpu", "cuda"), dtypes=("float32", "tf32"), compile=True, cuda_graph=True)
    cpu, cuda = titles(grid).values()
    assert cpu == ["unext, float32", "unext, float32, compiled"]
    ways = ["", ", compiled", ", CUDA graph", ", compiled, CUDA graph"]
    assert cuda == [f"unext, {dtype}{way}" for dtype in ("float32", "tf32") for way in ways]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_card_its_tables_say_not_measured() -> None:
    report = create_report("cuda", Grid([SMALL], devices=("cpu", "cuda"), sizes=(16,)).cases, quick=True)
    here, there = (table["rows"][0]["status"] for table in report["tables"])
    assert (here, there) == ("measured", "not measured (torch finds no CUDA device)")
    assert failures(report) == []
    assert f"| {SMALL} | not measured (torch finds no CUDA device) |" in markdown(report)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_card_cuda_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="torch finds no CUDA device, and cuda was asked for; use cpu"):
        Grid(["unext"], devices=("cuda",))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": ["unex"]}, "did you mean unext"),
        ({"batches": ()}, "batches must be one or more different values"),
        ({"sizes": (64, 64)}, r"sizes must be one or more different values, got \[64, 64\]"),
        ({"batches": (0,)}, "batch must be a positive integer, got 0"),
        ({"dtypes": ("float8",)}, "dtype must be one of"),
        ({"devices": ("tpu",)}, "device must be cpu, cuda or cuda:1, got 'tpu'"),
        ({"modes": ("train",)}, "mode must be one of"),
        ({"layouts": ("nhwc",)}, "layout must be one of"),
        ({"cuda_graph": True}, "a CUDA graph needs a CUDA device, got cpu"),
        ({"dtypes": ("tf32",)}, "tf32 needs a CUDA device, got cpu"),
        ({"tolerance": 0.0}, "tolerance must be a positive number"),
        ({"in_channels": 0}, "in_channels must be a positive integer"),
    ],
)
def test_grids_that_cannot_be_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Grid(**arguments)


def test_the_costs_of_a_network_are_in_its_row() -> None:
    (table,) = create_report("costs", Grid([SMALL], sizes=(16,)).cases, quick=True)["tables"]
    macs = 16 * 16 * (3 * 4 * 9 + 4)
    assert table["rows"][0]["facts"] == {"parameters": 3 * 4 * 9 + 4 + 2 * 4 + 4 + 1, "GMACs": macs / 1e9}


def test_out_of_memory_is_a_row_and_the_smaller_batch_is_measured(tmp_path: Path, cuda: FakeCUDA) -> None:
    grid = Grid([HUNGRY, SMALL], devices=("cuda",), sizes=(16,), batches=(1, 2))
    report = create_report("memory", grid.cases, quick=True)
    one, two = (table["rows"] for table in report["tables"])
    assert [row["status"] for row in one] == ["measured", "measured"]
    assert [row["status"] for row in two] == ["out of memory", "measured"]
    assert two[1]["images_per_second"] > 0
    assert "empty cache" in cuda.log
    assert f"| {HUNGRY} |  |  | out of memory |" in write_report(report, tmp_path).read_text()


def test_every_way_on_a_card_goes_through_events_graphs_and_clocks(tmp_path: Path, cuda: FakeCUDA) -> None:
    grid = Grid(
        [SMALL],
        devices=("cpu", "cuda"),
        sizes=(16,),
        dtypes=("float32", "tf32", "bfloat16"),
        modes=("inference", "training"),
        layouts=("channels_last",),
        cuda_graph=True,
    )
    report = create_report("card", grid.cases, quick=True)
    assert {row["status"] for table in report["tables"] for row in table["rows"]} == {"measured"}
    assert cuda.log.count("capture") == 2 * 3
    assert report["environment"]["gpu"]["name"] == "Card"
    page = write_report(report, tmp_path).read_text()
    assert "Card (80.0 GiB, at most" in page
    assert "TF32 where a row says so, else matrix products no" in page
    assert page.count("After the last round: ") == 2
    assert json.loads((tmp_path / "card.json").read_text()) == report
    assert (tmp_path / "card.svg").read_text().startswith("<?xml")
