"""End by an error or by SIGKILL (`error`, `kill`) while a loader's workers read; prints their process ids."""

import os
import signal
import sys

from tests.data.fakes import pids
from tests.data.loading.test_loader import Fake, loader

if __name__ == "__main__":
    with loader(reader=Fake(hang=(4,)), on_error="raise") as made:
        made.close = lambda: None
        batches = made.epoch(0)
        next(batches)
        print(*pids(made._pool), flush=True)
        if sys.argv[1] == "error":
            raise KeyboardInterrupt
        os.kill(os.getpid(), signal.SIGKILL)
