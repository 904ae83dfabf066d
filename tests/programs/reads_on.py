"""Read one file 500 times, READER FILE; print the process's growth in MB after the first 50."""

import resource
import sys
from pathlib import Path

from tests.data.readers.test_readers import READERS

reader = READERS[sys.argv[1]]()


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


before = 0
for i in range(500):
    reader(Path(sys.argv[2]), lambda _: [0])
    if i == 50:
        before = resident()
print((resident() - before) / 1e6)
