"""What a network costs."""

from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from brainseg.models.base import SegmentationModel


class ModelSummary(NamedTuple):
    """What `summarize` counts.

    Attributes:
        parameters: trainable and frozen ones.
        macs: multiplications with addition of the convolutions and matrix products for one image.
    """

    parameters: int
    macs: int


def summarize(model: SegmentationModel, size: tuple[int, int] = (256, 256)) -> ModelSummary:
    """Counts parameters, and the multiply-accumulates of one image in eval mode.

    Args:
        model: stays as it is.
        size: height and width of the image in pixels.

    >>> from brainseg.models import create_model
    >>> summarize(create_model("unext")).parameters
    1471921
    """
    parameter = next(model.parameters())
    image = torch.zeros(1, model.config["in_channels"], *size, device=parameter.device, dtype=parameter.dtype)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(image)
    finally:
        for module, training in modes:
            module.training = training
    return ModelSummary(sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2)
