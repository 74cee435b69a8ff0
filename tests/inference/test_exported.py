"""What is exported computes the same at other sizes, says what its input needs, and is written whole or not at all."""

import copy
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from brainseg.inference import Predictor, export, optimize
from brainseg.models import MaskDINO, ModelSpec, QueryPredictions, SegmentationModel, UNet, UNeXt
from brainseg.models.mask_dino import instance_inference
from brainseg.models.spec import Task
from brainseg.transforms import (
    Compose,
    ForegroundZScore,
    HeadZScore,
    MinMaxNormalize,
    Normalize,
    PercentileNormalize,
    Rescale,
    Resize,
    SelectChannels,
    Transform,
    create_transform,
)
from tests.models.contract import (
    assert_close,
    every_name_compiled,
    every_name_quick_for,
    images,
    narrow,
    one_name_a_class,
    randomize_statistics,
)


def trained(name: str, **arguments: Any) -> SegmentationModel:
    model = narrow(name, **arguments).eval()
    randomize_statistics(model)
    return model


def shallow(**arguments: Any) -> UNet:
    """Enough for what concerns the file alone."""
    torch.manual_seed(0)
    model = UNet(channels=(4, 8), **arguments).eval()
    randomize_statistics(model)
    return model


def onnx_model(path: Path) -> Callable[[Tensor], Tensor]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(["logits"], {"images": x.numpy()})[0])


def assert_computes(exported: Callable[[Tensor], Tensor], model: SegmentationModel, smallest: int) -> None:
    channels = model.config["in_channels"]
    sizes = [(1, 64, 64), (3, 97, 129), (2, 33, 47), (1, 240, 240)]
    tolerance = 1e-4 if isinstance(model, MaskDINO) else 1e-5  # with several attentions in a row
    for batch, *sides in [*sizes, (1, smallest, smallest), (2, smallest, 100), (1, 64, smallest)]:
        x = images(batch, channels, *(max(side, model.minimum_side) for side in sides))
        with torch.no_grad():
            assert_close(exported(x), model(x), tolerance)


# The same numbers


@every_name_compiled
def test_a_program_and_an_onnx_model_compute_the_same_at_any_size(name: str, tmp_path: Path) -> None:
    model = trained(name, in_channels=4, num_classes=2)
    program = export(model, tmp_path / "model.onnx").module()
    assert SegmentationModel.classes[type(model).__name__] is type(model)  # which the exporter makes subclasses of
    assert_computes(onnx_model(tmp_path / "model.onnx"), model, model.minimum_side)
    smallest = max(model.minimum_side, model.stride + 1)
    assert_computes(program, model, smallest)
    with pytest.raises(AssertionError, match=rf"size\(\)\[2\] >= {smallest}"):
        program(images(1, 4, smallest - 1, 64))


@every_name_quick_for(["unet_small"])
def test_a_program_read_from_its_file_computes_the_same(name: str, tmp_path: Path) -> None:
    model = trained(name, in_channels=2, num_classes=3)
    export(model, tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    smallest = max(model.minimum_side, model.stride + 1)
    assert_computes(program, model, smallest)
    with pytest.raises(AssertionError, match=rf"size\(\)\[2\] >= {smallest}"):
        program(images(1, 2, smallest - 1, 64))


@every_name_compiled
def test_an_optimized_network_is_exported(name: str) -> None:
    model = trained(name)
    assert_computes(export(optimize(model)).module(), model, 33)


@pytest.mark.slow
@one_name_a_class
def test_an_optimized_network_becomes_an_onnx_model(name: str, tmp_path: Path) -> None:
    model = trained(name)
    program = export(optimize(model), tmp_path / "model.onnx")
    assert_computes(onnx_model(tmp_path / "model.onnx"), model, model.minimum_side)
    assert_computes(program.module(), model, 33)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["resnet34", "convnext_tiny"])
