"""The model contract: what every registered name promises, whatever is inside."""

import copy
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from brainseg.models import MaskDINO, ResUNet, SegmentationModel, create_model, list_models
from brainseg.models.mask_dino import targets_from_masks
from brainseg.models.registry import _MODELS
from brainseg.models.resunet import ResidualUnit
from brainseg.testing import features, files, learning, outputs
from brainseg.testing.rules import images, randomize_statistics

NAMES = list_models()
CLASSES = sorted({_MODELS[name][0].__name__: name for name in reversed(NAMES)}.values())
CLASSES_WITHOUT_QUERIES = [name for name in CLASSES if _MODELS[name][0] is not MaskDINO]


def every_name_quick_for(names: list[str]) -> pytest.MarkDecorator:
    """For what costs much to try: networks of one class differ in widths alone, and the others wait for `slow`."""
    marked = [pytest.param(name, marks=() if name in names else pytest.mark.slow) for name in NAMES]
    return pytest.mark.parametrize("name", marked)


every_name = pytest.mark.parametrize("name", NAMES)
one_name_a_class = pytest.mark.parametrize("name", CLASSES)
every_name_costly = every_name_quick_for(CLASSES)
# Compilers take half a minute for Mask DINO.
every_name_compiled = every_name_quick_for(CLASSES_WITHOUT_QUERIES)
# Mask DINO has auxiliary outputs of its own, and gradients that its refinement of boxes cuts off on purpose.
every_name_with_heads = pytest.mark.parametrize("name", [name for name in NAMES if _MODELS[name][0] is not MaskDINO])
one_name_a_class_with_heads = pytest.mark.parametrize("name", CLASSES_WITHOUT_QUERIES)
NARROW_QUERIES = {
    "conv_dim": 64,
    "mask_dim": 16,
    "hidden_dim": 32,
    "encoder_layers": 1,
    "encoder_ffn": 32,
    "decoder_layers": 2,
    "decoder_ffn": 32,
    "num_queries": 8,
    "dn_number": 4,
    "num_points": 64,
}


def narrow(name: str, **arguments: Any) -> SegmentationModel:
    """The registered network with a quarter of its widths or less, the same weights at every call."""
    torch.manual_seed(0)
    return create_model(name, **narrow_arguments(name), **arguments)


def deep_supervision(name: str) -> dict[str, bool]:
    return {} if _MODELS[name][0] is MaskDINO else {"deep_supervision": True}


def narrow_arguments(name: str) -> dict[str, Any]:
    network, defaults = _MODELS[name]
    if network is not MaskDINO:
        return {"channels": narrow_channels(name)}
    backbone = {"channels": (8, 8, 16, 16)} if defaults["backbone"] == "small" else {"backbone": "test_resnet"}
    return {**NARROW_QUERIES, **backbone}


