"""What the numbers depend on: machine, versions, threads, rounding, and the clocks of the card."""

import datetime
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "brainseg-torch",
    "torch",
    "timm",
    "monai",
    "segmentation-models-pytorch",
    "kornia",
    "albumentations",
    "torchmetrics",
)


def environment(devices: Iterable[str] = ("cpu",)) -> dict[str, Any]:
    """What a report says of where it was made, as JSON values.

    Args:
        devices: those that were measured on; the first of CUDA is described under "gpu", None without one.
    """
    on_cuda = [device for device in devices if device.startswith("cuda") and torch.cuda.is_available()]
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in PACKAGES},
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": _gpu(torch.device(on_cuda[0])) if on_cuda else None,
        "tf32": {
            "matrix products": torch.get_float32_matmul_precision() != "highest",
            "convolutions": torch.backends.cudnn.allow_tf32,
        },
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    match = re.search(r"^model name\s*: (.+)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return match[1] if match else platform.processor()


def _gpu(device: torch.device) -> dict[str, Any]:
    """Name, memory and driver of a CUDA device, and its highest clocks."""
    properties = torch.cuda.get_device_properties(device)
    told = _ask(device, {"driver": "driver_version", "max_sm_mhz": "clocks.max.sm", "max_memory_mhz": "clocks.max.mem"})
    return {
        "name": properties.name,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        **told,
    }


def clocks(device: str) -> dict[str, str] | None:
    """The clocks of a CUDA device at this moment, in MHz, and its temperature in degrees Celsius; None for a CPU."""
    if not device.startswith("cuda") or not torch.cuda.is_available():
        return None
    return _ask(torch.device(device), {"sm_mhz": "clocks.sm", "memory_mhz": "clocks.mem", "celsius": "temperature.gpu"})


def _ask(device: torch.device, fields: dict[str, str]) -> dict[str, str]:
    """What nvidia-smi answers; "not known" where it does not."""
    program = shutil.which("nvidia-smi")
    answer = ""
    if program is not None:
        # By its identity: nvidia-smi does not know CUDA_VISIBLE_DEVICES.
        card = f"--id=GPU-{torch.cuda.get_device_properties(device).uuid}"
        query = f"--query-gpu={','.join(fields.values())}"
        command = [program, card, query, "--format=csv,noheader,nounits"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout
    values = [value.strip() for value in answer.strip().split(",")]
    if len(values) != len(fields):
        return dict.fromkeys(fields, "not known")
    return dict(zip(fields, values, strict=True))
