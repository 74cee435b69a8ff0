"""The eight symmetries: exact, and the same result however the image lies."""

import pytest
import torch
from torch import nn

from brainseg.inference import Predictor, mean_over_symmetries
from brainseg.models import ModelSpec


@pytest.mark.parametrize("sides", [(32, 32), (33, 47)])
def test_a_turned_image_gives_the_turned_result(sides: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network, image = nn.Conv2d(3, 2, 3, padding=1).double(), torch.rand(2, 3, *sides).double()
    result = mean_over_symmetries(network, image)
    for turns in range(4):
        for turned in (torch.rot90(image, turns, (2, 3)), torch.rot90(image.flip(3), turns, (2, 3))):
            again = mean_over_symmetries(network, turned).rot90(-turns, (2, 3))
            torch.testing.assert_close(
                again if torch.equal(turned.rot90(-turns, (2, 3)), image) else again.flip(3), result
            )
    assert not torch.allclose(result, network(image))


def test_what_is_symmetric_already_stays_the_same() -> None:
    pointwise, image = nn.Conv2d(3, 1, 1), torch.rand(1, 3, 20, 30)
    torch.testing.assert_close(mean_over_symmetries(pointwise, image), pointwise(image))


def test_the_predictor_averages_logits() -> None:
    torch.manual_seed(0)
    module, spec, image = nn.Conv2d(3, 1, 3, padding=1), ModelSpec(), torch.rand(1, 3, 20, 30)
    predictor = Predictor(module, spec=spec, tta=True, device="cpu")
    torch.testing.assert_close(predictor.logits(image), mean_over_symmetries(module, image))
