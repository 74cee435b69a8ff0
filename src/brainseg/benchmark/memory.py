"""How it looks when memory runs out, and giving it back."""

import gc

import torch


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, on a CUDA device or in the process."""
    # PyTorch's allocator for the processor has no exception of its own.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


def release_memory() -> None:
    """Gives back what nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
