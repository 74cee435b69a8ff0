"""Values against a pencil; channels in the order asked for; arguments that make no sense are refused."""

import numpy as np
import pytest
import torch

from brainseg.transforms import (
    Compose,
    ForegroundZScore,
    HeadZScore,
    MinMaxNormalize,
    Normalize,
    PercentileNormalize,
    Rescale,
    SelectChannels,
)
from brainseg.transforms.head import inside_head

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def pixel(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)


def test_black_becomes_minus_mean_over_deviation() -> None:
    expected = pixel(-2.117904, -2.035714, -1.804444)  # -0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225
    torch.testing.assert_close(Normalize(**IMAGENET)(pixel(0, 0, 0)), expected, atol=1e-6, rtol=0)


def test_the_mean_becomes_0_and_one_deviation_more_becomes_1() -> None:
    normalize = Normalize(**IMAGENET)
    torch.testing.assert_close(normalize(pixel(0.485, 0.456, 0.406)), pixel(0, 0, 0))
    torch.testing.assert_close(normalize(pixel(0.714, 0.68, 0.631)), pixel(1, 1, 1))


def test_the_course_s_input_is_the_imagenet_normalisation_over_255() -> None:
    course = Compose([SelectChannels((2, 1, 0)), Normalize(**IMAGENET), Rescale((0, 255))])
    red, green, blue = 0.2, 0.4, 0.9
    expected = pixel(1.8122271 / 255, -0.25 / 255, -0.9155556 / 255)  # blue - 0.485, green - 0.456, red - 0.406
    torch.testing.assert_close(course(pixel(red, green, blue)), expected, atol=1e-8, rtol=1e-5)


def test_half_precision_rounds_the_result_alone() -> None:
    images = torch.rand(2, 3, 8, 8).bfloat16()
    expected = (images.double() - torch.tensor(IMAGENET["mean"])[:, None, None].double()) / torch.tensor(
        IMAGENET["std"]
    )[:, None, None].double()
    assert (Normalize(**IMAGENET)(images) - expected.bfloat16()).abs().max() <= 2**-7  # one step at values up to 4


def test_images_of_another_number_of_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"built for 3 channels, got images of shape \(2, 1, 8, 8\); give images of 3"):
        Normalize(**IMAGENET)(torch.rand(2, 1, 8, 8))


@pytest.mark.parametrize("mean", [(), "0.5", 0.5, (float("nan"),), None, ("a",)])
def test_mean_must_be_a_list_of_numbers(mean: object) -> None:
    with pytest.raises(ValueError, match="mean must be a list of finite numbers, got"):
        Normalize(mean=mean, std=(1,))


@pytest.mark.parametrize("std", [(1, 1), (0,), (-1,)])
def test_deviations_must_be_positive_one_a_channel(std: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="mean and std must hold one number a channel, std positive ones, got"):
        Normalize(mean=(0,), std=std)


def test_arrays_and_tensors_give_numbers_too() -> None:
    assert Normalize(torch.tensor([0.5, 0.25]), torch.ones(2).numpy()).config["arguments"] == {
        "mean": [0.5, 0.25],
        "std": [1.0, 1.0],
    }


def test_a_range_becomes_another_and_what_lies_beyond_goes_beyond() -> None:
    result = Rescale((-1, 3), (10, 20))(torch.tensor([-1.0, 0, 3, 7]).view(1, 1, 2, 2))
    assert result.flatten().tolist() == [10, 12.5, 20, 30]


@pytest.mark.parametrize("given", [(0,), (1, 1), (2, 1), (0, float("inf")), 255, "01"])
def test_a_range_must_rise(given: object) -> None:
    with pytest.raises(ValueError, match="input_range must be"):
        Rescale(given)
    with pytest.raises(ValueError, match="output_range must be"):
        Rescale((0, 255), given)


