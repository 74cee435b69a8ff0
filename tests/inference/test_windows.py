"""Windows: every pixel seen, and nothing changed where windows agree."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainseg.inference import Predictor, mean_over_windows
from brainseg.models import ModelSpec


@pytest.mark.parametrize("sides", [(64, 64), (65, 100), (20, 130), (200, 33), (10, 12)])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.75])
def test_a_pointwise_network_gives_the_same_as_on_the_whole_image(sides: tuple[int, int], overlap: float) -> None:
    torch.manual_seed(0)
    network, images = nn.Conv2d(3, 2, 1), torch.rand(2, 3, *sides)
    torch.testing.assert_close(mean_over_windows(network, images, (32, 48), overlap=overlap), network(images))


def test_windows_have_the_size_reach_the_borders_and_overlap_as_asked() -> None:
    seen: list[tuple[int, ...]] = []

    def network(x: Tensor) -> Tensor:
        seen.append((int(x[0, 0, 0, 0]), *x.shape[-2:]))
        return x

    image = torch.arange(100.0).view(1, 1, 100, 1).expand(1, 1, 100, 40)
    mean_over_windows(network, image, (32, 40), overlap=0.5)
    starts = [start for start, *_ in seen]
    assert (starts[0], starts[-1]) == (0, 68)
    assert all(after - before <= 16 for before, after in pairwise(starts))
    assert {tuple(size) for _, *size in seen} == {(32, 40)}


def test_the_predictor_sees_large_images_at_their_own_scale() -> None:
    torch.manual_seed(0)
    module, spec, image = nn.Conv2d(3, 1, 3, padding=1), ModelSpec(image_size=(32, 32)), torch.rand(1, 3, 70, 32)
    predictor = Predictor(module, spec=spec, windows=True, device="cpu")
    torch.testing.assert_close(predictor.logits(image), mean_over_windows(module, image, (32, 32)))
    small = torch.rand(1, 3, 20, 30)  # nothing is gained by windows
    torch.testing.assert_close(predictor.logits(small), Predictor(module, spec=spec, device="cpu").logits(small))
    narrow = torch.rand(1, 3, 70, 20)  # as wide as a window, of which a part is empty
    expected = mean_over_windows(module, F.pad(narrow, (0, 12)), (32, 32))[..., :20]
    torch.testing.assert_close(predictor.logits(narrow), expected)
    stretching = [
        Predictor(module, spec=ModelSpec(image_size=(32, 32), keep_aspect_ratio=False), windows=windows, device="cpu")
        for windows in (True, False)
    ]
    torch.testing.assert_close(*(each.logits(narrow) for each in stretching))
    with pytest.raises(
        ValueError, match="windows are of the size that a network was trained at, and the spec of this one names none"
    ):
        Predictor(module, spec=ModelSpec(), windows=True)
