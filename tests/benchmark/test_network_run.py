"""A network in a setting: what is called, in which dtype and layout, and the CUDA paths without a card."""

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from brainseg.benchmark import NotAvailableError, Setting, create_run
from brainseg.models import create_model
from tests.benchmark.conftest import FakeCUDA


class Seen(nn.Module):
    """A 1x1 convolution that remembers what it was given."""

    def __init__(self, wrap: Any = lambda x: x) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        self.wrap = wrap
        self.images: list[Tensor] = []
        self.autocast: list[bool] = []
        self.modes: list[bool] = []
        self.tf32: list[tuple[str, bool]] = []

    def forward(self, images: Tensor) -> Any:
        self.images.append(images)
        self.modes.append(self.training)
        self.autocast.append(torch.is_autocast_enabled(images.device.type))
        self.tf32.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        return self.wrap(self.conv(images))


def run(setting: Setting, wrap: Any = lambda x: x) -> tuple[Seen, Tensor]:
    network = Seen(wrap)
    made = create_run(lambda: network, setting)
    made.call()
    assert made.result is not None
    return network, made.result()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_inference_has_weights_and_images_of_the_dtype(dtype: Any) -> None:
    network, result = run(Setting(batch=2, size=8, dtype=dtype))
    (images, *_) = network.images
    assert images.shape == (2, 3, 8, 8)
    assert images.dtype == network.conv.weight.dtype == getattr(torch, dtype)
    assert not any(network.modes)
    assert result.shape == (2 * 2 * 8 * 8,)
    assert not images.requires_grad


def test_half_types_in_training_are_those_of_autocast_around_float32() -> None:
    network, result = run(Setting(batch=2, size=8, dtype="bfloat16", mode="training"))
    assert network.images[0].dtype == network.conv.weight.dtype == torch.float32
    assert all(network.autocast)
    assert all(network.modes)
    assert result.dtype == torch.float32


def test_the_result_of_a_training_step_is_its_loss_and_the_norms_of_its_gradients() -> None:
    setting = Setting(batch=2, size=8, mode="training")
    network, result = run(setting)
    weights = {name: weight.detach().clone().requires_grad_() for name, weight in network.named_parameters()}
    logits = nn.functional.conv2d(network.images[0], weights["conv.weight"], weights["conv.bias"])
    loss = (logits**2).sum() / logits.numel()
    gradients = torch.autograd.grad(loss, list(weights.values()))
    torch.testing.assert_close(result, torch.stack([loss.detach(), *(g.norm() for g in gradients)]))


def test_training_steps_are_all_alike() -> None:
    made = create_run(Seen, Setting(batch=2, size=8, mode="training"))
    assert made.call() == made.call() == made.call()


def test_channels_last_is_the_layout_of_images_and_weights() -> None:
    network, _ = run(Setting(size=8, layout="channels_last"))
    assert network.images[0].is_contiguous(memory_format=torch.channels_last)
    assert not network.images[0].is_contiguous()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: [x, {"aux": (x, None)}],
        lambda x: OrderedDict(out=x, aux=x),
        lambda x: (x, x, torch.arange(3)),
    ],
)
@pytest.mark.parametrize("mode", ["inference", "training"])
def test_outputs_may_be_nested(wrap: Any, mode: Any) -> None:
    _, nested = run(Setting(size=8, mode=mode), wrap)
    _, plain = run(Setting(size=8, mode=mode))
    if mode == "inference":
        torch.testing.assert_close(nested, plain.repeat(2))
    else:
        torch.testing.assert_close(nested, plain)


def test_outputs_without_tensors_are_refused() -> None:
    with pytest.raises(ValueError, match="gives str, expected tensors"):
        run(Setting(size=8), lambda _: "mask")
    with pytest.raises(ValueError, match="no floating-point tensor"):
        run(Setting(size=8), lambda x: x > 0)


def test_a_network_without_parameters_is_not_trained() -> None:
    with pytest.raises(ValueError, match="Identity has no parameters to train"):
        create_run(nn.Identity, Setting(mode="training"))


