"""What computes the logits: PyTorch, a program that it compiled, or onnxruntime."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import Tensor, nn

from brainseg.inference.exported import export
from brainseg.inference.optimized import optimize
from brainseg.models import ModelSpec, SegmentationModel

Backend = Literal["torch", "compile", "onnxruntime"]


def create_backend(backend: Backend, model: nn.Module, spec: ModelSpec) -> Callable[[Tensor], Tensor]:
    """From normalized images (B, C, H, W) to logits (B, K, H, W), by the model's weights of now.

    Args:
        backend: "torch": the model itself. "compile": `optimize(model, compile=True)`, a network of others by
            `torch.compile`. "onnxruntime": `export(optimize(model))` run on the CPU.
        model: on its device.
        spec: with the classes of the model.

    Raises:
        ImportError: "onnxruntime" without the extra `export`.
        ValueError: "onnxruntime" for a model that is not on the CPU in float32; with the first images for one that
            `export` refuses.
        RuntimeError: "compile" without a C++ compiler, on the CPU.
    """
    if backend == "torch":
        return model
    if backend == "compile":
        if isinstance(model, SegmentationModel):
            return optimize(model, compile=True)
        compiled: Callable[[Tensor], Tensor] = torch.compile(optimize(model))
        return compiled
    return _OnnxSession(model, spec)


class _OnnxSession:
    """An exported network in onnxruntime, on as many threads as PyTorch has."""

    def __init__(self, model: nn.Module, spec: ModelSpec) -> None:
        try:
            import onnxruntime  # type: ignore[import-untyped]
        except ImportError as error:
            raise ImportError('the backend onnxruntime needs it: pip install "brainseg-torch[export]"') from error
        weight = next(model.parameters(), torch.zeros(()))
        if weight.device.type != "cpu" or weight.dtype != torch.float32:
            raise ValueError(
                f"the backend onnxruntime predicts on the CPU in float32, the network is {weight.dtype} on "
                f"{weight.device}; give device='cpu' and model.float(), or another backend"
            )
        self._runtime, self._model, self._spec = onnxruntime, optimize(model), spec
        self._session: Any = None

    def __call__(self, images: Tensor) -> Tensor:
        if self._session is None:
            self._session = self._open(images.shape[1])
        return torch.from_numpy(self._session.run(None, {"images": images.numpy()})[0])

    def _open(self, in_channels: int) -> Any:
        """With the first images, which alone say how many channels a network of others takes."""
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        with TemporaryDirectory() as folder:
            path = Path(folder, "network.onnx")
            export(self._model, path, normalize=False, spec=self._spec, in_channels=in_channels)
            return self._runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
