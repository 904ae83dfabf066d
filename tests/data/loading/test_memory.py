import platform
import subprocess

import pytest

from tests.conftest import ROOT
from tests.programs import command


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has other rules")
def test_memory_that_is_kept_is_not_cleared_again() -> None:
    found = {}
    for how in ("default", "kept"):
        line = command("page_faults", how)
        found[how] = int(subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    assert found["default"] > 10_000
    assert found["kept"] < 100
