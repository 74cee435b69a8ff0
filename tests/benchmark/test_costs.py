"""Costs are counted the same way for our networks and for any other."""

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


def test_any_module_costs_what_summary_counts() -> None:
    counted = summary(create_model("unext_tiny", in_channels=4), (64, 64))
    expected = {"parameters": counted.parameters, "GMACs": counted.macs / 1e9}
    assert count_costs(create_model("unext_tiny", in_channels=4), 4, 64) == expected
    assert count_costs(Wrapped(), 4, 64) == expected
    assert count_costs(Looking(), 4, 64) == expected
