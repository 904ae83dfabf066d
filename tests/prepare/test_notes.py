import os
from pathlib import Path

import pytest

from aim.prepare.notes import NAME, Notes, settings_of
from tests.messages import refused

STAMP = "1000 5 abc"


def exchange(one: Path, other: Path) -> None:
    """Exchange the content of two files of equal size, and nothing else."""
    contents, times = [path.read_bytes() for path in (other, one)], [path.stat().st_mtime_ns for path in (one, other)]
    for path, content, when in zip((one, other), contents, times, strict=True):
        path.write_bytes(content)
        os.utime(path, ns=(when, when))


def test_a_video_is_noted_with_its_source_and_size(tmp_path: Path) -> None:
    notes = Notes(tmp_path, {"shards": False})
    notes.add("a/ü\n.mp4", STAMP, 7)
    notes = Notes(tmp_path, {"shards": True})
    assert notes.has("a/ü\n.mp4", STAMP, 7)
    for other in (("a/ü\n.mp4", "1000 6 abc", 7), ("a/ü\n.mp4", STAMP, 8), ("b", STAMP, 7), ("a/ü\n.mp4", None, 7)):
        assert not notes.has(*other)
    assert settings_of(tmp_path) == {"shards": False}  # of the existing videos
    assert settings_of(tmp_path / "none") is None


def test_a_line_that_was_cut_off_counts_for_nothing(tmp_path: Path) -> None:
    notes = Notes(tmp_path, {})
    for name in ("a", "b"):
        notes.add(name, STAMP, 1)
    text = (tmp_path / NAME).read_text()
    (tmp_path / NAME).write_text(text[:-5])
    notes = Notes(tmp_path, {})
    notes.add("c", STAMP, 1)
    assert Notes(tmp_path, {}).made.keys() == {"a", "c"}


@pytest.mark.parametrize(
    "text", ["", "x\n", "[]\n", "{}\n", '{"settings": 1}\n', '{"settings": {}}\n[1]\n', "[" * 9999]
)
def test_a_file_of_another_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    with refused(NAME, "out"):
        Notes(tmp_path, {})
    assert (tmp_path / NAME).read_text() == text


def test_how_much_of_a_video_is_there_stays_noted_until_it_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    one, all_ = Notes(tmp_path / "one", {}), Notes(tmp_path, {})
    one.add("a", STAMP, 1, "5 of 9 frames")
    all_.take([tmp_path / "one"])
    assert Notes(tmp_path, {}).shorter == {"a": "5 of 9 frames"}
    all_.add("a", STAMP, 2)
    assert Notes(tmp_path, {}).shorter == {}
