"""Lesion detection over slices and volumes: means, what a collection shares, and no gain by false or missed tumours."""

import copy
import pickle
from itertools import product
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics import MetricCollection

from brainseg.metrics.functional.lesions import lesion_detection
from brainseg.metrics.lesions import LesionDetection, Measure
from tests.metrics.scans import Slices, report, slices, update

MEASURES = get_args(Measure)


def every(**arguments: Any) -> MetricCollection:
    return MetricCollection({measure: LesionDetection(measure=measure, **arguments) for measure in MEASURES})


def image(*rows: str) -> Tensor:
    """(1, 1, H, W) of rows in which # is foreground."""
    return torch.tensor([[[[pixel == "#" for pixel in row] for row in rows]]])


@pytest.mark.parametrize("arguments", [{}, {"iou_threshold": 0.2}, {"connectivity": 1}])
def test_slices_have_the_mean_of_their_values(arguments: dict[str, Any]) -> None:
    data = slices(num_classes=2)
    collection = every(num_classes=2, average="none", **arguments)
    for rows in (range(5), range(5, 22)):
        collection.update(*data.batch(rows)[:2])
    scores = lesion_detection(*data[:2], **arguments)
    for measure, found in collection.compute().items():
        torch.testing.assert_close(found, getattr(scores, measure).nanmean(0))


def test_means_by_hand() -> None:
    collection = every()
    collection.update(image("##.#..#"), image("##..#.#"))  # 2 of 3 found, 2 of 3 true
    collection.update(image("......."), image("#......"))
    collection.update(image("#.#...."), image("......."))
    collection.update(image("......."), image("......."))
    found = {name: value.item() for name, value in collection.compute().items()}
    assert found == pytest.approx(
        {
            "sensitivity": 2 / 3 / 3,
            "precision": 2 / 3 / 3,
            "f1": 2 / 3 / 3,
            "false_positives": (1 + 0 + 2 + 0) / 4,
            "lesion_dice": 2 / 3 / 3,
        }
    )


def test_the_result_counts_what_was_missed_and_invented_and_false_positives_leave_out_nothing() -> None:
    prediction = torch.cat([image("#.#"), image("..."), image("#.#"), image("...")])
    target = torch.cat([image("#.#"), image("#.."), image("..."), image("...")])
    for measure, counts in (("f1", (3, 1, 1, 1)), ("false_positives", (4, 0, 1, 1))):
        metric = LesionDetection(measure=measure)  # type: ignore[arg-type]
        metric.update(prediction, target)
        assert metric.result()[1:] == counts


@pytest.mark.parametrize(("empty", "value"), [("one", 1.0), ("zero", 0.0)])
def test_two_empty_masks_are_what_is_asked_for_but_hold_no_false_positive(empty: Any, value: float) -> None:
    collection = every(empty=empty)
    collection.update(image("..."), image("..."))
    found = {name: score.item() for name, score in collection.compute().items()}
    assert found == dict.fromkeys(MEASURES, value) | {"false_positives": 0}


def test_volumes_are_the_slices_of_a_patient_in_their_order() -> None:
    data = slices(num_classes=2)
    collection = every(num_classes=2, average="none", aggregation="patient", iou_threshold=0.1)
    order = [*range(21, -1, -2), *range(0, 22, 2)]
    for rows in (order[:7], order[7:8], order[8:]):
        batch = data.batch(rows)
        collection.update(batch.prediction, batch.target, group=batch.group, slice_index=batch.index)
    found = collection.compute()
    volumes = [
        lesion_detection(*(x[range(patient, 22, 3)].transpose(0, 1)[None] for x in data[:2]), iou_threshold=0.1)
        for patient in range(3)
    ]
    for measure in MEASURES:
        expected = torch.cat([getattr(scores, measure) for scores in volumes]).mean(0)  # (K,)
        torch.testing.assert_close(found[measure], expected)


def test_two_lesions_of_a_slice_are_one_where_the_volume_joins_them() -> None:
    target = torch.cat([image("#####"), image("#...#")])
    prediction = torch.cat([image("....."), image("#....")])
    by_slice, by_patient = (
        LesionDetection(measure="sensitivity", aggregation=aggregation) for aggregation in ("slice", "patient")
    )
    for metric in (by_slice, by_patient):
        metric.update(prediction, target, group=["p"] * 2, slice_index=[7, 8])
    assert [case.values for case in by_slice.per_case()] == [(0.0,), (0.5,)]
    assert by_patient.per_case() == [("p", None, (1.0,))]


def test_volumes_given_whole_are_scans_too() -> None:
    data = slices()
    volumes = [x.view(2, 11, 8, 8)[:, None] for x in data[:2]]
    metric = LesionDetection(connectivity=3)
    metric.update(*volumes)
    torch.testing.assert_close(metric.compute(), lesion_detection(*volumes).f1.mean())


def test_the_neighbours_of_an_image_are_fewer_than_those_of_a_volume() -> None:
    metric = LesionDetection(connectivity=3)
    with pytest.raises(ValueError, match="connectivity must be an integer from 1 to 2"):
        metric.update(image("#"), image("#"))


def test_a_collection_detects_once_for_measures_of_one_detection() -> None:
    collection = MetricCollection(
        {
            "f1": LesionDetection(),
            "false": LesionDetection(measure="false_positives", empty="zero"),
            "strict": LesionDetection(iou_threshold=0.5),
            "stricter": LesionDetection(iou_threshold=0.9),
            "four": LesionDetection(connectivity=1),
        }
    )
    # The first batch is empty for all; only the second tells them apart.
    collection.update(image("..."), image("..."))
    data = slices()
    collection.update(*data[:2])
    found = collection.compute()
    groups = sorted(map(sorted, collection.compute_groups.values()))
    assert groups == [["f1", "false"], ["four"], ["strict"], ["stricter"]]
    for name, arguments in (("strict", {"iou_threshold": 0.5}), ("four", {"connectivity": 1})):
        expected = lesion_detection(*data[:2], **arguments).f1.nanmean()  # type: ignore[arg-type]
        torch.testing.assert_close(found[name], expected)


