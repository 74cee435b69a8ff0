"""Winograd's products give the convolution, on every size, with what follows it."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainseg.inference.winograd import POINTS, WinogradConv2d, can_use_winograd, create_transforms


def test_the_transforms_give_the_correlation_of_six_with_three() -> None:
    a, b, g = (matrix.double() for matrix in create_transforms(POINTS))
    signal, kernel = torch.randn(6, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    expected = torch.stack([signal[i : i + 3] @ kernel for i in range(4)])
    torch.testing.assert_close(a @ ((g @ kernel) * (b @ signal)), expected)


def test_the_transforms_are_the_published_ones_for_the_published_points() -> None:
    a, b, g = create_transforms((0.0, 1.0, -1.0, 2.0, -2.0))
    published = torch.tensor([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1.0]])
    assert torch.equal(a, published)
    assert b[0].tolist() == [4, 0, -5, 0, 1, 0]
    assert g[:, 0].tolist() == pytest.approx([1 / 4, -1 / 6, -1 / 6, 1 / 24, 1 / 24, 0])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("size", [(32, 32), (37, 61), (34, 47), (130, 132), (4, 300)])
def test_it_computes_the_convolution_and_what_follows(
    size: tuple[int, int], relu: bool, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brainseg.inference.winograd.CHUNK", 20_000)  # several chunks, of images or of rows
    conv = nn.Conv2d(5, 7, 3, padding=1, bias=bias).requires_grad_(False)
    fast = WinogradConv2d(conv, nn.ReLU() if relu else None)
    x = torch.randn(3, 5, *size)
    found = fast(x)
    assert fast._source is not None
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, plain(conv, x, relu), rtol=1e-5, atol=1e-5)


def plain(conv: nn.Conv2d, x: Tensor, relu: bool) -> Tensor:
    y = conv(x)
    return y.relu() if relu else y


def test_small_maps_are_computed_plainly() -> None:
    conv = nn.Conv2d(5, 7, 3, padding=1).requires_grad_(False)
    fast, x = WinogradConv2d(conv, nn.ReLU()), torch.randn(1, 5, 8, 8)
    torch.testing.assert_close(fast(x), plain(conv, x, relu=True))
    assert fast._source is None


def test_the_error_is_a_few_times_that_of_the_plain_sums() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(128, 128, 3, padding=1).requires_grad_(False)
    x = torch.randn(1, 128, 64, 64)
    exact = F.conv2d(x.double(), conv.weight.double(), conv.bias.double(), padding=1)
    assert (WinogradConv2d(conv, None)(x) - exact).abs().max() < 4e-6 * exact.abs().max()


@pytest.mark.parametrize(
    ("conv", "expected"),
    [
        (nn.Conv2d(128, 64, 3, padding=1), True),
        (nn.Conv2d(32, 32, 3, padding=1), False),
        (nn.Conv2d(1024, 1024, 3, padding=1, device="meta"), False),
        (nn.Conv2d(128, 64, 3), False),
        (nn.Conv2d(128, 64, 3, padding=1, stride=2), False),
        (nn.Conv2d(128, 128, 3, padding=1, groups=2), False),
        (nn.Conv2d(128, 128, 3, padding=1, padding_mode="circular"), False),
        (nn.Conv2d(128, 128, 5, padding=2), False),
    ],
)
def test_it_is_for_wide_convolutions_of_three_by_three(conv: nn.Conv2d, expected: bool) -> None:
    assert can_use_winograd(conv, nn.ReLU()) is expected
    assert not can_use_winograd(conv, nn.GELU())
