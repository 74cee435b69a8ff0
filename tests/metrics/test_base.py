"""The slices that a metric has seen are the same whatever the batches, their order, and the processes."""

import copy
import json
import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchmetrics import MetricCollection

from brainseg import metrics
from brainseg.metrics import DiceScore, IoU
from tests.metrics.scans import METRICS, report, slices, update

ROOT = Path(__file__).parents[2]


def scored(index: int, *batches: range | list[int]) -> dict[str, Any]:
    name, options = METRICS[index]
    metric = getattr(metrics, name)(**options)
    for rows in batches:
        update(metric, slices(23).batch(rows))
    return report(metric)


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("processes")
    command = [sys.executable, "-m", "tests.metrics.scans", str(folder)]
    result = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("share", ["unequal", "without data"])
@pytest.mark.parametrize("index", range(len(METRICS)))
def test_two_processes_tell_what_one_tells(processes: list[dict[str, Any]], share: str, index: int) -> None:
    expected = scored(index, range(22))
    assert [reports[f"{share} {index}"] for reports in processes] == [expected] * 2
    later = scored(index, range(22), [22])["compute"]
    assert [reports[f"{share} {index} later"] for reports in processes] == [later] * 2


def test_without_synchronisation_each_process_tells_of_its_own(processes: list[dict[str, Any]]) -> None:
    assert [reports["alone"] for reports in processes] == [scored(0, range(rank, 22, 2)) for rank in range(2)]


@given(st.permutations(range(22)), st.sets(st.integers(1, 21)), st.integers(0, len(METRICS) - 1))
def test_batches_and_their_order_do_not_matter(order: list[int], cuts: set[int], index: int) -> None:
    edges = [0, *sorted(cuts), 22]
    batches = [order[start:stop] for start, stop in pairwise(edges)]
    assert scored(index, *batches) == scored(index, range(22))


def test_the_table_names_patients_and_slices() -> None:
    metric = DiceScore(num_classes=2)
    for number, batch in enumerate([[3, 1], [2], []]):
        prediction = torch.ones(len(batch), 2, 2, 2, dtype=torch.bool)
        target = prediction.clone()
        target[:, 1] = False
        metric.update(prediction, target, group=[f"p{i}" for i in batch], slice_index=[number] * len(batch))
    assert metric.per_case() == [("p1", 0, (1, 0)), ("p2", 1, (1, 0)), ("p3", 0, (1, 0))]
    assert [case.value for case in metric.per_case()] == [0.5] * 3


