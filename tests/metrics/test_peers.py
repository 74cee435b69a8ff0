"""Equal to MONAI where both masks hold something; it leaves out the others."""

from typing import Any

import pytest
import torch
from torch import Tensor

from brainseg.metrics.functional import dice_score, iou, surface_metrics


def masks(*sides: int) -> tuple[Tensor, Tensor]:
    """Blobs, and the same blobs with some noise."""
    generator = torch.Generator().manual_seed(sum(sides))
    smooth = torch.nn.functional.avg_pool2d if len(sides) == 2 else torch.nn.functional.avg_pool3d
    field = smooth(torch.rand(4, 2, *sides, generator=generator), 5, stride=1, padding=2)
    return field + 0.05 * torch.rand(field.shape, generator=generator) > 0.52, field > 0.5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("sides", "spacing"), [((24, 24), (1.0, 1.0)), ((10, 31), (0.5, 3.0)), ((9, 14, 11), (3.0, 0.5, 0.75))]
)
def test_surfaces_are_those_of_monai(sides: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    monai = pytest.importorskip("monai.metrics")
    prediction, target = masks(*sides)
    both: dict[str, Any] = {
        "y_pred": prediction,
        "y": target,
        "include_background": True,
        "spacing": spacing,
    }
    expected = (
        monai.compute_hausdorff_distance(percentile=95, **both),
        monai.compute_average_surface_distance(symmetric=True, **both),
        monai.compute_surface_dice(class_thresholds=[1.0, 1.0], **both),
    )
    found = surface_metrics(prediction, target, spacing=spacing, percentile=95, tolerance=1.0)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_overlap_is_that_of_monai() -> None:
    monai = pytest.importorskip("monai.metrics")
    prediction, target = masks(24, 24)
    torch.testing.assert_close(dice_score(prediction, target), monai.compute_dice(prediction, target))
    torch.testing.assert_close(iou(prediction, target), monai.compute_iou(prediction, target))
