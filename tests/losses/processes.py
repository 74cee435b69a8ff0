"""Batch losses of four images, and a program that computes them in two processes.

`python -m tests.losses.processes FOLDER` lets them meet through a file in the folder, where each writes RANK.json.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.multiprocessing import start_processes
from torch.nn.parallel import DistributedDataParallel

from brainseg import losses

SHARES = [range(3), range(3, 4)]
LOSSES = [
    "DiceLoss",
    "BCEDiceLoss",
    "TverskyLoss",
    "FocalTverskyLoss",
    "JaccardLoss",
    "GeneralizedDiceLoss",
    "MCCLoss",
]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(2, 3, 3, padding=1).double()


def images() -> tuple[Tensor, Tensor, Tensor]:
    """Images, masks of 3 classes and what is valid: of the first class nothing in the last image, the second's share.

    The second class is empty in the first share.
    """
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, 2, 8, 8, generator=generator, dtype=torch.float64)
    target = (torch.rand(4, 3, 8, 8, generator=generator) < 0.3).double()
    target[:3, 1] = 0
    valid = torch.rand(4, 3, 8, 8, generator=generator) < 0.8
    valid[3, 0] = False
    return x, target, valid


def report(loss: nn.Module, model: nn.Module, rows: range, *, with_valid: bool) -> dict[str, Any]:
    """The loss of some images and the gradients of the model's parameters."""
    x, target, valid = images()
    model.zero_grad()
    found = loss(model(x[rows]), target[rows], valid=valid[rows] if with_valid else None)
    found.backward()
    gradients = [parameter.grad.tolist() for parameter in model.parameters() if parameter.grad is not None]
    return {"loss": found.item(), "gradients": gradients}


def indices(model: nn.Module, rows: range, *, compiled: bool = False) -> dict[str, Any]:
    """The Dice loss of class indices, of which those of the last image are all ignored."""
    x, target, _ = images()
    classes = target.argmax(1)
    classes[3] = 255
    model.zero_grad()
    loss = losses.DiceLoss(batch=True, ignore_index=255, include_background=False)
    function = torch.compile(loss, fullgraph=True, backend="aot_eager") if compiled else loss
    found = function(model(x[rows]), classes[rows])
    found.backward()
    gradients = [parameter.grad.tolist() for parameter in model.parameters() if parameter.grad is not None]
    return {"loss": found.item(), "gradients": gradients}


def run(rank: int, folder: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    rows, reports = SHARES[rank], {}
    model = DistributedDataParallel(network())
    for name in LOSSES:
        for with_valid in (True, False):
            loss = getattr(losses, name)(batch=True)
            reports[f"{name} {with_valid}"] = report(loss, model, rows, with_valid=with_valid)
    reports["indices"] = indices(model, rows)
    reports["compiled"] = indices(model, rows, compiled=True)
    x, target, _ = images()
    logits = network()(x[rows])
    reports["not gathered"] = losses.dice_loss(logits, target[rows], batch=True, gather=False).item()
    reports["each image"] = losses.dice_loss(logits, target[rows]).item()
    with torch.no_grad():
        # One process has more batches to validate than the other.
        for _ in range(1 + rank):
            reports["validation"] = losses.dice_loss(logits, target[rows], batch=True).item()
    Path(folder, f"{rank}.json").write_text(json.dumps(reports))
    distributed.destroy_process_group()


if __name__ == "__main__":
    # Copies of this process, so that both have imported what they need.
    start_processes(run, args=sys.argv[1:], nprocs=2, start_method="fork")
