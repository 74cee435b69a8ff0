"""A network as one file that runs without our code: a program for PyTorch, or an ONNX model for all else."""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from brainseg.models import SegmentationModel
from brainseg.models.files import CONFIG


def export(model: SegmentationModel, path: str | Path | None = None) -> ExportedProgram:
    """The network in eval mode as a program of its operations alone, with batch, height and width free.

    The normalization of the images is not part of the program. A file names it in its `config.json`, the same as
    `save_pretrained` writes: in the `extra_files` of `torch.export.load`, or in the metadata of the ONNX model.

    Args:
        model: any of our networks, or the copy that `optimize` made of one; it stays as it is.
        path: `.pt2` for a file that `torch.export.load` reads; `.onnx` for a model with the input "images" (batch, C,
            height, width) and the output "logits" (batch, K, height, width), whose weights are in a second file beside
            it if they are too large for the format. None: no file.

    Returns:
        the program, on the model's device and in its dtype; its `module()` maps images (B, C, H, W) to logits
        (B, K, H, W). It takes sides of more than `model.stride` pixels (UNeXt and most backbones: from 33); the ONNX
        model takes all that the network takes.

    Raises:
        ValueError: another suffix.
        ImportError: an ONNX model without onnx and onnxscript.
        RuntimeError: PyTorch's, for a backbone that computes by the size of the image, such as Swin by its windows.
    """
    if path is None:
        return _trace(model)
    path = Path(path)
    if path.suffix == ".onnx":
        try:
            import onnx  # noqa: F401
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise ImportError(f'writing ONNX needs {error.name}: pip install "brainseg-torch[export]"') from error
    elif path.suffix != ".pt2":
        raise ValueError(f"{path} is neither a program for PyTorch, .pt2, nor an ONNX model, .onnx; name it as one")
    program = _trace(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Under its own name in a folder of its own, since both formats keep the name of a file inside it.
    with TemporaryDirectory(prefix=".", dir=path.parent) as folder:
        write = _write_onnx if path.suffix == ".onnx" else _write_program
        write(program, Path(folder, path.name), model.config_text())
        for file in sorted(Path(folder).iterdir(), reverse=True):  # large weights, then the model that refers to them
            file.replace(path.with_name(file.name))
    return program


def _trace(model: SegmentationModel) -> ExportedProgram:
    network = copy.deepcopy(model).eval().requires_grad_(False)
    network.set_grad_checkpointing(False)
    weight = next(network.parameters())
    # Unequal sides, and more than one pixel on every map, or the program would be bound to what they have in common.
    side = 2 * max(model.minimum_side, model.stride)
    example = weight.new_zeros(2, model.config["in_channels"], side, side + model.stride)
    # The tracer compares strides, and so tells a map of one pixel, which has any, from larger ones.
    smallest = max(model.minimum_side, model.stride + 1)
    sizes = {0: Dim("batch", min=1), 2: Dim("height", min=smallest), 3: Dim("width", min=smallest)}
    return torch.export.export(network, (example,), dynamic_shapes=(sizes,))


def _write_program(program: ExportedProgram, path: Path, config: str) -> None:
    torch.export.save(program, path, extra_files={CONFIG: config})


def _write_onnx(program: ExportedProgram, path: Path, config: str) -> None:
    with _quiet():
        converted: Any = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=["logits"],
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
