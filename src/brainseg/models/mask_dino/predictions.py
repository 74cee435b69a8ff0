"""What the network says of its queries."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from brainseg.models.mask_dino.objects import Objects


@dataclass(frozen=True)
class QueryPredictions:
    """Predictions of the queries by one layer; those of the last layer hold all others.

    Attributes:
        pred_logits: (B, Q, K) class logits; (B, Q, K + 1) with softmax classes, "no object" last.
        pred_masks: (B, Q, H/4, W/4) mask logits; None for the layers before the last in evaluation without targets.
        pred_boxes: (B, Q, 4) centre and size in units of the padded image.
        aux: those before the first layer (unless without initial prediction) and of each layer but the last.
        interm: those of the selected tokens of the encoder; None for one-stage queries.
        dn: those of the denoising queries, with `aux` of their own; None without denoising.
        groups: number of denoising groups in `dn`.
        softmax: the classes exclude each other, and "no object" is the last of `pred_logits`.
        image_size: height and width of the images before they were padded; None: as large as the padded ones.
        objects: what the network made of the targets, so that the criterion need not check and pad them again.
    """

    pred_logits: Tensor
    pred_masks: Tensor | None
    pred_boxes: Tensor
    aux: list["QueryPredictions"] = field(default_factory=list)
    interm: "QueryPredictions | None" = None
    dn: "QueryPredictions | None" = None
    groups: int = 0
    softmax: bool = False
    image_size: tuple[int, int] | None = None
    objects: Objects | None = None

    @property
    def masks(self) -> Tensor:
        """`pred_masks`; ValueError if this layer has none."""
        if self.pred_masks is None:
            raise ValueError(
                "in evaluation the layers before the last have no masks; call forward_queries with targets, or take "
                "the last layer"
            )
        return self.pred_masks

    @property
    def num_classes(self) -> int:
        """K, "no object" not counted."""
        return self.pred_logits.shape[2] - self.softmax

    def check_finite(self) -> None:
        """ValueError for class or mask logits that are not finite, with the images whose they are; none in a program.

        A comparison with NaN is false, so that nothing would be found, and nothing said.
        """
        if torch.compiler.is_compiling() or self.pred_logits.is_meta:
            return
        for what, values in (("class logits", self.pred_logits), ("mask logits", self.masks)):
            if unsound := describe_not_finite(values):
                raise ValueError(
                    f"{what} of {unsound}; look for such weights, or predict in float32 or bfloat16 in place of float16"
                )

    @property
    def padded_size(self) -> tuple[int, int]:
        """Height and width of the padded images."""
        height, width = self.masks.shape[-2:]
        return 4 * height, 4 * width


def describe_not_finite(values: Tensor) -> str:
    """Which images of a batch (B, ...) hold NaN or infinity; empty if none does."""
    if values.isfinite().all():
        return ""
    flat = values.flatten(1)
    nan, infinite = (found.any(dim=1) for found in (flat.isnan(), flat.isinf()))
    images = (nan | infinite).nonzero().flatten().tolist()
    what = " and ".join(name for name, found in (("NaN", nan), ("infinity", infinite)) if found.any())
    names = f"image{'s' if len(images) > 1 else ''} {', '.join(map(str, images))}"
    return f"{names} of the batch of {len(values)}, counted from 0, hold {what}"