@cache
def narrow_channels(name: str) -> list[int]:
    with torch.device("meta"):
        channels = create_model(name).config["channels"]
    divisor = max(4, channels[0] // 8)
    return [max(2, width // divisor) for width in channels]


def backward(model: SegmentationModel, x: Tensor) -> None:
    """Of a training step that reaches every parameter."""
    if not isinstance(model, MaskDINO):
        model(x).square().mean().backward()
        return
    masks = torch.zeros(len(x), model.config["num_classes"], *x.shape[2:], dtype=torch.bool, device=x.device)
    masks[:, :, 10:40, 20:50] = True
    targets = targets_from_masks(masks)
    torch.manual_seed(0)
    predictions = model.forward_queries(x, targets)
    model.criterion(predictions, targets)[0].backward()


def biases_that_cancel(model: nn.Module) -> set[str]:
    """In training a batch norm takes off what such a bias adds: its gradient is zero up to rounding."""
    keys = {
        f"{name}.{conv}.bias"
        for name, module in model.named_modules()
        for conv, after, *_ in getattr(module, "conv_chains", ())
        if isinstance(getattr(module, after), nn.BatchNorm2d)
    }
    if isinstance(model, ResUNet):  # every unit begins with norms, on both of its paths
        *units, _ = (name for name, module in model.named_modules() if isinstance(module, ResidualUnit))
        keys |= {f"{unit}.shortcut_norm.bias" for unit in units}
    return keys


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    yield
    torch._dynamo.reset()


# Shapes


@every_name_costly
@given(
    batch=st.integers(1, 3),
    in_channels=st.integers(1, 5),
    num_classes=st.integers(1, 4),
    height=st.integers(32, 160),
    width=st.integers(32, 160),
)
def test_logits_have_the_size_of_the_image(
    name: str, batch: int, in_channels: int, num_classes: int, height: int, width: int
) -> None:
    model = narrow(name, in_channels=in_channels, num_classes=num_classes).eval()
    height, width = (max(side, model.minimum_side) for side in (height, width))
    with torch.no_grad():
        logits = model(images(batch, in_channels, height, width))
    assert logits.shape == (batch, num_classes, height, width)
    assert logits.isfinite().all()


@every_name
@pytest.mark.parametrize(
    ("height", "width"),
    [
        *((32, 32), (33, 47)),
        *(pytest.param(*size, marks=pytest.mark.slow) for size in ((97, 129), (240, 240), (256, 256))),
    ],
)
def test_the_registered_network_takes_named_sizes(name: str, height: int, width: int) -> None:
    model = create_model(name).eval()
    height, width = (max(side, model.minimum_side) for side in (height, width))
    with torch.no_grad():
        assert model(images(1, 3, height, width)).shape == (1, 1, height, width)


@every_name
def test_odd_sizes_are_padded_and_multiples_not_at_all(name: str) -> None:
    outputs.check_padding(partial(narrow, name))


@every_name
def test_images_that_do_not_fit_are_refused_with_what_came_and_what_to_do(name: str) -> None:
    model = narrow(name)
    network = type(model).__name__
    small = (model.minimum_side - 1, 64)
    for image, message in (
        (torch.rand(3, 64, 64), rf"{network} takes images \(B, C, H, W\), got shape \(3, 64, 64\); .*batch axis"),
        (
            torch.rand(2, 1, 64, 64),
            rf"{network} was built for 3 channels, .*\(2, 1, 64, 64\); build it with in_channels=1",
        ),
        (torch.rand(2, 64, 64, 3), r"3 channels, .*; of images \(B, H, W, C\) take images.permute\(0, 3, 1, 2\)"),
        (torch.rand(64, 64, 3), r"got shape \(64, 64, 3\); of an image \(H, W, C\) take image.permute\(2, 0, 1\)"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), r"floating-point images, got torch.uint8; use images.float\(\)"),
        (torch.rand(1, 3, *small), rf"sides of at least {model.minimum_side} pixels, got .*resize or pad"),
    ):
        with pytest.raises(ValueError, match=message):
            model(image)
        with pytest.raises(ValueError, match=message):
            model.forward_intermediates(image)
    with pytest.raises(TypeError, match=r"takes a tensor \(B, C, H, W\), got ndarray"):
        model(torch.rand(1, 3, 64, 64).numpy())


# Gradients and numbers


@every_name
@pytest.mark.parametrize(("height", "width"), [(64, 64), (97, 129)])
def test_every_parameter_receives_a_gradient(name: str, height: int, width: int) -> None:
    model = narrow(name, num_classes=2).train()
    if isinstance(model, MaskDINO):
        for parameter in model.parameters():
            if not parameter.any():  # behind which nothing learns yet
                nn.init.normal_(parameter, std=0.1)
        backward(model, images(3, 3, height, width))
    else:
        (model(images(3, 3, height, width)) * images(3, 2, height, width, seed=1)).sum().backward()
    zero = biases_that_cancel(model)
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any() or key in zero, key


@one_name_a_class_with_heads
def test_gradients_equal_finite_differences_in_float64(name: str) -> None:
    model = narrow(name, in_channels=1).double().eval()
    randomize_statistics(model)
    image = images(1, 1, 40, 33).double().requires_grad_()
    torch.autograd.gradcheck(model, image, fast_mode=True)


@every_name
def test_evaluation_is_deterministic_and_independent_of_the_batch_around_an_image(name: str) -> None:
    outputs.check_determinism(partial(narrow, name))


@every_name
def test_layout_changes_nothing_but_speed(name: str) -> None:
    outputs.check_layout(partial(narrow, name))


@every_name
def test_layout_changes_no_gradient(name: str) -> None:
    # In float64: oneDNN picks other algorithms for other layouts, and a ReLU near zero may open for one alone.
    plain, model = (narrow(name).double().train() for _ in range(2))
    model.to(memory_format=torch.channels_last)
    backward(plain, images(3).double())
    backward(model, images(3).double().to(memory_format=torch.channels_last))
    for (key, a), b in zip(plain.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-8, atol=1e-12, msg=key)


@every_name
def test_half_precision_autocast_is_finite_for_large_inputs(name: str) -> None:
    outputs.check_half_precision(partial(narrow, name))


@every_name
def test_half_precision_weights_stay_near_float32(name: str) -> None:
    model = narrow(name).eval()
    with torch.no_grad():
        assert_close(copy.deepcopy(model).bfloat16()(images().bfloat16()).float(), model(images()), 0.1)


# Heads and taps


@every_name_with_heads
def test_deep_supervision_returns_every_decoder_box_finest_first_in_training_alone(name: str) -> None:
    plain, model = narrow(name, num_classes=2), narrow(name, num_classes=2, deep_supervision=True)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("auxiliary_heads.")})
    x = images(2, 3, 97, 130)
    outputs = model.train()(x)
    assert [tuple(y.shape[2:]) for y in outputs] == [
        (-(-97 // s), -(-130 // s)) for s in (2**i for i in range(len(outputs)))
    ]
    assert len(outputs) == len(model.decoder)
    assert all(output.is_contiguous() for output in outputs)
    assert torch.equal(outputs[0], plain.train()(x))
    sum(y.square().mean() for y in outputs).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert torch.equal(model.eval()(x), plain.eval()(x))


@every_name
def test_feature_taps_are_what_feature_info_says(name: str) -> None:
    features.check_features(partial(narrow, name))


@every_name_with_heads
def test_reset_classifier_changes_the_heads_alone(name: str) -> None:
    features.check_classifier(partial(narrow, name, deep_supervision=True))
    model = narrow(name, deep_supervision=True).double()
    model.reset_classifier(3)
    assert [y.shape[1] for y in model.train()(images().double())] == [3] * len(model.decoder)
    with pytest.raises(ValueError, match="num_classes must be a positive integer, got -1"):
        model.reset_classifier(-1)


@every_name_with_heads
def test_without_classes_the_network_has_no_spec_and_is_saved(name: str, tmp_path: Path) -> None:
    model = narrow(name, num_classes=0, **deep_supervision(name)).eval()
    with pytest.raises(ValueError, match=r"num_classes=0 and gives features, not masks; .* reset_classifier"):
        model.spec  # noqa: B018
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(SegmentationModel.from_pretrained(tmp_path).eval()(images()), model(images()))


@one_name_a_class
def test_indices_of_features_that_there_are_not_are_refused(name: str) -> None:
    model = narrow(name)
    number = len(model.feature_info)
    for indices in (0, number + 1, [number], [-number - 1], [], ["stage"]):
        with pytest.raises(ValueError, match=rf"has {number} features; indices must be how many"):
            model.forward_intermediates(images(), indices=indices)


@one_name_a_class
def test_features_only_is_the_encoder_alone_described_as_timm_describes_its_own(name: str) -> None:
    features.check_features_only(partial(narrow, name))
    encoder = create_model(name, **narrow_arguments(name), features_only=True, out_indices=(1, -1)).eval()
    with torch.no_grad():
        found = encoder(images())
    assert encoder.feature_info.channels() == [x.shape[1] for x in found]
    assert encoder.feature_info.reduction() == [64 // x.shape[2] for x in found]
    assert all(encoder.get_submodule(box) for box in encoder.feature_info.module_name())
    with pytest.raises(ValueError, match="add features_only=True"):
        create_model(name, **narrow_arguments(name), out_indices=2)


@one_name_a_class
def test_layers_are_numbered_from_the_image_to_the_decoder(name: str) -> None:
    features.check_layers(partial(narrow, name))


# Memory, compilers, files


def saved_storages(step: Callable[[], object]) -> dict[int, torch.UntypedStorage]:
    """What a step's forward pass keeps for its backward pass, by address; alive, so that no other gets the address."""
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return storages


def saved_bytes(model: SegmentationModel, x: Tensor) -> int:
    storages = saved_storages(lambda: backward(model, x))
    return sum(storage.nbytes() for storage in storages.values())


@every_name
def test_checkpointing_saves_memory_and_changes_neither_gradients_nor_statistics(name: str) -> None:
    learning.check_checkpointing(partial(narrow, name), step=backward)
    plain = narrow(name).train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.set_grad_checkpointing()
    x = images(3)
    assert saved_bytes(checkpointed, x) < 0.7 * saved_bytes(plain, x)
    checkpointed.set_grad_checkpointing(False)
    with torch.no_grad():
        assert torch.equal(checkpointed.eval()(x), plain.eval()(x))


@every_name
def test_a_checkpointed_graph_is_walked_twice_with_the_same_gradients_and_statistics(name: str) -> None:
    model = narrow(name).train()
    model.set_grad_checkpointing()
    loss = model(images(3)).square().mean()
    statistics = {key: buffer.clone() for key, buffer in model.named_buffers()}
    first, second = (
        torch.autograd.grad(loss, list(model.parameters()), retain_graph=True, allow_unused=True) for _ in range(2)
    )
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(statistics[key], buffer) for key, buffer in model.named_buffers())


@every_name_costly
def test_compiles_to_one_graph(name: str) -> None:
    learning.check_compile(partial(narrow, name))


@every_name_compiled
@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.slow)])
def test_compiles_to_one_graph_for_all_sizes(name: str, backend: str) -> None:
    model = narrow(name).eval()
    compiled = torch.compile(model, backend=backend, fullgraph=True, dynamic=True)
    with torch.no_grad(), torch._dynamo.config.patch(error_on_recompile=True):
        for size in ((2, 3, 64, 96), (3, 3, 97, 129), (2, 3, 33, 47)):
            size = (*size[:2], *(max(side, model.minimum_side + 1) for side in size[2:]))
            assert_close(compiled(images(*size)), model(images(*size)))


