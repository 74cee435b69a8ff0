"""Boundary IoU and clDice over slices and volumes: means, what a collection shares, no gain by faults."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics import MetricCollection

from brainseg.metrics import BoundaryIoU, ClDiceScore, LesionDetection
from brainseg.metrics.functional import boundary_iou, cldice_score
from tests.metrics.scans import slices

SPACING = (3.0, 1.0, 0.5)


def test_slices_have_the_mean_of_their_values() -> None:
    data = slices(num_classes=2)
    rim = BoundaryIoU(2, width=2.0, spacing=(1.0, 2.0), average="none")
    line = ClDiceScore(2, average="none")
    for rows in (range(5), range(5, 22)):
        rim.update(*data.batch(rows)[:2])
        line.update(*data.batch(rows)[:2])
    expected = boundary_iou(*data[:2], width=2.0, spacing=(1.0, 2.0)).nanmean(0)
    torch.testing.assert_close(rim.compute(), expected)
    torch.testing.assert_close(line.compute(), cldice_score(*data[:2]).nanmean(0))


def test_volumes_are_the_slices_of_a_patient_in_their_order() -> None:
    data = slices()
    rim = BoundaryIoU(width=2.0, spacing=SPACING, aggregation="patient")
    line = ClDiceScore(aggregation="patient")
    for rows in ([*range(21, -1, -2)], [*range(0, 22, 2)]):
        batch = data.batch(rows)
        for metric in (rim, line):
            metric.update(batch.prediction, batch.target, group=batch.group, slice_index=batch.index)
    volumes = [[x[patient::3].transpose(0, 1)[None] for x in data[:2]] for patient in range(3)]  # (1, K, D, H, W)
    expected = [boundary_iou(*pair, width=2.0, spacing=SPACING) for pair in volumes]
    torch.testing.assert_close(rim.compute(), torch.cat(expected).mean())
    torch.testing.assert_close(line.compute(), torch.cat([cldice_score(*pair) for pair in volumes]).mean())


def test_a_collection_takes_no_width_for_another_and_no_score_for_another() -> None:
    one = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    one[..., 4, 4] = True  # the same counts in all of them
    collection = MetricCollection(
        {
            "thin": BoundaryIoU(),
            "wide": BoundaryIoU(width=2),
            "line": ClDiceScore(),
            "lesions": LesionDetection(),
        }
    )
    collection.update(one, one)
    data = slices()
    collection.update(*data[:2])
    found = collection.compute()
    assert len(collection.compute_groups) == 4
    assert found["thin"] != found["wide"]


def painted(target: Tensor) -> Tensor:
    """One pixel of false tumour."""
    prediction = target.clone()
    prediction[0, 0, 2, 3] = True
    return prediction


@pytest.mark.parametrize("metric", [BoundaryIoU(), BoundaryIoU(width=2.5), ClDiceScore()])
def test_neither_to_miss_nor_to_invent_a_tumour_improves_the_mean(metric: Any) -> None:
    nothing = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    target = nothing.clone()
    target[..., 2:6, 1:7] = True
    found = target.roll(1, -1), target

    def mean(*pairs: tuple[Tensor, Tensor]) -> float:
        metric.reset()
        for pair in pairs:
            metric.update(*pair)
        return float(metric.compute())

    for honest, dishonest in (
        ([found, (nothing, nothing)], [found, (painted(nothing), nothing)]),
        ([found], [(nothing, target)]),
        ([found, found], [found, (nothing, target)]),
    ):
        assert mean(*honest) > mean(*dishonest)


def test_the_result_counts_what_was_missed_and_invented() -> None:
    target = torch.zeros(4, 1, 12, 12, dtype=torch.bool)
    target[:2, :, 5:8, 5:8] = True
    prediction = target.clone()
    prediction[1] = False
    prediction[2, :, 5, 5] = True
    for metric in (BoundaryIoU(), ClDiceScore()):
        metric.update(prediction, target)
        result = metric.result()
        assert (result.cases, result.excluded, result.missed, result.false_alarms) == (3, 1, 1, 1)
        assert result.value.item() == pytest.approx(1 / 3)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="width must be a positive number"):
        BoundaryIoU(width=-1)
    with pytest.raises(ValueError, match=r"\(slice, row, column\)"):
        BoundaryIoU(spacing=(1.0, 1.0), aggregation="patient")
    with pytest.raises(ValueError, match='must be "slice" or "patient"'):
        ClDiceScore(aggregation="dataset")