@pytest.mark.parametrize("optimized", [False, True], ids=["plain", "optimized"])
def test_a_backbone_is_exported(encoder: str, optimized: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = UNet(encoder=encoder).eval()
    program = export(optimize(model) if optimized else model, tmp_path / "model.onnx")
    assert_computes(onnx_model(tmp_path / "model.onnx"), model, model.minimum_side)
    assert_computes(program.module(), model, 33)


def test_deep_supervision_and_checkpointing_stay_with_training() -> None:
    model = narrow("unet", deep_supervision=True).train()
    model.set_grad_checkpointing()
    program = export(model).module()
    assert_computes(program, model.eval(), 32)


def test_a_program_computes_in_the_precision_of_the_weights() -> None:
    model = trained("unet").double()
    with torch.no_grad():
        assert_close(export(model).module()(images().double()), model(images().double()), 1e-12)


RAW = [
    (HeadZScore(), None),
    (ForegroundZScore(), None),
    (Compose([SelectChannels((2, 1, 0)), Normalize([0.1, 0.2, 0.3], [0.5, 0.4, 0.3])]), (48, 64)),
    *(
        pytest.param(transform, size, marks=pytest.mark.slow)
        for transform in (Rescale((0, 1), (-1, 1)), MinMaxNormalize(), PercentileNormalize())
        for size in (None, (48, 64))
    ),
]


@pytest.mark.parametrize(("transform", "size"), RAW, ids=repr)
def test_a_file_takes_raw_images_and_gives_the_logits_of_the_predictor(
    transform: Transform, size: tuple[int, int] | None, tmp_path: Path
) -> None:
    model = shallow(num_classes=2)
    model.spec = replace(model.spec, normalization=transform.config, image_size=size)
    program = export(model, tmp_path / "model.onnx").module()
    runtime, predictor = onnx_model(tmp_path / "model.onnx"), Predictor(model, device="cpu")
    for batch, *sides in [(1, 64, 96), (3, 97, 129), (1, 33, 50), (2, 150, 40)]:
        x = images(batch, 3, *sides).sigmoid()
        assert_close(program(x), predictor.logits(x), 1e-5)
        assert_close(runtime(x), predictor.logits(x), 1e-4)


@pytest.mark.parametrize("task", [pytest.param("multilabel", marks=pytest.mark.slow), "multiclass"])
def test_a_file_sees_the_part_around_the_head_as_the_predictor_does(task: Task, tmp_path: Path) -> None:
    model = shallow(num_classes=2)
    spec = ModelSpec(task=task, class_names=("a", "b"), image_size=(96, 128), crop=(64, 48))
    model.spec = replace(spec, normalization=HeadZScore().config)
    program = export(model, tmp_path / "model.onnx").module()
    runtime, predictor = onnx_model(tmp_path / "model.onnx"), Predictor(model, device="cpu")
    for batch, *sides in [(2, 96, 128), (3, 50, 70), (1, 120, 50)]:
        x = heads(batch, *sides)
        expected = predictor.logits(x)
        assert_close(program(x), expected, 1e-5)
        assert_close(runtime(x), expected, 1e-4)


def heads(count: int, height: int, width: int) -> Tensor:
    """Images (count, 3, height, width) of an ellipse, each elsewhere, on a dark background."""
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    places = [(height * (0.35 + 0.1 * k), width * (0.6 - 0.1 * k)) for k in range(count)]
    inside = [((rows - y) / height) ** 2 + ((columns - x) / width) ** 2 < 0.04 for y, x in places]
    return torch.stack(inside)[:, None] * (0.5 + images(count, 3, height, width).sigmoid() / 2)


def test_without_normalization_the_program_is_the_network_alone() -> None:
    model = trained("unet")
    model.spec = replace(model.spec, normalization=ForegroundZScore().config, image_size=(32, 32))
    with torch.no_grad():
        assert_close(export(model, normalize=False).module()(images()), model(images()))


def test_a_network_of_others_with_a_branch_on_the_size_is_refused() -> None:
    class Sized(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x * 2 if x.shape[-1] > 300 else x)

    class Fixed(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.view(x.shape[0], 3, 128, 192))

    with pytest.raises(ValueError, match=r"Sized computes by the size of the image: .* 300 alone"):
        export(Sized(3, 1, 1), in_channels=3)
    with pytest.raises(
        ValueError, match=r"Fixed computes by the size of the image: .* 128 or 192 alone; .* predict by"
    ):
        export(Fixed(3, 1, 1), in_channels=3)


def test_odd_widths_bind_a_program_to_no_size() -> None:
    torch.manual_seed(0)
    model = UNeXt(
        channels=(5, 5, 5, 5, 10)
    ).eval()  # the tracer compares strides, and cannot tell those of five channels
    randomize_statistics(model)
    program = export(model).module()
    for height, width in ((33, 40), (64, 97)):
        x = images(1, 3, height, width)
        assert_close(program(x), model(x), 1e-5)


def test_a_network_of_others_is_exported_with_the_spec_that_is_given(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    with pytest.raises(ValueError, match="Sequential does not say how many channels it takes; give in_channels="):
        export(module)
    spec = ModelSpec(task="multiclass", class_names=("background", "lesion"), normalization=ForegroundZScore().config)
    export(module, tmp_path / "model.onnx", spec=spec, in_channels=2)
    x = images(1, 2).sigmoid()
    assert_close(onnx_model(tmp_path / "model.onnx")(x), Predictor(module, spec=spec, device="cpu").logits(x), 1e-4)
    (entry,) = onnx.load(tmp_path / "model.onnx").metadata_props
    assert ModelSpec.from_json(json.loads(entry.value)["spec"]) == spec


def test_what_is_put_around_a_network_is_exported_with_it() -> None:
    x = images(2, 3).sigmoid()
    network = shallow()
    for module in (nn.DataParallel(network), torch.compile(network, backend="eager"), nn.Sequential(network)):
        program = export(module, spec=network.spec, in_channels=3)
        assert_close(program.module()(x), network(x), 1e-5)


def test_a_network_without_weights_is_exported() -> None:
    x = images(1, 3)
    assert torch.equal(export(nn.Softmax(dim=1), in_channels=3).module()(x), x.softmax(1))


def test_normalizations_can_be_built_after_a_network_that_shares_a_box_was_exported() -> None:
    box = nn.Conv2d(1, 1, 1)  # the exporter then traces with subclasses of its own
    spec = ModelSpec(normalization=ForegroundZScore().config)
    export(nn.Sequential(box, box), spec=spec, in_channels=1)
    assert type(create_transform(spec.normalization)) is ForegroundZScore


def test_a_spec_of_other_classes_is_refused() -> None:
    spec = ModelSpec(task="multiclass", class_names=("background", "oedema", "core"))
    with pytest.raises(ValueError, match=r"a spec of 3 class\(es\) does not fit a network of num_classes=1"):
        export(shallow(), spec=spec)


# Queries


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "size"), [(".pt2", (64, 96)), (".onnx", None)])
def test_a_file_says_of_queries_what_the_network_says(
    suffix: str, size: tuple[int, int] | None, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    widths: dict[str, Any] = {"hidden_dim": 32, "conv_dim": 32, "mask_dim": 32, "channels": (8, 8, 16, 16)}
    model = MaskDINO(3, 2, backbone="small", num_queries=30, encoder_layers=1, decoder_layers=1, **widths).eval()
    model.spec = replace(model.spec, normalization=ForegroundZScore().config, image_size=size)
    path = tmp_path / f"model{suffix}"
    export(model, path, outputs="queries")
    runs: Callable[[Tensor], dict[str, Tensor]]
    if suffix == ".pt2":
        runs = torch.export.load(path).module()
    else:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        runs = lambda x: dict(zip(names, map(torch.from_numpy, session.run(None, {"images": x.numpy()})), strict=True))  # noqa: E731
    for batch, *sides in [(1, 80, 70), (3, 97, 129), (2, 256, 200)]:
        x = images(batch, 3, *sides).sigmoid()
        resize = None if size is None else Resize(size, keep_aspect_ratio=True)
        seen = ForegroundZScore()(x if resize is None else resize(x))
        with torch.no_grad():
            expected = model.forward_queries(seen)
        answer = runs(x)
        for name, values in answer.items():
            assert_close(values, getattr(expected, name), 1e-5)
        content = (sides[0], sides[1]) if resize is None else resize.content_size(*sides)
        found = instance_inference(QueryPredictions(**answer), content, (sides[0], sides[1]))
        for one, other in zip(found, Predictor(model, device="cpu").instances(x, min_score=None), strict=True):
            torch.testing.assert_close(one.scores, other.scores, rtol=1e-3, atol=1e-4)
            assert one.masks.shape == other.masks.shape


def test_queries_of_a_network_without_any_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="UNet answers for pixels and not for objects"):
        export(shallow(), tmp_path / "model.onnx", outputs="queries")
    with pytest.raises(ValueError, match="outputs must be one of 'logits', 'queries', got 'masks'"):
        export(shallow(), outputs="masks")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


