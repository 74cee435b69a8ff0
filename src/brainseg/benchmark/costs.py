"""Parameters and multiply-adds of any network."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from brainseg.models import SegmentationModel, summary


def count_costs(model: nn.Module, in_channels: int, size: int) -> dict[str, float]:
    """What the tables show: parameters, and GMACs of one image in evaluation as `summary` counts them.

    Args:
        model: on the CPU; those of others may be left in eval mode.
        in_channels: channels of the image.
        size: its height and width in pixels.
    """
    parameters = sum(x.numel() for x in model.parameters())
    try:
        macs = summary(model, (size, size), in_channels=in_channels).macs
    except Exception:
        if isinstance(model, SegmentationModel):
            raise
        # A network that looks at its numbers, or does not train, is counted while it runs.
        with torch.no_grad(), _plain_attention(), FlopCounterMode(display=False) as counter:
            model.eval()(torch.zeros(1, in_channels, size, size))
        macs = counter.get_total_flops() // 2
    return {"parameters": parameters, "GMACs": macs / 1e9}


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention by matrix products; the fused kernels of torch, of which the counter knows not all, are off."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
