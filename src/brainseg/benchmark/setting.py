"""A network as it is to be run: where, on what, how exactly, and by which of PyTorch's ways."""

from dataclasses import dataclass
from typing import Literal

from brainseg.checks import check_choice, check_count

Precision = Literal["float32", "tf32", "bfloat16", "float16"]
Mode = Literal["inference", "training"]
Layout = Literal["contiguous", "channels_last"]


@dataclass(frozen=True)
class Setting:
    """How a network is run.

    Attributes:
        device: "cpu", "cuda" or "cuda:1".
        batch: images a call.
        size: height and width of an image in pixels.
        in_channels: its channels.
        dtype: "float32" is IEEE's on every device; "tf32", on CUDA, lets convolutions and matrix products round their
            float32 inputs to 10 bits; the half types are those of weights and images in inference, of autocast
            around float32 weights in training.
        mode: "inference" in eval mode, or "training": forward, the mean square of the outputs as loss, backward, and
            a step of fused AdamW with a learning rate of 0, so that all steps are alike.
        layout: memory format of images and weights.
        optimize: by `brainseg.inference.optimize`, in inference.
        compile: by `torch.compile`, for these shapes; with `optimize`, in float32, by `optimize(compile=True)`.
        cuda_graph: the whole call recorded once as a CUDA graph, then replayed.

    Raises:
        ValueError: a value that is none of these, or two that exclude each other.
    """

    device: str = "cpu"
    batch: int = 1
    size: int = 256
    in_channels: int = 3
    dtype: Precision = "float32"
    mode: Mode = "inference"
    layout: Layout = "contiguous"
    optimize: bool = False
    compile: bool = False
    cuda_graph: bool = False

    def __post_init__(self) -> None:
        for name in ("batch", "size", "in_channels"):
            check_count(name, getattr(self, name))
        for name, choices in (("dtype", Precision), ("mode", Mode), ("layout", Layout)):
            check_choice(name, getattr(self, name), choices)
        kind, _, index = self.device.partition(":")
        if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
            raise ValueError(f"device must be cpu, cuda or cuda:1, got {self.device!r}")
        if kind == "cpu" and (self.cuda_graph or self.dtype == "tf32"):
            raise ValueError(f"{'a CUDA graph' if self.cuda_graph else 'tf32'} needs device cuda, got cpu")
        if self.mode == "training" and self.optimize:
            raise ValueError("optimize makes copies for inference; it cannot be measured in training")
