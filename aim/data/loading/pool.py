"""A pool of processes for work on unchecked files: one that hangs or is killed is replaced.

torch's DataLoader and the pools of the standard library can't do that: there a hanging file blocks the whole pool, and
a killed process ends it.
"""

import contextlib
import logging
import math
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.connection import Connection, wait
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import torch

from aim.data.loading.memory import CLIPS, keep_freed_memory
from aim.data.readers.interface import BadVideo
from aim.ground.errors import UserError
from aim.ground.signals import SIGNALS

if TYPE_CHECKING:  # Windows has no ForkServerContext
    from multiprocessing.context import ForkServerContext, SpawnContext

log = logging.getLogger(__name__)

J = TypeVar("J")
Work = Callable[[Any], Any]  # picklable; run in the process with each task; a generator streams its parts

PATIENCE = 5.0  # seconds for killed processes to end
# Imported once, by the server that the processes are forked from.
PRELOAD = ["aim.data.loading.loader"]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a task: done, or a part of it, a bad video, a process that hung or died, a user's error, a bug."""

    kind: Literal["started", "part", "done", "bad", "hung", "died", "user", "bug"]
    text: str = ""
    value: Any = None


class Pool(Generic[J]):
    """`size` processes that do `work`. Each task comes with a job, the caller's own note of it.

    A task that is silent for `timeout` seconds is "hung", and its process is killed. The task of a killed process is
    retried once, since the kernel may kill any process when memory runs out; after that it is "died".
    """

    def __init__(self, work: Work, size: int, timeout: float) -> None:
        self._workers: list[_Worker[J]] = [_Worker(work) for _ in range(size)]
        self.timeout = timeout
        # Also when the pool is forgotten, and before multiprocessing waits for its children at exit.
        self._stop = util.Finalize(self, _close, args=[self._workers], exitpriority=10)
        try:
            for worker in self._workers:
                worker.start()
        except BaseException:
            self.close()
            raise

    @property
    def idle(self) -> int:
        """The number of idle processes."""
        return sum(worker.job is None for worker in self._workers)

    def give(self, job: J, task: object) -> None:
        """Set an idle process to a task."""
        next(worker for worker in self._workers if worker.job is None).give(job, task)

    def wait(self, other: Connection | None = None) -> list[tuple[J, Outcome]]:
        """Wait for outcomes, or for `other` to have something to read; then there may be none."""
        busy = {worker.pipe: worker for worker in self._workers if worker.job is not None}
        seconds = min((worker.began for worker in busy.values()), default=math.inf) + self.timeout - time.monotonic()
        pipes = [*busy] if other is None else [*busy, other]
        answered = wait(pipes, max(0.0, seconds) if math.isfinite(seconds) else None)
        found = []
        for pipe, worker in busy.items():
            job = worker.job
            assert job is not None
            if pipe in answered:
                if outcome := worker.answer():
                    found.append((job, outcome))
            elif time.monotonic() - worker.began >= self.timeout:
                _end([worker])
                worker.job = None
                found.append((job, Outcome("hung", f"not done after {self.timeout:g} seconds")))
        return found

    def through(self, tasks: Iterable[tuple[J, object]], stop: object = False) -> Iterator[tuple[J, Outcome]]:
        """Run tasks on idle processes: the outcome of each, as it comes. None starts once `stop` is true.

        Raises the UserError of a task.
        """
        todo = iter(tasks)
        while True:
            while self.idle and not stop and (task := next(todo, None)):
                self.give(*task)
            if self.idle == len(self._workers):
                return
            for job, outcome in self.wait():
                if outcome.kind == "user":
                    raise UserError(outcome.text)
                yield job, outcome

    def abandon(self) -> None:
        """Kill the busy processes: their results are no longer needed."""
        busy = [worker for worker in self._workers if worker.job is not None]
        _end(busy)
        for worker in busy:
            worker.job = None

    def close(self) -> None:
        """Kill all processes."""
        self._stop()


