import json
import os
from pathlib import Path

import pytest

from aim.data.lists import Stored, Video
from aim.engine.run import replaced
from tests.prepare.test_notes import exchange

VIDEOS = [Video(f"{i}.mp4", 0) for i in range(3)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    for i, video in enumerate(VIDEOS):
        (tmp_path / "data" / video.path).write_bytes(bytes([i]) * 100)
        os.utime(tmp_path / "data" / video.path, (1000, 1000))
    return tmp_path / "data"


@pytest.fixture
def run_dir(root: Path, tmp_path: Path) -> Path:
    replaced.note(tmp_path / "run", root, VIDEOS)
    return tmp_path / "run"


def test_exchanged_and_touched_videos_are_named_and_others_are_not(root: Path, run_dir: Path) -> None:
    assert str(replaced.changes(run_dir, root, VIDEOS)) == ""
    exchange(root / "0.mp4", root / "1.mp4")
    os.utime(root / "2.mp4", (5, 5))
    found = replaced.changes(run_dir, root, VIDEOS)
    assert (found.others, found.touched) == (["0.mp4", "1.mp4"], ["2.mp4"])
    for piece in ("2 of", "0.mp4", "1 of", "2.mp4"):
        assert piece in str(found)
    (root / "1.mp4").unlink()
    assert replaced.changes(run_dir, root, VIDEOS).others == ["0.mp4"]  # missing files are reported elsewhere


def test_in_another_place_the_content_counts_and_not_the_time(root: Path, run_dir: Path) -> None:
    os.utime(root / "2.mp4", (5, 5))
    assert replaced.changes(run_dir, root, VIDEOS).touched
    moved = root.rename(root.with_name("moved"))
    assert str(replaced.changes(run_dir, moved, VIDEOS)) == ""
    (moved / "x.tar").write_bytes(b"".join(bytes([i]) * 100 for i in (0, 2, 1)))
    packed = [video._replace(stored=Stored("x.tar", 100 * i, 100)) for i, video in enumerate(VIDEOS)]
    assert replaced.changes(run_dir, moved, packed).others == ["1.mp4", "2.mp4"]


@pytest.mark.parametrize("text", ["", "[]", '{"root": 1}', '{"root": 1, "stamps": [1]}'])
def test_what_an_earlier_version_or_another_left_is_not_known(root: Path, run_dir: Path, text: str) -> None:
    (run_dir / replaced.NAME).write_text(text)
    assert not replaced.changes(run_dir, root, VIDEOS).known
    assert str(replaced.changes(run_dir, root, VIDEOS))


def test_of_very_many_videos_some_are_looked_at(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaced, "MOST", 2)
    replaced.note(tmp_path / "some", root, VIDEOS)
    assert len(json.loads((tmp_path / "some" / replaced.NAME).read_text())["stamps"]) == 2
