"""Networks as compiled programs of their operations, for images of every size, kept between processes."""

import copy
import hashlib
import inspect
import logging
import operator
import platform
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from brainseg import __version__
from brainseg._whole import written_whole
from brainseg.inference.exported import find_limits
from brainseg.inference.packed import is_plain_inference
from brainseg.models import SegmentationModel
from brainseg.models.unext import TokenizedUp, UNeXt

OPTIONS = {
    "freezing": True,  # weights are constants, that oneDNN's convolutions and matrix products take in their own order
    "cpp.dynamic_threads": True,
    "cpp.threads": 16,  # loops are divided for so many, and run on as many as there are
    "aot_inductor.compile_wrapper_opt_level": "O0",  # of what calls the kernels, not of them
}

EXAMPLE = (2, 8, 9)
"""Images, and height and width in strides, that loops are divided for; any others run as well."""

TOLERANCE = 1e-4
"""Of the largest logit, between a network and a program that was found in the cache."""

LARGEST = 1024
"""Height and width in strides, at most."""


def compile_network(network: SegmentationModel) -> None:
    """Lets a network compute by a compiled program wherever it can; all else it computes as before.

    On the CPU the program takes float32 images of more than `stride` pixels a side, in evaluation and without
    gradients. It is kept in the cache folder of PyTorch's compiler (TORCHINDUCTOR_CACHE_DIR), and found there by the
    next process that compiles the same weights. On other devices, and for networks that cannot be exported, it is
    `torch.compile`, which begins anew in every process and for other sizes.

    Args:
        network: in eval mode; changed in place.

    Raises:
        RuntimeError: PyTorch's, without a C++ compiler.
    """
    on_cpu = all(weight.device.type == "cpu" for weight in network.parameters())
    path = _find_program(network) if on_cpu and _has_plain_head(network) else None
    if path is None:
        network.compile()
    else:
        # In the instance, so that its class stays what it is.
        network.__dict__["forward"] = CompiledForward(network, path, _digest(network))


class CompiledForward:
    """The forward pass of a network: by the program if it is made for that, else by the network itself.

    Args:
        network: whose forward pass this is.
        path: of the program.
        digest: of the weights that it was made with.
    """

    def __init__(self, network: SegmentationModel, path: Path, digest: str) -> None:
        self.network, self.path, self.digest = network, path, digest
        self._program: Callable[[Tensor], Tensor] | None = None
        self._seen: list[int] = []
        self._is_current = False

    def __call__(self, images: Tensor) -> Any:
        network = self.network
        if not self._fits(images):
            return type(network).forward(network, images)
        network._check(images)
        height, width = images.shape[-2:]
        if self._program is None:
            self._program = _load(self.path)
        # A program reads images in the order of those that it was made with, whatever their strides say.
        return network._cropped(self._program(network._pad(images).contiguous()), height, width, 1)

    def _fits(self, images: Tensor) -> bool:
        network = self.network
        return (
            not network.training
            and is_plain_inference(images)
            and images.dim() == 4
            and network.stride < min(images.shape[2:])
            and max(images.shape[2:]) <= LARGEST * network.stride
            and self._knows_the_weights()
        )

    def _knows_the_weights(self) -> bool:
        seen = []
        for weight in _weights(self.network):
            if weight.requires_grad and torch.is_grad_enabled():
                return False
            seen += [weight.data_ptr(), 0 if weight.is_inference() else weight._version]
        if seen != self._seen:
            self._seen, self._is_current = seen, _digest(self.network) == self.digest
        return self._is_current

    def __reduce__(self) -> tuple[Any, ...]:
        return CompiledForward, (self.network, self.path, self.digest)


def _find_program(network: SegmentationModel) -> Path | None:
    """Where the program of the network lies, made if it is not there; None for a network that cannot be exported."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    path = Path(cache_dir(), "brainseg", f"{_key(network)}.pt2")
    if path.is_file() and _agree(network, path):
        return path
    try:
        program = _export(network)
    except RuntimeError as error:
        logging.getLogger(__name__).info("%s cannot be exported: %s", type(network).__name__, error)
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as partial, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, of its own code
        options = {**OPTIONS, "post_grad_custom_pre_pass": _create_packing_pass()}
        torch._inductor.aoti_compile_and_package(program, package_path=str(partial), inductor_configs=options)
    return path


def _export(network: SegmentationModel) -> torch.export.ExportedProgram:
    images, rows, columns = EXAMPLE
    stride, weight = network.stride, next(network.parameters())
    example = weight.new_zeros(images, network.config["in_channels"], stride * rows, stride * columns)
    # By strides, so that no loop has to divide; a map of one pixel would be another program.
    height, width = (stride * Dim(name, min=2, max=LARGEST) for name in ("rows", "columns"))
    sizes = {0: Dim("batch", min=1), 2: height, 3: width}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(_Core(network), (example,), dynamic_shapes=(sizes,))
    if limits := find_limits(program, 2 * stride, LARGEST):
        raise RuntimeError(f"it computes by the size of the image: what was traced holds for {limits} alone")
    return program


def _load(path: Path) -> Callable[[Tensor], Tensor]:
    program: Callable[[Tensor], Tensor] = torch._inductor.aoti_load_package(str(path))
    return program


def _agree(network: SegmentationModel, path: Path) -> bool:
    """Whether a program that was found computes what the network does, and can be read at all."""
    stride, weight = network.stride, next(network.parameters())
    images = torch.rand(1, network.config["in_channels"], 2 * stride, 3 * stride, dtype=weight.dtype)
    with torch.no_grad():
        expected = type(network).forward(network, images)
        assert isinstance(expected, Tensor)
        try:
            found = _load(path)(images)
        except RuntimeError:
            return False
    return found.shape == expected.shape and bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())


def _has_plain_head(network: SegmentationModel) -> bool:
    """Whether the logits are `head` of what `decode` gives last."""
    return type(network)._logits is SegmentationModel._logits and isinstance(network.head, nn.Conv2d)


def _key(network: SegmentationModel) -> str:
    """Of all that the program depends on: weights, structure, the code of both, PyTorch and the processor."""
    facts = [
        _digest(network),
        repr(network),
        repr(network.config),
        repr(OPTIONS),
        __version__,
        torch.__version__,
        torch.backends.cpu.get_cpu_capability(),
        platform.platform(),
        *_processor(),
    ]
    files = {Path(__file__)}
    for kind in {type(module) for module in network.modules()}:
        files |= {Path(inspect.getfile(parent)) for parent in kind.__mro__ if parent.__module__ != "builtins"}
    facts += [path.read_text() for path in sorted(files) if path.is_file()]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:32]


def _processor() -> Iterator[str]:
    """What Linux says of the processor: its name and what it can do."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text().splitlines()
        for word in ("model name", "flags", "Features"):
            yield from [line for line in lines if line.startswith(word)][:1]


