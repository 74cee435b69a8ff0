"""Costs are counted the same way for our networks and for any other."""

import pytest
import torch
from torch import Tensor, nn

from brainseg.benchmark.costs import count_costs
from brainseg.models import create_model, summary


class Wrapped(nn.Module):
    """One of our networks as somebody else's."""

    def __init__(self) -> None:
        super().__init__()
        self.network = create_model("unext_tiny", in_channels=4)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.network(images)
        return out


class Looking(Wrapped):
    """Looks at the numbers of its images."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images if images.max() < 2 else images / 2)


class Attention(nn.Module):
    """Patches of 16x16 pixels and one layer of a transformer, written down as they are.

    Multiply-adds of 16 patches: 768 * 32 each to embed, then 3 * 32 * 32 in, 2 * 16 * 32 between them, 32 * 32 out,
    and 2 * 32 * 64.
    """

    macs = 16 * (768 * 32 + 3 * 32 * 32 + 2 * 16 * 32 + 32 * 32 + 2 * 32 * 64)

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 16, 16)
        self.layer = nn.TransformerEncoderLayer(32, 4, dim_feedforward=64, batch_first=True)

    def forward(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.layer(self.patches(images).flatten(2).transpose(1, 2))
        return tokens


class LookingAttention(Attention):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images if images.max() < 2 else images / 2)


@pytest.mark.parametrize("network", [Attention, LookingAttention])
def test_attention_is_counted_whether_shapes_tell_or_a_run(network: type[Attention]) -> None:
    """Torch's fused kernels for layers in evaluation count as nothing, and run only where there are numbers."""
    assert count_costs(network(), 3, 64)["GMACs"] == network.macs / 1e9
    assert torch.backends.mha.get_fastpath_enabled()


def test_any_module_costs_what_summary_counts() -> None:
    counted = summary(create_model("unext_tiny", in_channels=4), (64, 64))
    expected = {"parameters": counted.parameters, "GMACs": counted.macs / 1e9}
    assert count_costs(create_model("unext_tiny", in_channels=4), 4, 64) == expected
    assert count_costs(Wrapped(), 4, 64) == expected
    assert count_costs(Looking(), 4, 64) == expected
