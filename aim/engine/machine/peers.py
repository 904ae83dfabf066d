"""The other ranks when one fails, is stopped or dies: one gives the reason, and all leave with the same exit code.

A torn connection tells nobody why. So ranks that leave early note it in the store of their launcher, which outlives
them, and then wait there for each other: a launcher ends the other ranks soon after the first one has gone.

A machine that loses its power or its network tears nothing. So ranks also show in that store that they live, and each
looks after the next one.
"""

import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from types import TracebackType

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store

from aim.ground.errors import RankError, UserError
from aim.ground.signals import INTERRUPTED, NOTHING_LOST, Interrupted, stop_signals

FAILING_SECONDS = 20.0  # for the others, after a rank has failed: rank 0 may have a tracker to close
STOPPING_SECONDS = 300.0  # after a stop signal
WATCH_SECONDS = 0.5  # between looks at the store
SILENT_SECONDS = 35.0  # without a sign of life, after which a rank is lost
STORE_TIMEOUT = timedelta(seconds=10)
LOST = 76  # exit code: EX_PROTOCOL of sysexits.h; this rank has lost another one. The launcher makes it 1
BROKEN = 71  # EX_OSERR: this rank's GPU has failed, for which the launcher starts the ranks again
# What torch, gloo and NCCL say of another rank that is gone or hangs. Without classes of errors for it.
TORN = re.compile(
    r"connection (closed|reset)|closed the connection|got 0 bytes|broken pipe|socket timeout|timed out waiting|"
    r"timeout caused|wait timeout|collective operation timeout|communicator was aborted|remote process",
    re.IGNORECASE,
)
# Where ranks fail to reach each other, with or without such words.
APART = re.compile(r"connectFullMesh|NCCL error|ProcessGroupNCCL|gloo/\S+\.(cc|h):\d+")
PLACES = re.compile(r"^\[(?!enforce)\S+:\d+\] |\. This is typically .*")  # in torch's sources; and its advice
# CUDA's words for a GPU, and not a program, that has failed.
FAILED = re.compile(r"ECC error|NVLink|hardware|unspecified launch failure|unknown error|busy or unavailable")
HINT = (
    "NCCL_DEBUG=INFO shows more, and GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME name the network interface to use "
    "(docs/cluster.md)"
)


@dataclass(frozen=True)
class Note:
    """Who left early first, with which exit code; `lost` if all it knows is that another one is gone."""

    rank: int
    code: int
    lost: bool = False

    @property
    def seconds(self) -> float:
        """How long the others may take."""
        return STOPPING_SECONDS if self.code == INTERRUPTED else FAILING_SECONDS

    def write(self) -> str:
        return f"{self.rank} {self.code} {int(self.lost)}"

    @staticmethod
    def read(text: str) -> "Note":
        rank, code, lost = map(int, text.split())
        return Note(rank, code, bool(lost))


class Silence:
    """How long a number stays that should rise.

    In looks and not by the clock: in a job that was suspended as a whole nobody has heard of anybody.
    """

    def __init__(self) -> None:
        self._number, self._looks = -1, 0

    def is_long(self, number: int) -> bool:
        self._looks = self._looks + 1 if number == self._number else 0
        self._number = number
        return self._looks * WATCH_SECONDS >= SILENT_SECONDS


@dataclass(frozen=True)
class End:
    """The exit code of this process and the seconds until it must end; `silent` names the rank that fell silent."""

    code: int
    seconds: float
    silent: str = ""