class _Worker(Generic[J]):
    """The handle of a process, which it starts when there is none."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.process: Any = None
        self.job: J | None = None
        self.task: object = None
        self.tried = 0
        self.began = math.inf  # with the task; not before the process has started
        self.closed = False
        self.lock = threading.Lock()

    def start(self) -> None:
        assert not self.closed, "the pool is closed"
        context = _context()
        self.pipe, theirs = context.Pipe()
        self.started, self.began = False, math.inf
        process = context.Process(target=_run, args=(theirs, self.work), daemon=True)
        try:
            with _bare_main():
                process.start()
            self.process = process  # not before: a process that hasn't started can't be killed
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise UserError(f"{self.work} can't be sent to a worker ({error}); define it in a module") from error
        finally:
            theirs.close()

    def give(self, job: J, task: object) -> None:
        self.job, self.task, self.tried = job, task, 0
        self.send()

    def send(self) -> None:
        if self.process is None:
            self.start()
        self.tried += 1
        if self.started:
            self.began = time.monotonic()
        with contextlib.suppress(OSError):  # it died while idle: `answer` will notice
            self.pipe.send(self.task)

    def answer(self) -> Outcome | None:
        """The outcome of the task, if it has one."""
        try:
            outcome: Outcome = self.pipe.recv()
        except (EOFError, OSError):
            return self._died()
        if outcome.kind == "started":
            self.started, self.began = True, time.monotonic()
            return None
        if outcome.kind == "part":
            self.began = time.monotonic()
        else:
            self.job = None
        return outcome

    def _died(self) -> Outcome | None:
        why = "the pool was closed"
        if process := self.process:
            process.join(1.0)
            code = process.exitcode
            why = f"signal {-code}, which the kernel sends when memory runs out" if code == -9 else f"exit code {code}"
        _end([self])
        if self.tried < 2:
            self.send()
            return None
        self.job = None
        if not self.started:
            return Outcome("bug", f"a process of the pool can't start ({why})")
        return Outcome("died", f"its process was killed twice ({why})")

    def kill(self) -> Any:
        """Kill the process, if there is one, and forget it; it may take a while to end."""
        with self.lock:  # at exit, while a thread of the caller's still waits
            process, self.process = self.process, None
        if process is not None:
            process.kill()
            self.pipe.close()
        return process


def _close(workers: list[_Worker[Any]]) -> None:
    for worker in workers:
        worker.closed = True
    _end(workers)


def _end(workers: Iterable[_Worker[Any]]) -> None:
    """End the processes, whatever their state.

    A process in uninterruptible sleep, in a file system that hangs, is left behind: it never returns to our code or to
    the shared memory, but may not end for a long time.
    """
    killed = [process for worker in workers if (process := worker.kill())]
    deadline = time.monotonic() + PATIENCE
    for process in killed:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.exitcode is not None:
            process.close()
            continue
        log.warning("process %d doesn't end although it was killed, and is left behind; has a file system hung?",
                    process.pid)  # fmt: skip
        multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]  # it would be waited for at exit


def _context() -> "ForkServerContext | SpawnContext":
    """Processes forked from a clean server with their imports done, or spawned where there is no fork server."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *PRELOAD])
    # A signal to the whole job must not hit the server before it ignores signals, after seconds of imports. The tracker
    # goes first, as its start lets signals in again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        with _bare_main():
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


@contextlib.contextmanager
def _bare_main() -> Iterator[None]:
    """Hide the user's program; a new process would import it again: seconds of imports that no worker needs."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _run(pipe: Connection, work: Work) -> None:
    """Do tasks until the parent ends."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # sent to the whole job; the parent decides when to stop
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _let_tracker_go()
    torch.set_num_threads(1)
    keep_freed_memory(*CLIPS)
    pipe.send(Outcome("started"))
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            os._exit(0)
        try:
            found = work(task)
            if isinstance(found, Iterator):
                for part in found:
                    pipe.send(Outcome("part", value=part))
                found = None
            outcome = Outcome("done", value=found)
        except BadVideo as error:
            outcome = Outcome("bad", str(error))
        except UserError as error:
            outcome = Outcome("user", str(error))
        except Exception:
            outcome = Outcome("bug", traceback.format_exc())
        with contextlib.suppress(OSError):
            pipe.send(outcome)


def _let_tracker_go() -> None:
    """Close our end of the resource tracker's pipe: from Python 3.12 on the parent waits for all of them at exit."""
    tracker: Any = resource_tracker._resource_tracker
    if tracker._fd is not None:
        os.close(tracker._fd)
        tracker._fd = None


def _end_with_parent() -> None:
    """End this process when its parent is gone, even with a hanging reader."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(0)
