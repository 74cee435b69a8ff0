"""Each fault against numpy or the pencil, its draws against their statistics; the brightness that physics keeps."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from brainseg.transforms import (
    RandomBiasField,
    RandomChannelCopy,
    RandomChannelDropout,
    RandomGhosting,
    RandomMotion,
    RandomRicianNoise,
    RandomSpikes,
    Transform,
)
from brainseg.transforms.mri import (
    BiasFieldParameters,
    ChannelDropoutParameters,
    GhostingParameters,
    MotionParameters,
    RicianNoiseParameters,
    SpikesParameters,
)

MANY = (20_000, 3, 8, 8)
SIZES = [(12, 12), (11, 12), (12, 13), (9, 7), (1, 6), (5, 1), (1, 1)]

every_transform = pytest.mark.parametrize(
    "transform",
    [
        RandomBiasField(),
        RandomChannelDropout(p=0.5),
        RandomChannelDropout(p=0.5, fill="repeat"),
        RandomGhosting(ghosts=(2, 4)),
        RandomMotion(),
        RandomRicianNoise(),
        RandomSpikes(spikes=3),
    ],
    ids=repr,
)
every_k_space_transform = pytest.mark.parametrize(
    "transform", [RandomGhosting(ghosts=(2, 3), p=1), RandomMotion(p=1), RandomSpikes(spikes=3, p=1)], ids=repr
)
every_size = pytest.mark.parametrize(("height", "width"), SIZES)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int) -> Tensor:
    """Images in [0, 1), in double precision."""
    return torch.rand(*shape, generator=generator(), dtype=torch.float64)


@every_transform
def test_about_half_of_the_samples_change_and_the_others_come_back_bit_for_bit(transform: Transform) -> None:
    images = torch.randn(400, 3, 9, 12, generator=generator())
    changed = (transform(images, generator=generator()) != images).flatten(1).any(1)
    assert 150 < changed.sum() < 250


@every_transform
def test_masks_come_back_as_they_are(transform: Transform) -> None:
    masks = torch.rand(8, 2, 9, 12)
    assert torch.equal(transform(torch.rand(8, 3, 9, 12), masks)[1], masks)


@every_transform
def test_samples_do_not_share_their_draws(transform: Transform) -> None:
    images = noise(1, 3, 24, 24).expand(64, -1, -1, -1)
    results = {tuple(result.flatten().tolist()) for result in transform(images, generator=generator())}
    assert len(results) > (3 if isinstance(transform, RandomChannelDropout) else 20)


@pytest.mark.parametrize(
    "transform", [RandomBiasField(p=1), RandomGhosting(p=1), RandomMotion(p=1), RandomSpikes(p=1)], ids=repr
)
def test_a_channel_that_is_zero_everywhere_stays_so(transform: Transform) -> None:
    images = torch.rand(16, 3, 21, 16)
    images[:, 1] = 0
    assert not transform(images)[:, 1].any()


def test_a_polynomial_of_one_term_is_that_of_the_pencil() -> None:
    coefficients = torch.zeros(2, 3, 3)
    coefficients[0, 1, 0] = 0.5
    coefficients[1, 1, 1] = -0.2
    result, _ = RandomBiasField(order=2).apply(torch.ones(2, 1, 3, 5), None, BiasFieldParameters(coefficients))
    torch.testing.assert_close(result[0, 0], torch.tensor([[-0.5], [0.0], [0.5]]).exp().expand(3, 5))
    along_rows = torch.tensor([-0.2, -0.1, 0.0, 0.1, 0.2])  # of the first row, -1
    torch.testing.assert_close(result[1, 0], torch.stack([along_rows, 0 * along_rows, -along_rows]).exp())


@every_size
def test_the_field_is_exp_of_the_polynomial_on_all_channels(height: int, width: int) -> None:
    transform = RandomBiasField(order=3, p=1)
    images = noise(4, 2, height, width)
    drawn = transform.draw(images.shape, generator())
    result, _ = transform.apply(images, None, drawn)
    row, column = (np.linspace(-1, 1, side) if side > 1 else np.zeros(1) for side in (height, width))
    for image, coefficients, biased in zip(images.numpy(), drawn.coefficients.double().numpy(), result, strict=True):
        polynomial = np.polynomial.polynomial.polygrid2d(row, column, coefficients)
        np.testing.assert_allclose(biased.numpy(), image * np.exp(polynomial), rtol=1e-12)


@pytest.mark.parametrize(("order", "count"), [(1, 2), (2, 5), (3, 9), (4, 14)])
def test_all_monomials_up_to_the_order_are_drawn_but_the_constant(order: int, count: int) -> None:
    drawn = RandomBiasField((0.2, 0.4), order=order, p=1).draw(MANY, generator()).coefficients
    used = [(i, j) for i in range(order + 1) for j in range(order + 1) if 1 <= i + j <= order]
    assert len(used) == count
    assert (drawn != 0).flatten(1).sum(1).unique().tolist() == [count]
    for i, j in used:
        assert 0.2 <= drawn[:, i, j].min() < 0.201
        assert 0.399 < drawn[:, i, j].max() <= 0.4
        assert drawn[:, i, j].mean().item() == pytest.approx(0.3, abs=0.002)


def test_rician_noise_is_the_magnitude_of_signal_and_noise() -> None:
    transform = RandomRicianNoise((0.1, 0.4), p=1)
    images = noise(4, 3, 7, 6)
    drawn = transform.draw(images.shape, generator())
    result, _ = transform.apply(images, None, drawn)
    std = drawn.std.double().numpy()[:, None, None, None]
    expected = np.hypot(images.numpy() + std * drawn.real.numpy(), std * drawn.imaginary.numpy())
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-12)


def test_noise_of_the_background_is_that_of_rayleigh() -> None:
    background = RandomRicianNoise((0.2, 0.2), p=1)(torch.zeros(4, 1, 256, 256), generator=generator())
    assert background.mean().item() == pytest.approx(0.2 * math.sqrt(math.pi / 2), rel=0.01)
    assert background.var().item() == pytest.approx(0.04 * (2 - math.pi / 2), rel=0.02)


def test_the_mean_square_of_the_signal_grows_by_twice_the_variance() -> None:
    result = RandomRicianNoise((0.1, 0.1), p=1)(torch.full((4, 1, 256, 256), 0.3), generator=generator())
    assert result.square().mean().item() == pytest.approx(0.3**2 + 2 * 0.1**2, rel=0.01)


def test_noise_of_deviation_0_gives_the_image_back() -> None:
    images = torch.rand(4, 3, 8, 8) * 1e-30
    images[:, 0] = 0
    assert torch.equal(RandomRicianNoise((0, 0), p=1)(images), images)


@pytest.mark.parametrize("std", [0.0, 0.1])
def test_the_gradient_is_finite_where_image_and_noise_are_0(std: float) -> None:
    images = torch.zeros(1, 1, 2, 2).index_fill(-1, torch.tensor(1), 0.5).requires_grad_()
    nothing = torch.zeros(1, 1, 2, 2)
    result, _ = RandomRicianNoise().apply(images, None, RicianNoiseParameters(torch.tensor([std]), nothing, nothing))
    result.sum().backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()
    torch.testing.assert_close(images.grad[..., 1], torch.ones(1, 1, 2))
    torch.testing.assert_close(result, images)


def test_both_noise_fields_are_normal_and_independent_of_each_other() -> None:
    transform = RandomRicianNoise((0.0, 0.1), p=0.3)
    drawn = transform.draw((2000, 3, 8, 8), generator())
    for field in (drawn.real, drawn.imaginary):
        assert abs(field.mean().item()) < 0.01
        assert field.std().item() == pytest.approx(1, abs=0.01)
    assert abs((drawn.real * drawn.imaginary).mean().item()) < 0.01
    chosen = drawn.std[drawn.std > 0]
    assert 0.25 < len(chosen) / 2000 < 0.35
    assert chosen.mean().item() == pytest.approx(0.05, abs=0.005)


@every_k_space_transform
@every_size
def test_the_mean_brightness_of_each_channel_stays(transform: Transform, height: int, width: int) -> None:
    images = noise(8, 3, height, width)
    torch.testing.assert_close(transform(images).mean((2, 3)), images.mean((2, 3)), atol=1e-12, rtol=0)


@every_k_space_transform
def test_every_channel_of_a_sample_meets_the_same_fault(transform: Transform) -> None:
    images = torch.rand(4, 1, 11, 12)
    result = transform(torch.cat([images, 2 * images], 1))
    torch.testing.assert_close(result[:, 1], 2 * result[:, 0])
    assert not torch.allclose(result[:, :1], images, atol=1e-3)


def numbers(side: int) -> list[int]:
    """Lines of k-space from the centre, in the order of numpy's transform."""
    return [round(frequency * side) for frequency in np.fft.fftfreq(side)]