@every_name_compiled
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
def test_one_graph_in_training_has_the_same_gradients_and_statistics(name: str, checkpointing: bool) -> None:
    model = narrow(name).train()
    compiled = copy.deepcopy(model)
    compiled.set_grad_checkpointing(checkpointing)
    torch.compile(compiled, backend="aot_eager", fullgraph=True)(images(3)).square().mean().backward()
    model(images(3)).square().mean().backward()
    zero = biases_that_cancel(model)
    for (key, a), b in zip(model.named_parameters(), compiled.parameters(), strict=True):
        if key not in zero and a.grad is not None:
            assert_close(b.grad, a.grad, 1e-4)
    for a, b in zip(model.buffers(), compiled.buffers(), strict=True):
        torch.testing.assert_close(b, a)


@pytest.mark.slow
@one_name_a_class
def test_inductor_infers_at_any_size(name: str) -> None:
    model = narrow(name).eval()
    compiled = torch.compile(model, fullgraph=True)
    with torch.no_grad():
        for size in ((2, 3, 64, 96), (3, 3, 97, 129), (1, 3, 128, 64)):
            assert_close(compiled(images(*size)), model(images(*size)), 1e-4)


@pytest.mark.slow
@one_name_a_class
def test_inductor_trains_with_a_smaller_last_batch(name: str) -> None:
    # In float64: in float32 a ReLU near zero may open for one and close for the other, 1e-2 of a gradient.
    model = narrow(name).double().train()
    compiled = copy.deepcopy(model)
    step = torch.compile(compiled, fullgraph=True)
    zero = biases_that_cancel(model)
    for batch in (3, 2):
        step(images(batch).double()).square().mean().backward()
        model(images(batch).double()).square().mean().backward()
    for (key, a), b in zip(model.named_parameters(), compiled.parameters(), strict=True):
        if key not in zero and a.grad is not None:
            assert_close(b.grad, a.grad, 1e-8)


