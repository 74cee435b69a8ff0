"""Freed memory stays with the process that asked for it, and with no other."""

import subprocess
import sys

import pytest

from brainseg.memory import keep_freed_memory

FAULTS = """
from resource import RUSAGE_SELF, getrusage
from brainseg.memory import keep_freed_memory

def faults():
    bytearray(2**26)  # and freed at once
    before = getrusage(RUSAGE_SELF).ru_minflt
    for _ in range(4):
        bytearray(2**26)
    return getrusage(RUSAGE_SELF).ru_minflt - before

print(faults(), keep_freed_memory(), faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="page faults are counted on Linux")
def test_freed_memory_is_used_again() -> None:
    printed = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True).stdout
    before, done, after = printed.split()
    if done == "False":
        pytest.skip("the C library is not glibc")
    assert int(after) <= 4
    assert int(before) >= 4 * 2**26 // 2**21  # of the largest pages that one fault can bring


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())  # a C library that is not glibc
    monkeypatch.setattr("sys.platform", "linux")
    assert keep_freed_memory() is False
    monkeypatch.setattr("sys.platform", "darwin")
    assert keep_freed_memory() is False