@every_size
@pytest.mark.parametrize("vertical", [True, False])
def test_every_nth_line_of_k_space_is_damped_but_the_one_in_the_centre(height: int, width: int, vertical: bool) -> None:
    images = noise(3, 2, height, width)
    intensity, ghosts = torch.tensor([0.3, 0.5, 1.0]), torch.tensor([2, 3, 5])
    drawn = GhostingParameters(intensity, ghosts, torch.full((3,), vertical))
    result, _ = RandomGhosting().apply(images, None, drawn)
    for sample in range(3):
        spectrum = np.fft.fft2(images[sample].numpy())
        for line, number in enumerate(numbers(height if vertical else width)):
            if number != 0 and number % int(ghosts[sample]) == 0:
                spectrum[:, line if vertical else slice(None), slice(None) if vertical else line] *= (
                    1 - intensity[sample].item()
                )
        expected = np.fft.ifft2(spectrum)
        assert np.abs(expected.imag).max() < 1e-12
        np.testing.assert_allclose(result[sample].numpy(), expected.real, atol=1e-12)


@pytest.mark.parametrize("axis", [-2, -1])
def test_ghosts_are_copies_a_fraction_of_the_side_apart(axis: int) -> None:
    images = noise(1, 1, 24, 24)
    drawn = GhostingParameters(torch.tensor([0.6]), torch.tensor([4]), torch.tensor([axis == -2]))
    result, _ = RandomGhosting().apply(images, None, drawn)
    copies = sum(images.roll(6 * copy, axis) for copy in range(4)) / 4
    torch.testing.assert_close(result, images - 0.6 * (copies - images.mean(axis, keepdim=True)))