def test_fewer_false_positives_are_better_and_more_of_all_else() -> None:
    better = {measure: LesionDetection(measure=measure).higher_is_better for measure in MEASURES}
    assert better == {measure: measure != "false_positives" for measure in MEASURES}


def scored(data: Slices, measure: Any, aggregation: Any, **arguments: Any) -> float:
    metric = LesionDetection(measure=measure, aggregation=aggregation, **arguments)
    update(metric, data)
    value = float(metric.compute())
    return value if metric.higher_is_better else -value


@given(st.integers(0, 999), st.integers(1, 64), st.integers(0, 5), st.sampled_from([None, 0.1, 0.5]))
def test_painting_a_false_tumour_on_an_empty_slice_never_improves_a_number(
    seed: int, painted: int, row: int, threshold: float | None
) -> None:
    data = slices(seed=seed)
    # Every fourth target is empty, and here its prediction.
    data.prediction[4 * row] = False
    worse = data._replace(prediction=data.prediction.clone())
    worse.prediction[4 * row].view(-1)[:painted] = True
    for measure, empty in product(MEASURES, ("exclude", "one", "zero")):
        arguments = {"iou_threshold": threshold, "empty": empty}
        assert scored(worse, measure, "slice", **arguments) <= scored(data, measure, "slice", **arguments)


@given(st.integers(0, 999), st.integers(0, 21), st.sampled_from([None, 0.1, 0.5]))
def test_to_miss_a_tumour_never_improves_a_number(seed: int, row: int, threshold: float | None) -> None:
    data = slices(seed=seed)
    # A prediction without false positives; what it finds there is then lost.
    data.prediction[row] = data.target[row]
    worse = data._replace(prediction=data.prediction.clone())
    worse.prediction[row] = False
    for measure in MEASURES:
        assert scored(worse, measure, "slice", iou_threshold=threshold) <= scored(
            data, measure, "slice", iou_threshold=threshold
        )


@pytest.mark.parametrize("aggregation", ["slice", "patient"])
def test_a_model_that_predicts_nothing_scores_0(aggregation: Any) -> None:
    data = slices()
    collection = every(aggregation=aggregation)
    collection.update(torch.full(data.target.shape, -9.0), data.target, group=data.group, slice_index=data.index)
    assert {value.item() for value in collection.compute().values()} == {0.0}


@given(st.permutations(range(22)), st.integers(1, 21), st.sampled_from(["slice", "patient"]))
def test_batches_and_their_order_do_not_matter(order: list[int], cut: int, aggregation: Any) -> None:
    data = slices(num_classes=2)
    reports = []
    for batches in ([range(22)], [order[:cut], order[cut:]]):
        metric = LesionDetection(2, measure="lesion_dice", iou_threshold=0.1, aggregation=aggregation)
        for rows in batches:
            update(metric, data.batch(rows))
        reports.append(report(metric))
    assert reports[0] == reports[1]


@pytest.mark.parametrize("again", [copy.deepcopy, lambda metric: pickle.loads(pickle.dumps(metric))])
def test_copies_go_on_by_themselves(again: Any) -> None:
    data, metric, whole = (
        slices(),
        LesionDetection(measure="false_positives"),
        LesionDetection(measure="false_positives"),
    )
    update(metric, data.batch(range(10)))
    copied = again(metric)
    update(copied, data.batch(range(10, 22)))
    update(whole, data)
    assert report(copied) == report(whole) != report(metric)


def test_without_background_only_the_others_count() -> None:
    data = slices(num_classes=3)
    alone, whole = LesionDetection(3, average="none", include_background=False), LesionDetection(3, average="none")
    for metric in (alone, whole):
        metric.update(*data[:2])
    torch.testing.assert_close(alone.compute(), whole.compute()[1:])


def test_what_is_kept_of_a_slice_are_6_numbers() -> None:
    metric = LesionDetection()
    metric.update(torch.randn(8, 1, 256, 256), torch.rand(8, 1, 256, 256) > 0.9)
    kept = [x for state in metric.metric_state.values() if isinstance(state, list) for x in state]
    assert sum(x.nbytes for x in kept) == 8 * (6 * 8 + 3 * 8)


def test_the_repr_names_the_measure() -> None:
    assert repr(LesionDetection(iou_threshold=0.5)) == (
        "LesionDetection(num_classes=1, aggregation='slice', empty='exclude', measure='f1', iou_threshold=0.5)"
    )


def test_without_a_scan_the_mean_is_nan_with_a_warning() -> None:
    for metric in (LesionDetection(), LesionDetection(aggregation="patient")):
        metric.update(torch.zeros(0, 1, 4, 4), torch.zeros(0, 1, 4, 4), group=[], slice_index=[])
        with pytest.warns(UserWarning, match="no case to average"):
            assert metric.compute().isnan()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"measure": "recall"},
            "measure must be one of 'sensitivity', 'precision', 'f1', 'false_positives', 'lesion_dice'",
        ),
        ({"iou_threshold": 0.0}, "iou_threshold must lie above 0"),
        ({"connectivity": 4}, "connectivity must be an integer from 1 to 3"),
        ({"aggregation": "dataset"}, 'must be "slice" or "patient"'),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LesionDetection(**arguments)
