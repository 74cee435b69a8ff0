"""One rule for how bright pictures are, whatever wrote them."""

import numpy as np
import pytest
import torch

from brainseg.visualization import brightened


def test_the_995th_thousandth_of_the_foreground_is_white_and_background_does_not_count() -> None:
    image = np.zeros((40, 50))
    image[:, :20] = np.linspace(0.001, 0.2, 800).reshape(40, 20)  # the rest is background
    bright = brightened(image)
    bound = np.percentile(image[:, :20], 99.5)
    np.testing.assert_allclose(bright, np.clip(image / bound, 0, 1), rtol=1e-6)
    assert (bright == 1).sum() == 4  # of 800
    assert bright.dtype == np.float32


@pytest.mark.parametrize(
    ("channels", "channel", "shown"),
    [(1, None, [0]), (3, None, [0, 1, 2]), (3, 1, [1]), (4, None, [0]), (2, None, [0]), (4, 3, [3])],
)
def test_the_named_channel_is_shown_else_gray_and_colour_else_the_first(
    channels: int, channel: int | None, shown: list[int]
) -> None:
    image = torch.rand(channels, 6, 7) / 10
    bright = brightened(image, channel)
    kept = image[shown].numpy()
    expected = np.clip(kept / np.percentile(kept, 99.5), 0, 1)
    np.testing.assert_allclose(bright, expected if len(shown) == 3 else expected[0], rtol=1e-5)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_nothing_to_brighten_stays_as_it_is(level: float) -> None:
    assert np.array_equal(brightened(np.full((4, 4), level)), np.full((4, 4), level))


@pytest.mark.parametrize(
    ("image", "channel", "message"),
    [
        (np.zeros((2, 3, 4, 4)), None, r"of shape \(2, 3, 4, 4\) is no slice"),
        (np.zeros((4, 4), np.uint8), None, "give image / 255"),
        (np.zeros((3, 4, 4)), 3, "there is no channel 3 in an image of 3; give one from 0 to 2"),
        (np.zeros((4, 4)), -1, "there is no channel -1"),
    ],
)
def test_what_cannot_be_shown_is_refused(image: np.ndarray, channel: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        brightened(image, channel)
