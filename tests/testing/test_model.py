"""check_model finds what a network does not keep."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from brainseg.models import SegmentationModel
from brainseg.models.base import describe_features
from brainseg.testing import check_model
from brainseg.testing.model import CHECKS

COMPILERS = ["compile", "export"]


class Sound(SegmentationModel):
    """Two boxes down, one up."""

    stride = 2
    stems: tuple[str, ...] = ("first",)

    def __init__(self, in_channels: int = 3, num_classes: int = 1, *, channels: Sequence[int] = (4, 6)) -> None:
        super().__init__(in_channels, num_classes, channels=list(channels))
        a, b = channels
        self.first = nn.Conv2d(in_channels, a, 3, padding=1)
        self.second = nn.Conv2d(a, b, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(b, a, 2, stride=2)
        self._build_heads([a])
        self.feature_info = describe_features([a, b], [1, 2], ["first", "second"])

    def encode(self, x: Tensor) -> list[Tensor]:
        first = self.first(x).relu()
        return [first, self._run(self.second, first)]

    def decode(self, features: list[Tensor]) -> Iterator[Tensor]:
        deep = features.pop()
        yield self.up(deep.relu()) + features.pop()


class Centred(Sound):
    """Takes off the mean of the batch."""

    def encode(self, x: Tensor) -> list[Tensor]:
        return super().encode(x - x.mean())


class Idle(Sound):
    """Has a box that nothing runs through."""

    def __init__(self, in_channels: int = 3, num_classes: int = 1, *, channels: Sequence[int] = (4, 6)) -> None:
        super().__init__(in_channels, num_classes, channels=channels)
        self.idle = nn.Conv2d(1, 1, 1)


class Stemless(Sound):
    """Does not say which convolution reads the image."""

    stems = ()


class Forgetful(Sound):
    """Has an argument that its config does not keep."""

    def __init__(self, in_channels: int = 3, num_classes: int = 1, *, width: int = 4) -> None:
        super().__init__(in_channels, num_classes, channels=(width, 6))
        self.config = {"in_channels": in_channels, "num_classes": num_classes}


class Boastful(Sound):
    """Describes features that it does not give."""

    def __init__(self, in_channels: int = 3, num_classes: int = 1, *, channels: Sequence[int] = (4, 6)) -> None:
        super().__init__(in_channels, num_classes, channels=channels)
        self.feature_info[1]["num_chs"] = 7


class Greedy(Sound):
    """Takes whatever comes."""

    def _check(self, images: Tensor) -> None:
        pass


class Sigmoid(Sound):
    """Gives probabilities of one side of the image alone."""

    def _logits(self, finest: Tensor, height: int, width: int) -> Tensor:
        return super()._logits(finest, height, width)[..., : height // 2, :]


class Branching(Sound):
    """Looks at a value, which no graph can."""

    def encode(self, x: Tensor) -> list[Tensor]:
        return super().encode(x if x.sum() > 0 else x + 0)


def test_a_network_that_keeps_the_contract_passes_whole() -> None:
    check_model(Sound, skip=COMPILERS)


@pytest.mark.slow
def test_a_network_that_keeps_the_contract_compiles_too() -> None:
    check_model(Sound, skip=[name for name in CHECKS if name not in COMPILERS])


def test_whatever_a_network_prepares_the_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    check_model(Sound, skip=[name for name in CHECKS if name not in ("gradients", "determinism")])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("network", "check", "message", "arguments"),
    [
        (Centred, "determinism", "an image alone and in a batch: off by", {}),
        (Idle, "gradients", "idle.weight receives no gradient", {}),
        (Stemless, "adaptation", "is not read into other channels|does not fit", {}),
        (Forgetful, "config", "builds a network of other weights", {"width": 5}),
        (Boastful, "features", r"a feature of shape \(2, 6, 49, 65\), feature_info: \(2, 7, 49, 65\)", {}),
        (Greedy, "refusals", "forward takes an image", {}),
        (Sigmoid, "shapes", r"logits of shape \(1, 1, 16, 32\), expected \(1, 1, 32, 32\)", {}),
        pytest.param(Branching, "compile", "one graph", {}, marks=pytest.mark.slow),
    ],
)
def test_what_a_network_does_not_keep_is_said(
    network: type[SegmentationModel], check: str, message: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(AssertionError, match=message) as error:
        check_model(network, skip=[name for name in CHECKS if name != check], **arguments)
    assert f"This is the check {check!r}: " in str(error.value)


def test_unknown_checks_are_answered_with_the_closest() -> None:
    with pytest.raises(ValueError, match="there is no check 'exprt'; did you mean export"):
        check_model("unext", skip=["exprt"])
