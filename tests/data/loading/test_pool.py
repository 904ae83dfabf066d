import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from aim.data.loading import pool as pools
from aim.data.loading.pool import Outcome, Pool
from aim.data.readers.interface import BadVideo
from aim.ground.errors import UserError
from tests.conftest import ROOT
from tests.data.fakes import pids
from tests.programs import command


def page_faults() -> int:
    """The system's page faults for memory that was freed just before, like the frames of the last clip."""
    for round in range(7):
        if round == 2:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        blocks = [bytearray(2**21) for _ in range(16)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def work(task: Any) -> Any:
    if task == "page faults":
        return page_faults()
    if task == "hang":
        time.sleep(3600)
    if task == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if isinstance(task, Exception):
        raise task
    return parts(task) if isinstance(task, list) else task * 2


def parts(task: list[Any]) -> Iterator[Any]:
    """A task that streams its outcomes."""
    for each in task:
        yield work(each)


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


def outcome(of: Pool[str], task: object, idle: int = 1) -> Outcome:
    of.give("job", task)
    while not (found := of.wait()):
        pass
    ((job, result),) = found
    assert job == "job"
    assert of.idle == idle
    return result


def all_of(of: Pool[str], task: object) -> list[Outcome]:
    """The outcomes of a task up to its end."""
    of.give("job", task)
    found = list[Outcome]()
    while not of.idle:
        found += [result for _, result in of.wait()]
    return found


def test_one_process_does_and_survives_everything() -> None:
    with pool(timeout=2.0) as one:
        assert outcome(one, 21) == Outcome("done", value=42)
        pid = pids(one)
        assert outcome(one, BadVideo("a.mp4: bad")) == Outcome("bad", "a.mp4: bad")
        assert outcome(one, UserError("fix it")) == Outcome("user", "fix it")
        bug = outcome(one, ZeroDivisionError("oh"))
        assert bug.kind == "bug"
        assert "Traceback" in bug.text
        assert "oh" in bug.text
        assert pids(one) == pid
        assert outcome(one, "hang") == Outcome("hung", "not done after 2 seconds")
        assert outcome(one, 4).value == 8
        died = outcome(one, "die")
        assert (died.kind, "signal 9" in died.text) == ("died", True)
        assert outcome(one, 5).value == 10
        assert pids(one) != pid
        assert all_of(one, [1, 2]) == [Outcome("part", value=2), Outcome("part", value=4), Outcome("done")]
        assert all_of(one, [3, BadVideo("bad")]) == [Outcome("part", value=6), Outcome("bad", "bad")]


def test_a_process_keeps_the_memory_that_it_frees() -> None:
    with pool() as one:
        assert outcome(one, "page faults").value < 40


@pytest.mark.slow
def test_a_signal_to_all_processes_leaves_the_server_to_its_imports() -> None:
    """Ctrl-C reaches the fork server, too, which would end with a traceback amid its imports."""
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


class Unkillable:
    """A process in a hung file system: no signal ends it, and waiting for it never returns."""

    exitcode = None

    def __init__(self, process: Any) -> None:
        self.process, self.pid = process, process.pid

    def kill(self) -> None:
        pass

    def join(self, timeout: float | None = None) -> None:
        assert timeout is not None, "waits for ever"

    def close(self) -> None:
        raise ValueError("it still runs")


def test_processes_that_do_not_die_are_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pools, "PATIENCE", 0.0)
    with pool(size=2, timeout=2.0) as two:
        assert outcome_of_two(two) == [2, 4]  # both have started
        stuck = [Unkillable(worker.process) for worker in two._workers]
        for worker, process in zip(two._workers, stuck, strict=True):
            worker.process = process
        try:
            assert outcome(two, "hang", idle=2).kind == "hung"
            assert outcome_of_two(two) == [2, 4]  # in one new process, and one of the old ones
            assert f"process {stuck[0].pid} doesn't end although it was killed" in caplog.text
            assert str(stuck[1].pid) not in caplog.text
            two.close()
            assert f"process {stuck[1].pid} doesn't end" in caplog.text
        finally:
            for process in stuck:
                process.process.kill()


def test_killed_processes_share_the_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight that hang in the same file system take no longer than one."""
    now, waits = 0.0, []

    class Slow(Unkillable):
        def join(self, timeout: float | None = None) -> None:
            nonlocal now
            assert timeout is not None
            waits.append(timeout)
            now += timeout

    with pool(size=3) as three:
        real = [worker.process for worker in three._workers]
        for worker in three._workers:
            worker.process = Slow(worker.process)
        with monkeypatch.context() as patch:
            patch.setattr(pools.time, "monotonic", lambda: now)
            three.close()
        for process in real:
            process.kill()
    assert waits == [pools.PATIENCE, 0.0, 0.0]


@pytest.mark.slow
def test_a_process_that_does_not_die_does_not_keep_the_program() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command("leaves_behind"), capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stdout) == (0, "hung 42\nleft\nall\n"), done.stderr
    assert done.stderr.count("\n") == 2, done.stderr  # a line for each process, and no traceback
