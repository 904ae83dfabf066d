"""One job at a time in a folder, across hosts: a lease, a file whose holder touches it every few seconds.

`flock` is no answer. On some network file systems it holds within one host alone, or does nothing and says that it did.
All of them have a name that only one process can create, and that only one can take away.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from aim.ground.errors import UserError, say
from aim.ground.files import ELSEWHERE, clear_leftovers, make_folder, writing

BEAT_SECONDS = 10.0  # between two touches
DEAD_SECONDS = 60.0  # in which nobody has touched a lease of another host: its job is dead
LOOK_SECONDS = 1.0  # between a waiter's looks


@dataclass(frozen=True)
class Holder:
    """Who holds a lease."""

    host: str
    machine: str  # this boot of it, and the processes that see each other: containers have process numbers of their own
    process: int
    started: str  # as a number is used again
    job: str  # of SLURM, or "-"
    restart: int  # how often SLURM has put the job back into its queue
    token: str

    def __str__(self) -> str:
        return f"host {self.host}, process {self.process}, job {self.job}"

    @staticmethod
    def here() -> "Holder":
        """This process."""
        job, restart = os.environ.get("SLURM_JOB_ID", "-"), os.environ.get("SLURM_RESTART_COUNT", "0")
        pid = os.getpid()
        return Holder(
            socket.gethostname(), _machine(), pid, _started(pid) or "", job, int(restart), secrets.token_hex(8)
        )

    @staticmethod
    def read(text: str) -> "Holder | None":
        """The writer of this text; None for text that was cut short."""
        try:
            return Holder(**json.loads(text))
        except (ValueError, TypeError):
            return None

    def state(self, me: "Holder") -> str | None:
        """Whether its process lives, as far as that can be told at once: "alive", why it's dead, or None."""
        if self.machine == me.machine and self.started:
            return "alive" if _started(self.process) == self.started else "has ended"
        if self.job == me.job != "-" and self.restart < me.restart:
            return "was this job, before SLURM put it back into the queue"
        return None


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str | None:
    """When a process of this machine started, in its own unit; None for one that is gone, or can't be seen."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder, so that a second job can't write into it, and clear half-written files of killed jobs.

    Raises UserError when another one holds it, or nothing can be written there. The lease of a job that is dead is
    taken over: at once where that is known, else when it wasn't touched for DEAD_SECONDS, by the waiter's clock.
    A folder that this makes, and that nothing was written into, is taken away again.
    """
    made = not folder.exists()
    make_folder(folder)
    path, me = folder / ".lease", Holder.here()
    text = json.dumps(asdict(me))
    with writing(folder, ELSEWHERE):
        while not _make(path, text):
            _await_death(path, me)
        clear_leftovers(folder)  # nobody else writes there now
    done = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, text, done, _leave), daemon=True)
    beating.start()
    try:
        yield
    finally:
        done.set()
        beating.join()
        with suppress(OSError):
            if _look(path)[0] == text:
                path.unlink()
                if made:
                    folder.rmdir()  # which fails for one that isn't empty


def _make(path: Path, text: str) -> bool:
    """Make the lease; False where there is one."""
    try:
        file = path.open("x", encoding="utf-8")
    except FileExistsError:
        return False
    try:
        with file:
            file.write(text)
    except OSError:  # on a full disk names can be made, and nothing written: the next job would wait for nobody
        path.unlink(missing_ok=True)
        raise
    return True


def _look(path: Path) -> tuple[str | None, int]:
    """The lease's holder, None where there is none, and the time of its last touch, by any clock.

    Opened anew each time: network file systems ask their server for news only then.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(), os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None, 0


def _await_death(path: Path, me: Holder) -> None:
    """Return when the lease is gone, or its holder is dead and it was taken away. Raises UserError for a living one."""
    found = _look(path)
    if (text := found[0]) is None:
        return
    holder = Holder.read(text)
    state = holder.state(me) if holder else None
    if state is None:
        say(
            f"{path.parent} is held by {holder or 'an unknown job'}, which may be dead: waiting {DEAD_SECONDS:g} "
            "seconds for a sign of life"
        )
        until = time.monotonic() + DEAD_SECONDS
        while (now := _look(path)) == found and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)
        if now[0] is None:
            return
        state = "gives no sign of life" if now == found else "alive"
    if state == "alive":
        raise UserError(f"another job is writing to {path.parent} ({holder}); wait for it, or set run_dir=DIR")
    if _take_away(path, text):
        say(f"{path.parent} was held by {holder or 'an unknown job'}, which {state}; taken over")


def _take_away(path: Path, text: str) -> bool:
    """Remove the lease that says `text`; False where another one was faster, whose lease is put back."""
    aside = path.with_name(f".lease.{secrets.token_hex(8)}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return False
    dead = aside.read_text(encoding="utf-8", errors="replace") == text
    if not dead:
        with suppress(FileExistsError):
            path.hardlink_to(aside)
    aside.unlink()
    return dead


def _beat(path: Path, text: str, done: threading.Event, lost: Callable[[Path, str], None]) -> None:
    """Touch the lease until the work is done."""
    while not done.wait(BEAT_SECONDS):
        with suppress(OSError):  # a server that is away for a moment
            now, _ = _look(path)
            if now is None:
                _make(path, text)
            elif now != text:
                lost(path, now)
                return
            else:
                os.utime(path)


def _leave(path: Path, text: str) -> None:
    """End this process, whose folder is another one's now: it was stopped, or cut off, for too long."""
    say(
        f"error: another job has taken over {path.parent} ({Holder.read(text)}), as this one gave no sign of life for "
        f"{DEAD_SECONDS:g} seconds; it ends, and the other continues from its last save"
    )
    os._exit(2)
