"""Equal to MONAI and to the package of Metrics Reloaded where both masks hold something."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainseg.data import LGGSegmentation, lgg_root
from brainseg.metrics.functional import boundary_iou, cldice_score, dice_score, iou, surface_metrics


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
    for one, other in zip(found[:3], expected, strict=True):  # it has no MASD
        torch.testing.assert_close(one, other.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_overlap_is_that_of_monai() -> None:
    monai = pytest.importorskip("monai.metrics")
    prediction, target = masks(24, 24)
    torch.testing.assert_close(dice_score(prediction, target), monai.compute_dice(prediction, target))
    torch.testing.assert_close(iou(prediction, target), monai.compute_iou(prediction, target))


def neighbours(patients: int, slices: int) -> list[tuple[NDArray[np.int8], NDArray[np.int8]]]:
    """Real masks: of so many patients so many slices with tumour, each with the slice behind it."""
    if not lgg_root().is_dir():
        pytest.skip(f"no LGG data in {lgg_root()}")
    names = sorted(path.name for path in lgg_root().iterdir() if path.is_dir())[:patients]
    pairs = []
    for name in names:
        data = LGGSegmentation(lgg_root(), [name], cache_dir=None)
        masks = [data[i]["mask"][0].bool().numpy().astype(np.int8) for i in range(len(data))]
        both = [pair for pair in zip(masks[1:], masks, strict=False) if pair[0].any() and pair[1].any()]
        pairs += both[:slices]
    return pairs


def test_metrics_are_those_of_metrics_reloaded(record_property: Any) -> None:
    """Its boundary IoU knows no spacing, and its clDice is NaN where no line meets the other mask."""
    reloaded = pytest.importorskip(
        "MetricsReloaded.metrics.pairwise_measures",
        reason="MetricsReloaded is not installed; it is on GitHub, Project-MONAI/MetricsReloaded",
    )
    rng = np.random.default_rng(0)
    largest: dict[str, float] = {}
    for prediction, target in neighbours(patients=14, slices=6):
        spacing = tuple(rng.uniform(0.3, 5.0, 2).tolist())
        tolerance, width = float(rng.uniform(0.5, 6.0)), int(rng.integers(1, 6))
        theirs = reloaded.BinaryPairwiseMeasures(
            prediction, target, pixdim=spacing, dict_args={"nsd": tolerance, "hd_perc": 95, "boundary_dist": width}
        )
        pair = [torch.from_numpy(mask).bool()[None, None] for mask in (prediction, target)]
        ours = surface_metrics(*pair, spacing=spacing, percentile=95, tolerance=tolerance)
        values = {
            "Dice": (dice_score(*pair), theirs.dsc()),
            "IoU": (iou(*pair), theirs.intersection_over_union()),
            "HD": (surface_metrics(*pair, spacing=spacing, percentile=100).hausdorff, theirs.measured_distance()[0]),
            "HD95": (ours.hausdorff, theirs.measured_hausdorff_distance_perc()),
            "ASSD": (ours.average_distance, theirs.measured_average_distance()),
            "NSD": (ours.surface_dice, theirs.normalised_surface_distance()),
            "MASD": (ours.mean_average_distance, theirs.measured_masd()),
            "boundary IoU": (boundary_iou(*pair, width=width), theirs.boundary_iou()),
            "clDice": (cldice_score(*pair), np.nan_to_num(theirs.centreline_dsc())),
        }
        for name, (one, other) in values.items():
            difference = abs(one.item() - float(other)) / max(1.0, float(other))
            largest[name] = max(largest.get(name, 0.0), difference)
    for name, difference in largest.items():
        record_property(name, difference)
    assert len(largest) == 9
    assert max(largest.values()) < 1e-6, largest
