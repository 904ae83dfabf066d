from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aim.data.readers.frames import Frames
from aim.data.readers.pyav import PyAV, decoded
from aim.data.readers.times import frame_seconds, seconds_of

EXACT = ("discard_first_keyframe.mp4", "h265.mp4", "non_zero_start.mp4", "rotation_90.mov", "unordered_4_frames.mov")


@pytest.mark.parametrize("name", [*EXACT, "short_32_frames.mp4", "mpeg4_test.avi"])
def test_times_are_those_of_a_full_decode(shared: Path, name: str) -> None:
    """To a frame where that is all that the header tells: B-frames of varying length, and an AVI's even spread."""
    path = shared / "videos" / name
    truth = np.array([time for time, _ in decoded(path)])
    truth -= truth[0]
    off = 1e-6 if name in EXACT else np.diff(truth).max() + 1e-6
    assert frame_seconds(path, PyAV()) == pytest.approx(truth, abs=off)
    some = np.array([[0, 3], [2, 1]])
    span = (float(truth[1]) if name in EXACT else 0.0, 100.0)
    inside = truth[truth >= span[0]]
    if len(inside) > 3:
        assert seconds_of(path, some, PyAV(), span) == pytest.approx(inside[some], abs=off)


def test_folders_of_images_have_times_where_their_rate_is_known(tmp_path: Path) -> None:
    for i in range(5):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{i}.jpg")
    (tmp_path / "._4.jpg").touch()
    some = np.array([[0, 5]])
    assert seconds_of(tmp_path, some, Frames(fps=2.0)).tolist() == [[0.0, 2.0]]
    assert seconds_of(tmp_path, some, Frames(fps=2.0), (1.0, 9.0)).tolist() == [[1.0, 2.0]]  # as far as there are any
    assert np.isnan(seconds_of(tmp_path, some, Frames())).all()


def test_what_is_no_video_has_no_times(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"garbage")
    for path in (tmp_path / "a.mp4", tmp_path / "nowhere.mp4"):
        assert np.isnan(seconds_of(path, np.array([[0, 1]]), PyAV())).all()