def test_a_side_too_short_for_a_line_to_damp_has_no_ghosts() -> None:
    images = noise(8, 1, 11, 11)
    torch.testing.assert_close(RandomGhosting(ghosts=(6, 9), p=1)(images), images)


def test_ghosts_are_drawn_from_their_ranges_along_both_axes() -> None:
    drawn = RandomGhosting((0.2, 0.6), (3, 5), p=1).draw(MANY, generator())
    assert 0.2 <= drawn.intensity.min() < 0.201
    assert 0.599 < drawn.intensity.max() <= 0.6
    for number in (3, 4, 5):
        assert (drawn.ghosts == number).float().mean().item() == pytest.approx(1 / 3, abs=0.02)
    assert drawn.vertical.float().mean().item() == pytest.approx(1 / 2, abs=0.02)


@every_size
@given(data=st.data())
def test_lines_of_k_space_come_from_where_the_head_was_then(height: int, width: int, data: st.DataObject) -> None:
    shift = data.draw(st.lists(st.tuples(st.floats(-0.4, 0.4), st.floats(-0.4, 0.4)), min_size=2, max_size=2))
    # None of them lies on a line.
    time = data.draw(st.lists(st.sampled_from([-0.47, -0.29, -0.11, -0.03, 0.03, 0.17, 0.31]), min_size=2, max_size=2))
    vertical = data.draw(st.booleans())
    drawn = MotionParameters(
        torch.tensor([shift], dtype=torch.float64), torch.tensor([time], dtype=torch.float64), torch.tensor([vertical])
    )
    images = noise(1, 2, height, width)
    result, _ = RandomMotion(moves=2).apply(images, None, drawn)
    spectrum = np.fft.fft2(images[0].numpy())
    for i, row in enumerate(numbers(height)):
        for j, column in enumerate(numbers(width)):
            line = row / height if vertical else column / width
            for (down, right), moment in zip(shift, time, strict=True):
                if line > moment > 0 or line < moment < 0:
                    spectrum[:, i, j] *= np.exp(-2j * np.pi * (row * down + column * right))
    np.testing.assert_allclose(result[0].numpy(), np.fft.ifft2(spectrum).real, atol=1e-12)


