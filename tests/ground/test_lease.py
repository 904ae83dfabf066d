"""One job may write into a folder, on any host, on file systems with and without locks."""

import errno
import json
import os
import signal
import socket
import subprocess
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from aim.ground import lease
from aim.ground.lease import Holder
from tests.conftest import ROOT
from tests.messages import named, refused
from tests.programs import command

ELSEWHERE = replace(Holder.here(), host="node7", machine="another", job="12", token="its")


def taken(folder: Path) -> str | None:
    """The token in the folder's lease while it is held again."""
    with lease.held(folder):
        found = Holder.read((folder / ".lease").read_text())
        return found and found.token


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waiter's clock, which goes when it sleeps."""
    now = [1000.0]
    monkeypatch.setattr(lease.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(lease.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def test_a_second_job_is_refused_by_the_name_of_the_first_and_may_follow_it(tmp_path: Path) -> None:
    with lease.held(tmp_path), refused(str(tmp_path), socket.gethostname(), str(os.getpid()), "run_dir=DIR"):
        taken(tmp_path)
    assert list(tmp_path.iterdir()) == []
    taken(tmp_path)


def test_an_error_of_the_job_stays_what_it_is_and_leaves_no_lease(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="of the job"), lease.held(tmp_path):
        raise OSError(errno.ENOSPC, "of the job")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_nothing_was_written_into_is_taken_away_again_if_it_was_made(tmp_path: Path) -> None:
    made = tmp_path / "runs" / "made"
    taken(made)
    assert not made.exists()
    with lease.held(made):
        (made / "config.yaml").touch()
    assert [path.name for path in made.iterdir()] == ["config.yaml"]
    (tmp_path / "own").mkdir()
    taken(tmp_path / "own")
    assert (tmp_path / "own").exists()


def test_a_dead_process_of_this_host_is_followed_at_once_and_what_it_left_half_written_is_cleared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    killed = subprocess.Popen(command("killed_writing", tmp_path / "last.pt"), cwd=ROOT)
    os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)  # dead, though its parent hasn't looked
    left = {path.name for path in tmp_path.iterdir()} - {".lease"}
    assert len(left) == 1
    kept = {"last.pt", ".last.pt", ".notes.txt", "0123456789abcdef.part", ".git"}
    for name in (*kept, ".0123456789abcdef.part"):
        (tmp_path / name).touch()
    with lease.held(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == kept | {".lease"}
        (tmp_path / ".fedcba9876543210.part").touch()  # now of a living one
        with refused("host", "process", "run_dir=DIR"):
            taken(tmp_path)
        assert (tmp_path / ".fedcba9876543210.part").exists()
    assert killed.wait() == -signal.SIGKILL
    assert clock == [1000.0]
    named(capsys.readouterr().err, str(tmp_path), socket.gethostname(), str(killed.pid))


def test_a_process_number_that_is_used_again_is_another_process(tmp_path: Path) -> None:
    (tmp_path / ".lease").write_text(json.dumps(asdict(replace(Holder.here(), started="1"))))
    assert taken(tmp_path)


@pytest.mark.parametrize("text", [json.dumps(asdict(ELSEWHERE)), "", '{"host": 3'])
def test_a_job_elsewhere_is_dead_after_a_minute_without_a_touch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], clock: list[float], text: str
) -> None:
    path = tmp_path / ".lease"
    path.write_text(text)
    os.utime(path, (9e9, 9e9))  # by a clock that is years ahead
    assert taken(tmp_path) != "its"
    assert clock == [1000.0 + lease.DEAD_SECONDS]
    assert lease.DEAD_SECONDS > 5 * lease.BEAT_SECONDS
    waiting, over = capsys.readouterr().err.splitlines()
    named(waiting, str(tmp_path), "60")
    named(over, str(tmp_path))
    assert all((str(ELSEWHERE) in line) == ("node7" in text) for line in (waiting, over))


