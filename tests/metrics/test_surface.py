"""Surface metrics over slices and volumes: what is kept, what is missing, and what a collection shares."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics import MetricCollection

from brainseg.metrics import (
    AverageSurfaceDistance,
    HausdorffDistance,
    MeanAverageSurfaceDistance,
    NormalizedSurfaceDice,
)
from brainseg.metrics.functional import surface_metrics
from tests.metrics.scans import slices


def every(num_classes: int = 2, **arguments: Any) -> MetricCollection:
    return MetricCollection(
        {
            "hd": HausdorffDistance(num_classes, percentile=95, **arguments),
            "assd": AverageSurfaceDistance(num_classes, **arguments),
            "nsd": NormalizedSurfaceDice(num_classes, tolerance=1.0, **arguments),
            "masd": MeanAverageSurfaceDistance(num_classes, **arguments),
        }
    )


def test_slices_have_the_mean_of_their_values() -> None:
    data = slices(num_classes=2)
    collection = every(spacing=(1.0, 2.0), average="none")
    for rows in (range(5), range(5, 22)):
        collection.update(*data.batch(rows)[:2])
    values = torch.stack(surface_metrics(*data[:2], spacing=(1.0, 2.0), percentile=95, tolerance=1.0), -1)
    expected = values.nanmean(0)  # (K, 4)
    found = collection.compute()
    torch.testing.assert_close(torch.stack([found[name] for name in ("hd", "assd", "nsd", "masd")], -1), expected)


def test_volumes_are_the_slices_of_a_patient_in_their_order() -> None:
    data = slices(num_classes=2)
    arguments: dict[str, Any] = {"spacing": (3.0, 1.0, 0.5), "average": "none", "aggregation": "patient"}
    collection = every(**arguments)
    order = [*range(21, -1, -2), *range(0, 22, 2)]
    for rows in (order[:7], order[7:8], order[8:]):
        batch = data.batch(rows)
        collection.update(batch.prediction, batch.target, group=batch.group, slice_index=batch.index)
    found = collection.compute()
    expected = []
    for patient in range(3):
        rows = range(patient, 22, 3)
        volumes = (x[rows].transpose(0, 1)[None] for x in data[:2])  # (1, K, D, H, W)
        expected.append(torch.cat(surface_metrics(*volumes, spacing=(3.0, 1.0, 0.5), percentile=95, tolerance=1.0)))
    torch.testing.assert_close(
        torch.stack([found[name] for name in ("hd", "assd", "nsd", "masd")]), torch.stack(expected).mean(0)
    )


def test_volumes_given_whole_are_scans_too() -> None:
    data = slices(num_classes=1)
    volumes = [x.view(2, 11, 8, 8)[:, None] for x in data[:2]]
    metric = HausdorffDistance(spacing=(3.0, 1.0, 0.5))
    metric.update(*volumes)
    expected = surface_metrics(*volumes, spacing=(3.0, 1.0, 0.5), percentile=100).hausdorff.mean()
    torch.testing.assert_close(metric.compute(), expected)


def test_a_collection_searches_once_for_metrics_of_one_spacing() -> None:
    data = slices()
    collection = MetricCollection(
        {"hd": HausdorffDistance(), "nsd": NormalizedSurfaceDice(tolerance=2.0), "fine": HausdorffDistance(spacing=0.5)}
    )
    collection.update(*data[:2])
    found = collection.compute()
    assert sorted(map(sorted, collection.compute_groups.values())) == [["fine"], ["hd", "nsd"]]
    assert found["fine"].item() == pytest.approx(found["hd"].item() / 2)


def painted(target: Tensor) -> Tensor:
    """One pixel of false tumour."""
    prediction = target.clone()
    prediction[0, 0, 2, 3] = True
    return prediction


@pytest.mark.parametrize(
    "metric",
    [
        HausdorffDistance(),
        HausdorffDistance(percentile=50.0),
        AverageSurfaceDistance(),
        MeanAverageSurfaceDistance(),
        NormalizedSurfaceDice(tolerance=3.0),
    ],
)
def test_neither_to_miss_nor_to_invent_a_tumour_improves_the_mean(metric: Any) -> None:
    better = max if metric.higher_is_better else min
    data = slices(4)
    nothing = torch.zeros(1, 1, 8, 8, dtype=torch.bool)

    def mean(*pairs: tuple[Tensor, Tensor]) -> float:
        metric.reset()
        for pair in pairs:
            metric.update(*pair)
        return float(metric.compute())

    found = data.prediction[1:2], data.target[1:2]
    for honest, dishonest in (
        ([found, (nothing, nothing)], [found, (painted(nothing), nothing)]),
        ([found], [(nothing, found[1])]),
        ([found, found], [found, (nothing, found[1])]),
    ):
        assert better(mean(*honest), mean(*dishonest)) == mean(*honest) != mean(*dishonest)


def test_the_result_counts_what_was_missed_and_invented() -> None:
    target = torch.zeros(4, 1, 30, 40, dtype=torch.bool)
    target[:2, :, 5, 5] = True
    prediction = target.clone()
    prediction[1] = False
    prediction[2, :, 5, 5] = True
    metric = HausdorffDistance()
    metric.update(prediction, target)
    result = metric.result()
    assert (result.cases, result.excluded, result.missed, result.false_alarms) == (3, 1, 1, 1)
    assert result.value.item() == pytest.approx(100 / 3)
    left_out = HausdorffDistance(distance_when_missing="nan")
    left_out.update(prediction, target)
    assert left_out.result() == (0.0, 1, 3, 1, 1)


def test_without_background_only_the_others_count() -> None:
    data = slices(num_classes=3)
    alone, whole = HausdorffDistance(3, average="none", include_background=False), HausdorffDistance(3, average="none")
    for metric in (alone, whole):
        metric.update(*data[:2])
    torch.testing.assert_close(alone.compute(), whole.compute()[1:])


def test_what_is_kept_of_a_slice_is_small() -> None:
    target = torch.zeros(8, 1, 256, 256, dtype=torch.bool)
    target[..., 100:130, 100:130] = True
    by_slice, by_patient = HausdorffDistance(), HausdorffDistance(aggregation="patient")
    for metric in (by_slice, by_patient):
        metric.update(target, target, group=[1] * 8, slice_index=range(8))
    sizes = [
        sum(x.nbytes for state in m.metric_state.values() if isinstance(state, list) for x in state)
        for m in (by_slice, by_patient)
    ]
    assert sizes[0] < 8 * 1100  # 232 distances of 4 bytes
    assert sizes[1] < 8 * (2 * 256 * 256 / 8 + 100)


VOLUME = {"aggregation": "patient"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"aggregation": "dataset"}, 'must be "slice" or "patient"'),
        ({"aggregation": "batch"}, 'must be "slice" or "patient"'),
        ({"spacing": (1.0, 1.0), **VOLUME}, r"\(slice, row, column\)"),
        ({"spacing": (1.0,)}, r"\(row, column\)"),
        ({"spacing": (1.0, -1.0)}, "positive"),
        ({"percentile": 0.0}, "percentile must lie above 0"),
        ({"distance_when_missing": "worst"}, "distance_when_missing must be"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HausdorffDistance(**arguments)


@pytest.mark.parametrize(
    ("group", "index", "message"),
    [
        (None, [0, 1, 2], "needs the patient of every slice"),
        ("abc", None, "give slice_index="),
    ],
)
def test_a_volume_needs_patients_and_places(group: Any, index: Any, message: str) -> None:
    metric = HausdorffDistance(aggregation="patient")
    group = None if group is None else list(group)
    with pytest.raises(ValueError, match=message):
        metric.update(torch.zeros(3, 1, 4, 4), torch.zeros(3, 1, 4, 4), group=group, slice_index=index)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([0, 1, 1], r"patient p has slices that came twice: \[1\]"),
        ([3, 6, 4], "patient p has slices from 3 to 6, but none of number 5"),
        ([0, 2, 10**9], "patient p has slices from 0 to 1000000000, but none of number 1"),
    ],
)
def test_a_volume_has_each_slice_once(index: list[int], message: str) -> None:
    metric = HausdorffDistance(aggregation="patient")
    metric.update(torch.zeros(3, 1, 4, 4), torch.zeros(3, 1, 4, 4), group=["p"] * 3, slice_index=index)
    with pytest.raises(ValueError, match=message):
        metric.compute()


def test_a_volume_has_slices_of_one_size_and_another_patient_another() -> None:
    metric = HausdorffDistance(aggregation="patient", empty="one")
    for side, patient, place in ((4, "a", 0), (5, "b", 0), (5, "b", 1)):
        metric.update(*[torch.zeros(1, 1, side, 3)] * 2, group=[patient], slice_index=[place])
    assert metric.compute() == 1
    metric.update(*[torch.zeros(1, 1, 6, 3)] * 2, group=["a"], slice_index=[1])
    with pytest.raises(ValueError, match=r"patient a has slices of different sizes: \[\(4, 3\), \(6, 3\)\]"):
        metric.compute()


def test_a_volume_that_is_missed_gets_its_own_diagonal() -> None:
    metric = HausdorffDistance(aggregation="patient", spacing=(2.0, 1.0, 1.0))
    target = torch.zeros(3, 1, 8, 6, dtype=torch.bool)
    target[1, 0, 4, 4] = True
    metric.update(torch.zeros_like(target), target, group=["p"] * 3, slice_index=[4, 5, 6])
    assert metric.compute().item() == pytest.approx(math.hypot(6, 8, 6))


def test_without_a_scan_the_mean_is_nan_with_a_warning() -> None:
    for metric in (HausdorffDistance(), HausdorffDistance(aggregation="patient")):
        metric.update(torch.zeros(0, 1, 4, 4), torch.zeros(0, 1, 4, 4), group=[], slice_index=[])
        with pytest.warns(UserWarning, match="no case to average"):
            assert metric.compute().isnan()


def test_a_batch_of_a_volume_has_no_value_of_its_own() -> None:
    metric = HausdorffDistance(aggregation="patient")
    with pytest.raises(ValueError, match="a batch has no value of its own; use update"):
        metric(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), group=["p"], slice_index=[0])