@pytest.mark.parametrize("side", [16, 15])
def test_moves_at_the_middle_of_the_scan_shift_the_image_down_or_to_the_right(side: int) -> None:
    images = noise(2, 1, side, side)
    # Just before and just after; the line between does not change with a shift along its axis.
    shift = torch.zeros(2, 2, 2, dtype=torch.float64)
    shift[0, :, 0] = shift[1, :, 1] = 3 / side
    time = torch.tensor([[-1e-6, 1e-6]]).expand(2, -1)
    result, _ = RandomMotion().apply(images, None, MotionParameters(shift, time, torch.tensor([True, False])))
    torch.testing.assert_close(result, torch.stack([images[0].roll(3, -2), images[1].roll(3, -1)]))


def test_what_varies_slowly_is_there_unmoved() -> None:
    wave = torch.cos(2 * math.pi * 7 * torch.arange(64, dtype=torch.float64) / 64)
    images = (wave[:, None] * wave).expand(64, 1, -1, -1)
    still = RandomMotion((-0.3, 0.3), p=1, center=0.25)
    torch.testing.assert_close(still(images, generator=generator()), images)  # moves from 8 cycles in a side
    assert not torch.allclose(RandomMotion((-0.3, 0.3), p=1)(images, generator=generator()), images, atol=0.1)


def test_a_bright_disk_stays_under_its_mask() -> None:
    square = (torch.arange(64) - 31.5).square()
    disk = (square[:, None] + square < 12**2).expand(64, 1, -1, -1)
    result = RandomMotion(p=1)(disk.float(), generator=generator())
    inside, outside = result[disk].view(64, -1).mean(1), result[~disk].view(64, -1).mean(1)
    assert inside.min() > 0.8
    assert outside.max() < 0.05


def test_moves_are_drawn_from_their_ranges_before_and_after_the_middle() -> None:
    drawn = RandomMotion((-0.1, 0.3), moves=3, p=1, center=0.2).draw(MANY, generator())
    assert drawn.shift.shape == (20_000, 3, 2)
    assert -0.1 <= drawn.shift.min() < -0.099
    assert 0.299 < drawn.shift.max() <= 0.3
    assert 0.1 <= drawn.time.abs().min() < 0.101
    assert 0.499 < drawn.time.abs().max() <= 0.5
    assert drawn.time.mean().item() == pytest.approx(0, abs=0.01)
    assert drawn.vertical.float().mean().item() == pytest.approx(1 / 2, abs=0.02)


@every_size
def test_a_spike_and_its_opposite_are_set_in_each_channel(height: int, width: int) -> None:
    points = torch.cartesian_prod(torch.arange(height), torch.arange(width))
    images = noise(len(points), 2, height, width)
    intensity = torch.linspace(0.1, 2.0, len(points))
    result, _ = RandomSpikes().apply(images, None, SpikesParameters(intensity, points[:, None]))
    for sample, (row, column) in enumerate(points.tolist()):
        spectrum = np.fft.fft2(images[sample].numpy())
        value = intensity[sample].item() * np.abs(spectrum).max((1, 2))
        if (row, column) != (0, 0):
            spectrum[:, row, column] = spectrum[:, -row % height, -column % width] = value
        expected = np.fft.ifft2(spectrum)
        assert np.abs(expected.imag).max() < 1e-12
        np.testing.assert_allclose(result[sample].numpy(), expected.real, atol=1e-12)


