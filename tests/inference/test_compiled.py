"""The compiled program computes what the network does, on every size, and is made once for all processes."""

import copy
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from brainseg.inference import optimize
from brainseg.inference.compiled import CompiledForward, _Core
from brainseg.models import SegmentationModel, UNet, UNeXt
from tests.models.contract import assert_close, images, randomize_statistics


def network() -> UNeXt:
    torch.manual_seed(0)
    model = UNeXt(channels=(16, 16, 16, 16, 16), num_classes=2).eval()
    randomize_statistics(model)
    return model


needs_a_compiler = pytest.mark.skipif(not shutil.which("g++") and not shutil.which("clang++"), reason="no C++ compiler")


def compiles(test: Callable[..., None]) -> Callable[..., None]:
    """Half a minute, once for all of them."""
    return pytest.mark.slow(needs_a_compiler(test))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiler")


@pytest.fixture(autouse=True)
def _in_that_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))


def is_compiled(model: SegmentationModel, side: int) -> bool:
    """Whether an image of this side is computed by the program."""
    forward = model.__dict__["forward"]
    assert isinstance(forward, CompiledForward)
    called = []
    program = forward._program
    model(torch.rand(1, 3, side, side))
    kept, forward._program = forward._program, lambda x: called.append(x) or kept(x)  # type: ignore[misc]
    model(torch.rand(1, 3, side, side))
    forward._program = kept or program
    return bool(called)


@pytest.mark.parametrize("num_classes", [1, 2, 5])
def test_the_form_that_is_compiled_computes_what_the_network_does(num_classes: int) -> None:
    model = UNeXt(channels=(4, 6, 8, 10, 12), num_classes=num_classes).eval()
    randomize_statistics(model)
    core = _Core(optimize(model))
    with torch.no_grad():
        for x in (images(2, 3, 64, 96), images(1, 3, 32, 32)):
            assert_close(core(x), model(x))


@compiles
def test_it_computes_what_the_network_does_on_every_size() -> None:
    model = network()
    compiled = optimize(model, compile=True)
    assert isinstance(compiled, UNeXt)
    with torch.inference_mode():
        for batch, height, width in ((1, 64, 64), (3, 33, 97), (2, 128, 33), (1, 32, 32)):
            x = images(batch, 3, height, width)
            assert_close(compiled(x), model(x))
            assert compiled(x).is_contiguous()
        for x in (images(2, 3, 64, 96).mT, images(2, 3, 64, 96).to(memory_format=torch.channels_last)):
            assert_close(compiled(x), model(x))
        assert is_compiled(compiled, 33)
        assert not is_compiled(compiled, 32)


@compiles
def test_another_process_finds_the_program(cache: Path) -> None:
    optimize(network(), compile=True)
    (path,) = (cache / "brainseg").glob("*.pt2")
    before = path.stat().st_mtime_ns
    code = f"""
import sys, torch
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.inference.test_compiled import network
from brainseg.inference import optimize
def compile(*_, **__): raise AssertionError("compiled again")
torch._inductor.aoti_compile_and_package = compile
torch.export.export = compile
optimize(network(), compile=True)(torch.rand(1, 3, 64, 64))
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert path.stat().st_mtime_ns == before


@compiles
def test_a_broken_or_wrong_program_is_made_anew(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = network(), images(1, 3, 64, 64)
    optimize(model, compile=True)
    (path,) = (cache / "brainseg").glob("*.pt2")
    good = path.read_bytes()
    made = []

    def compile_quickly(_: object, *, package_path: str, **__: object) -> None:
        made.append(package_path)
        Path(package_path).write_bytes(good)

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", compile_quickly)
    path.write_bytes(good[:1000])
    with torch.no_grad():
        assert_close(optimize(model, compile=True)(x), model(x))
        assert len(made) == 1
        other = network()
        nn.init.zeros_(other.head.weight)
        monkeypatch.setattr("brainseg.inference.compiled._key", lambda _: path.stem)
        optimize(other, compile=True)  # finds the program of other weights
    assert len(made) == 2


@compiles
def test_what_the_program_is_not_made_for_is_computed_by_the_network() -> None:
    compiled, x = optimize(network(), compile=True), images(1, 3, 64, 64)
    expected = network()(x).detach()
    gradient = torch.autograd.grad(compiled(x.requires_grad_()).sum(), x)[0]
    assert gradient.abs().max() > 0
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            assert compiled(x).dtype is torch.bfloat16
        for other in (copy.deepcopy(compiled), pickle.loads(pickle.dumps(compiled))):
            assert_close(other(x), expected)
            assert is_compiled(other, 64)
        changed = copy.deepcopy(compiled)
        changed.head.bias.add_(1)
        assert_close(changed(x), expected + 1)
        assert not is_compiled(changed, 64)
        assert_close(
            compiled.double()(x.double()), network().double()(x.double()), 1e-6
        )  # norms were folded in float32


@compiles
def test_images_that_do_not_fit_are_refused_as_by_the_network() -> None:
    compiled = optimize(network(), compile=True)
    with pytest.raises(ValueError, match=r"UNeXt was built for 3 channels, got an image of shape \(1, 4, 64, 64\)"):
        compiled(torch.rand(1, 4, 64, 64))


def test_a_module_of_others_cannot_be_compiled_so() -> None:
    with pytest.raises(TypeError, match=r"use torch.compile\(optimize\(model\)\)"):
        optimize(nn.Sequential(nn.Conv2d(3, 3, 1)), compile=True)


@compiles
def test_a_unet_is_compiled() -> None:
    model = UNet(channels=(8, 16, 32)).eval()
    randomize_statistics(model)
    compiled = optimize(model, compile=True)
    with torch.no_grad():
        for size in (64, 37):
            assert_close(compiled(images(2, 3, size, size)), model(images(2, 3, size, size)))
        assert is_compiled(compiled, 37)


@compiles
def test_a_network_that_cannot_be_exported_is_compiled_by_torch() -> None:
    class Sized(UNet):
        def encode(self, x: torch.Tensor) -> list[torch.Tensor]:
            return super().encode(x * 2 if x.shape[-1] > 64 else x)

    model = Sized(channels=(8, 16)).eval()
    compiled = optimize(model, compile=True)
    with torch.no_grad():
        for side in (64, 96):
            assert_close(compiled(images(1, 3, side, side)), model(images(1, 3, side, side)))
    SegmentationModel.classes.pop("Sized")
