"""What each step of docs/speed.md brings in training, inference and memory of UNeXt; the first row has none of them."""

import ctypes
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.models import monai_unet, ours
from brainseg.benchmark import Candidate, Case, Run, Setting, create_run
from brainseg.inference.backends import create_backend
from brainseg.memory import M_MMAP_THRESHOLD, M_TOP_PAD, M_TRIM_THRESHOLD, MIB, keep_freed_memory
from brainseg.models import ModelSpec

NETWORK = "unext"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Build = Callable[[], nn.Module]


def cases() -> list[Case]:
    """What `python -m benchmarks speed` measures."""
    return [
        case("Training step, batch 8, 256x256", training(Setting(DEVICE, 8, mode="training"))),
        *(case(f"Inference, batch {batch}, 256x256", inference(Setting(DEVICE, batch))) for batch in (1, 8)),
        *(case(f"Beside MONAI's UNet, batch {batch}, 256x256", beside(Setting(DEVICE, batch))) for batch in (1, 8)),
        case("Beside MONAI's UNet, training step, batch 8, 256x256", step_beside(Setting(DEVICE, 8, mode="training"))),
        Case("U-Nets optimized, batch 1, 256x256", u_nets(Setting(DEVICE)), device=DEVICE),
        case("Memory of a training step, 256x256", small_training(Setting(DEVICE, 8, mode="training"))),
        case("Memory of an inference, batch 1, 1024x1024", small_inference(Setting(DEVICE, size=1024))),
    ]


def plain() -> nn.Module:
    return ours(NETWORK)


def case(title: str, candidates: Sequence[Candidate]) -> Case:
    return Case(f"{title}, {NETWORK}", candidates, device=DEVICE)


def training(as_is: Setting) -> list[Candidate]:
    last = replace(as_is, layout="channels_last")
    return [
        row("as it is", as_is, kept=False),
        row("freed memory kept", as_is),
        row("freed memory kept, channels_last", last),
        row("freed memory kept, channels_last, bfloat16", replace(last, dtype="bfloat16")),
        row("freed memory kept, compiled", replace(as_is, compile=True)),
        row("freed memory kept, checkpointed", as_is, build=checkpointed),
    ]


def inference(as_is: Setting) -> list[Candidate]:
    fast = replace(as_is, optimize=True)
    return [
        row("as it is", as_is, kept=False),
        row("freed memory kept", as_is, equal="as it is"),
        row("freed memory kept, channels_last", replace(as_is, layout="channels_last"), equal="as it is"),
        row("freed memory kept, optimized", fast, equal="as it is"),
        row("freed memory kept, optimized, compiled", replace(fast, compile=True), equal="as it is"),
        row("freed memory kept, optimized, bfloat16", replace(fast, dtype="bfloat16")),
        Candidate("onnxruntime", partial(onnxruntime, fast), "as it is", 1e-3),
    ]


def beside(as_is: Setting) -> list[Candidate]:
    fast = replace(as_is, optimize=True)
    return [
        row("MONAI UNet", as_is, build=monai_unet),
        row("as it is", as_is),
        row("optimized", fast, equal="as it is"),
        row("optimized, compiled", replace(fast, compile=True), equal="as it is"),
        Candidate("onnxruntime", partial(onnxruntime, fast), "as it is", 1e-3),
    ]


def step_beside(as_is: Setting) -> list[Candidate]:
    return [
        row("MONAI UNet", as_is, build=monai_unet),
        row("as it is", as_is),
        row("channels_last", replace(as_is, layout="channels_last")),
    ]


def u_nets(as_is: Setting) -> list[Candidate]:
    fast = replace(as_is, optimize=True)
    return [
        row(f"{name}{words}", setting, build=partial(ours, name), equal=None if setting is as_is else name)
        for name in ("unet_small", "resunet")
        for words, setting in (("", as_is), (", optimized", fast))
    ]


def small_training(as_is: Setting) -> list[Candidate]:
    half = replace(as_is, dtype="bfloat16")
    return [
        row("batch 8", as_is, kept=False),
        row("batch 8, freed memory kept", as_is),
        row("batch 8, checkpointed", as_is, kept=False, build=checkpointed),
        row("batch 8, bfloat16", half, kept=False),
        row("batch 8, bfloat16, checkpointed", half, kept=False, build=checkpointed),
        row("batch 2", replace(as_is, batch=2), kept=False),
        row("batch 8, unext_small", as_is, kept=False, build=partial(ours, "unext_small")),
    ]


def small_inference(as_is: Setting) -> list[Candidate]:
    return [
        row("as it is", as_is, kept=False),
        row("freed memory kept", as_is),
        row("optimized", replace(as_is, optimize=True), kept=False),
        row("bfloat16", replace(as_is, dtype="bfloat16"), kept=False),
        row("512x512", replace(as_is, size=512), kept=False),
        row("unext_small", as_is, kept=False, build=partial(ours, "unext_small")),
    ]


def row(name: str, setting: Setting, *, kept: bool = True, build: Build = plain, equal: str | None = None) -> Candidate:
    return Candidate(name, partial(run, build, setting, kept), equal, 1e-3)


def checkpointed() -> nn.Module:
    model: Any = ours(NETWORK)
    model.set_grad_checkpointing()
    network: nn.Module = model
    return network


def run(build: Build, setting: Setting, kept: bool) -> Run:
    return in_memory(create_run(build, setting), kept)


def in_memory(made: Run, kept: bool) -> Run:
    """The calls with freed memory kept or returned, whatever the one before them did: so both are timed in turn."""
    remember = keep_freed_memory if kept else return_freed_memory

    def call() -> Any:
        remember()
        return made.call()

    return replace(made, call=call)


def return_freed_memory() -> None:
    """Where glibc's thresholds come to rest by themselves in a process that frees large blocks."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        for parameter, size in ((M_MMAP_THRESHOLD, 32 * MIB), (M_TRIM_THRESHOLD, 64 * MIB), (M_TOP_PAD, MIB // 8)):
            libc.mallopt(parameter, size)


def onnxruntime(setting: Setting) -> Run:
    torch.manual_seed(0)
    forward = create_backend("onnxruntime", ours(NETWORK), ModelSpec())
    size = (setting.batch, setting.in_channels, setting.size, setting.size)
    images = torch.rand(size, generator=torch.Generator().manual_seed(0))
    forward(images)  # the session is made with the first images

    def call() -> Tensor:
        return forward(images)

    return Run(call, result=lambda: call().flatten())
