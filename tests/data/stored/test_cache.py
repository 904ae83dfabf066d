import errno
import os
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from aim.data.lists import Stored, Video
from aim.data.readers.interface import Part
from aim.data.readers.pyav import PyAV
from aim.data.stored import cache
from aim.data.stored.cache import Cache, State
from tests.data.test_dataset import AUGMENT, dataset
from tests.messages import refused
from tests.toy import file_size_limit

LONG_AGO = 1000.0  # Unix time


@pytest.fixture
def videos(tmp_path: Path) -> list[Path]:
    """Ten files of a thousand bytes."""
    files = [tmp_path / "slow" / f"{i}.mp4" for i in range(10)]
    files[0].parent.mkdir()
    for i, file in enumerate(files):
        file.write_bytes(bytes([i]) * 1000)
    return files


def made(tmp_path: Path, limit: int = 10**6, began: float | None = None) -> Cache:
    found = Cache(tmp_path / "fast", limit, time.time() if began is None else began)
    found.make()
    return found


def copies(found: Cache) -> list[Path]:
    return sorted(file for folder in found.folder.glob("??") for file in folder.iterdir())


def used(found: Cache) -> int:
    with found._state() as state:
        return state.used


def test_a_file_and_a_part_of_one_are_copied_once(tmp_path: Path, videos: list[Path]) -> None:
    found = made(tmp_path)
    part = Part(videos[1], 100, 50, "a/b.webm")
    for source, expected in ((videos[1], b"\1" * 1000), (part, b"\1" * 50)):
        copy = found.copy_of(source)
        assert copy is not None
        assert copy.read_bytes() == expected
        before = copy.stat().st_ino
        assert found.copy_of(source) == copy
        assert copy.stat().st_ino == before
    assert [copy.suffix for copy in sorted(copies(found), key=lambda c: c.stat().st_size)] == [".webm", ".mp4"]
    assert used(found) == 1050


def test_a_source_that_changed_is_copied_anew(tmp_path: Path, videos: list[Path]) -> None:
    found = made(tmp_path)
    old = found.copy_of(videos[0])
    videos[0].write_bytes(b"new" * 100)
    assert found.copy_of(videos[0]).read_bytes() == b"new" * 100
    videos[0].write_bytes(b"NEW" * 100)  # of the same size
    os.utime(videos[0], (5, 5))
    assert found.copy_of(videos[0]).read_bytes() == b"NEW" * 100
    assert old.exists()


def test_videos_that_were_exchanged_are_copied_anew(tmp_path: Path, videos: list[Path]) -> None:
    """Of one size and one time: by renaming, and through links."""
    found, aside = made(tmp_path), tmp_path / "aside"
    for video in videos[:2]:
        os.utime(video, (5, 5))
        found.copy_of(video)
    for old, new in ((videos[0], aside), (videos[1], videos[0]), (aside, videos[1])):
        old.rename(new)
    assert [found.copy_of(video).read_bytes()[0] for video in videos[:2]] == [1, 0]
    link, seen = tmp_path / "link.mp4", list[int]()
    for video in videos[:2]:
        link.unlink(missing_ok=True)
        link.symlink_to(video)
        seen.append(found.copy_of(link).read_bytes()[0])
    assert seen == [1, 0]


def test_what_this_job_has_used_stays_and_the_rest_goes_the_oldest_first(tmp_path: Path, videos: list[Path]) -> None:
    earlier = made(tmp_path, 4000, began=0.0)
    for age, video in enumerate(videos[:4]):
        copy = earlier.copy_of(video)
        os.utime(copy, (LONG_AGO - age, LONG_AGO - age))
    assert earlier.copy_of(videos[4]) is None  # all four are its own
    with earlier._state() as state:
        state.look_again = 0.0  # it looked just now
    job = made(tmp_path, 4000)
    kept = job.copy_of(videos[3])  # the oldest, but now in use
    assert job.copy_of(videos[5]) is not None
    assert kept.exists()
    assert len(copies(job)) <= 4
    assert used(job) == 1000 * len(copies(job))
    left = {copy.read_bytes()[0] for copy in copies(job)}
    assert left >= {3, 5}
    assert 2 not in left  # the oldest that wasn't


