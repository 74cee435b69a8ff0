"""Three steps of a small Mask DINO on four images, and a program that takes them in two processes.

`python -m tests.models.mask_dino.processes FOLDER` lets them meet through a file in the folder, where each writes
RANK.pt.
"""

import os
import sys
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.multiprocessing import start_processes
from torch.nn.parallel import DistributedDataParallel

from brainseg.models import MaskDINO
from brainseg.models.mask_dino import Target, targets_from_masks

NARROW: dict[str, Any] = {
    "backbone": "small",
    "channels": (8, 8, 16, 16),
    "conv_dim": 32,
    "mask_dim": 16,
    "hidden_dim": 32,
    "encoder_layers": 1,
    "encoder_ffn": 32,
    "decoder_layers": 2,
    "decoder_ffn": 32,
    "num_queries": 8,
    "dn_number": 6,
    "num_points": 64,
}
SHARES = [range(3), range(3, 4)]


def network() -> MaskDINO:
    torch.manual_seed(0)
    return MaskDINO(num_classes=2, **NARROW).double().train()


def images() -> tuple[Tensor, list[Target]]:
    """With 1, 0, 2 and 3 objects."""
    x = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    masks = torch.zeros(4, 2, 64, 64)
    masks[0, 0, 5:20, 8:30] = masks[2, 0, 30:50, 30:60] = masks[2, 1, 4:20, 40:60] = 1
    masks[3, 0, 2:12, 2:12] = masks[3, 0, 20:40, 10:25] = masks[3, 1, 45:60, 30:62] = 1
    return x, targets_from_masks(masks, components=True)


def steps(model: nn.Module, rows: range) -> list[tuple[Tensor, list[Tensor]]]:
    """The loss of each step, and the gradients of all parameters that learn."""
    x, targets = images()
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=1e-3)
    taken = []
    for step in range(3):

        def rand(name: str, shape: tuple[int, ...], step: int = step) -> Tensor:
            # The same for every object and image, so that it does not matter which of them a process has.
            draw = "/".join(name.split("/")[:2]) if name.startswith("match/") else name
            generator = torch.Generator().manual_seed(zlib.crc32(f"{step} {draw}".encode()))
            return torch.rand(shape[1:], generator=generator, dtype=torch.float64).expand(shape).clone()

        total, _ = model(x[rows.start : rows.stop], targets[rows.start : rows.stop], rand=rand)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        gradients = [p.grad.clone() for p in learning if p.grad is not None]
        assert len(gradients) == len(learning)
        taken.append((total.detach(), gradients))
    return taken


def run(rank: int, folder: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    taken = steps(DistributedDataParallel(network()), SHARES[rank])
    torch.save(taken, Path(folder, f"{rank}.pt"))
    distributed.destroy_process_group()


if __name__ == "__main__":
    # Copies of this process, so that both have imported what they need.
    start_processes(run, args=sys.argv[1:], nprocs=2, start_method="fork")
