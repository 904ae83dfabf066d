"""End though a worker doesn't die."""

import atexit
from multiprocessing import process, resource_tracker

from aim.data.loading import pool
from tests.data.loading.test_pool import outcome, work

# From Python 3.12 on the interpreter itself stops the tracker at exit, and waits for it.
atexit.register(print, "all", flush=True)
atexit.register(lambda: resource_tracker._resource_tracker._stop())
atexit.register(print, "left", flush=True)

if __name__ == "__main__":
    process.BaseProcess.kill = lambda self: None
    pool.PATIENCE = 0.1
    one = pool.Pool(work, 1, 2.0)
    print(outcome(one, "hang").kind, outcome(one, 21).value, flush=True)
    one.give("job", "hang")