def test_the_limit_holds_while_several_fill_at_once(tmp_path: Path, videos: list[Path]) -> None:
    jobs = [made(tmp_path, 5500, began=0.0) for _ in range(4)]
    wrong: list[object] = []

    def fill(job: Cache) -> None:
        for video in videos * 3:
            copy = job.copy_of(video)
            if copy and copy.read_bytes() != video.read_bytes():
                wrong.append(copy)

    threads = [threading.Thread(target=fill, args=[job]) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert 1 <= len(copies(jobs[0])) <= 5


def test_two_writers_of_a_copy_share_no_file_whatever_their_process_numbers(
    tmp_path: Path, videos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    write = Path.write_bytes

    def noted(path: Path, content: bytes) -> int:
        written.append(path)
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", noted)
    for _ in range(2):
        copy = made(tmp_path, 5500).copy_of(videos[0])
        assert isinstance(copy, Path)
        copy.unlink()
    assert len(set(written)) == 2


def test_what_killed_processes_left_is_cleared_and_counted_anew(tmp_path: Path, videos: list[Path]) -> None:
    found = made(tmp_path)
    found.copy_of(videos[0])
    for name, age in (("1-a", cache.LEFT_BEHIND + 60), ("2-b", 0)):
        part = found.folder / "part" / name
        part.touch()
        os.utime(part, (time.time() - age, time.time() - age))
    (found.folder / "state").write_bytes(b"half")
    found.make()
    assert [part.name for part in (found.folder / "part").iterdir()] == ["2-b"]
    assert used(found) == 1000


def test_a_count_that_is_too_high_is_mended(tmp_path: Path, videos: list[Path]) -> None:
    found = made(tmp_path, 2000)
    with found._state() as state:
        state.used = 2000  # a process counted, and was killed
    assert found.copy_of(videos[0]) is not None
    assert used(found) == 1000


def test_a_full_disk_is_said_once_and_read_past(
    tmp_path: Path, videos: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    found = made(tmp_path)
    with file_size_limit(500):
        for process in (found, replace(found)):
            assert process.copy_of(videos[0]) is None
            assert process.copy_of(videos[1]) is None
    assert [record.message for record in caplog.records] == [
        f"data.cache={found.folder}: File too large; videos are read without new copies there"
    ]
    assert not list((found.folder / "part").iterdir())
    assert found.copy_of(videos[0]) is None  # it rests
    assert replace(found).copy_of(videos[0]) is not None


def test_a_folder_that_cannot_be_used_is_refused_and_a_full_disk_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with refused("data.cache=", "file", "folder"):
        cache.opened(tmp_path / "file", 1.0)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Cache, "make", full)
    assert cache.opened(tmp_path / "new", 1.0) is None
    assert "No space left on device; videos are read without copies" in caplog.text


def test_a_folder_that_vanished_is_said_once_and_read_past(
    tmp_path: Path, videos: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    found = made(tmp_path)
    shutil.rmtree(found.folder)
    assert [found.copy_of(video) for video in videos] == [None] * 10
    assert len(caplog.records) == 1
    assert "No such file or directory; videos are read without new copies there" in caplog.text


def test_sources_that_cannot_be_read_are_left_to_their_reader(tmp_path: Path, videos: list[Path]) -> None:
    found = made(tmp_path)
    for source in (tmp_path / "none.mp4", tmp_path, Part(videos[0], 900, 200, "cut.mp4")):
        assert found.copy_of(source) is None
    assert not copies(found)


def test_a_dataset_reads_the_same_with_a_cache_without_and_from_a_damaged_copy(shared: Path, tmp_path: Path) -> None:
    content = (shared / "videos" / "short_32_frames.mp4").read_bytes()
    (tmp_path / "x.tar").write_bytes(b"#" * 512 + content)
    plain = dataset(
        AUGMENT, root=tmp_path, videos=[Video("s.mp4", 0, stored=Stored("x.tar", 512, len(content)))], reader=PyAV()
    )
    expected = replace(plain, root=shared / "videos", videos=[Video("short_32_frames.mp4", 0)]).read(1, 0)
    assert torch.equal(plain.read(1, 0), expected)
    cached = replace(plain, cache=made(tmp_path))
    assert torch.equal(cached.read(1, 0), expected)
    (copy,) = copies(cached.cache)
    assert copy.read_bytes() == content
    copy.write_bytes(bytes(len(content)))
    assert torch.equal(cached.read(1, 0), expected)
    assert not copy.exists()  # and is made again
    assert torch.equal(cached.read(1, 0), expected)
    assert copy.read_bytes() == content
    copy.write_bytes(content[:100])  # truncated by a power cut
    assert torch.equal(cached.read(1, 0), expected)
    assert copy.read_bytes() == content


def test_the_state_survives_its_file(tmp_path: Path) -> None:
    found = made(tmp_path)
    with found._state() as state:
        assert state == State()
        state.used, state.look_again, state.refused = 7, 1.5, 2.5
    with found._state() as state:
        assert state == State(7, 1.5, 2.5)