def test_a_case_that_is_left_out_is_nan_in_the_table() -> None:
    metric = DiceScore()
    metric.update(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
    (case,) = metric.per_case()
    assert case[:2] == (None, None)
    assert math.isnan(case.values[0])
    assert math.isnan(case.value)


@pytest.mark.parametrize("kind", [list, tuple, torch.tensor, np.array, lambda group: [str(name) for name in group]])
def test_patients_are_names_or_integers(kind: Callable[[list[int]], Any]) -> None:
    metric = DiceScore(aggregation="patient")
    metric.update(torch.ones(3, 1, 2, 2), torch.ones(3, 1, 2, 2), group=kind([7, 12, 7]))
    assert [case[:2] for case in metric.per_case()] == [("12", None), ("7", None)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": ["a"]}, r"group must have one entry for each of the 2 slices of the batch, got \['a'\]"),
        ({"group": "ab"}, "group must have one entry"),
        ({"group": torch.tensor(3)}, "group must have one entry"),
        ({"group": [1.5, 2.5]}, "group must hold names or integers"),
        ({"group": torch.tensor([True, False])}, "group must hold names or integers"),
        ({"group": ["a", "b"], "slice_index": [0, -1]}, "slice_index must hold integers from 0"),
        ({"group": ["a", "b"], "slice_index": [0]}, "slice_index must have one entry"),
        ({}, 'aggregation="patient" needs the patient of every slice; give group='),
    ],
)
def test_patients_and_slices_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    metric = IoU(aggregation="patient")
    with pytest.raises(ValueError, match=message):
        metric.update(torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2), **options)
    assert metric.metric_state["rows"] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aggregation": "volume"}, "aggregation must be one of 'slice', 'patient', 'dataset', 'batch', got 'volume'"),
        ({"average": "micro"}, "average must be one of"),
        ({"empty": "skip"}, "empty must be one of"),
        ({"num_classes": 0}, "num_classes must be a positive integer, got 0"),
        ({"threshold": 2}, "threshold must be a probability"),
        ({"include_background": False}, "leaves nothing of num_classes=1"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiceScore(**options)


def test_a_metric_that_saw_nothing_is_nan() -> None:
    with (
        pytest.warns(UserWarning, match="no case to average"),
        pytest.warns(UserWarning, match="called before the ``update`` method"),
    ):
        assert DiceScore().compute().isnan()


@pytest.mark.parametrize("again", [copy.deepcopy, lambda metric: pickle.loads(pickle.dumps(metric)), DiceScore.clone])
def test_copies_go_on_by_themselves(again: Callable[[DiceScore], DiceScore]) -> None:
    metric = DiceScore()
    update(metric, slices(23).batch(range(10)))
    copied = again(metric)
    update(copied, slices(23).batch(range(10, 22)))
    assert report(copied) == scored(0, range(22))
    assert report(metric) == scored(0, range(10))


def test_reset_forgets() -> None:
    metric = DiceScore()
    update(metric, slices())
    metric.reset()
    update(metric, slices(23).batch(range(10)))
    assert report(metric) == scored(0, range(10))


@pytest.mark.parametrize("index", range(len(METRICS)))
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_dtype_of_the_module_around_it_leaves_what_was_measured(index: int, dtype: torch.dtype) -> None:
    name, options = METRICS[index]
    module = nn.Module()
    module.metric = getattr(metrics, name)(**options)
    update(module.metric, slices(23).batch(range(9)))
    module.to(dtype)
    update(module.metric, slices(23).batch(range(9, 22)))
    assert report(module.metric) == scored(index, range(22))


def test_readings_that_differ_little_are_not_shared_in_any_dtype() -> None:
    collection = MetricCollection({"a": DiceScore(threshold=0.5), "b": DiceScore(threshold=0.500001)})
    nothing = torch.zeros(1, 1, 2, 2)
    collection.to(torch.bfloat16).update(nothing - 9, nothing)
    assert len(collection.compute_groups) == 2


def test_states_may_be_kept_on_the_cpu() -> None:
    metric = DiceScore(compute_on_cpu=True)
    update(metric, slices())
    assert report(metric) == scored(0, range(22))


def test_a_call_gives_the_score_of_the_batch_and_keeps_it() -> None:
    metric, first, second = DiceScore(), slices(23).batch(range(10)), slices(23).batch(range(10, 22))
    for batch in (first, second):
        value = metric(batch.prediction, batch.target, group=batch.group, slice_index=batch.index)
        alone = DiceScore()
        update(alone, batch)
        assert value == alone.compute()
    assert report(metric) == scored(0, range(22))


def test_a_collection_updates_equal_readings_once_and_tells_each() -> None:
    collection = MetricCollection(
        {
            "slice": DiceScore(),
            "patient": IoU(aggregation="patient"),
            "dataset": DiceScore(aggregation="dataset"),
            "bold": DiceScore(threshold=0.2),
        }
    )
    data = slices()
    # The first batch is empty for every threshold; only the second tells them apart.
    nothing = torch.zeros(2, 1, 8, 8)
    collection.update(nothing - 9, nothing, group=["a", "b"], slice_index=[0, 0])
    collection.update(1.0 * data.prediction - 0.9, data.target, group=data.group, slice_index=data.index)
    found = collection.compute()
    assert sorted(map(sorted, collection.compute_groups.values())) == [["bold"], ["dataset", "patient", "slice"]]
    assert [found[name].item() for name in ("slice", "patient", "dataset")] == [
        scored(i, range(22))["compute"] for i in range(3)
    ]
    bold = DiceScore(threshold=0.2)
    bold.update(1.0 * data.prediction - 0.9, data.target)
    assert found["bold"] == bold.compute() != found["slice"]


def test_a_collection_that_is_given_no_patients_says_so() -> None:
    collection = MetricCollection({"by slice": DiceScore(), "patient": DiceScore(aggregation="patient")})
    data = slices()
    collection.update(data.prediction, data.target, group=data.group)
    collection.update(data.prediction, data.target)  # reaches the first of the two only
    with pytest.raises(ValueError, match="needs the patient of every slice"):
        collection.compute()


def test_the_states_are_a_few_numbers_a_slice() -> None:
    metric = DiceScore()
    metric.update(torch.zeros(4, 1, 256, 256), torch.zeros(4, 1, 256, 256), group=["TCGA_CS_4941"] * 4)
    tensors = [tensor for state in metric.metric_state.values() if isinstance(state, list) for tensor in state]
    assert sum(tensor.nbytes for tensor in tensors) <= 4 * 80
