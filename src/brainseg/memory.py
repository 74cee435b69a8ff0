"""Memory that a process frees stays with it, so that the next step need not get it anew."""

import ctypes
import sys

__all__ = ["keep_freed_memory"]

# Parameters of glibc's mallopt, from malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3

MIB = 2**20


def keep_freed_memory() -> bool:
    """Tells glibc's allocator to keep what this process frees, for all that it does from now on.

    By default glibc returns large blocks to the system when they are freed and gets them anew, zeroed page by page,
    when they are next asked for: on the CPU a step of training pays that for every activation. With this it does so no
    longer; the process stays at its highest use of memory until it ends. Only programs call this, brainseg's command
    and benchmarks among them: no import does. In the environment the same is ``MALLOC_MMAP_THRESHOLD_=1073741824
    MALLOC_TRIM_THRESHOLD_=-1 MALLOC_TOP_PAD_=67108864``.

    Returns:
        whether it was done: True on Linux with glibc, where blocks of up to 1 GiB (32 MiB before glibc 2.35) are kept;
        False elsewhere, where nothing has changed.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    # Older versions refuse more than half of what a thread's heap may have.
    blocks = any(libc.mallopt(M_MMAP_THRESHOLD, size * MIB) for size in (1024, 32))
    rest = [libc.mallopt(M_TRIM_THRESHOLD, -1), libc.mallopt(M_TOP_PAD, 64 * MIB)]
    return blocks and all(rest)
