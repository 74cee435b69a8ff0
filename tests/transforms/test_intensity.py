"""Each transform against torchvision, scipy or the pencil, its draws against their statistics."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from brainseg._torchvision import make_importable
from brainseg.transforms import (
    RandomBlur,
    RandomBrightness,
    RandomContrast,
    RandomGamma,
    RandomGaussianNoise,
    RandomLowResolution,
    RandomScaleShift,
    Transform,
)
from brainseg.transforms.intensity import (
    BlurParameters,
    BrightnessParameters,
    ContrastParameters,
    GammaParameters,
    GaussianNoiseParameters,
    LowResolutionParameters,
    ScaleShiftParameters,
)

MANY = (20_000, 1, 1, 1)
SIZES = [(12, 12), (11, 12), (9, 7), (2, 3), (1, 6), (5, 1), (1, 1)]

every_transform = pytest.mark.parametrize(
    "transform",
    [
        RandomBlur(),
        RandomBrightness(),
        RandomContrast(),
        RandomGamma(),
        RandomGaussianNoise(),
        RandomLowResolution((0.2, 0.8)),
        RandomScaleShift(),
    ],
    ids=repr,
)
every_size = pytest.mark.parametrize(("height", "width"), SIZES)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, low: float = 0, high: float = 1) -> Tensor:
    """Images between two values, in double precision."""
    return low + (high - low) * torch.rand(*shape, generator=generator(), dtype=torch.float64)


def functional() -> Any:
    make_importable()
    return pytest.importorskip("torchvision.transforms.functional")


@every_transform
def test_about_half_of_the_samples_change_and_the_others_come_back_bit_for_bit(transform: Transform) -> None:
    images = torch.randn(400, 3, 9, 12, generator=generator())
    changed = (transform(images, generator=generator()) != images).flatten(1).any(1)
    assert 150 < changed.sum() < 250


@every_transform
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_half_and_double_precision_come_back_bit_for_bit_too(transform: Transform, dtype: torch.dtype) -> None:
    images = torch.randn(400, 1, 9, 12, generator=generator()).to(dtype)
    changed = (transform(images, generator=generator()) != images).flatten(1).any(1)
    assert changed.sum() < 250


@pytest.mark.parametrize(
    "transform",
    [
        RandomBlur((0, 0), p=1),
        RandomBrightness((1, 1), p=1),
        RandomContrast((1, 1), p=1),
        RandomGamma((1, 1), p=1),
        RandomGaussianNoise((0, 0), p=1),
        RandomLowResolution((1, 1), p=1),
        RandomScaleShift((1, 1), (0, 0), p=1),
    ],
    ids=repr,
)
def test_neutral_values_change_nothing(transform: Transform) -> None:
    images = torch.randn(8, 3, 37, 41, generator=generator())
    assert torch.equal(transform(images), images)


@every_transform
def test_masks_come_back_as_they_are(transform: Transform) -> None:
    masks = torch.rand(8, 2, 9, 12)
    assert torch.equal(transform(torch.rand(8, 3, 9, 12), masks)[1], masks)


@every_transform
def test_samples_do_not_share_their_draws(transform: Transform) -> None:
    images = noise(1, 3, 24, 24).expand(64, -1, -1, -1)
    results = {tuple(result.flatten().tolist()) for result in transform(images, generator=generator())}
    assert len(results) > (10 if isinstance(transform, RandomLowResolution) else 20)


@every_transform
@pytest.mark.parametrize("channels", [1, 3])
def test_large_images_do_not_depend_on_their_batch(transform: Transform, channels: int) -> None:
    images = torch.rand(3, channels, 256, 256, generator=generator())
    drawn = transform.draw(images.shape, generator(3))
    alone = type(drawn)(**{name: value[:1] for name, value in vars(drawn).items()})
    whole, _ = transform.apply(images, None, drawn)
    assert torch.equal(transform.apply(images[:1], None, alone)[0], whole[:1])


@every_transform
def test_memory_layout_has_no_influence(transform: Transform) -> None:
    images = torch.rand(16, 3, 12, 14, generator=generator())
    last = images.to(memory_format=torch.channels_last)
    torch.testing.assert_close(transform(last, generator=generator()), transform(images, generator=generator()))


@pytest.mark.parametrize(
    ("transform", "name", "neutral"),
    [
        (RandomBlur((0.5, 1.5), p=0.75), "sigma", 0),
        (RandomBrightness((0.5, 0.9), p=0.75), "factor", 1),
        (RandomContrast((1.2, 1.6), p=0.75), "factor", 1),
        (RandomGamma((1.5, 2.0), p=0.75), "gamma", 1),
        (RandomGaussianNoise((0.1, 0.3), p=0.75), "std", 0),
        (RandomLowResolution((0.25, 0.75), p=0.75), "zoom", 1),
    ],
    ids=repr,
)
def test_values_are_uniform_where_samples_are_chosen_and_neutral_elsewhere(
    transform: Transform, name: str, neutral: float
) -> None:
    drawn = getattr(transform.draw(MANY, generator()), name)
    low, high = getattr(transform, name)
    chosen = drawn[drawn != neutral]
    assert drawn.shape == (20_000,)
    assert len(chosen) / len(drawn) == pytest.approx(0.75, abs=0.02)
    assert low <= chosen.min() < low + 0.01 * (high - low)
    assert high - 0.01 * (high - low) < chosen.max() <= high
    assert chosen.mean().item() == pytest.approx((low + high) / 2, abs=0.02 * (high - low))
    assert chosen.var().item() == pytest.approx((high - low) ** 2 / 12, rel=0.05)


def test_brightness_is_that_of_torchvision() -> None:
    images = noise(3, 3, 9, 7, high=0.8)  # torchvision clips at 1
    factors = [0.0, 0.7, 1.25]
    result, _ = RandomBrightness().apply(images, None, BrightnessParameters(torch.tensor(factors)))
    for image, factor, ours in zip(images, factors, result, strict=True):
        torch.testing.assert_close(ours, functional().adjust_brightness(image, factor), rtol=1e-6, atol=1e-7)


def test_each_channel_is_scaled_and_shifted_by_numbers_of_its_own() -> None:
    images = torch.rand(2, 3, 5, 5)
    scale, shift = torch.tensor([[1.0, 2.0, 0.5], [1.5, 1.0, 0.0]]), torch.tensor([[0.0, -1.0, 2.0], [0.5, 0.0, 1.0]])
    result, _ = RandomScaleShift().apply(images, None, ScaleShiftParameters(scale, shift))
    for i in range(2):
        for channel in range(3):
            torch.testing.assert_close(result[i, channel], images[i, channel] * scale[i, channel] + shift[i, channel])


def test_scale_and_shift_are_uniform_where_samples_are_chosen_and_neutral_elsewhere() -> None:
    drawn = RandomScaleShift((0.8, 1.4), (-0.3, 0.1), p=0.75).draw((20_000, 2, 1, 1), generator())
    chosen = drawn.scale[:, 0] != 1
    assert chosen.float().mean().item() == pytest.approx(0.75, abs=0.02)
    assert not drawn.shift[~chosen].any()
    for values, low, high in ((drawn.scale[chosen], 0.8, 1.4), (drawn.shift[chosen], -0.3, 0.1)):
        assert low <= values.min() < low + 0.01
        assert high - 0.01 < values.max() <= high
        assert values.mean(0).tolist() == pytest.approx([(low + high) / 2] * 2, abs=0.01)
        assert values.T.corrcoef()[0, 1].abs() < 0.05  # channels have draws of their own


def test_contrast_is_that_of_torchvision_channel_by_channel() -> None:
    images = noise(3, 2, 9, 7, low=0.3, high=0.7)  # torchvision clips at 0 and 1
    factors = [0.0, 0.7, 1.25]
    result, _ = RandomContrast().apply(images, None, ContrastParameters(torch.tensor(factors)))
    for image, factor, ours in zip(images, factors, result, strict=True):
        for channel, ours_of_channel in zip(image, ours, strict=True):
            expected = functional().adjust_contrast(channel[None], factor)[0]
            torch.testing.assert_close(ours_of_channel, expected, rtol=1e-6, atol=1e-7)


def test_contrast_doubles_the_distance_from_the_mean() -> None:
    image = torch.tensor([1.0, 2.0, 3.0, 6.0]).view(1, 1, 2, 2)
    result, _ = RandomContrast().apply(image, None, ContrastParameters(torch.tensor([2.0])))
    assert result.flatten().tolist() == [-1, 1, 3, 9]


def test_gamma_is_that_of_torchvision_where_the_maximum_is_1() -> None:
    images = noise(3, 3, 9, 7)
    images[..., 0, 0] = 1
    gammas = [0.5, 0.7, 2.2]
    result, _ = RandomGamma().apply(images, None, GammaParameters(torch.tensor(gammas)))
    for image, gamma, ours in zip(images, gammas, result, strict=True):
        torch.testing.assert_close(ours, functional().adjust_gamma(image, gamma), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 255.0, 1e30])
def test_gamma_is_relative_to_the_maximum_of_each_channel(scale: float) -> None:
    images = (noise(2, 3, 9, 7) * torch.tensor([1.0, 2.0, 5.0])[:, None, None] * scale).float()
    result, _ = RandomGamma().apply(images, None, GammaParameters(torch.tensor([0.5, 2.5])))
    for image, gamma, ours in zip(images.double().numpy(), [0.5, 2.5], result.numpy(), strict=True):
        highest = image.max((1, 2), keepdims=True)
        np.testing.assert_allclose(ours, (image / highest) ** gamma * highest, rtol=5e-6)


@pytest.mark.parametrize("gamma", [0.1, 0.7, 1.5, 5.0])
def test_gamma_keeps_zero_and_the_maximum_and_takes_negative_values_as_0(gamma: float) -> None:
    image = torch.tensor([-3.0, 0.0, 1.0, 4.0]).view(1, 1, 2, 2)
    result, _ = RandomGamma().apply(image, None, GammaParameters(torch.tensor([gamma])))
    assert result.flatten().tolist() == [0, 0, pytest.approx(4 * 0.25**gamma), 4]


@pytest.mark.parametrize("gamma", [0.1, 0.7, 1.0, 1.5, 5.0])
def test_gamma_has_finite_gradients_on_backgrounds_and_channels_that_are_zero(gamma: float) -> None:
    images = torch.rand(1, 3, 8, 8)
    images[:, 0] = 0
    images[:, 1, :4] = 0
    images[:, 2, 0, 0] = torch.finfo(torch.float32).tiny
    images.requires_grad_()
    result, _ = RandomGamma().apply(images, None, GammaParameters(torch.tensor([gamma])))
    result.sum().backward()
    assert not result[:, 0].any()
    assert not result[:, 1, :4].any()
    assert images.grad is not None
    assert images.grad.isfinite().all()


def test_noise_is_the_field_times_the_deviation() -> None:
    images, field = noise(2, 3, 5, 4), torch.randn(2, 3, 5, 4)
    result, _ = RandomGaussianNoise().apply(images, None, GaussianNoiseParameters(torch.tensor([0.5, 2.0]), field))
    expected = images.numpy() + np.array([0.5, 2.0])[:, None, None, None] * field.numpy()
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-12)


def test_the_field_is_standard_normal_in_single_precision_and_of_every_pixel() -> None:
    field = RandomGaussianNoise().draw((4, 2, 64, 64), generator()).noise
    assert field.shape == (4, 2, 64, 64)
    assert field.dtype == torch.float32
    assert field.mean().item() == pytest.approx(0, abs=0.02)
    assert field.std().item() == pytest.approx(1, abs=0.02)
    assert (field.abs() < 1.959964).double().mean().item() == pytest.approx(0.95, abs=0.01)
    assert torch.corrcoef(field.flatten(2).flatten(0, 1)).tril(-1).abs().max() < 0.1


@pytest.mark.parametrize("height", [24, 5, 1])
@pytest.mark.parametrize("highest", [0.6, 1.5, 3.0])
def test_blur_is_that_of_torchvision_for_this_border(height: int, highest: float) -> None:
    transform = RandomBlur((0.2, highest), p=1)
    images, margin = noise(3, 2, height, 17), 20
    drawn = transform.draw(images.shape, generator())
    result, _ = transform.apply(images, None, drawn)
    size = 2 * math.ceil(3 * highest) + 1
    padded = F.pad(images, [margin] * 4, mode="replicate")
    for image, sigma, ours in zip(padded, drawn.sigma.tolist(), result, strict=True):
        expected = functional().gaussian_blur(image, [size, size], [sigma, sigma])
        torch.testing.assert_close(ours, expected[:, margin:-margin, margin:-margin], rtol=1e-6, atol=1e-7)


@every_size
def test_blur_is_that_of_scipy_on_images_of_any_size(height: int, width: int) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    transform = RandomBlur((0.5, 1.5))
    images, sigmas = noise(3, 2, height, width), [0.5, 1.0, 1.5]
    result, _ = transform.apply(images, None, BlurParameters(torch.tensor(sigmas)))
    for image, sigma, ours in zip(images.numpy(), sigmas, result.numpy(), strict=True):
        expected = ndimage.gaussian_filter(image, sigma, mode="nearest", radius=5, axes=(1, 2))
        np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_the_kernel_of_a_deviation_does_not_depend_on_the_others_drawn() -> None:
    images = noise(2, 1, 16, 16)
    for other in (0.0, 0.7, 1.5):
        result, _ = RandomBlur().apply(images, None, BlurParameters(torch.tensor([1.0, other])))
        alone, _ = RandomBlur().apply(images[:1], None, BlurParameters(torch.tensor([1.0])))
        assert torch.equal(result[:1], alone)


def test_blur_keeps_a_constant_image() -> None:
    images = torch.full((16, 3, 9, 9), 0.7)
    torch.testing.assert_close(RandomBlur(p=1)(images), images)


@every_size
@pytest.mark.parametrize("zoom", [0.01, 0.3, 0.5, 0.75, 0.9, 1.0])
def test_low_resolution_is_nearest_down_and_linear_up(height: int, width: int, zoom: float) -> None:
    images = noise(2, 2, height, width)
    result, _ = RandomLowResolution().apply(images, None, LowResolutionParameters(torch.tensor([zoom, 1.0])))
    taken = [max(round(zoom * side), 1) for side in (height, width)]
    low = F.interpolate(images[:1], taken, mode="nearest-exact")
    torch.testing.assert_close(result[:1], F.interpolate(low, (height, width), mode="bilinear"))
    assert torch.equal(result[1], images[1])


def test_each_sample_has_its_own_resolution() -> None:
    images = noise(3, 2, 48, 32)
    result, _ = RandomLowResolution().apply(images, None, LowResolutionParameters(torch.tensor([0.5, 0.9, 0.7])))
    for i, taken in enumerate([(24, 16), (43, 29), (34, 22)]):
        low = F.interpolate(images[i : i + 1], taken, mode="nearest-exact")
        torch.testing.assert_close(result[i : i + 1], F.interpolate(low, (48, 32), mode="bilinear"))


def test_a_ramp_at_half_resolution_is_that_of_the_pencil() -> None:
    # The pixels in which the centres 1 and 3 of four lie are numbers 1 and 3; between them the line is straight.
    ramp = torch.tensor([0.0, 1.0, 2.0, 3.0]).expand(1, 1, 3, 4)
    result, _ = RandomLowResolution().apply(ramp, None, LowResolutionParameters(torch.tensor([0.5])))
    assert result[0, 0, 0].tolist() == [1, 1.5, 2.5, 3]


def test_low_resolution_brings_no_new_extremes() -> None:
    images = noise(64, 1, 20, 24)
    result = RandomLowResolution(p=1)(images, generator=generator())
    assert (result.amin((1, 2, 3)) >= images.amin((1, 2, 3))).all()
    assert (result.amax((1, 2, 3)) <= images.amax((1, 2, 3))).all()


@pytest.mark.parametrize(
    "transform",
    [RandomBlur(p=1), RandomBrightness(p=1), RandomContrast(p=1), RandomGamma(p=1), RandomLowResolution(p=1)],
    ids=repr,
)
def test_a_channel_that_is_zero_everywhere_stays_so(transform: Transform) -> None:
    images = torch.rand(16, 3, 21, 16)
    images[:, 1] = 0
    assert not transform(images)[:, 1].any()


@pytest.mark.parametrize(
    ("transform", "name"),
    [
        (RandomBlur, "sigma"),
        (RandomBrightness, "factor"),
        (RandomContrast, "factor"),
        (RandomGamma, "gamma"),
        (RandomGaussianNoise, "std"),
        (RandomLowResolution, "zoom"),
    ],
)
@pytest.mark.parametrize("values", [(0.9, 0.8), (0.5,), (-0.5, 0.5), (0.5, math.inf), (math.nan, 1), "01", 0.5, None])
def test_a_range_that_makes_no_sense_is_refused(transform: type[Transform], name: str, values: object) -> None:
    with pytest.raises(ValueError, match=f"{name} must .*got "):
        transform(values)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="p must be a probability"):
        transform(p=1.5)


@pytest.mark.parametrize("zoom", [(0.5, 1.1), (0, 0.5)])
def test_a_zoom_lies_above_0_and_up_to_1(zoom: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="zoom must"):
        RandomLowResolution(zoom)


def test_a_power_of_0_is_refused() -> None:
    with pytest.raises(ValueError, match="gamma must be a lowest and a highest number"):
        RandomGamma((0, 1))
