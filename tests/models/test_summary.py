"""What a network costs: counted by hand for small ones, and as published for the registered."""

import pytest
import torch
from torch import Tensor, nn

from brainseg.models import SegmentationModel, create_model, summarize


class OneConvolution(SegmentationModel):
    stride = 1
    stem = "conv"

    def __init__(self, in_channels: int = 3, num_classes: int = 1) -> None:
        super().__init__(in_channels, num_classes)
        self.conv = nn.Conv2d(in_channels, 4, kernel_size=3, padding=1)
        self._build_heads([4])

    def encode(self, x: Tensor) -> list[Tensor]:
        return [self.conv(x)]

    def decode(self, features: list[Tensor]):  # type: ignore[no-untyped-def]
        yield features.pop()


def test_a_convolution_is_counted_by_hand() -> None:
    summary = summarize(OneConvolution(in_channels=2), (40, 50))
    assert summary.parameters == (2 * 9 + 1) * 4 + (4 + 1)
    assert summary.macs == 40 * 50 * (2 * 9 * 4 + 4)


def test_unext_has_the_published_parameters() -> None:
    assert summarize(create_model("unext")).parameters == 1_471_921


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_network_stays_as_it_is(device: str) -> None:
    with torch.device(device):
        model = create_model("unext_tiny").train()
    model.stages[0].eval()  # type: ignore[index]
    modes = [module.training for module in model.modules()]
    statistics = [buffer.clone() for buffer in model.buffers()]
    summarize(model, (64, 64))
    assert [module.training for module in model.modules()] == modes
    if device == "cpu":
        assert all(torch.equal(*pair) for pair in zip(statistics, model.buffers(), strict=True))
