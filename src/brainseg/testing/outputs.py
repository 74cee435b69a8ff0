"""Logits: their shape, what they depend on, and images that are refused."""

from itertools import product

import torch
import torch.nn.functional as F

from brainseg.testing.rules import Build, expect, expect_close, expect_equal, images, seeded, trained

SIZES = ((32, 32), (33, 47), (64, 96), (97, 129))


def check_shapes(build: Build) -> None:
    """Logits have the size of the image, whatever it is, and the number of classes."""
    for in_channels, num_classes in ((1, 1), (4, 3)):
        model = trained(build, in_channels=in_channels, num_classes=num_classes)
        for batch, (height, width) in product((1, 3), SIZES):
            height, width = (max(side, model.minimum_side) for side in (height, width))
            with torch.no_grad():
                logits = model(images(batch, in_channels, height, width))
            wanted = (batch, num_classes, height, width)
            expect(tuple(logits.shape) == wanted, f"logits of shape {tuple(logits.shape)}, expected {wanted}")
            expect(bool(logits.isfinite().all()), f"logits of an image {height}x{width} that are not finite")


def check_padding(build: Build) -> None:
    """Odd sizes are padded at the bottom and right, and multiples of the stride not at all."""
    model = trained(build)
    x = images(1, 3, 65, 96)
    with torch.no_grad():
        right, bottom = -96 % model.stride, -65 % model.stride
        padded = model(F.pad(x, (0, right, 0, bottom), mode=model.padding_mode))
        same = torch.equal(model(x), padded[..., :65, :96])
    expect(same, f"an image 65x96 and the same padded to a multiple of {model.stride} have other logits")


def check_refusals(build: Build) -> None:
    """Images that do not fit are refused with a ValueError, by `forward` and by `forward_intermediates`."""
    model = seeded(build)
    small = model.minimum_side - 1
    for image, why in (
        (torch.rand(3, 64, 64), "without a batch axis"),
        (torch.rand(2, 1, 64, 64), "of one channel where three are expected"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "of integers"),
        (torch.rand(1, 3, small, 64), f"of a side of {small} pixels, less than minimum_side"),
    ):
        for call in (model.forward, model.forward_intermediates):
            try:
                call(image)
            except ValueError:
                continue
            raise AssertionError(f"{call.__name__} takes an image {why}")


def check_determinism(build: Build) -> None:
    """The same seed builds the same weights; in eval mode an image does not depend on the batch around it."""
    expect_equal(seeded(build).state_dict(), seeded(build).state_dict(), "two networks of one seed")
    model, batch = trained(build), images(3)
    with torch.no_grad():
        together = model(batch)
        expect(torch.equal(model(batch), together), "two calls in eval mode have other logits")
        for k in range(3):
            expect_close(model(batch[k : k + 1]), together[k : k + 1], "an image alone and in a batch")


def check_layout(build: Build) -> None:
    """channels_last changes nothing but speed, and logits are contiguous."""
    model, x = trained(build, num_classes=3), images()
    with torch.no_grad():
        expected = model(x)
        expect(expected.is_contiguous(), "logits that are not contiguous: losses view them as (B, K * H * W)")
        expect_close(model(x.to(memory_format=torch.channels_last)), expected, "images in channels_last")
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        expect_close(model(x), expected, "weights in channels_last")


def check_half_precision(build: Build) -> None:
    """Autocast to bf16 and fp16 is finite for inputs of up to 1000, in training and in eval mode."""
    x = images().clamp(-3, 3) * (1e3 / 3)
    for dtype, training in product((torch.bfloat16, torch.float16), (False, True)):
        model = seeded(build).train(training)
        with torch.autocast("cpu", dtype):
            logits = model(x)
        expect(bool(logits.isfinite().all()), f"logits in {dtype} are not finite for inputs of up to 1000")
        logits.float().square().mean().backward()
        gradients = [(key, p.grad) for key, p in model.named_parameters() if p.grad is not None]
        wrong = [key for key, gradient in gradients if not gradient.isfinite().all()]
        expect(not wrong, f"gradients in {dtype} are not finite in {wrong[:3]}")
