"""A decoding process of the loader, and its handle in the training process."""

import contextlib
import ctypes
import math
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.shared_memory import SharedMemory
from types import ModuleType
from typing import Literal

import numpy as np
import torch

from aim.data.dataset import VideoDataset
from aim.data.video import BadVideo
from aim.errors import UserError

Task = tuple[int, int, int, int]  # block, row, epoch, index


@dataclass(frozen=True)
class Outcome:
    """What a worker says: it has started, or what became of a task: done, a bad video, a user's error, a bug of ours.

    `died` is said for one that can't speak any more.
    """

    kind: Literal["started", "ok", "bad", "died", "user", "bug"]
    text: str = ""


def _context() -> ForkServerContext | SpawnContext:
    """Processes forked from a clean server that has imported what they need, or started anew where there is none."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


class Worker:
    """The training process's handle of a decoding process, which it starts, asks, and replaces."""

    def __init__(self, dataset: VideoDataset, blocks: list[str], batch_size: int) -> None:
        self.arguments = (dataset, blocks, batch_size)
        self.job: object | None = None
        self.began = math.inf  # when it began with the job; not before it has started
        self._start()

    def _start(self) -> None:
        context = _context()
        self.pipe, theirs = context.Pipe()
        self.started, self.began = False, math.inf
        with _bare_main():
            self.process = context.Process(target=_work, args=(theirs, *self.arguments), daemon=True)
            self.process.start()
        theirs.close()

    def give(self, job: object, task: Task) -> None:
        """Set the idle worker to a task; `job` is the caller's own note of it."""
        self.job = job
        if self.started:
            self.began = time.monotonic()
        with contextlib.suppress(BrokenPipeError):  # it died while idle: `answer` will say so
            self.pipe.send(task)

    def answer(self) -> Outcome:
        """What came of the task; a worker that died is replaced."""
        try:
            outcome: Outcome = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(1.0)
            code = self.process.exitcode
            self.restart()
            why = f"signal {-code}, which the kernel sends when memory runs out" if code == -9 else f"exit code {code}"
            return Outcome("died", f"its reader was killed twice ({why})")
        if outcome.kind == "started":
            self.started, self.began = True, time.monotonic()
        return outcome

    def restart(self) -> None:
        """Kill the process, whatever it does, and start another."""
        self.kill()
        self._start()

    def kill(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()
        self.process.close()
        self.pipe.close()


@contextlib.contextmanager
def _bare_main() -> Iterator[None]:
    """Hide the user's program, which a new process would import again: seconds of imports that no worker needs."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _work(pipe: Connection, dataset: VideoDataset, names: list[str], batch_size: int) -> None:
    """Read videos into rows of the shared blocks until the other end of the pipe is closed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # sent to the whole job; the training process decides when to stop
    _die_with_parent()
    torch.set_num_threads(1)
    memory = [SharedMemory(name=name) for name in names]
    blocks = [np.ndarray((batch_size, *dataset.shape), np.uint8, block.buf) for block in memory]
    pipe.send(Outcome("started"))
    while True:
        try:
            block, row, epoch, index = pipe.recv()
        except EOFError:
            os._exit(0)  # the blocks are the training process's; leave without touching them
        try:
            blocks[block][row] = dataset.read(epoch, index).numpy()
            outcome = Outcome("ok")
        except BadVideo as error:
            outcome = Outcome("bad", str(error))
        except UserError as error:
            outcome = Outcome("user", str(error))
        except Exception:
            outcome = Outcome("bug", traceback.format_exc())
        pipe.send(outcome)


def _die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies, so that a reader that hangs can't stay behind."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
