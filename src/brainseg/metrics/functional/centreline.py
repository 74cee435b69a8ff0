"""clDice: how much of the centre lines of two masks lies in the other mask."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainseg.checks import check_choice
from brainseg.metrics.rules import Empty, fill_empty, to_masks


def cldice_score(
    prediction: Tensor,
    target: Tensor,
    *,
    num_classes: int | None = None,
    threshold: float = 0.5,
    from_probabilities: bool = False,
    ignore_index: int | None = None,
    valid: Tensor | None = None,
    empty: Empty = "exclude",
) -> Tensor:
    r"""Centre line Dice (Shit et al. 2021, arXiv:2003.07311) of each image and class, for thin, branching structures.

    .. math::
        \frac{2 P S}{P + S}, \quad P = \frac{|s(P) \cap T|}{|s(P)|}, \quad S = \frac{|s(T) \cap P|}{|s(T)|}

    P and S are how much of the prediction's centre line s lies in the target, and of the target's in the prediction.
    Widths count for nothing, so that compact structures, such as most tumours, need another score beside it.

    The centre line is scikit-image's `skeletonize`, as in Metrics Reloaded's package: of images that of Zhang and Suen
    1984 (doi:10.1145/357994.358023), of volumes that of Lee et al. 1994 (doi:10.1006/cgip.1994.1042). It is one pixel
    wide and connected as the mask is; `brainseg.losses.soft_cldice_loss` takes a soft one that has a gradient. Two
    things are odd in theirs: where neither line meets the other mask they give NaN, here it is 0, and small blocks of a
    volume (2x2x2 voxels) may be thinned away whole: where nothing is left of a mask, it is its own centre line here,
    and the value NaN in theirs. A turned image may have a line a pixel aside, and another value.

    Args:
        prediction: logits (B, K, H, W) or (B, K, D, H, W), masks of bool or integers, or class indices (B, H, W).
        target: masks of the prediction's shape, or class indices (B, H, W), see `brainseg.metrics.rules.to_masks`.
        num_classes: K; None takes it from the class axis, and 1 where there is none.
        threshold: a probability; foreground is above it.
        from_probabilities: floating predictions are probabilities, not logits.
        ignore_index: value of an integer target whose pixels are ignored, whatever is predicted there: they are
            background in both masks.
        valid: bool, False where pixels are ignored: (H, W), (B, H, W), or (B, K, H, W) if the target has masks; each
            side may be 1.
        empty: the value where target and prediction are both empty: NaN ("exclude"), 1 ("one") or 0 ("zero"). Where
            only one is, it is 0.

    Returns:
        float32 (B, K); NaN where every pixel is ignored.

    Raises:
        ImportError: scikit-image is missing.
        ValueError: shapes or values that are no masks of K classes, or an unknown `empty`.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 1, 5, 20, dtype=torch.bool)
        >>> target[..., 2, :] = True
        >>> prediction = target.clone()
        >>> prediction[..., 5:10] = False  # a gap
        >>> prediction[..., 1:4, 10:] = True  # too wide, which does not matter
        >>> cldice_score(prediction, target)
        tensor([[0.8298]])
    """
    check_choice("empty", empty, Empty)
    masks = to_masks(
        prediction,
        target,
        num_classes=num_classes,
        threshold=threshold,
        from_probabilities=from_probabilities,
        ignore_index=ignore_index,
        valid=valid,
    )
    counts = centreline_counts(masks.predicted, masks.true).to(target.device)
    return cldice_of_counts(counts, masks.sizes(), empty=empty).float()


def centreline_counts(predicted: Tensor, true: Tensor) -> Tensor:
    """Pixels of the prediction's centre line, and of these in the target; likewise of the target's in the prediction.

    Args:
        predicted: (B, K, ...) bool.
        true: likewise.

    Returns:
        float64 (B, K, 4) on the CPU.
    """
    pairs = zip(predicted.flatten(0, 1).cpu().numpy(), true.flatten(0, 1).cpu().numpy(), strict=True)
    counts = [[*_line(mask, other), *_line(other, mask)] for mask, other in pairs]
    return torch.tensor(counts, dtype=torch.float64).view(*predicted.shape[:2], 4)


def cldice_of_counts(counts: Tensor, sizes: Tensor, *, empty: Empty = "exclude") -> Tensor:
    """The score (...) of `centreline_counts` (..., 4) in so many pixels that count (...): float64."""
    found, correct, actual, met = counts.unbind(-1)
    # The harmonic mean in whole numbers, which is 0 where both are.
    values = 2 * correct * met / (correct * actual + met * found).clamp(min=1)
    return fill_empty(values, found > 0, actual > 0, empty=empty, worst=0.0, sizes=sizes)


def _line(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> tuple[int, int]:
    """How many pixels the centre line of a mask has, and how many of these lie in the other mask."""
    if not mask.any():
        return 0, 0
    try:
        from skimage.morphology import skeletonize
    except ImportError as error:
        raise ImportError('centre lines need scikit-image: pip install "brainseg-torch[metrics]"') from error
    line = skeletonize(mask)  # type: ignore[no-untyped-call]
    if not line.any():
        line = mask
    return int(line.sum()), int((line & other).sum())
