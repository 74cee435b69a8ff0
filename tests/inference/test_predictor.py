"""The predictor: normalised as the weights expect, at any size, from arrays as from tensors."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from brainseg.inference import Predictor
from brainseg.models import UNeXt
from brainseg.transforms import Normalize


def network(num_classes: int = 1) -> UNeXt:
    torch.manual_seed(0)
    model = UNeXt(3, num_classes, channels=(8, 16, 24, 32, 64))
    model.normalization = Normalize([0.1, 0.2, 0.3], [0.5, 0.4, 0.3]).config
    return model


def test_images_are_normalised_as_the_weights_expect(tmp_path: Path) -> None:
    model = network()
    model.save_pretrained(tmp_path)
    predictor = Predictor.from_pretrained(tmp_path, device="cpu")
    image = torch.rand(1, 3, 40, 50)
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.4, 0.3])
    expected = model.eval()((image - mean[:, None, None]) / std[:, None, None])
    torch.testing.assert_close(predictor.logits(image), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_images_of_other_precisions_are_taken(dtype: torch.dtype) -> None:
    predictor, images = Predictor(network(), device="cpu"), torch.rand(1, 3, 32, 32).to(dtype)
    assert torch.equal(predictor.logits(images), predictor.logits(images.float()))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_an_array_is_read_as_the_tensor_of_its_values(dtype: str) -> None:
    predictor = Predictor(network(num_classes=2), device="cpu")
    array = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (37, 64, 3)).astype(dtype)
    tensor = torch.from_numpy(array.astype(np.float32) / np.iinfo(dtype).max).permute(2, 0, 1)
    mask = predictor(array)
    assert (mask.shape, mask.dtype) == ((2, 37, 64), torch.bool)
    assert torch.equal(mask, predictor(tensor))
    assert 0 < mask.float().mean() < 1


def test_the_threshold_is_a_probability() -> None:
    image = torch.rand(3, 48, 48)
    probability = Predictor(network(), device="cpu").logits(image[None])[0].sigmoid()
    middle = probability.median().item()
    mask = Predictor(network(), threshold=middle, device="cpu")(image)
    assert torch.equal(mask, probability > middle)


def test_logits_come_back_at_the_size_of_the_image() -> None:
    model = network()
    predictor = Predictor(model, image_size=(64, 32), device="cpu")
    image = torch.rand(1, 3, 100, 80)
    small = F.interpolate(image, (64, 32), mode="bilinear", antialias=True)
    plain = Predictor(model, device="cpu").logits(small)
    expected = F.interpolate(plain, (100, 80), mode="bilinear", antialias=True)
    torch.testing.assert_close(predictor.logits(image), expected)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((3, 64, 64)), "array of float64"),
        (np.zeros((1, 64, 64, 3), np.uint8), "is no image"),
        (torch.zeros(64, 64), r"expected a tensor \(C, H, W\)"),
        (torch.zeros(3, 64, 64, dtype=torch.uint8), "torch.uint8"),
        (torch.zeros(1, 64, 64), "images of 3 channels"),
    ],
)
def test_what_is_no_image_is_an_error(image: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Predictor(network(), device="cpu")(image)  # type: ignore[arg-type]


def test_a_threshold_that_is_no_probability_is_an_error() -> None:
    with pytest.raises(ValueError, match="between 0 and 1, got 127"):
        Predictor(network(), threshold=127)
