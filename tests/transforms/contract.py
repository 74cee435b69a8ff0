"""What every public transform promises, whatever it does."""

import inspect
import json
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import brainseg.transforms
from brainseg.transforms import (
    CenterCrop,
    Compose,
    CropToHead,
    ForegroundCrop,
    ForegroundZScore,
    HeadZScore,
    MinMaxNormalize,
    Normalize,
    OneOf,
    PadToMultiple,
    PercentileNormalize,
    RandomAffine,
    RandomApply,
    RandomBiasField,
    RandomBlur,
    RandomBrightness,
    RandomChannelCopy,
    RandomChannelDropout,
    RandomContrast,
    RandomCrop,
    RandomElastic,
    RandomFlip,
    RandomGamma,
    RandomGaussianNoise,
    RandomGhosting,
    RandomLowResolution,
    RandomMotion,
    RandomRicianNoise,
    RandomRotate90,
    RandomScaleShift,
    RandomSpikes,
    RandomTranspose,
    Rescale,
    Resize,
    SelectChannels,
    Transform,
    create_transform,
)

TRANSFORMS = {
    "Compose": Compose(
        [RandomRotate90(), RandomFlip(), SelectChannels((2, 1, 0)), RandomTranspose(), Compose([Rescale((0, 2))])]
    ),
    "ForegroundZScore": ForegroundZScore(fraction=0.2),
    "Normalize": Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "RandomFlip": RandomFlip(("horizontal", "both"), p=0.7),
    "RandomRotate90": RandomRotate90(p=0.8),
    "RandomTranspose": RandomTranspose(p=0.4),
    "Rescale": Rescale((-1, 3), (0, 10)),
    "Resize": Resize((9, 7)),
    "SelectChannels": SelectChannels((2, 0, 0)),
    "CenterCrop": CenterCrop((3, 4)),
    "CropToHead": CropToHead((3, 4)),
    "ForegroundCrop": ForegroundCrop((3, 4), p=0.6),
    "OneOf": OneOf([RandomFlip(p=1.0), RandomRotate90(p=1.0)], weights=[2, 1], p=0.8),
    "PadToMultiple": PadToMultiple(8),
    "RandomAffine": RandomAffine(degrees=(-180, 180), shear=(-10, 10), p=0.7),
    "RandomApply": RandomApply(Compose([RandomFlip(), RandomTranspose()]), p=0.6),
    "RandomCrop": RandomCrop((3, 4)),
    "RandomElastic": RandomElastic(p=0.7),
    "HeadZScore": HeadZScore(fraction=0.2, clip=(-3, 5)),
    "MinMaxNormalize": MinMaxNormalize(),
    "PercentileNormalize": PercentileNormalize(10, 80),
    "RandomBiasField": RandomBiasField(order=2, p=0.7),
    "RandomChannelDropout": RandomChannelDropout(p=0.7, fill="repeat", channels=(0, 2)),
    "RandomChannelCopy": RandomChannelCopy(1, (0, 2), p=0.7),
    "RandomGhosting": RandomGhosting(ghosts=(2, 3), p=0.7),
    "RandomMotion": RandomMotion(p=0.7),
    "RandomRicianNoise": RandomRicianNoise(p=0.7),
    "RandomSpikes": RandomSpikes(spikes=2, p=0.7),
    "RandomScaleShift": RandomScaleShift(p=0.7),
    "RandomBlur": RandomBlur(p=0.7),
    "RandomBrightness": RandomBrightness(p=0.7),
    "RandomContrast": RandomContrast(p=0.7),
    "RandomGamma": RandomGamma(p=0.7),
    "RandomGaussianNoise": RandomGaussianNoise(p=0.7),
    "RandomLowResolution": RandomLowResolution(p=0.7),
}

# One looks at the masks; these have tests of their own for what they do without any, or with one channel of them.
BLIND = {name: transform for name, transform in TRANSFORMS.items() if name != "ForegroundCrop"}


# Pixels of one value may get different ones: these blend neighbours, look at the whole image, or go by place or sample.
NOT_BY_VALUE = (
    ForegroundZScore,
    HeadZScore,
    MinMaxNormalize,
    PercentileNormalize,
    RandomAffine,
    RandomBiasField,
    RandomBlur,
    RandomBrightness,
    RandomContrast,
    RandomElastic,
    RandomGaussianNoise,
    RandomGhosting,
    RandomLowResolution,
    RandomMotion,
    RandomRicianNoise,
    RandomScaleShift,
    RandomSpikes,
    Resize,
)

