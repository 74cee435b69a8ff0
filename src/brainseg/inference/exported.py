"""A network as one file that runs without our code: a program for PyTorch, or an ONNX model for all else."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from brainseg._whole import passing_name
from brainseg.checks import check_choice
from brainseg.inference.foreign import check_logits, find_queries, find_spec, frozen_copy
from brainseg.inference.part import check_whole, logits_of_part, resize_of
from brainseg.models import ModelSpec, SegmentationModel
from brainseg.models.files import CONFIG, config_text
from brainseg.transforms import create_transform
from brainseg.transforms.geometry import pad_to, resize_bilinear, top_left

Outputs = Literal["logits", "queries"]
QUERIES = ("pred_logits", "pred_masks", "pred_boxes")
LARGE = 1024


def export(
    model: nn.Module,
    path: str | Path | None = None,
    *,
    outputs: Outputs = "logits",
    normalize: bool = True,
    spec: ModelSpec | None = None,
    in_channels: int | None = None,
) -> ExportedProgram:
    """The network in eval mode as a program of its operations alone, with batch, height and width free.

    It takes what `Predictor` takes: images in [0, 1], channels as stored. Size, crop and normalization of the spec are
    part of it, and it answers with `Predictor`'s logits of images whose pixels are squares. A file holds the spec in
    its `config.json`, the same as `save_pretrained` writes: in the `extra_files` of `torch.export.load`, or in the
    metadata of the ONNX model.

    Args:
        model: any of our networks, the copy that `optimize` made of one, or another module from images to logits; it
            stays as it is.
        path: `.pt2` for a file that `torch.export.load` reads; `.onnx` for a model with the input "images" (batch, C,
            height, width) and the output "logits" (batch, K, height, width), whose weights are in a second file beside
            it if they are too large for the format. None: no file.
        outputs: "queries" for what a network says of its queries (Mask DINO): in place of the logits a dictionary, and
            outputs of the ONNX model, `pred_logits` (B, Q, K), `pred_masks` (B, Q, H/4, W/4) and `pred_boxes` (B, Q, 4)
            of `QueryPredictions`, which they make again for `instance_inference` and others. These want
            `image_size=Resize(spec.image_size, keep_aspect_ratio=spec.keep_aspect_ratio).content_size(height, width)`.
        normalize: False leaves size, crop and normalization out: the program is the network alone, which wants images
            as `model.spec` says.
        spec: in place of the network's own; that of a network that is none of ours.
        in_channels: channels of the images, for a network that is none of ours. Its sides may be bound to multiples.

    Returns:
        the program, on the model's device and in its dtype; its `module()` maps images (B, C, H, W) to logits
        (B, K, H, W). It takes sides of more than `model.stride` pixels (UNeXt and most backbones: from 33), with an
        `image_size` any; the ONNX model takes all that the network takes.

    Raises:
        ValueError: another suffix, outputs that are none of these, queries of a network without any or with a `crop`, a
            spec of another number of classes, or a network of others without `in_channels`, whose output is no logits
            (B, K, H, W) of the images' size, or which does one thing for small images and another for large ones.
        OSError: the file cannot be written; the one before it stays.
        ImportError: an ONNX model without onnx and onnxscript.
        RuntimeError: PyTorch's, for a backbone that computes by the size of the image, such as Swin by its windows.
    """
    if path is not None:
        path = Path(path)
        _check_suffix(path)
    check_choice("outputs", outputs, Outputs)
    if outputs == "queries":
        find_queries(model)
    known = find_spec(model, spec)
    if outputs == "queries" and known is not None and normalize:
        check_whole(known)
    program = _trace(model, known if normalize else None, in_channels, outputs)
    if path is None:
        return program
    arguments = model.config if isinstance(model, SegmentationModel) else {}
    _write(program, path, config_text(type(model).__name__, arguments, known), outputs)
    return program


class _Queries(nn.Module):
    """Images to what the network says of its queries."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        predictions = find_queries(self.network)(images)
        return {name: getattr(predictions, name) for name in QUERIES}


