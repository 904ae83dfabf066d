import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from aim.data.pool import Outcome, Pool
from aim.data.readers.interface import BadVideo
from aim.errors import UserError


def work(task: Any) -> Any:
    if task == "hang":
        time.sleep(3600)
    if task == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if isinstance(task, Exception):
        raise task
    return task * 2


@dataclass
class CannotArrive:
    luggage: int = 1

    def __setstate__(self, state: dict[str, Any]) -> None:
        raise ImportError("not here")


@contextmanager
def pool(work: Any = work, size: int = 1, timeout: float = 60.0) -> Iterator[Pool[str]]:
    made = Pool[str](work, size, timeout)
    try:
        yield made
    finally:
        made.close()


def outcome(of: Pool[str], task: object) -> Outcome:
    of.give("job", task)
    while not (found := of.wait()):
        pass
    ((job, result),) = found
    assert job == "job"
    assert of.idle == 1
    return result


def test_one_process_does_and_survives_everything() -> None:
    with pool(timeout=2.0) as one:
        assert outcome(one, 21) == Outcome("done", value=42)
        pid = one.pids
        assert outcome(one, BadVideo("a.mp4: bad")) == Outcome("bad", "a.mp4: bad")
        assert outcome(one, UserError("mend it")) == Outcome("user", "mend it")
        bug = outcome(one, ZeroDivisionError("oh"))
        assert bug.kind == "bug"
        assert "Traceback" in bug.text
        assert "oh" in bug.text
        assert one.pids == pid
        assert outcome(one, "hang") == Outcome("hung", "not done after 2 seconds")
        assert outcome(one, 4).value == 8
        died = outcome(one, "die")
        assert (died.kind, "signal 9" in died.text) == ("died", True)
        assert outcome(one, 5).value == 10
        assert one.pids != pid


def test_a_signal_to_all_processes_leaves_the_server_to_its_imports() -> None:
    """Ctrl-C reaches the server that forks ours, too, which would end with a traceback in the middle of its imports."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    with pool() as one:
        status = Path(f"/proc/{forkserver._forkserver._forkserver_pid}/status").read_text()  # type: ignore[attr-defined]
        blocked = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigBlk")), 16)
        assert all(blocked >> (number - 1) & 1 for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1))
        assert outcome(one, 1).value == 2
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_what_is_abandoned_is_never_answered() -> None:
    with pool(size=2) as two:
        two.give("slow", "hang")
        two.abandon()
        assert two.idle == 2
        assert outcome_of_two(two) == [2, 4]


def outcome_of_two(two: Pool[str]) -> list[int]:
    two.give("a", 1)
    two.give("b", 2)
    found: list[int] = []
    while len(found) < 2:
        found += [result.value for _, result in two.wait()]
    return sorted(found)


def test_a_process_that_cannot_start_is_a_bug_and_no_files_fault() -> None:
    with pool(CannotArrive()) as one:
        result = outcome(one, 1)
    assert result == Outcome("bug", "a process of the pool can't start (exit code 1)")