# The model


def test_the_model_stays_as_it_is_and_the_program_as_it_was() -> None:
    model = narrow("resunet").train()
    model.set_grad_checkpointing()
    model.head.eval()
    before = copy.deepcopy(model)
    program = export(model).module()
    assert model.grad_checkpointing
    for module, as_before in zip(model.modules(), before.modules(), strict=True):
        assert module.training == as_before.training
    for parameter, as_before in zip(model.parameters(), before.parameters(), strict=True):
        assert parameter.requires_grad
        assert torch.equal(parameter, as_before)
    torch.nn.init.zeros_(model.head.weight)
    with torch.no_grad():
        assert_close(program(images()), before.eval()(images()))


# The files


def test_a_file_says_what_it_takes(tmp_path: Path) -> None:
    model = shallow(in_channels=4, num_classes=2)
    model.normalization = Normalize([0.1, 0.2, 0.3, 0.4], [0.5, 0.4, 0.3, 0.2]).config
    model.save_pretrained(tmp_path)
    for name in ("model.pt2", "model.onnx"):
        export(model, str(tmp_path / name))

    config = (tmp_path / "config.json").read_text()
    beside_the_program = {"config.json": ""}
    torch.export.load(tmp_path / "model.pt2", extra_files=beside_the_program)
    assert beside_the_program["config.json"] == config

    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)
    read = onnx.load(tmp_path / "model.onnx")
    assert {entry.key: entry.value for entry in read.metadata_props} == {"config.json": config}
    ends = {
        end.name: [axis.dim_param or axis.dim_value for axis in end.type.tensor_type.shape.dim]
        for end in (*read.graph.input, *read.graph.output)
    }
    assert ends == {"images": ["batch", 4, "height", "width"], "logits": ["batch", 2, "height", "width"]}


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_a_file_is_written_without_a_word(suffix: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    export(shallow(), tmp_path / f"new/model{suffix}")
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in (tmp_path / "new").iterdir()] == [f"model{suffix}"]