@every_name_compiled
def test_an_exported_program_keeps_batch_and_sizes_free(name: str) -> None:
    learning.check_export(partial(narrow, name))


@every_name
def test_config_builds_the_same_network(name: str) -> None:
    files.check_config(partial(narrow, name))


@every_name
def test_a_saved_network_is_read_back_whole(name: str) -> None:
    files.check_files(partial(narrow, name, **deep_supervision(name)))


@every_name
def test_a_saved_network_is_read_into_other_channels_and_classes_with_a_report(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    files.check_adaptation(partial(narrow, name))
    model = narrow(name)
    assert all(f"{stem} adapted from 3 to 1 input channels" in caplog.text for stem in model.stems)
    classes = ("class_embed", "label_enc") if isinstance(model, MaskDINO) else ("head",)
    assert all(f"{module} freshly initialised for 4 classes" in caplog.text for module in classes)


@every_name
def test_copies_and_pickles_compute_the_same(name: str) -> None:
    files.check_copies(partial(narrow, name))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@every_name
def test_the_gpu_computes_what_the_cpu_computes(name: str) -> None:
    model = narrow(name).double().eval()
    x = images(2, 3, 97, 129).double()
    with torch.no_grad():
        assert_close(copy.deepcopy(model).cuda()(x.cuda()).cpu(), model(x), 1e-10)
