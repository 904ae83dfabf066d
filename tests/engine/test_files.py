import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aim.engine import files
from aim.errors import UserError
from tests.conftest import ROOT
from tests.toy import file_size_limit


def test_a_failed_write_keeps_what_was_there_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, 1)
    with file_size_limit(10), pytest.raises(UserError) as caught:
        files.write_json(path, list(range(100)))
    assert str(caught.value) == (
        f"{path} can't be written: it would be larger than files may be here (ulimit -f); what was there before is "
        "kept, and the same command continues once that is mended"
    )
    assert path.read_text() == "1\n"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")

    def write(path: Path) -> None:
        path.unlink()
        path.symlink_to("/dev/full")
        with path.open("wb") as stream:
            np.savez(stream, a=np.zeros(10000))

    with pytest.raises(UserError, match="can't be written: the disk is full; "):
        files.write_atomically(tmp_path / "a.npz", write)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "that is not permitted"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_other_reasons_are_given_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: str
) -> None:
    def refuse(self: Path, *args: Any, **more: Any) -> Any:
        raise OSError(number, os.strerror(number), str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with (
            pytest.raises(UserError, match=rf"run can't be written: {expected}; name another folder"),
            files.locked(tmp_path / "run"),
        ):
            pass
    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(UserError, match=rf"a\.json can't be written: {expected}"):
        files.write_json(tmp_path / "a.json", 1)


@pytest.mark.parametrize("place", ["file", "file/below", "file/below/it"])
def test_a_file_where_the_run_directory_should_be_is_one_clear_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=f"{place} can't be written: a file is where a folder"),
        files.locked(tmp_path / place),
    ):
        pass
    with pytest.raises(UserError, match="a file is where a folder"):
        files.write_json(tmp_path / place / "a.json", 1)


def test_errors_of_the_program_stay_what_they_are(tmp_path: Path) -> None:
    def fails(path: Path) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        files.write_atomically(tmp_path / "a", fails)
    with pytest.raises(OSError, match="of the job"), files.locked(tmp_path):
        raise OSError(errno.ENOSPC, "of the job")


KILLED = """
import os, signal, sys
from pathlib import Path
from aim.engine import files

def write(path):
    path.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)

files.write_atomically(Path(sys.argv[1]), write)
"""


def test_what_killed_writers_left_is_cleared_by_who_has_the_lock_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "last.pt")], cwd=ROOT, timeout=120)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".last.pt.")
    dead = [
        left.name,
        ".best.safetensors.node-7.cluster.example.123",
        ".log.jsonl.x.1",
        ".previous.pt.x.1",
        ".config.yaml.a-b.5",
    ]
    kept = ["last.pt", ".last.pt", ".lock", ".notes.txt", "last.pt.x.1", ".git"]
    for name in (*dead, *kept):
        (tmp_path / name).touch()
    with files.locked(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == set(kept)
        (tmp_path / ".last.pt.host.1").touch()  # now of a living one
        with (
            pytest.raises(UserError, match=rf"another job is writing to .*process {os.getpid()},"),
            files.locked(tmp_path),
        ):
            pass
        assert (tmp_path / ".last.pt.host.1").exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_locks_there_is_a_warning_and_nothing_is_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    (tmp_path / ".last.pt.host.1").touch()  # maybe of a living one
    with files.locked(tmp_path):
        assert (tmp_path / ".last.pt.host.1").exists()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"aim: {tmp_path} is on a file system without locks")


def test_a_lock_that_fails_otherwise_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(UserError, match="Input/output error"), files.locked(tmp_path):
        pass