def test_weights_too_large_for_onnx_lie_beside_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.onnx._internal.exporter._onnx_program._LARGE_MODEL_THRESHOLD", 1000)
    model = shallow()
    export(model, tmp_path / "model.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    with torch.no_grad():
        assert_close(onnx_model(tmp_path / "model.onnx")(images()), model(images()))


@pytest.mark.parametrize(
    ("suffix", "writer"), [(".pt2", "pathlib.Path.write_bytes"), (".onnx", "torch.onnx.ONNXProgram.save")]
)
def test_what_fails_to_be_written_leaves_the_file_before_it(
    suffix: str, writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: Any, **_: Any) -> None:
        next(path for path in arguments if isinstance(path, Path)).write_text("half")
        raise OSError("the disk is full")

    path = tmp_path / f"model{suffix}"
    path.write_text("before")
    monkeypatch.setattr(writer, fails)
    with pytest.raises(OSError, match="disk is full"):
        export(shallow(), path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "before"


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_a_full_disk_names_the_file_and_leaves_nothing(
    suffix: str, tmp_path: Path, full_disk: Callable[[], AbstractContextManager[None]]
) -> None:
    path = tmp_path / f"model{suffix}"
    with full_disk(), pytest.raises(OSError, match=rf"model{suffix}'"):
        export(shallow(), path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(OSError, match=r"taken/model\.pt2'"):
        export(shallow(), tmp_path / "taken" / "model.pt2")


@pytest.fixture
def _untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    def trace(*_: Any, **__: Any) -> None:
        raise AssertionError("computed before the check")

    monkeypatch.setattr("torch.export.export", trace)


@pytest.mark.usefixtures("_untraced")
@pytest.mark.parametrize("name", ["model", "model.pt", "model.onnx.zip"])
def test_another_suffix_is_an_error_at_once(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"{name} is neither a program for PyTorch, \.pt2, nor an ONNX model, \.onnx"):
        export(narrow("unet"), tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("_untraced")
@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_extra_is_named_at_once(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'writing ONNX needs {package}: pip install "brainseg-torch\[export\]"'):
        export(narrow("unet"), tmp_path / "model.onnx")
