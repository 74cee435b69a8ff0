"""The input that the network sees, by name."""

import numpy as np
import pytest
import torch

from brainseg.training.inputs import create_input
from brainseg.transforms import create_transform


def test_course_input_is_blue_green_red_normalised_and_divided_once_more() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.float64)
    bgr = rgb[..., ::-1]
    normalised = (bgr / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    expected = torch.from_numpy(np.moveaxis(normalised / 255, -1, 0).copy())

    transform = create_input("course")
    assert transform is not None
    image = torch.from_numpy(np.moveaxis(rgb / 255, -1, 0).copy())
    torch.testing.assert_close(transform(image[None])[0], expected, rtol=1e-12, atol=1e-15)
    assert expected.abs().max() < 0.0115
    torch.testing.assert_close(create_transform(transform.config)(image[None])[0], expected)


def test_fixed_input_is_normalised_once_in_stored_order() -> None:
    transform = create_input("course_fixed")
    assert transform is not None
    white = transform(torch.ones(1, 3, 1, 1)).flatten()
    torch.testing.assert_close(white, torch.tensor([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]))


def test_an_unknown_input_is_answered_with_the_closest() -> None:
    with pytest.raises(ValueError, match="no input 'corse'; did you mean course"):
        create_input("corse")