class _FromRaw(nn.Module):
    """Images in [0, 1] to logits of their size, or to queries: what `Predictor` does, without a branch on the size."""

    def __init__(self, network: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        self.network, self.spec, self.resize = network, spec, resize_of(spec)
        self.normalize = None if spec.normalization is None else create_transform(spec.normalization)
        # A normalization draws nothing, but a chain of them keeps its parts' parameters.
        shape = (2, 1, 64, 64)
        self.parameters_of_normalize = None if self.normalize is None else self.normalize.draw(shape, torch.Generator())

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        height, width = images.shape[-2:]
        if self.resize is None:
            x = raw = images
        else:
            seen = self.resize.content_size(height, width)
            x = raw = pad_to(resize_bilinear(images, seen), self.resize.size)
        if self.normalize is not None:
            x, _ = self.normalize.apply(x, None, self.parameters_of_normalize)
        if self.spec.crop is None:
            answer: Tensor | dict[str, Tensor] = self.network(x)
        else:
            answer = logits_of_part(self.network, raw, x, self.spec)
        if self.resize is None or isinstance(answer, dict):
            return answer
        return resize_bilinear(top_left(answer, self.resize.content_size(height, width)), (height, width))


def _trace(model: nn.Module, spec: ModelSpec | None, in_channels: int | None, outputs: Outputs) -> ExportedProgram:
    network = frozen_copy(model)
    if isinstance(network, SegmentationModel):
        network.set_grad_checkpointing(False)
        in_channels = network.config["in_channels"]
        # Unequal sides, and no map of one pixel, or the program would be bound to what they have in common.
        side, other = 2 * max(network.minimum_side, network.stride), network.stride
        # The tracer compares strides, and so tells a map of one pixel, which has any, from larger ones.
        smallest = max(network.minimum_side, network.stride + 1) if spec is None or spec.image_size is None else 2
        # Not of a fixed range, which it compares with strides of odd widths and cannot prove what is so.
        free: Any = Dim.DYNAMIC(min=smallest)
    elif in_channels is None:
        raise ValueError(f"{type(model).__name__} does not say how many channels it takes; give in_channels=")
    else:
        side, other = 128, 64
        smallest, free = other, Dim.DYNAMIC
    numbers = (*network.parameters(), *network.buffers(), torch.zeros(()))
    weight = next(x for x in numbers if x.is_floating_point())
    example = weight.new_zeros(2, in_channels, side, side + other)
    if not isinstance(network, SegmentationModel) and outputs == "logits":
        size = example.shape[2:] if spec is None else spec.crop or spec.image_size or example.shape[2:]
        seen = example.new_zeros(*example.shape[:2], *size)
        check_logits(network(seen), seen, network)
    sizes = {0: Dim("batch", min=1), 2: free, 3: free}
    answering = _Queries(network) if outputs == "queries" else network
    plain = spec is None or (spec.normalization is None and spec.image_size is None)
    if not plain or not isinstance(network, SegmentationModel):
        # What torch.compile and DataParallel put around a network takes any arguments, and the tracer wants one.
        answering = _FromRaw(answering, spec or ModelSpec()).eval()
    refused = (
        f"{type(model).__name__} computes by the size of the image: of sides or strides, what was traced holds for "
    )
    advice = "a program has no branches, so take them out of the network, or predict by the network itself"
    try:
        with torch.compiler.set_stance("force_eager"):  # what torch.compile would compile is traced itself
            program = torch.export.export(answering, (example,), dynamic_shapes=(sizes,))
    except RuntimeError as error:
        if "specialized" not in str(error):
            raise
        raise ValueError(f"{refused}{' or '.join(map(str, example.shape[2:]))} alone; {advice}") from error
    if limits := find_limits(program, smallest, LARGE):
        raise ValueError(f"{refused}{limits} alone; {advice}")
    return program


def find_limits(program: ExportedProgram, lower: int, upper: int) -> str | None:
    """The sides or strides, "lowest to highest", that a program is bound to if it does not take all between these.

    Of a network that does one thing for small images and another for large ones the tracer has seen one branch, and
    what is made of the program without its guards, such as an ONNX model, would take it for all sizes.
    """
    for found in program.range_constraints.values():
        if found.lower > lower or found.upper < upper:
            return f"{found.lower} to {found.upper}"
    return None


def _check_suffix(path: Path) -> None:
    if path.suffix == ".onnx":
        try:
            import onnx  # noqa: F401
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise ImportError(f'writing ONNX needs {error.name}: pip install "brainseg-torch[export]"') from error
    elif path.suffix != ".pt2":
        raise ValueError(f"{path} is neither a program for PyTorch, .pt2, nor an ONNX model, .onnx; name it as one")


def _write(program: ExportedProgram, path: Path, config: str, outputs: Outputs) -> None:
    names = QUERIES if outputs == "queries" else (outputs,)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Under its own name in a folder of its own, since both formats keep the name of a file inside it.
        with passing_name(path) as folder:
            folder.mkdir()
            if path.suffix == ".onnx":
                _write_onnx(program, folder / path.name, config, names)
            else:
                _write_program(program, folder / path.name, config)
            for file in sorted(folder.iterdir(), reverse=True):  # large weights, then what refers to them
                file.replace(path.with_name(file.name))
    except OSError as error:
        if error.errno is None:
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from error


def _write_program(program: ExportedProgram, path: Path, config: str) -> None:
    content = BytesIO()  # PyTorch's own writer of files aborts the process where the disk is full
    torch.export.save(program, content, extra_files={CONFIG: config})
    path.write_bytes(content.getbuffer())


def _write_onnx(program: ExportedProgram, path: Path, config: str, names: Sequence[str]) -> None:
    with _quiet():
        converted: Any = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=names,
            dynamic_shapes=({0: "batch", 2: "height", 3: "width"},),  # names alone: the program has its sizes
        )
    converted.model.metadata_props[CONFIG] = config
    converted.save(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back what PyTorch's exporter has to say of its own code."""
    operators = logging.getLogger("torch.onnx._internal.exporter._schemas")  # torch 2.9 misses annotations
    level = operators.level
    operators.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            yield
    finally:
        operators.setLevel(level)
