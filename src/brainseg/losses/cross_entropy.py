"""Cross-entropy, of exclusive classes or of masks."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from brainseg.checks import check_between
from brainseg.losses.bce import sigmoid_cross_entropy
from brainseg.losses.rules import Loss, Reduction, broadcast_sum, divide, prepare, reduce


def cross_entropy_loss(
    logits: Tensor,
    target: Tensor,
    *,
    label_smoothing: float = 0.0,
    weight: Tensor | Sequence[float] | None = None,
    include_background: bool = True,
    ignore_index: int | None = None,
    valid: Tensor | None = None,
    reduction: Reduction = "mean",
    check_target: bool = True,
) -> Tensor:
    r"""Cross-entropy of each pixel (Bishop 2006, Pattern Recognition and Machine Learning, equation 4.108).

    .. math:: -\sum_k w_k t'_k \log p_k, \quad t' = (1 - e) t + \frac{e}{K}

    With class indices p is the softmax of the logits and t is 1 in the class of the pixel, as in
    `torch.nn.functional.cross_entropy`, which gives the same numbers. With masks it is the `bce_loss` of each; one
    channel is the softmax over (0, logit). Smoothing is that of Szegedy et al. 2016, arXiv:1512.00567, section 7.

    Args:
        logits: (B, K, H, W) or (B, K, D, H, W), any floating dtype; half types are computed in float32.
        target: (B, H, W) class indices (K = 1: the binary mask); or (B, K, H, W) floating or bool, in [0, 1].
        label_smoothing: e in [0, 1]; with e > 0 the loss is not 0 at the perfect mask. For masks K is 2, the class and
            its absence.
        weight: w, (K,); the mean over pixels is the sum of the losses over the sum of the w of the pixels' classes.
        include_background: False gives class 0 the weight 0. With class indices nothing is then asked of its pixels,
            false positives in them included.
        ignore_index: value of an integer target whose pixels are ignored.
        valid: bool, False where pixels are ignored; (H, W), (B, H, W) or, for masks, (B, K, H, W), each side may be 1.
        reduction: "mean", "sum" or "none".
        check_target: look at the target's values, except in compiled programs.

    Returns:
        a scalar of the computing dtype; with reduction="none" one number a pixel, weighted, 0 in ignored pixels:
        (B, H, W) for class indices, (B, K, H, W) for masks and for one channel, one class fewer without the background.

    Raises:
        ValueError: shapes that do not fit, values outside [0, 1] or class indices out of range, arguments out of range.

    Example:
        >>> import torch
        >>> cross_entropy_loss(torch.zeros(2, 4, 8, 8), torch.ones(2, 8, 8, dtype=torch.int64))
        tensor(1.3863)
    """
    case = prepare(
        logits,
        target,
        weight=weight,
        include_background=include_background,
        ignore_index=ignore_index,
        valid=valid,
        check_target=check_target,
    )
    if not case.multiclass:
        loss = sigmoid_cross_entropy(case, label_smoothing=label_smoothing)
        return reduce(loss, weight=case.pixel_weight(), reduction=reduction)
    check_between("label_smoothing", label_smoothing, 0, 1)
    # -100 is what F.cross_entropy leaves out.
    indices = case.target if case.valid is None else case.target.masked_fill(~case.valid[:, 0], -100)
    loss = F.cross_entropy(
        case.logits,
        indices,
        case.class_weight(),
        label_smoothing=label_smoothing,
        reduction="none" if reduction == "none" else "sum",
    )
    if reduction != "mean":
        return reduce(loss, reduction=reduction)
    # Not through `reduce`: with smoothing a pixel's loss has the weights of all classes, its divisor that of its own.
    pixel_weight = case.pixel_weight()
    if pixel_weight is None:
        return loss / max(indices.numel(), 1)
    return divide(loss, broadcast_sum(pixel_weight, indices))


class CrossEntropyLoss(Loss):
    """Module of `cross_entropy_loss`, which has the formula and the arguments.

    Example:
        >>> import torch
        >>> CrossEntropyLoss()(torch.zeros(2, 1, 8, 8), torch.ones(2, 1, 8, 8))
        tensor(0.6931)
    """

    def __init__(
        self,
        *,
        label_smoothing: float = 0.0,
        weight: Tensor | Sequence[float] | None = None,
        include_background: bool = True,
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
        check_target: bool = True,
    ) -> None:
        super().__init__(
            weight=weight,
            label_smoothing=label_smoothing,
            include_background=include_background,
            ignore_index=ignore_index,
            reduction=reduction,
            check_target=check_target,
        )

    def forward(self, logits: Tensor, target: Tensor, *, valid: Tensor | None = None) -> Tensor:
        return cross_entropy_loss(logits, target, weight=self.weight, valid=valid, **self.arguments)
