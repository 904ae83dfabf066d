"""Processes of our own verbs, one after the other or several at once: their signals and their exit codes."""

import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from aim.ground.signals import INTERRUPTED, SIGNALS, as_parent, forwarded

STOPPED = (INTERRUPTED, *(-number for number in SIGNALS))  # exit codes of a job that a signal ended


def run(
    commands: Sequence[Sequence[str]],
    *,
    at_once: int = 1,
    environment: Mapping[str, str] | None = None,
    output: Callable[[int], Path] | None = None,
    begins: Callable[[int], None] = lambda number: None,
    ended: Callable[[int, int], None] = lambda number, code: None,
) -> tuple[dict[int, int], bool]:
    """Run commands in order, some in parallel: the exit codes of those that ran, and whether a signal stopped some.

    A signal goes to the running ones, and no further one starts. Their output goes to ours, or to the file that
    `output` names. `begins` gets each command's number, `ended` its exit code, too.
    """
    codes, running, ends = dict[int, int](), dict[int, subprocess.Popen[bytes]](), queue.SimpleQueue[tuple[int, int]]()

    def collect() -> None:
        number, code = ends.get()
        del running[number]
        codes[number] = code
        ended(number, code)

    with forwarded(lambda: [job.pid for job in running.values() if job.returncode is None]) as stop:
        for number, command in enumerate(commands):
            while len(running) >= at_once:
                collect()
            if stop:
                break
            begins(number)
            # Ranks that torchrun has started meet once a job.
            own = os.environ | as_parent() | {"AIM_JOB": str(number + 1), **(environment or {})}
            with ExitStack() as stack:
                file = stack.enter_context(output(number).open("wb")) if output else None
                error = subprocess.STDOUT if file else None
                job = subprocess.Popen(command, env=own, stdout=file, stderr=error, start_new_session=True)
            running[number] = job
            # A thread that waits, and not this one, which starts them: they get a signal when it ends (follow_parent).
            threading.Thread(target=lambda n=number, j=job: ends.put((n, j.wait())), daemon=True).start()
            if stop:  # it came before there was a job to pass it on to
                job.terminate()
        while running:
            collect()
    return codes, bool(stop) and (len(codes) < len(commands) or any(code in STOPPED for code in codes.values()))


def verdict(codes: Iterable[int]) -> int:
    """The joint exit code of several jobs: 2 for an error of the user, else the first failure's."""
    worst = [code if code > 0 else 1 for code in codes if code]
    return 2 if 2 in worst else next(iter(worst), 0)


def meaning(code: int) -> str:
    """The exit code of a process in words."""
    if code == 0:
        return "done"
    if code == INTERRUPTED:
        return "interrupted, saved"
    return f"exit code {code}" if code > 0 else f"killed by {signal.Signals(-code).name}"