def _weights(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def _digest(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for weight in _weights(network):
        digest.update(f"{weight.dtype}{tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class _Core(nn.Module):
    """From images of whole strides to their logits, in a form that the compiler makes the fastest kernels of."""

    def __init__(self, network: SegmentationModel) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        if isinstance(self.network, UNeXt):
            *ups, last = self.network.decoder
            for up in ups:
                if isinstance(up, TokenizedUp):
                    up.add_module("upsample", _Phases())
            head = self.network.head
            if isinstance(head, nn.Conv2d) and head.out_channels <= 4:
                self.network.decoder[-1] = last.get_submodule("conv")
                self.network.add_module("head", _UpsampledHead(head))

    def forward(self, images: Tensor) -> Tensor:
        *_, finest = self.network.decode(self.network.encode(images))
        logits: Tensor = self.network.head(finest)
        scale = float(self.network.decoder_stride)
        return logits if scale == 1 else F.interpolate(logits, scale_factor=scale, mode="bilinear")


class _Phases(nn.Module):
    """Bilinear x2, the four pixels of the output for each of the input at once.

    The compiler would compute its own upsampling anew for each of the passes of the layer norm that reads it.
    """

    def forward(self, x: Tensor) -> Tensor:
        rows = [torch.stack(row, dim=3) for row in _double(x)]  # (B, H, W, 2, C) each
        return torch.stack(rows, dim=2).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


class _UpsampledHead(nn.Module):
    """Bilinear x2, ReLU and a 1x1 convolution to few channels: the large map between them is never written."""

    def __init__(self, head: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = head.weight, head.bias

    def forward(self, x: Tensor) -> Tensor:
        rows = [torch.stack([self._logits(phase) for phase in row], dim=4) for row in _double(x)]
        return torch.stack(rows, dim=3).flatten(4, 5).flatten(2, 3)  # (B, K, H, 2, W, 2) to (B, K, 2 H, 2 W)

    def _logits(self, x: Tensor) -> Tensor:
        weights, x = self.weight.flatten(1), x.relu()  # (K, C), (B, H, W, C)
        logits = torch.stack([(x * weight).sum(-1) for weight in weights], dim=1)
        return logits if self.bias is None else logits + self.bias[:, None, None]


def _double(x: Tensor) -> list[list[Tensor]]:
    """Of each pixel the two rows of two pixels that bilinear x2 makes of it, (B, H, W, C) each."""
    x = F.pad(x, (1, 1, 1, 1), mode="replicate").permute(0, 2, 3, 1)
    above, middle, below = x[:, :-2], x[:, 1:-1], x[:, 2:]
    rows = (0.25 * above + 0.75 * middle, 0.75 * middle + 0.25 * below)
    neighbours = [(row[:, :, :-2], row[:, :, 1:-1], row[:, :, 2:]) for row in rows]
    return [[0.25 * left + 0.75 * centre, 0.75 * centre + 0.25 * right] for left, centre, right in neighbours]


def _create_packing_pass() -> Any:
    """Puts the weights of convolutions in the order of oneDNN, which PyTorch does for sizes that are known only."""
    from torch._inductor.custom_graph_pass import CustomGraphPass

    class Packing(CustomGraphPass):
        def __call__(self, graph: torch.fx.Graph) -> None:
            module = graph.owning_module
            assert module is not None
            for count, node in enumerate(list(graph.nodes)):
                if node.target is not torch.ops.mkldnn._convolution_pointwise.default:
                    continue
                _, weight, _, padding, stride, dilation, groups, *_ = node.args
                value = operator.attrgetter(weight.target)(module) if weight.op == "get_attr" else None
                if value is None or value.is_mkldnn:
                    continue
                with torch.utils._python_dispatch._disable_current_modes():
                    packed = torch.ops.mkldnn._reorder_convolution_weight(
                        value.detach(), padding, stride, dilation, groups, None
                    )
                module.register_buffer(f"packed_{count}", packed)
                with graph.inserting_before(node):
                    replacement = graph.get_attr(f"packed_{count}")
                replacement.meta.update(weight.meta)
                node.replace_input_with(weight, replacement)
            graph.eliminate_dead_code()

        def uuid(self) -> bytes:
            return Path(__file__).read_bytes()

    return Packing()