def test_a_spike_lays_a_wave_of_twice_its_intensity_over_an_even_image() -> None:
    drawn = SpikesParameters(torch.tensor([0.25]), torch.tensor([[[3, 62]]]))  # 2 of 64 columns from the other end
    result, _ = RandomSpikes().apply(torch.full((1, 1, 32, 64), 0.5), None, drawn)
    row, column = torch.arange(32)[:, None], torch.arange(64)
    expected = 0.5 + 2 * 0.25 * 0.5 * torch.cos(2 * math.pi * (3 * row / 32 - 2 * column / 64))
    torch.testing.assert_close(result[0, 0], expected)


def test_two_spikes_at_one_point_are_one() -> None:
    images, intensity = noise(1, 2, 8, 9), torch.tensor([0.2])
    once, _ = RandomSpikes().apply(images, None, SpikesParameters(intensity, torch.tensor([[[3, 7]]])))
    twice, _ = RandomSpikes(2).apply(images, None, SpikesParameters(intensity, torch.tensor([[[3, 7], [5, 2]]])))
    assert torch.equal(once, twice)


def test_spikes_fall_everywhere_with_intensities_from_their_range() -> None:
    drawn = RandomSpikes(2, (0.1, 0.3), p=1).draw((20_000, 1, 5, 4), generator())
    assert drawn.points.shape == (20_000, 2, 2)
    counts = torch.bincount((drawn.points[..., 0] * 4 + drawn.points[..., 1]).flatten(), minlength=20)
    torch.testing.assert_close(counts / 40_000, torch.full((20,), 1 / 20), atol=0.005, rtol=0)
    assert 0.1 <= drawn.intensity.min() < 0.101
    assert 0.299 < drawn.intensity.max() <= 0.3


def missing_channels(transform: RandomChannelDropout, images: Tensor) -> tuple[Tensor, Tensor]:
    """The images after it, and which of their channels changed."""
    result = transform(images, generator=generator())
    return result, (result != images).flatten(2).any(2)


def test_a_missing_channel_is_zero_and_each_is_missing_equally_often() -> None:
    images = torch.rand(6000, 3, 2, 2) + 1
    result, missing = missing_channels(RandomChannelDropout(p=0.6), images)
    assert missing.sum(1).max() == 1
    assert not result[missing].any()
    torch.testing.assert_close(missing.float().mean(0), torch.full((3,), 0.2), atol=0.02, rtol=0)


def test_a_missing_channel_repeats_each_of_the_others_equally_often() -> None:
    images = torch.rand(6000, 3, 2, 2)
    result, missing = missing_channels(RandomChannelDropout(p=1, fill="repeat"), images)
    assert missing.sum(1).unique().tolist() == [1]
    same = (result[missing][:, None] == images).flatten(2).all(2)  # (B, C)
    assert same.sum(1).unique().tolist() == [1]
    for channel in range(3):
        sources = same[missing[:, channel]].float().mean(0)
        expected = torch.full((3,), 0.5).index_fill(0, torch.tensor(channel), 0.0)
        torch.testing.assert_close(sources, expected, atol=0.04, rtol=0)


def test_only_the_channels_that_are_named_go_missing() -> None:
    _, missing = missing_channels(RandomChannelDropout(p=1, channels=(0, 2)), torch.rand(2000, 3, 2, 2) + 1)
    torch.testing.assert_close(missing.float().mean(0), torch.tensor([0.5, 0.0, 0.5]), atol=0.05, rtol=0)


def test_not_a_number_goes_missing_too() -> None:
    images = torch.full((1, 2, 2, 2), math.nan)
    drawn = ChannelDropoutParameters(torch.tensor([1]), torch.tensor([0]))
    result, _ = RandomChannelDropout().apply(images, None, drawn)
    assert not result[:, 1].any()


def test_the_only_channel_can_go_missing_but_not_be_repeated() -> None:
    images = torch.rand(2, 1, 4, 4)
    assert not RandomChannelDropout(p=1)(images).any()
    with pytest.raises(ValueError, match=r"got images of shape \(2, 1, 4, 4\); give images of 2 channels or more, or"):
        RandomChannelDropout(fill="repeat")(images)


