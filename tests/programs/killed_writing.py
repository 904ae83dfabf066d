"""Be killed while writing FILE, with its folder's lease."""

import os
import signal
import sys
from pathlib import Path

from aim.ground import files, lease


def write(path: Path) -> None:
    path.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)


with lease.held(Path(sys.argv[1]).parent):
    files.write_atomically(Path(sys.argv[1]), write)
