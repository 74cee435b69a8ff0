"""Boundary loss: how far from the target's border its wrong pixels lie."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from brainseg.losses.overlap import mask_axes
from brainseg.losses.rules import Loss, Reduction, divide, prepare, reduce


def boundary_loss(
    logits: Tensor,
    target: Tensor,
    distance: Tensor | None = None,
    *,
    spacing: Sequence[float] | None = None,
    weight: Tensor | Sequence[float] | None = None,
    include_background: bool = True,
    ignore_index: int | None = None,
    valid: Tensor | None = None,
    reduction: Reduction = "mean",
    from_probabilities: bool = False,
    check_target: bool = True,
) -> Tensor:
    r"""Mean of signed distance times probability (Kervadec et al. 2019, arXiv:1812.07032), which sums over pixels.

    .. math:: \frac{1}{N} \sum \varphi p

    The distance \varphi to the border of the target is negative inside and positive outside (`signed_distance`), in
    pixels, or mm with `spacing`, and so is the loss. It is not 0 at the perfect mask but smallest, minus the target's
    sum of depths over N. It is linear in p and weighs a false positive by its distance, so it is used beside an overlap
    loss, with a small and growing weight as in the paper.

    Args:
        logits: (B, K, H, W) or (B, K, D, H, W), any floating dtype; half types are computed in float32.
        target: (B, K, H, W) floating or bool, in [0, 1], above 0.5 inside; or (B, H, W) class indices (K = 1: the
            binary mask).
        distance: (B, K, H, W), what `signed_distance` gave for the target's masks, best in the data set; where
            None it is computed in each call, on the CPU, which a GPU has to wait for.
        spacing: (row, column) or (slice, row, column) in mm, for a distance that is not given; None counts pixels.
        weight: (K,); the mean over classes is sum(w * loss) / sum(w).
        include_background: False leaves class 0 out of the mean.
        ignore_index: value of an integer target whose pixels are ignored.
        valid: bool, False where pixels are ignored; (H, W), (B, H, W) or (B, K, H, W), each side may be 1. A mask
            that is ignored as a whole has the loss 0 and is left out of the mean.
        reduction: "mean", "sum" or "none".
        from_probabilities: `logits` are probabilities.
        check_target: look at the target's values, except in compiled programs.

    Returns:
        a scalar of the computing dtype; with reduction="none" (B, K): w * loss, and one class fewer without the
        background.

    Raises:
        ValueError: shapes that do not fit, values outside [0, 1] or class indices out of range, spacing that does not
            fit or comes with a distance.
        ImportError: scipy is missing and no distance given.

    Example:
        >>> import torch
        >>> target = torch.tensor([[[[0.0, 0.0, 1.0, 1.0]]]])  # distances 2, 1, -1, -2
        >>> boundary_loss(torch.zeros(1, 1, 1, 4), target), boundary_loss(target * 200 - 100, target)
        (tensor(0.), tensor(-0.7500))
    """
    case = prepare(
        logits,
        target,
        weight=weight,
        include_background=include_background,
        ignore_index=ignore_index,
        valid=valid,
        from_probabilities=from_probabilities,
        check_target=check_target,
    )
    p = case.probabilities()
    if distance is None:
        masks = case.class_masks() if case.multiclass else case.target > 0.5
        distance = _signed_distance(masks, case.valid, _spacing(spacing, masks))
    elif spacing is not None:
        raise ValueError("spacing belongs to the distance, which is given; leave one of them out")
    elif distance.shape != logits.shape:
        raise ValueError(
            f"distance of shape {tuple(distance.shape)} does not fit logits of shape {tuple(logits.shape)}; expected"
            " signed_distance of one mask a class"
        )
    else:
        distance = distance[:, logits.shape[1] - p.shape[1] :]
    distance = distance.to(p.dtype)
    axes = mask_axes(case, batch=False)
    if case.valid is None:
        loss = (p * distance).mean(axes)
    else:
        loss = divide((p * distance.masked_fill(~case.valid, 0)).sum(axes), case.valid.expand_as(p).sum(axes))
    return reduce(loss, weight=case.weight, counted=case.counted(axes), reduction=reduction)


class BoundaryLoss(Loss):
    """Module of `boundary_loss`, which has the formula and the arguments.

    Example:
        >>> import torch
        >>> target = torch.zeros(2, 1, 4, 4)
        >>> BoundaryLoss()(torch.zeros(2, 1, 4, 4), target, signed_distance(target))  # half of sqrt(32)
        tensor(2.8284)
    """

    def __init__(
        self,
        *,
        spacing: Sequence[float] | None = None,
        weight: Tensor | Sequence[float] | None = None,
        include_background: bool = True,
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
        from_probabilities: bool = False,
        check_target: bool = True,
    ) -> None:
        super().__init__(
            weight=weight,
            spacing=spacing,
            include_background=include_background,
            ignore_index=ignore_index,
            reduction=reduction,
            from_probabilities=from_probabilities,
            check_target=check_target,
        )

    def forward(
        self, logits: Tensor, target: Tensor, distance: Tensor | None = None, *, valid: Tensor | None = None
    ) -> Tensor:
        return boundary_loss(logits, target, distance, weight=self.weight, valid=valid, **self.arguments)


def signed_distance(masks: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
    """Distance of every pixel to the other side of the mask's border, negative inside, for `boundary_loss`.

    Between pixel centres: an outer pixel's to the nearest pixel of the mask, minus an inner pixel's to the nearest one
    that is not, so that the pixels on both sides of the border have -1 and 1. The authors' code adds 1 inside. Of an
    empty mask it is the image's diagonal everywhere, sqrt of the sum of (side * spacing)^2, and of a full one minus
    that.

    Args:
        masks: (B, K, H, W) or (B, K, D, H, W), floating or bool, above 0.5 inside; of one sample (K, H, W) with
            [None]. Class indices first become masks: F.one_hot(target, K).movedim(-1, 1).bool().
        spacing: (row, column) or (slice, row, column) in mm; None counts pixels.

    Returns:
        float32 of the shape and on the device of the masks.

    Raises:
        ValueError: other dtypes, numbers of axes, or spacing that is not one positive number an axis.
        ImportError: scipy is missing.

    Example:
        >>> import torch
        >>> signed_distance(torch.tensor([[[[0.0, 0.0, 1.0, 1.0]]]]), spacing=(1.0, 0.5))
        tensor([[[[ 1.0000,  0.5000, -0.5000, -1.0000]]]])
    """
    if masks.ndim not in (4, 5) or not (masks.is_floating_point() or masks.dtype == torch.bool):
        raise ValueError(
            f"masks of shape {tuple(masks.shape)} and {masks.dtype}, expected (B, K, H, W) or (B, K, D, H, W), floating"
            " or bool; a sample needs masks[None], class indices F.one_hot(target, K).movedim(-1, 1).bool()"
        )
    distance: Tensor = _signed_distance(masks > 0.5, None, _spacing(spacing, masks))
    return distance


def _spacing(spacing: Sequence[float] | None, masks: Tensor) -> list[float]:
    """One number an axis of the image."""
    axes = masks.ndim - 2
    numbers = [1.0] * axes if spacing is None else [float(side) for side in spacing]
    if len(numbers) != axes or not all(0 < side < math.inf for side in numbers):
        raise ValueError(f"spacing must be {axes} positive numbers, one for each axis of the image, got {spacing!r}")
    return numbers


# An operator of its own, since scipy is no part of a graph: compiled programs call it.
@torch.library.custom_op("brainseg::signed_distance", mutates_args=())
def _signed_distance(masks: Tensor, valid: Tensor | None, spacing: Sequence[float]) -> Tensor:
    """Ignored pixels are on neither side: distances are to the nearest valid pixel of the other."""
    try:
        from scipy.ndimage import distance_transform_edt
    except ImportError as error:
        raise ImportError('signed distances need scipy: pip install "brainseg-torch[metrics]"') from error
    inside = masks if valid is None else masks & valid
    outside = ~masks if valid is None else ~masks & valid
    distance = torch.empty(masks.shape)
    diagonal = math.hypot(*(side * step for side, step in zip(masks.shape[2:], spacing, strict=True)))
    sides = [x.flatten(0, 1).numpy(force=True) for x in (inside, outside)]
    # An image is as large as scipy can take at once.
    for image, this, other in zip(distance.flatten(0, 1), *sides, strict=True):
        outer = distance_transform_edt(~this, sampling=spacing) if this.any() else diagonal
        inner = distance_transform_edt(~other, sampling=spacing) if other.any() else diagonal
        image[...] = torch.as_tensor(outer - inner)
    return distance.to(masks.device)


@_signed_distance.register_fake
def _(masks: Tensor, valid: Tensor | None, spacing: Sequence[float]) -> Tensor:  # noqa: ARG001
    return masks.new_empty(masks.shape, dtype=torch.float32)
