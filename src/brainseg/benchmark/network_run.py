"""From a network and a setting to a call that can be timed."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from brainseg.benchmark.clock import Call
from brainseg.benchmark.harness import NotAvailableError, Run
from brainseg.benchmark.setting import Setting
from brainseg.inference import optimize
from brainseg.models import SegmentationModel

HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
Read = Callable[[Any], Tensor]
"""From what a call gives to the numbers that are checked."""


def create_run(build: Callable[[], nn.Module], setting: Setting, facts: Mapping[str, float] | None = None) -> Run:
    """A network made ready to be measured.

    Args:
        build: makes it, after torch's seed has been set to 0.
        setting: how to run it.
        facts: numbers for the table.

    Returns:
        what `measure` takes; its result is the outputs in inference, and in training the loss and the norm of every
        gradient.

    Raises:
        NotAvailableError: a CUDA device where there is none.
    """
    device = torch.device(setting.device)
    reason = why_not(device)
    if reason is not None:
        raise NotAvailableError(reason)
    torch.manual_seed(0)
    model = build().to(device)
    memory_format = torch.channels_last if setting.layout == "channels_last" else torch.contiguous_format
    model.to(memory_format=memory_format)  # type: ignore[call-overload]
    size = (setting.batch, setting.in_channels, setting.size, setting.size)
    images = torch.rand(size, generator=torch.Generator().manual_seed(0)).to(device, memory_format=memory_format)
    prepare = _inference if setting.mode == "inference" else _training
    call, read = prepare(model, images, setting)
    kept_bytes = 0
    if setting.cuda_graph:
        with torch.cuda.device(device):
            call, kept_bytes = _recorded(call, device)
    return Run(call, facts or {}, lambda: read(call()), kept_bytes)


def why_not(device: torch.device) -> str | None:
    """What keeps a device from being measured; None if it is there."""
    if device.type != "cuda":
        return None
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    if (device.index or 0) >= torch.cuda.device_count():
        return f"torch finds {torch.cuda.device_count()} CUDA devices, none of number {device.index}"
    return None


def _inference(model: nn.Module, images: Tensor, setting: Setting) -> tuple[Call, Read]:
    model = model.eval().requires_grad_(False)
    # Of our networks, optimized, there is a program for all sizes; of others, and in half precision, one for these.
    compilable = setting.dtype == "float32" and isinstance(model, SegmentationModel)
    for_all_sizes = setting.optimize and setting.compile and compilable
    if setting.optimize:
        model = optimize(model, compile=for_all_sizes)
    dtype = HALVES.get(setting.dtype, torch.float32)
    model, images = model.to(dtype), images.to(dtype)
    forward = _compiled(model) if setting.compile and not for_all_sizes else model

    def call() -> Any:
        with torch.inference_mode(), rounding(setting):
            return forward(images)

    return call, lambda outputs: torch.cat([output.float().flatten() for output in _found(outputs)])


def _training(model: nn.Module, images: Tensor, setting: Setting) -> tuple[Call, Read]:
    model.train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    if not weights:
        raise ValueError(f"{type(model).__name__} has no parameters to train")
    optimizer = torch.optim.AdamW(weights, lr=0.0, weight_decay=0.0, fused=True, capturable=setting.cuda_graph)
    forward = _compiled(model) if setting.compile else model
    half = HALVES.get(setting.dtype)

    def call() -> Tensor:
        optimizer.zero_grad()
        with rounding(setting):
            with torch.autocast(images.device.type, half, enabled=half is not None):
                outputs = _found(forward(images))
            loss = torch.stack([output.float().square().mean() for output in outputs]).mean()
            torch.autograd.backward(loss)
            optimizer.step()
        return loss.detach()

    def read(loss: Tensor) -> Tensor:
        return torch.stack([loss, *(weight.grad.norm() for weight in weights if weight.grad is not None)])

    return call, read


def _compiled(model: nn.Module) -> Callable[[Tensor], Any]:
    # Networks that share code count as recompilations of it, and past the limit they would quietly run eagerly.
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, 1000)
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, 10_000)
    compiled: Callable[[Tensor], Any] = torch.compile(model, dynamic=False)
    return compiled


def _recorded(call: Call, device: torch.device) -> tuple[Call, int]:
    """The call as a CUDA graph, and the bytes that it holds for its replays."""
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):  # libraries choose their kernels and workspaces before anything is recorded
        for _ in range(3):
            call()
    torch.cuda.current_stream(device).wait_stream(stream)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = call()
    kept_bytes = torch.cuda.max_memory_allocated(device) - before

    def replay() -> Any:
        graph.replay()
        return outputs

    return replay, kept_bytes


@contextmanager
def rounding(setting: Setting) -> Iterator[None]:
    """TF32 on CUDA as the setting says, and afterwards as it was."""
    if not setting.device.startswith("cuda"):
        yield
        return
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if setting.dtype == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = setting.dtype == "tf32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def _found(outputs: Any) -> list[Tensor]:
    """The floating-point tensors of a network's outputs, however these are nested."""
    found = _tensors(outputs)
    if not found:
        raise ValueError("the network gives no floating-point tensor, so that there is nothing to check or to train")
    return found


def _tensors(outputs: Any) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs] if outputs.is_floating_point() else []
    if isinstance(outputs, Mapping):
        return _tensors(list(outputs.values()))
    if isinstance(outputs, list | tuple):
        return [tensor for output in outputs for tensor in _tensors(output)]
    if outputs is None:
        return []
    raise ValueError(f"the network gives {type(outputs).__name__}, expected tensors, or lists or dicts of them")
