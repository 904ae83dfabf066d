"""A verb that ends with its seed as exit code; seed 8 waits for a signal, seed 9 is killed."""

import os
import signal
import sys
import time
from typing import Any

from aim.ground.clock import seconds_since_start
from aim.ground.signals import interruptible


def main(cfg: Any) -> None:
    with interruptible():
        print(cfg.seed, cfg.name, os.getpid(), time.time() - seconds_since_start(), flush=True)
        if cfg.seed == 8:
            time.sleep(100)
        if cfg.seed == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        sys.exit(cfg.seed)
