"""Messages about files without a video."""

import shutil
from pathlib import Path

import av
import pytest

from aim.data.checking import bad_files
from aim.data.demo.moving_shapes import MovingShapes


@pytest.fixture
def good(toy_cache: Path, tmp_path: Path) -> Path:
    """A folder with one good video of eight frames."""
    MovingShapes(num_train=24, num_val=16, size=32, num_frames=9, seed=0)(toy_cache)
    shutil.copy(next(toy_cache.rglob("*.mp4")), tmp_path / "good.mp4")
    return tmp_path


def faults(root: Path, *names: str, workers: int = 0) -> dict[str, str | None]:
    return dict(bad_files(root, names, workers=workers, timeout=60.0))


def test_a_good_video_and_every_kind_of_bad_file(good: Path) -> None:
    whole = (good / "good.mp4").read_bytes()
    start, end = whole.index(b"mdat") + 4, whole.index(b"moov") - 4  # the pictures
    (good / "folder.mp4").mkdir()
    content = {
        "empty.mp4": b"",
        "text.mp4": b"<!DOCTYPE html><title>404 Not Found</title>",
        "zeros.mp4": bytes(5000),
        "cut.mp4": whole[: len(whole) // 2],  # its index is at its end
        "garbled.mp4": whole[:start] + bytes(end - start) + whole[end:],
        "good, of another name.mp4": whole,
    }
    for name, data in content.items():
        (good / name).write_bytes(data)
    found = faults(good, "good.mp4", "folder.mp4", "absent.mp4", *content)
    assert found == {
        "good.mp4": None,
        "folder.mp4": "a folder, not a file",
        "absent.mp4": "no such file",
        "empty.mp4": "an empty file",
        "text.mp4": "not a video",
        "zeros.mp4": "not a video",
        "cut.mp4": "cut off: an MP4 file without its index",
        "garbled.mp4": "no frame can be decoded",
        "good, of another name.mp4": None,
    }
    assert faults(good, *found, workers=2) == found


def test_a_file_that_may_not_be_read(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "good.mp4")

    monkeypatch.setattr(av, "open", refuse)
    assert faults(good, "good.mp4") == {"good.mp4": "[Errno 13] Permission denied: 'good.mp4'"}


def test_real_files_of_every_kind_are_good(shared: Path) -> None:
    names = [path.name for path in (shared / "videos").iterdir() if path.suffix != ".md"]
    assert len(names) > 10
    assert set(faults(shared / "videos", *names).values()) == {None}
