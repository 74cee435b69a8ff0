"""From the probabilities of a patient's slices to masks: smoothing over slices, and which components stay."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainseg.models import ModelSpec, Postprocessing

SMOOTHING = (0.2, 0.6, 0.2)
"""Weights of a slice and its two neighbours."""


def postprocess(
    probabilities: Tensor,
    spec: ModelSpec,
    *,
    steps: Postprocessing | None = None,
    spacing: Sequence[float] | None = None,
) -> Tensor:
    """Masks of a patient from the probabilities of all slices, in order.

    Components are those of the volume (26 neighbours), of each class by itself. Pixels that "multiclass" takes from a
    class become background.

    Args:
        probabilities: (S, K, H, W) in [0, 1], as `ModelSpec.probabilities` gives them.
        spec: of the network: task and thresholds.
        steps: what is done; None for `spec.postprocessing`.
        spacing: of slices, rows and columns in mm; needed for `min_volume`.

    Returns:
        (S, K, H, W) bool.

    Raises:
        ImportError: scipy is not installed.
        ValueError: probabilities of another shape or range, or that hold NaN, or a smallest volume without spacing.
    """
    steps = spec.postprocessing if steps is None else steps
    if probabilities.dim() != 4 or probabilities.shape[1] != spec.num_classes:
        raise ValueError(
            f"probabilities of shape {tuple(probabilities.shape)} are not those of a patient's slices; expected "
            f"(S, {spec.num_classes}, H, W)"
        )
    low, high = (float(value) for value in probabilities.aminmax()) if probabilities.numel() else (0.0, 0.0)
    if not -1e-3 <= low <= high <= 1 + 1e-3:
        raise ValueError(
            f"probabilities lie in [{low:g}, {high:g}], expected [0, 1]; of logits spec.probabilities makes them"
        )
    check_spacing(steps, spacing)
    if steps.smooth:
        probabilities = _smoothed(probabilities)
    masks = spec.masks_of_probabilities(probabilities)
    if steps.components == "all" and not steps.min_volume:
        return masks
    smallest = steps.min_volume * 1000 / voxel_volume(spacing) if spacing is not None else 0.0
    result = masks.cpu().numpy().copy()
    likely = probabilities.float().cpu().numpy()
    for k in spec.foreground:
        result[:, k] = _kept(result[:, k], likely[:, k], steps, smallest)
    if spec.task == "multiclass":
        result[:, 0] = ~result[:, 1:].any(1)
    return torch.from_numpy(result).to(masks.device)


def check_spacing(steps: Postprocessing, spacing: Sequence[float] | None) -> None:
    """ValueError where components are removed by their volume, and the spacing is not known."""
    if steps.min_volume and spacing is None:
        raise ValueError(f"min_volume={steps.min_volume} ml needs the spacing of slices, rows and columns in mm")


def voxel_volume(spacing: Sequence[float]) -> float:
    """In mm^3, of slices, rows and columns in mm; ValueError unless these are three positive numbers."""
    values = [float(value) for value in spacing]
    if len(values) != 3 or not all(0 < value < float("inf") for value in values):
        raise ValueError(f"spacing must be three positive numbers in mm (slices, rows, columns), got {list(spacing)}")
    return values[0] * values[1] * values[2]


def label_components(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """The component of each voxel (S, H, W), numbered from 1, by 26 neighbours, and how many there are."""
    try:
        from scipy import ndimage
    except ImportError as error:
        raise ImportError('components of a volume need scipy: pip install "brainseg-torch[metrics]"') from error
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    return labels, count


def _smoothed(probabilities: Tensor) -> Tensor:
    """Averaged over each slice and its neighbours; the first and last stand in for those that they lack."""
    before = torch.cat([probabilities[:1], probabilities[:-1]])
    after = torch.cat([probabilities[1:], probabilities[-1:]])
    a, b, c = SMOOTHING
    return a * before + b * probabilities + c * after


def _kept(
    mask: NDArray[np.bool_], likely: NDArray[np.float32], steps: Postprocessing, smallest: float
) -> NDArray[np.bool_]:
    labels, count = label_components(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    keep = sizes >= smallest
    if steps.components == "largest":
        keep &= np.arange(count) == sizes.argmax()
    elif steps.components == "likeliest":
        mean = np.bincount(labels.ravel(), weights=likely.ravel(), minlength=count + 1)[1:] / sizes
        order = np.lexsort((-mean, -sizes))
        surest_so_far = np.maximum.accumulate(mean[order])
        keep[order] &= mean[order] >= surest_so_far
    kept: NDArray[np.bool_] = np.concatenate([[False], keep])[labels]
    return kept
