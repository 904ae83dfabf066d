"""Requests to stop: the signals of batch systems, Ctrl-C, and the death of the parent process."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from types import FrameType
from typing import Any

from aim.ground.errors import say

INTERRUPTED = 75  # exit code: EX_TEMPFAIL of sysexits.h, try again later
NOTHING_LOST = "stopped by a signal; the same command continues from the last save, or restarts"
SIGKILL, SIGPIPE = 9, 13  # of POSIX; not in Windows' module
# Sent by batch systems before they kill, and by Ctrl-C; Windows has no SIGUSR1.
SIGNALS = tuple(number for number in signal.Signals if number.name in ("SIGTERM", "SIGUSR1", "SIGINT"))
PR_SET_PDEATHSIG = 1  # of linux/prctl.h


class Interrupted(BaseException):
    """A signal asked the run to stop, and its state is saved.

    Like KeyboardInterrupt no Exception: it comes anywhere, and libraries make theirs of any Exception that passes them.
    """


class Stop:
    """False until a signal asks to stop. Itself the handler of these signals.

    `answer` gets the first of them, and each Ctrl-C after the first with `insists`.
    """

    def __init__(self, answer: Callable[[int, bool], None]) -> None:
        self._answer = answer
        self.asked = False
        self._by_hand = False

    def __bool__(self) -> bool:
        return self.asked

    def __call__(self, number: int, _: FrameType | None) -> None:
        insists = number == signal.SIGINT and self._by_hand
        first = not self.asked
        self._hear(by_hand=number == signal.SIGINT)
        if first or insists:
            self._answer(number, insists)

    def _hear(self, *, by_hand: bool) -> None:
        self.asked = True
        self._by_hand = self._by_hand or by_hand

    @contextmanager
    def listening(self) -> Iterator["Stop"]:
        """Be the handler inside the block; the one before learns afterwards that a signal came and was handled."""
        before = list[Any]()
        try:
            with handled(self) as before:
                yield self
        finally:
            for handler in before if self.asked else ():
                if isinstance(handler, Stop):
                    handler._hear(by_hand=self._by_hand)


@contextmanager
def handled(handler: Any, *numbers: signal.Signals) -> Iterator[list[Any]]:
    """Let a handler have these signals inside the block, by default SIGNALS; yields the handlers before.

    Outside of the main thread, where Python can't, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield []
        return
    previous = {number: signal.signal(number, handler) for number in numbers or SIGNALS}
    try:
        yield list(previous.values())
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


@contextmanager
def stop_signals(*, at_once: bool = False) -> Iterator[Stop]:
    """Turn SIGTERM, SIGUSR1 and the first Ctrl-C inside the block into a wish that the loop can read.

    With `at_once` the first of them raises Interrupted instead, for where there is nothing to save.
    """

    def answer(_: int, insists: bool) -> None:
        if insists:
            raise KeyboardInterrupt  # the second one means it
        if at_once:
            raise Interrupted(NOTHING_LOST)

    with Stop(answer).listening() as stop:
        yield stop


def fatal_signals() -> AbstractContextManager[object]:
    """Let the signals end this process at once inside the block, where nothing is to be saved and nobody listens."""
    return handled(signal.SIG_DFL)


@contextmanager
def forwarded(pids: Callable[[], Iterable[int]]) -> Iterator[Stop]:
    """Pass the first signal that asks to stop on to other processes; the second Ctrl-C kills them.

    They must be in sessions of their own, or the terminal would send them every Ctrl-C too. They get the first one as
    SIGTERM, which ends without a traceback those that still import.
    """

    def answer(number: int, insists: bool) -> None:
        for pid in pids():
            with suppress(ProcessLookupError):
                os.kill(pid, SIGKILL if insists else signal.SIGTERM if number == signal.SIGINT else number)
        if insists:
            raise KeyboardInterrupt

    with Stop(answer).listening() as stop:
        yield stop


@contextmanager
def suspended_with(pids: Callable[[], Iterable[int]]) -> Iterator[None]:
    """Let Ctrl-Z suspend other processes in sessions of their own too, until this one goes on or dies.

    A suspended process hears nothing of its parent's death. So a shell lets them go on, at the end of a pipe of ours.
    """

    def suspend(_: int, __: FrameType | None) -> None:
        others = [*map(str, pids())]
        awaken = ["sh", "-c", 'read -r line; kill -CONT "$@"', "sh", *others]
        with subprocess.Popen(awaken, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True):
            for pid in others:
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGSTOP)
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTSTP)  # until SIGCONT; nothing happens where no shell could send one
            signal.signal(signal.SIGTSTP, suspend)

    with handled(suspend, signal.SIGTSTP):
        yield


@contextmanager
def interruptible() -> Iterator[None]:
    """Leave the program with exit code INTERRUPTED and one line when a signal stops the block."""
    try:
        with stop_signals(at_once=True):
            yield
    except Interrupted as error:
        say(NOTHING_LOST if str(error) == NOTHING_LOST else f"{error}; the same command continues")
        sys.exit(INTERRUPTED)


def as_parent() -> dict[str, str]:
    """The environment that tells a child of this process the parent to follow."""
    return {"AIM_PARENT": str(os.getpid())}


def follow_parent() -> None:
    """Get SIGTERM when the program that started this one as its part dies, also if it was killed, or has died already.

    Else ranks would go on without their launcher. Only Linux can do it.
    """
    parent = os.environ.get("AIM_PARENT")
    if sys.platform != "linux" or not (parent or "TORCHELASTIC_RUN_ID" in os.environ):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if parent and os.getppid() != int(parent):
        os.kill(os.getpid(), signal.SIGTERM)