def test_a_channel_that_is_not_there_cannot_go_missing() -> None:
    with pytest.raises(ValueError, match=r"one of the channels \(1, 3\), got images of shape \(2, 3, 4, 4\); choose"):
        RandomChannelDropout(channels=(1, 3))(torch.rand(2, 3, 4, 4))


@pytest.mark.parametrize(
    ("transform", "arguments", "message"),
    [
        (RandomBiasField, {"coefficient": (1, 0)}, r"coefficient must be a lowest and a highest number, got \(1, 0\)"),
        (RandomBiasField, {"order": 0}, "order must be a whole number from 1, got 0"),
        (RandomBiasField, {"order": 1.5}, "order must be a whole number from 1, got 1.5"),
        (RandomBiasField, {"p": 1.5}, "p must be a probability"),
        (RandomRicianNoise, {"std": (-0.1, 0.1)}, r"std must be .*, from 0, got \(-0.1, 0.1\)"),
        (RandomRicianNoise, {"std": 0.1}, "std must be a lowest and a highest number"),
        (RandomGhosting, {"intensity": (0.5, 1.5)}, r"intensity must be .*, from 0 up to 1, got \(0.5, 1.5\)"),
        (RandomGhosting, {"ghosts": (1, 4)}, r"ghosts must be .* whole and from 2, got \(1, 4\)"),
        (RandomGhosting, {"ghosts": (4.0, 5)}, r"ghosts must be .* whole and from 2, got \(4.0, 5\)"),
        (RandomGhosting, {"ghosts": 4}, "ghosts must be .* whole and from 2, got 4"),
        (RandomMotion, {"shift": (0, math.inf)}, "shift must be a lowest and a highest number"),
        (RandomMotion, {"moves": True}, "moves must be a whole number from 1, got True"),
        (RandomMotion, {"center": 1}, r"center must be a share of the lines in \[0, 1\), got 1"),
        (RandomSpikes, {"spikes": 0}, "spikes must be a whole number from 1, got 0"),
        (RandomSpikes, {"intensity": (-1, 0)}, r"intensity must be .*, from 0, got \(-1, 0\)"),
        (RandomChannelDropout, {"fill": "mean"}, "fill must be one of 'zero', 'repeat', got 'mean'"),
        (RandomChannelDropout, {"channels": ()}, "channels must be a list of one or more numbers from 0"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    transform: type[Transform], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        transform(**arguments)


@pytest.mark.parametrize("transform", [RandomMotion(p=1), RandomGhosting(p=1), RandomSpikes(p=1)], ids=repr)
def test_a_sample_alone_is_as_in_its_batch(transform: Transform) -> None:
    images = torch.rand(4, 1, 64, 64)
    assert torch.equal(transform(images[:1], seeds=[0]), transform(images, seeds=range(4))[:1])


def test_a_channel_is_copied_into_those_named_of_the_samples_that_were_drawn() -> None:
    images = torch.rand(6, 4, 5, 5)
    copy = RandomChannelCopy(1, (0, 3), p=0.5)
    parameters = copy.draw(images.shape, torch.Generator().manual_seed(0))
    result, _ = copy.apply(images, None, parameters)
    assert 0 < parameters.chosen.sum() < 6
    for before, after, chosen in zip(images, result, parameters.chosen, strict=True):
        assert torch.equal(after, before[[1, 1, 2, 1]] if chosen else before)


def test_as_many_samples_lose_channels_as_asked_for() -> None:
    chosen = RandomChannelCopy(0, (1,), p=0.3).draw(MANY, torch.Generator().manual_seed(0)).chosen
    assert chosen.float().mean().item() == pytest.approx(0.3, abs=0.02)


def test_channels_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match=r"copies channel 1 into \(0, 3\), got images of shape \(2, 3, 8, 8\); give"):
        RandomChannelCopy(1, (0, 3))(torch.rand(2, 3, 8, 8))
    with pytest.raises(ValueError, match="channels must be a list of one or more numbers from 0"):
        RandomChannelCopy(1, ())