def test_channels_come_in_the_order_asked_for_and_may_repeat() -> None:
    images = torch.rand(2, 3, 4, 4)
    for channels in [(2, 1, 0), (1,), (1, 1, 1, 0)]:
        assert torch.equal(SelectChannels(channels)(images), images[:, list(channels)])


def test_a_channel_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"takes channels \(0, 3\), got images of shape \(2, 3, 4, 4\); select"):
        SelectChannels((0, 3))(torch.rand(2, 3, 4, 4))


@pytest.mark.parametrize("channels", [(), (-1,), (0.5,), "012", 1, None])
def test_channels_must_be_numbers_from_0(channels: object) -> None:
    with pytest.raises(ValueError, match="channels must be a list of one or more numbers from 0, got"):
        SelectChannels(channels)


def test_foreground_is_standardised_channel_by_channel() -> None:
    images = torch.rand(3, 2, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    result = ForegroundZScore(fraction=0.3)(images)
    for image, standardised in zip(images.flatten(0, 1).numpy(), result.flatten(0, 1).numpy(), strict=True):
        inside = image > 0.3 * image.max()
        expected = (image - image[inside].mean()) / image[inside].std()
        np.testing.assert_allclose(standardised, expected, rtol=1e-10)


def test_brightness_of_the_scan_has_no_influence_on_its_z_scores() -> None:
    image = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(ForegroundZScore()(image / 7), ForegroundZScore()(image), atol=1e-4, rtol=1e-4)


def test_images_without_contrast_have_finite_z_scores() -> None:
    images = torch.stack([torch.zeros(1, 8, 8), torch.full((1, 8, 8), 0.5)]).requires_grad_()
    result = ForegroundZScore()(images)
    torch.testing.assert_close(result, torch.zeros(2, 1, 8, 8))
    result.square().sum().backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()


@pytest.mark.parametrize("fraction", [-0.1, 1.0, "half", True])
def test_a_fraction_outside_its_range_is_refused(fraction: object) -> None:
    with pytest.raises(ValueError, match=r"fraction must lie in \[0, 1\)"):
        ForegroundZScore(fraction)  # type: ignore[arg-type]


def test_each_channel_fills_0_to_1() -> None:
    images = torch.randn(3, 2, 9, 8, generator=torch.Generator().manual_seed(0)) * 100
    result = MinMaxNormalize()(images)
    assert torch.equal(result.amin((2, 3)), torch.zeros(3, 2))
    assert torch.equal(result.amax((2, 3)), torch.ones(3, 2))
    for image, normalized in zip(images.flatten(0, 1).numpy(), result.flatten(0, 1).numpy(), strict=True):
        np.testing.assert_allclose(normalized, (image - image.min()) / np.ptp(image), atol=1e-6)


@pytest.mark.parametrize("normalize", [MinMaxNormalize(), PercentileNormalize(), PercentileNormalize(clip=False)])
def test_a_channel_of_one_value_becomes_0_with_finite_gradients(normalize: MinMaxNormalize) -> None:
    images = torch.stack([torch.zeros(8, 8), torch.full((8, 8), 0.7)])[None].requires_grad_()
    result = normalize(images)
    torch.testing.assert_close(result, torch.zeros(1, 2, 8, 8))
    result.square().sum().backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()


@pytest.mark.parametrize("size", [(1, 2), (5, 5), (16, 13), (64, 64)])
@pytest.mark.parametrize("percentiles", [(0, 100), (1, 99), (0.5, 99.9), (20, 40), (50, 75), (60, 100)])
@pytest.mark.parametrize("clip", [True, False])
def test_percentiles_are_numpy_s(size: tuple[int, int], percentiles: tuple[float, float], clip: bool) -> None:
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    result = PercentileNormalize(*percentiles, clip=clip)(images)
    low, high = np.percentile(images.numpy(), percentiles, axis=(2, 3), keepdims=True)
    expected = (images.numpy() - low) / (high - low)
    np.testing.assert_allclose(result.numpy(), expected.clip(0, 1) if clip else expected, atol=1e-9)


def test_a_few_pixels_that_are_far_too_bright_do_not_darken_the_others() -> None:
    image = torch.linspace(0, 1, 10_000).view(1, 1, 100, 100)
    spoilt = image.clone()
    spoilt[..., -1, -20:] = 1000
    normalize = PercentileNormalize()
    torch.testing.assert_close(normalize(spoilt), normalize(image), atol=0.003, rtol=0)


def test_more_than_16_million_pixels_have_percentiles_too() -> None:
    image = torch.arange(4097**2, dtype=torch.float64).view(1, 1, 4097, 4097)
    result = PercentileNormalize(0.1, 99.9, clip=False)(image)
    assert result[0, 0, 0, 0].item() == pytest.approx(-1 / 998)
    assert result[0, 0, -1, -1].item() == pytest.approx(999 / 998)


@pytest.mark.parametrize("percentiles", [(-1, 99), (1, 101), (99, 1), (50, 50), (0, float("nan")), ("a", 99)])
def test_percentiles_must_rise_within_0_and_100(percentiles: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="lower and upper must be"):
        PercentileNormalize(*percentiles)


@pytest.mark.parametrize("value", [0.1, 0.3, 0.7])
@pytest.mark.parametrize("side", [64, 155, 240])
def test_a_foreground_of_one_value_has_the_deviation_1_whatever_its_rounding(value: float, side: int) -> None:
    image = torch.zeros(1, 1, side, side)
    image[..., 10:50, 10:50] = value
    found = ForegroundZScore()(image)
    torch.testing.assert_close(found, image - value, atol=1e-5, rtol=0)


def test_a_z_score_does_not_depend_on_the_batch() -> None:
    images = torch.rand(8, 1, 256, 256)
    whole = ForegroundZScore()(images)
    assert all(torch.equal(ForegroundZScore()(images[i : i + 1]), whole[i : i + 1]) for i in range(8))


def head(size: int = 100) -> torch.Tensor:
    """A bright rim of 10 pixels around a textured inside, in air that is 0."""
    images = torch.zeros(2, 3, 128, 128)
    texture = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.3
    images[:, :, 14 : 14 + size, 14 : 14 + size] = 0.9
    images[:, :, 24 : 4 + size, 24 : 4 + size] = texture[:, :, 10:-10, 10:-10]
    return images


def test_the_inside_of_the_head_gets_mean_0_and_deviation_1_whatever_the_rim() -> None:
    images = head()
    region = inside_head(images)[:, None].expand_as(images)
    result = HeadZScore()(images)
    values = result[region].view(2, 3, -1)
    assert values.shape[2] > 1500
    torch.testing.assert_close(values.mean(2), torch.zeros(2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(values.std(2, correction=0), torch.ones(2, 3))
    brighter_rim = torch.where(images == 0.9, 1.3, images)
    assert torch.equal(HeadZScore()(brighter_rim)[region], result[region])


def test_what_lies_far_from_the_inside_is_clipped() -> None:
    result = HeadZScore(clip=(-3, 5))(head())
    assert result[..., 0, 0].unique().tolist() == [-3]
    assert result[..., 20, 20].unique().tolist() == [5]


@pytest.mark.parametrize("factor", [255.0, 65535.0])
def test_the_unit_of_a_scan_does_not_matter_to_its_head(factor: float) -> None:
    torch.testing.assert_close(HeadZScore()(head() * factor), HeadZScore()(head()), atol=1e-4, rtol=1e-4)


def test_a_channel_of_zeros_in_a_head_and_a_black_slice_stay_zeros() -> None:
    images = head()
    images[0, 1] = 0
    images[1] = 0
    result = HeadZScore()(images)
    assert not result[0, 1].any()
    assert not result[1].any()
    assert result[0, 0].any()


@pytest.mark.parametrize("arguments", [{"fraction": 1.0}, {"fraction": "a"}, {"clip": (1, 0)}, {"clip": 3}])
def test_arguments_of_the_head_must_make_sense(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must"):
        HeadZScore(**arguments)