def test_a_job_elsewhere_that_touches_its_lease_lives(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".lease"
    path.write_text(json.dumps(asdict(ELSEWHERE)))

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        if clock[0] == 1055:
            os.utime(path, (5, 5))  # by a clock that is years behind

    monkeypatch.setattr(lease.time, "sleep", sleep)
    with refused("host", "node7", "12", "run_dir=DIR"):
        taken(tmp_path)
    assert clock == [1055.0]
    assert path.exists()


def test_a_job_elsewhere_that_ends_meanwhile_is_followed_at_once(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".lease").write_text(json.dumps(asdict(ELSEWHERE)))
    monkeypatch.setattr(lease.time, "sleep", lambda _: (tmp_path / ".lease").unlink())
    assert taken(tmp_path)


def test_a_requeued_job_does_not_wait_for_itself_on_another_node_but_for_its_own_other_steps(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    (tmp_path / ".lease").write_text(json.dumps(asdict(ELSEWHERE)))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    taken(tmp_path)
    assert clock == [1000.0]
    named(capsys.readouterr().err, str(tmp_path), "12", "SLURM")
    (tmp_path / ".lease").write_text(json.dumps(asdict(replace(ELSEWHERE, restart=1))))
    taken(tmp_path)
    assert clock[0] > 1000


def test_of_two_who_follow_a_dead_job_one_holds_the_folder(tmp_path: Path, clock: list[float]) -> None:
    path, dead = tmp_path / ".lease", json.dumps(asdict(ELSEWHERE))
    path.write_text(dead)
    assert lease._take_away(path, dead)
    assert lease._make(path, "of the faster one")
    assert not lease._take_away(path, dead)  # it had looked before
    assert path.read_text() == "of the faster one"
    assert not lease._make(path, "of the slower one")
    assert list(tmp_path.iterdir()) == [path]
    path.unlink()
    assert not lease._take_away(path, dead)


def test_a_held_lease_is_touched_made_anew_and_its_loss_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, lost, steps = tmp_path / ".lease", list[str](), list[str]()
    path.write_text("mine")
    os.utime(path, (5, 5))

    def look_after() -> bool:
        """Stands for the wait between two touches; what there is after each."""
        steps.append(f"{path.read_text() if path.exists() else 'gone'} {path.exists() and path.stat().st_mtime == 5}")
        if len(steps) == 2:
            path.unlink()
        if len(steps) == 3:
            path.write_text("of another")
        return False

    done: Any = type("Done", (), {"wait": lambda self, _: look_after()})()
    lease._beat(path, "mine", done, lambda _, text: lost.append(text))
    assert steps == ["mine True", "mine False", "mine False"]
    assert lost == ["of another"]


def test_who_has_lost_its_lease_ends_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codes, ended = list[int](), threading.Event()
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.0)
    monkeypatch.setattr(lease.os, "_exit", lambda code: (codes.append(code), ended.set()))
    with lease.held(tmp_path):
        (tmp_path / "new").write_text(json.dumps(asdict(ELSEWHERE)))
        (tmp_path / "new").rename(tmp_path / ".lease")
        assert ended.wait(60)
    assert codes == [2]
    named(capsys.readouterr().err, str(tmp_path), "node7")
    assert (tmp_path / ".lease").exists()  # which is the other's


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permitted"),
        (errno.EIO, "Input/output"),
    ],
)
def test_a_folder_that_can_not_be_written_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: str
) -> None:
    def refuse(self: Path, *args: Any, **more: Any) -> Any:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with refused("run", expected, "folder"):
        taken(tmp_path / "run")


@pytest.mark.parametrize("place", ["file", "file/below", "file/below/it"])
def test_a_file_where_the_folder_should_be_is_one_clear_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with refused(str(tmp_path / place), "file", "folder"):
        taken(tmp_path / place)


def test_a_lease_without_room_leaves_nothing_to_wait_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full").open
    monkeypatch.setattr(Path, "open", lambda path, *_, **__: (path.touch(), full("w"))[1])
    with pytest.raises(OSError, match="No space"):
        lease._make(tmp_path / "lease", "text")
    assert list(tmp_path.iterdir()) == []