every_transform = pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
every_blind_transform = pytest.mark.parametrize("transform", BLIND.values(), ids=BLIND)


def batch(count: int = 8, height: int = 12, width: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(count, 3, height, width, generator=generator)
    return images, torch.randint(0, 2, (count, 2, height, width), generator=generator).bool()


def generator(seed: int = 0, device: str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def test_every_public_transform_is_tested_here() -> None:
    public = [getattr(brainseg.transforms, name) for name in brainseg.transforms.__all__]
    classes = {item.__name__ for item in public if inspect.isclass(item) and issubclass(item, Transform)}
    assert classes - {"Transform"} == TRANSFORMS.keys()


@every_transform
def test_the_config_builds_the_same_transform_again(transform: Transform) -> None:
    again = create_transform(json.loads(json.dumps(transform.config)))
    images, masks = batch()
    assert type(again) is type(transform)
    assert again.config == transform.config
    for ours, theirs in zip(
        again(images, masks, generator=generator()), transform(images, masks, generator=generator()), strict=True
    ):
        assert torch.equal(ours, theirs)


@every_blind_transform
def test_workers_get_the_same_transform(transform: Transform) -> None:
    images, _ = batch()
    sent = pickle.loads(pickle.dumps(transform))
    assert torch.equal(sent(images, generator=generator()), transform(images, generator=generator()))


@every_blind_transform
def test_images_come_back_alone_without_masks(transform: Transform) -> None:
    images, masks = batch()
    alone = transform(images, generator=generator())
    assert torch.equal(alone, transform(images, masks, generator=generator())[0])


@every_transform
def test_forward_is_draw_and_then_apply(transform: Transform) -> None:
    images, masks = batch()
    parameters = transform.draw(images.shape, generator())
    for ours, theirs in zip(
        transform.apply(images, masks, parameters), transform(images, masks, generator=generator()), strict=True
    ):
        assert torch.equal(ours, theirs)


@every_transform
def test_the_inputs_stay_as_they_were(transform: Transform) -> None:
    images, masks = batch()
    kept = images.clone(), masks.clone()
    transform(images, masks, generator=generator())
    assert torch.equal(images, kept[0])
    assert torch.equal(masks, kept[1])


@every_blind_transform
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_images_keep_their_floating_dtype(transform: Transform, dtype: torch.dtype) -> None:
    images, _ = batch()
    result = transform(images.to(dtype), generator=generator())
    exact = transform(images.to(dtype).double(), generator=generator())
    assert result.dtype == dtype
    torch.testing.assert_close(result, exact.to(dtype))


@every_blind_transform
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_masks_keep_their_dtype_and_label_maps_move_as_channels_do(transform: Transform, dtype: torch.dtype) -> None:
    images, masks = batch()
    masks = (masks * 7).to(dtype)
    _, channels = transform(images, masks, generator=generator())
    _, labels = transform(images, masks[:, 0], generator=generator())
    assert channels.dtype == dtype
    assert set(channels.unique().tolist()) <= set(masks.unique().tolist())
    assert torch.equal(labels, channels[:, 0])


@every_blind_transform
@pytest.mark.parametrize("width", [12, 16])
def test_a_mask_painted_into_the_image_stays_under_itself(transform: Transform, width: int) -> None:
    images, masks = batch(width=width)
    images = masks[:, :1].float().expand(-1, 3, -1, -1)
    result, moved = transform(images, masks, generator=generator())
    low, high = transform(torch.stack([torch.zeros(3, 12, width), torch.ones(3, 12, width)]))[:, :, 0, 0]
    if not isinstance(transform, NOT_BY_VALUE):
        painted = torch.where(moved[:, :1], high[None, :, None, None], low[None, :, None, None])
        torch.testing.assert_close(result, painted)


@every_transform
def test_empty_masks_stay_empty(transform: Transform) -> None:
    images, masks = batch()
    _, moved = transform(images, torch.zeros_like(masks), generator=generator())
    assert not moved.any()


@every_transform
@pytest.mark.parametrize("count", [0, 1])
def test_batches_of_one_and_of_none_are_batches(transform: Transform, count: int) -> None:
    images, masks = batch(count)
    for seeds in (None, [0] * count):
        result, moved = transform(images, masks, seeds=seeds)
        assert result.shape == transform.output_shape(images.shape)
        assert moved.shape == (count, 2, *result.shape[-2:])


@every_transform
def test_seeds_make_a_sample_independent_of_its_batch(transform: Transform) -> None:
    images, masks = batch()
    seeds = torch.arange(100, 108)
    whole = transform(images, masks, seeds=seeds)
    split = [
        transform(images[i : i + n], masks[i : i + n], seeds=seeds[i : i + n]) for i, n in [(0, 1), (1, 4), (5, 3)]
    ]
    for ours, theirs in zip(whole, zip(*split, strict=True), strict=True):
        assert torch.equal(ours, torch.cat(theirs))


@every_blind_transform
def test_the_global_generator_is_left_alone_when_another_source_is_given(transform: Transform) -> None:
    images, _ = batch()
    state = torch.get_rng_state()
    transform(images, generator=generator())
    transform(images, seeds=range(8))
    assert torch.equal(torch.get_rng_state(), state)


@every_blind_transform
def test_without_a_generator_torch_s_own_decides(transform: Transform) -> None:
    images, _ = batch()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        result = transform(images)
    assert torch.equal(result, transform(images, generator=generator(3)))


@every_blind_transform
def test_gradients_reach_the_images(transform: Transform) -> None:
    images = batch(2, 4, 4)[0].double().requires_grad_()
    parameters = transform.draw(images.shape, generator())
    assert torch.autograd.gradcheck(lambda x: transform.apply(x, None, parameters)[0], images)


@every_transform
def test_apply_compiles_in_one_graph(transform: Transform) -> None:
    assert_compiles(transform, widths=[12])


# A second width is traced with sizes left free, which takes much longer.
@pytest.mark.parametrize(
    "transform",
    [
        pytest.param(transform, marks=() if name in ("Compose", "RandomAffine", "RandomGhosting") else pytest.mark.slow)
        for name, transform in TRANSFORMS.items()
    ],
    ids=TRANSFORMS,
)
def test_apply_compiles_in_one_graph_for_other_sizes(transform: Transform) -> None:
    assert_compiles(transform, widths=[12, 16])


def assert_compiles(transform: Transform, widths: list[int]) -> None:
    torch.compiler.reset()
    compiled = torch.compile(transform.apply, fullgraph=True, backend="aot_eager")
    for width in widths:
        images, masks = batch(width=width)
        parameters = transform.draw(images.shape, generator())
        for ours, theirs in zip(
            compiled(images, masks, parameters), transform.apply(images, masks, parameters), strict=True
        ):
            torch.testing.assert_close(ours, theirs)


@every_transform
def test_a_function_for_all_modules_reaches_it_and_what_is_beside_it(transform: Transform) -> None:
    seen: list[nn.Module] = []
    network = nn.Sequential(transform, nn.Identity())
    network.apply(seen.append)
    assert set(seen) == set(network.modules())


def _forward(transform: Transform, images: Tensor, masks: Tensor | None) -> None:
    transform(images, masks)


def _apply(transform: Transform, images: Tensor, masks: Tensor | None) -> None:
    transform.apply(images, masks, transform.draw((2, 3, 8, 8), generator()))


@every_transform
@pytest.mark.parametrize("call", [_forward, _apply])
@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        (torch.rand(3, 8, 8), None, r"images \(B, C, H, W\), got shape \(3, 8, 8\); add a batch axis"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), None, r"floating-point images, got torch.uint8; use images.float"),
        (torch.rand(2, 3, 8, 8), torch.zeros(2, 1, 8, 9), r"\(2, K, 8, 8\) or \(2, 8, 8\) .* got masks of shape"),
        (torch.rand(2, 3, 8, 8), torch.zeros(1, 1, 8, 8), r"got masks of shape \(1, 1, 8, 8\); give each image its"),
        (torch.rand(2, 3, 8, 8), torch.zeros(8, 8), r"got masks of shape \(8, 8\)"),
    ],
)
def test_what_does_not_fit_is_refused(
    transform: Transform,
    call: Callable[[Transform, Tensor, Tensor | None], None],
    images: Tensor,
    masks: Tensor | None,
    message: str,
) -> None:
    with pytest.raises(ValueError, match=f"{type(transform).__name__} takes .*{message}"):
        call(transform, images, masks)


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_is_never_waited_for(transform: Transform) -> None:
    images, masks = (x.cuda() for x in batch())
    source = generator(device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        parameters = transform.draw(images.shape, source)
        result, moved = transform.apply(images, masks, parameters)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert result.device == moved.device == images.device
    again = transform(images, masks, generator=generator(device="cuda"))
    assert torch.equal(again[0], result)
    assert torch.equal(again[1], moved)
