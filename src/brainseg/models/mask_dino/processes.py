"""What the processes of a distributed training have to agree on."""

import torch
from torch import Tensor, distributed


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes; itself where there is one process."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return value
    distributed.all_reduce(value)
    return value / distributed.get_world_size()


def largest_of_processes(number: int, device: torch.device) -> int:
    """The largest of the processes' numbers."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return number
    largest = torch.tensor(number, device=device)
    distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    return int(largest)