def test_the_optimized_copy_gives_the_same() -> None:
    plain, optimized = (
        create_run(lambda: create_model("unext_tiny"), Setting(size=64, optimize=optimize))
        for optimize in (False, True)
    )
    assert plain.result is not None
    assert optimized.result is not None
    torch.testing.assert_close(optimized.result(), plain.result(), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["inference", "training"])
def test_compiled_networks_give_the_same(mode: Any) -> None:
    plain, compiled = (create_run(nn_of_two, Setting(size=16, mode=mode, compile=on)) for on in (False, True))
    assert plain.result is not None
    assert compiled.result is not None
    torch.testing.assert_close(compiled.result(), plain.result())


def nn_of_two() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "gpu"}, "device must be cpu, cuda or cuda:1, got 'gpu'"),
        ({"device": "cuda:x"}, "device must be"),
        ({"batch": 0}, "batch must be a positive integer"),
        ({"size": 2.5}, "size must be a positive integer"),
        ({"dtype": "int8"}, "dtype must be one of 'float32', 'tf32', 'bfloat16', 'float16', got 'int8'"),
        ({"mode": "eval"}, "mode must be one of"),
        ({"layout": "nhwc"}, "layout must be one of"),
        ({"cuda_graph": True}, "a CUDA graph needs device cuda, got cpu"),
        ({"dtype": "tf32"}, "tf32 needs device cuda, got cpu"),
        ({"mode": "training", "optimize": True}, "optimize makes copies for inference"),
    ],
)
def test_settings_that_cannot_be_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Setting(**arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_card_cuda_is_not_available() -> None:
    with pytest.raises(NotAvailableError, match="torch finds no CUDA device"):
        create_run(Seen, Setting("cuda"))


def test_a_card_of_a_number_that_is_not_there(cuda: FakeCUDA) -> None:  # noqa: ARG001
    with pytest.raises(NotAvailableError, match="finds 1 CUDA devices, none of number 3"):
        create_run(Seen, Setting("cuda:3"))


@pytest.mark.parametrize(("dtype", "expected"), [("float32", ("highest", False)), ("tf32", ("high", True))])
@pytest.mark.parametrize("mode", ["inference", "training"])
def test_tf32_is_on_where_it_is_asked_for_and_float32_is_exact(
    dtype: Any,
    mode: Any,
    expected: tuple[str, bool],
    cuda: FakeCUDA,  # noqa: ARG001
) -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    network, _ = run(Setting("cuda", size=8, dtype=dtype, mode=mode))
    assert set(network.tf32) == {expected}
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_a_cuda_graph_is_warmed_up_recorded_once_and_replayed(mode: Any, cuda: FakeCUDA) -> None:
    network = Seen()
    made = create_run(lambda: network, Setting("cuda", batch=2, size=8, mode=mode, cuda_graph=True))
    assert cuda.log == ["wait_stream", "wait_stream", "reset peak", "capture", "captured"]
    forwards = len(network.images)
    assert forwards == 4  # three on the side and the recorded one
    made.call()
    made.call()
    assert cuda.log[-2:] == ["replay", "replay"]
    assert len(network.images) == forwards
    assert made.kept_bytes == 3 * 2**20
    assert made.result is not None
    plain = create_run(lambda: network, Setting(batch=2, size=8, mode=mode))
    assert plain.result is not None
    torch.testing.assert_close(made.result(), plain.result())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mode", ["inference", "training"])
def test_on_a_card_a_cuda_graph_gives_what_the_network_gives(mode: Any) -> None:
    eager, graph = (
        create_run(lambda: create_model("unext_tiny"), Setting("cuda", 2, 64, mode=mode, cuda_graph=on))
        for on in (False, True)
    )
    assert eager.result is not None
    assert graph.result is not None
    torch.testing.assert_close(graph.result(), eager.result(), rtol=1e-3, atol=1e-3)
    assert graph.kept_bytes > 0
