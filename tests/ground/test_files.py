import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aim.ground import files
from tests.messages import refused
from tests.toy import file_size_limit


def test_a_failed_write_keeps_what_was_there_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, 1)
    with file_size_limit(10), refused(str(path), "ulimit", "kept"):
        files.write_json(path, list(range(100)))
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

    with refused("a.npz", "disk", "full"):
        files.write_atomically(tmp_path / "a.npz", write)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permitted"),
        (errno.EDQUOT, "quota"),
        (errno.EIO, "Input/output"),
    ],
)
def test_other_reasons_are_given_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: str
) -> None:
    def refuse(self: Path, *args: Any, **more: Any) -> Any:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "touch", refuse)
    with refused("a.json", expected, "command"):
        files.write_json(tmp_path / "a.json", 1)


@pytest.mark.parametrize("place", ["file", "file/below", "file/below/it"])
def test_a_file_where_the_run_directory_should_be_is_one_clear_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with refused("file", "folder", "run_dir=DIR"):
        files.write_json(tmp_path / place / "a.json", 1)


def test_errors_of_the_program_stay_what_they_are(tmp_path: Path) -> None:
    def fails(path: Path) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        files.write_atomically(tmp_path / "a", fails)


@pytest.mark.parametrize("name", ["a", f"{'n' * 250}.json", "ü" * 127])
def test_a_temporary_name_fits_wherever_the_name_does(tmp_path: Path, name: str) -> None:
    files.write_json(tmp_path / name, 1)
    (tmp_path / ".other").touch()
    temporary = files.temporary_of(tmp_path / name)
    temporary.touch()
    assert temporary != files.temporary_of(tmp_path / name, "another job")
    files.clear_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {name, ".other"}


def test_a_name_is_made_to_fit_and_stays_another_than_others() -> None:
    assert files.fitting("a.b.mp4") == "a.b.mp4"
    long = [f"{'ü' * 200}{i}.mp4" for i in range(2)]
    found = [files.fitting(name) for name in long]
    assert len({*found}) == 2
    for name in found:
        assert len(name.encode()) <= files.LONGEST
        assert name.startswith("ü" * 100)
        assert name.endswith(".mp4")
        assert files.fitting(name) == name