class Peers:
    """This rank's end of the store. `leave` is for an ExitStack to call when the work is done or has failed."""

    def __init__(self, store: Store, prefix: str, rank: int, size: int) -> None:
        self._store, watched = (PrefixStore(f"{prefix}/peers", store.clone()) for _ in range(2))
        for own in (self._store, watched):
            own.set_timeout(STORE_TIMEOUT)
        self.where: Callable[[], str] | None = None  # the step that this rank is at
        self._rank, self._size = rank, size
        self._left, self._joined = threading.Event(), threading.Event()
        self._end: End | None = None
        self._looks = 0
        self._store.set(f"host/{rank}", socket.gethostname())
        self._store.add(f"beats/{rank}", 1)
        self._watcher = threading.Thread(target=self._watch, args=[watched], daemon=True)
        self._guard = threading.Thread(target=self._await_end, daemon=True)
        self._watcher.start()
        self._guard.start()

    def leave(self, _: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Tell the other ranks, wait for them where one left early, and turn the error into this rank's message."""
        first = None if error is None else self._note(error)
        tear(failing=first is not None)
        in_haste = first is None or first.lost or isinstance(error, KeyboardInterrupt)
        self._arrive(0.0 if in_haste or first is None else first.seconds)
        self._left.set()
        self._watcher.join()  # the interpreter must not end while it is in the store's C++
        self._joined.set()
        self._guard.join()
        if first is not None and error is not None:
            self._tell(first, error)

    def _note(self, error: BaseException) -> Note:
        """Who left early first; if nobody did, it's this rank."""
        mine = Note(self._rank, exit_code(error), is_torn(error))
        try:
            return Note.read(self._store.compare_set("first", "", mine.write()).decode())
        except RuntimeError:  # the launcher is gone, and the store with it
            return mine

    def _arrive(self, seconds: float) -> None:
        """Wait for the other ranks to arrive here, for some seconds at most, and through signals."""
        until = time.monotonic() + seconds
        with suppress(RuntimeError), stop_signals():
            self._store.set(f"left/{self._rank}", "")
            arrived = self._store.add("arrived", 1)
            while arrived < self._size and time.monotonic() < until:
                time.sleep(0.1)
                arrived = self._store.add("arrived", 0)

    def _watch(self, store: Store) -> None:
        """Show that this rank lives, and find out how it is to end: one has failed, or the next one lives no more."""
        other, silence = (self._rank + 1) % self._size, Silence()
        try:
            while not self._left.wait(WATCH_SECONDS):
                self._looks += 1
                if store.check(["first"]):
                    first = Note.read(store.get("first").decode())
                    if first.rank != self._rank:
                        self._end = End(first.code, first.seconds)
                    return
                store.add(f"beats/{self._rank}", 1)
                beats = store.add(f"beats/{other}", 0)  # none yet of one whose machine starts later
                if beats and silence.is_long(beats) and not store.check([f"left/{other}"]):
                    store.compare_set("first", "", Note(self._rank, LOST, lost=True).write())
                    host = store.get(f"host/{other}").decode()
                    self._end = End(LOST, FAILING_SECONDS, f"rank {other} on {host}")
                    return
        except RuntimeError:  # the launcher is gone, and the store with it
            self._end = End(LOST, STOPPING_SECONDS, _keeper())

    def _await_end(self) -> None:
        """End this process if it is still there some time after it is to end: it hangs in a collective.

        The store may be silent, too; a request would then wait for ever.
        """
        silence = Silence()
        while not self._joined.wait(WATCH_SECONDS):
            if self._end is None and self._watcher.is_alive() and silence.is_long(self._looks):
                self._end = End(LOST, 0.0, _keeper())
            if self._end is not None:
                if not self._joined.wait(self._end.seconds):
                    self._give_up(self._end)
                return

    def _give_up(self, end: End) -> None:
        """End the process, even if its main thread is in C++."""
        try:
            if end.silent:
                at = f" at {self.where()}" if self.where else ""
                text = f"rank {self._rank}{_place()} hasn't heard of {end.silent} for {SILENT_SECONDS:.0f} seconds{at}"
                cause = "which stands still, or its machine or network is gone"
                print(f"aim: error: {text}, {cause}; the same command continues", file=sys.stderr, flush=True)
        finally:  # also where nobody is left to hear it
            os._exit(end.code)

    def _tell(self, first: Note, error: BaseException) -> None:
        """Say what the other ranks haven't: return to let the error go on, or exit silently. torch names the rank.

        A rank that has only lost another one doesn't silence the one that knows why.
        """
        lost = is_torn(error)
        if first.rank != self._rank and (lost or not (first.lost or first.code == INTERRUPTED)):
            if first.code == INTERRUPTED:
                raise Interrupted(NOTHING_LOST) from error
            sys.exit(first.code)
        who, where = f"rank {self._rank}{_place()}", " ".join(["", *getattr(error, "__notes__", [])])
        if lost:
            text = f"lost contact with another rank{where}, which was killed or hangs ({cause(error)})"
            raise RankError(f"{who} {text}; the same command continues", code=LOST) from error
        if is_apart(error):
            text = f"can't communicate with the others{where}: {cause(error)}; {HINT}"
            raise RankError(f"{who} {text}", code=1) from error
        if is_broken(error):
            text = f"the GPU failed{where}: {cause(error)}; the same command continues"
            raise RankError(f"{who}: {text}", code=BROKEN) from error
        if isinstance(error, UserError) and self._rank > 0:
            raise RankError(f"{who}: {error}") from error


def _place(host: str | None = None) -> str:
    """The machine, where there are several: this one, or a host."""
    several = os.environ.get("WORLD_SIZE") != os.environ.get("LOCAL_WORLD_SIZE")
    return f" on {host or socket.gethostname()}" if several else ""


def _keeper() -> str:
    """Who keeps the store; in an elastic job it's rank 0."""
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return ("the launcher of the ranks" if shared else "rank 0") + _place(os.environ.get("MASTER_ADDR"))


def exit_code(error: BaseException) -> int:
    """With which code a program ends that this error ends."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if is_torn(error):
        return LOST
    if is_broken(error):
        return BROKEN
    return 2 if isinstance(error, UserError) else INTERRUPTED if isinstance(error, Interrupted) else 1


def is_torn(error: BaseException) -> bool:
    """Whether all that an error says is that another rank is gone. gloo has no class for it."""
    if not isinstance(error, RuntimeError) or "connectFullMesh" in str(error):
        return False
    return bool(TORN.search(cause(error)))


def is_apart(error: BaseException) -> bool:
    """Whether ranks can't communicate, for a reason of this machine or its network: a wrong interface, say."""
    is_ours = isinstance(error, RuntimeError) and bool(APART.search(str(error)))
    return not is_torn(error) and (is_ours or isinstance(error, dist.DistError))


def is_broken(error: BaseException) -> bool:
    """Whether an error is of a GPU that has failed, and not of the program."""
    return isinstance(error, torch.AcceleratorError) and bool(FAILED.search(str(error)))


def cause(error: BaseException) -> str:
    """An error's own first line, without its place in torch's sources, and NCCL's last error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    last = [line for before, line in pairwise(lines) if before.startswith("Last error")]
    remote = [line for line in lines[1:] if line.startswith("ncclRemoteError")]
    return ": ".join([PLACES.sub("", lines[0]), *remote, *last])


def tear(*, failing: bool) -> None:
    """Leave the process group; when `failing`, abort pending collectives, so that the others notice."""
    if dist.is_initialized():
        if failing and dist.group.WORLD is not None:
            dist.group.WORLD.abort()
        dist.destroy_process_group()
