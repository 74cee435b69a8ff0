"""Packed convolutions compute what the convolution and its activation do, and notice when they must do it plainly."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from brainseg.inference.packed import PackedConv2d, can_pack
from brainseg.inference.winograd import WinogradConv2d

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch is built without oneDNN")


def packed() -> PackedConv2d:
    return PackedConv2d(nn.Conv2d(4, 8, 3, padding=1).requires_grad_(False), nn.ReLU())


def winograd() -> PackedConv2d:
    return WinogradConv2d(nn.Conv2d(4, 8, 3, padding=1).requires_grad_(False), nn.ReLU())


both = pytest.mark.parametrize("build", [packed, winograd])


def images(size: int = 32) -> Tensor:
    return torch.randn(1, 4, size, size)


def plain(conv: PackedConv2d, x: Tensor) -> Tensor:
    return nn.functional.conv2d(x, conv.weight, conv.bias, padding=1).relu()


def is_fast(conv: PackedConv2d, x: Tensor) -> bool:
    """Whether oneDNN's operators or Winograd's products computed it: they have prepared weights."""
    conv._source = None
    conv(x)
    return conv._source is not None


@pytest.mark.parametrize(
    ("conv", "activation"),
    [
        (nn.Conv2d(4, 8, 3, padding=1), None),
        (nn.Conv2d(4, 8, 3, stride=2, padding=1, bias=False), nn.ReLU()),
        (nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8), nn.GELU()),
        (nn.Conv2d(8, 16, 1), nn.GELU(approximate="tanh")),
        (nn.Conv2d(6, 8, (3, 1), padding=(1, 0), groups=2), None),
    ],
)
def test_it_computes_the_convolution_and_its_activation(conv: nn.Conv2d, activation: nn.Module | None) -> None:
    x = torch.randn(2, conv.in_channels, 13, 11)
    conv.requires_grad_(False)
    assert can_pack(conv, activation)
    fast = PackedConv2d(conv, activation)
    assert is_fast(fast, x)
    torch.testing.assert_close(fast(x), conv(x) if activation is None else activation(conv(x)))


@pytest.mark.parametrize(
    ("conv", "activation"),
    [
        (nn.Conv2d(4, 8, 3, padding=1, padding_mode="reflect"), None),
        (nn.Conv2d(4, 8, 3, padding="same"), None),
        (nn.Conv2d(4, 8, 3), nn.SiLU()),
        (nn.Conv2d(64, 1, 1), None),
        (nn.ConvTranspose2d(4, 8, 2), None),
    ],
)
def test_what_has_no_faster_form_is_left_alone(conv: nn.Module, activation: nn.Module | None) -> None:
    assert not can_pack(conv, activation)


@both
def test_weights_that_change_are_noticed(build: Callable[[], PackedConv2d]) -> None:
    conv, x = build(), images()
    conv(x)
    conv.load_state_dict(build().state_dict())
    torch.testing.assert_close(conv(x), plain(conv, x))
    conv.weight.data = torch.randn_like(conv.weight)
    torch.testing.assert_close(conv(x), plain(conv, x), rtol=1e-5, atol=1e-5)
    given = {"weight": torch.randn_like(conv.weight), "bias": torch.zeros(8)}
    expected = nn.functional.conv2d(x, given["weight"], padding=1).relu()
    torch.testing.assert_close(torch.func.functional_call(conv, given, (x,)), expected, rtol=1e-5, atol=1e-5)


@both
def test_copies_and_pickles_compute_the_same(build: Callable[[], PackedConv2d]) -> None:
    conv, x = build(), images()
    expected = conv(x)
    for other in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
        assert torch.equal(other(x), expected)


@both
def test_other_dtypes_and_autocast_are_computed_plainly(build: Callable[[], PackedConv2d]) -> None:
    conv, x = build(), images()
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_fast(conv, x)
        assert conv(x).dtype is torch.bfloat16
    assert is_fast(conv, x)
    assert conv.double()(x.double()).dtype is torch.float64
    assert conv(x.double()).dtype is torch.float64


@both
def test_gradients_of_the_image_are_those_of_the_plain_modules(build: Callable[[], PackedConv2d]) -> None:
    conv, x = build(), images().requires_grad_()
    (found,) = torch.autograd.grad(conv(x).sum(), x)
    (expected,) = torch.autograd.grad(plain(conv, x).sum(), x)
    torch.testing.assert_close(found, expected)


@both
def test_vmap_sees_the_plain_modules(build: Callable[[], PackedConv2d]) -> None:
    conv, x = build(), images()
    torch.testing.assert_close(
        torch.func.vmap(conv)(torch.stack([x, -x])), torch.stack([plain(conv, x), plain(conv, -x)])
    )


@both
def test_who_counts_operations_sees_the_convolution(build: Callable[[], PackedConv2d]) -> None:
    conv, x = build(), images()
    with FlopCounterMode(display=False) as counter:
        conv(x)
    assert counter.get_total_flops() == 2 * 4 * 8 * 9 * 32 * 32


@both
def test_images_that_do_not_fit_are_refused_as_by_the_convolution(build: Callable[[], PackedConv2d]) -> None:
    with pytest.raises(RuntimeError, match=r"expected input.* to have 4 channels, but got 5"):
        build()(torch.rand(1, 5, 32, 32))
