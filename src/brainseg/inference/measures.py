"""How large what was found is: voxels, millilitres, diameter, components, slices."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainseg.inference.components import label_components, voxel_volume
from brainseg.models import ModelSpec


class Measures(NamedTuple):
    """A row of volumes.csv: one class of one patient.

    Attributes:
        patient: name.
        label: name of the class.
        voxels: how many.
        ml: their volume; NaN without spacing.
        diameter_mm: the largest distance between the centres of two voxels of one component; NaN without spacing.
        components: by 26 neighbours.
        slices: on how many there is any.
    """

    patient: str
    label: str
    voxels: int
    ml: float
    diameter_mm: float
    components: int
    slices: int


def measure(
    masks: Tensor, spec: ModelSpec, *, patient: str = "", spacing: Sequence[float] | None = None
) -> list[Measures]:
    """Measures each class of a patient but the background.

    Args:
        masks: (S, K, H, W) bool, all slices in order, as `Predictor.volume` gives them.
        spec: of the network that gave them.
        patient: name, for the table.
        spacing: of slices, rows and columns in mm; None if unknown.

    Raises:
        ImportError: scipy is not installed.
        ValueError: masks of another shape or of other values, or a spacing that is no three positive numbers.
    """
    if masks.dim() != 4 or masks.shape[1] != spec.num_classes:
        raise ValueError(
            f"masks of shape {tuple(masks.shape)} are not those of a patient's slices; expected "
            f"(S, {spec.num_classes}, H, W)"
        )
    if masks.dtype != torch.bool and ((masks != 0) & (masks != 1)).any():
        raise ValueError(
            "masks hold other values than 0 and 1; of probabilities spec.masks_of_probabilities makes masks, of logits "
            "spec.masks"
        )
    rows = []
    for k in spec.foreground:
        mask = masks[:, k].bool().cpu().numpy()
        labels, count = label_components(mask)
        voxels, diameter, volume = int(mask.sum()), float("nan"), float("nan")
        if spacing is not None:
            volume = voxels * voxel_volume(spacing) / 1000
            diameter = max((_diameter(part, spacing) for part in _parts(labels)), default=0.0)
        slices = int(mask.any((1, 2)).sum())
        rows.append(Measures(patient, spec.class_names[k], voxels, volume, diameter, count, slices))
    return rows


def _parts(labels: NDArray[np.int32]) -> Iterator[NDArray[np.bool_]]:
    """Each component in the box around it."""
    from scipy import ndimage

    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        yield labels[box] == label


def _diameter(component: NDArray[np.bool_], spacing: Sequence[float]) -> float:
    from scipy.spatial import ConvexHull, QhullError
    from scipy.spatial.distance import pdist

    # The farthest point of a row is one of its ends.
    rows = component.any(2)
    first, last = component.argmax(2), component.shape[2] - 1 - component[..., ::-1].argmax(2)
    ends = [np.column_stack([*np.nonzero(rows), end[rows]]) for end in (first, last)]
    points = np.unique(np.concatenate(ends), axis=0) * np.asarray(spacing, dtype=float)
    if len(points) > 500:
        with suppress(QhullError):  # all in one plane, and so few
            points = points[ConvexHull(points).vertices]
    return float(pdist(points).max()) if len(points) > 1 else 0.0
