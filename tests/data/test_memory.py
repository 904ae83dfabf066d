import platform
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PROGRAM = """
import resource, sys
from aim.data.memory import ACTIVATIONS, keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "kept":
    keep_freed_memory(*ACTIVATIONS)
for turn in range(6):
    if turn == 2:
        before = faults()
    layers = [bytes([turn]) * 20_000_000 for _ in range(3)]  # written at once, as by a product
    del layers
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has other rules")
def test_memory_that_is_kept_is_not_cleared_again() -> None:
    found = {}
    for how in ("default", "kept"):
        line = [sys.executable, "-c", PROGRAM, how]
        found[how] = int(subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    assert found["default"] > 10_000
    assert found["kept"] < 100
