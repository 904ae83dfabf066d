"""The rate and length of videos, against FFmpeg's numbers, and the messages about them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from aim.data.lists import Video
from aim.data.pace import Pace, measured, pace_hint, pace_of
from aim.data.sampling import Clip
from tests.messages import named

DENSE = Clip(num_frames=8, stride_frames=4, size=32, sampling="dense")
UNIFORM = replace(DENSE, sampling="uniform")


def test_the_pace_of_a_list_is_its_median_and_a_part_lasts_as_long_as_it_is_listed(shared: Path) -> None:
    root = shared / "videos"
    rate, seconds = measured(root / "k400_test.mp4")  # as ffprobe shows
    assert (rate, seconds) == (30.0, 10.0)
    listed = [Video("k400_test.mp4", 0), Video("absent.mp4", 0), Video("k400_test.mp4", 0, 1.0, 3.0)]
    assert pace_of(root, [*listed, listed[-1]]) == Pace(30.0, 2.0)
    assert pace_of(root, [listed[1]]) == Pace()
    assert pace_of(root, [Video("absent.mp4", 0, 1.0, 1.0001)]) == Pace()  # too short to be told in milliseconds


@pytest.mark.parametrize(
    ("pace", "clip", "window", "expected"),
    [
        (Pace(15.0, 10.0), DENSE, None, ["k400_test.mp4", "30", "15", "1.1", "2.1", "-r 15"]),
        (Pace(25.0, 10.0), DENSE, None, []),
        (Pace(15.0, 10.0), UNIFORM, None, []),  # which takes frames over the whole video, at any rate
        (Pace(30.0, 10.0), DENSE, 0.5, ["window=0.5", "window=1.1"]),
        (Pace(30.0, 10.0), DENSE, 9.0, []),
        (Pace(30.0, 3.0), UNIFORM, 10.0, ["window=10", "window=3"]),
        (Pace(30.0, 3.0), UNIFORM, 1.0, ["window=1", "window=3"]),
        (Pace(30.0, 3.0), UNIFORM, 2.5, []),
        (Pace(30.0, 1.5), UNIFORM, None, ["k400_test.mp4", "10", "1.5", "8", "window=1.5"]),
        (Pace(30.0, 3.0), UNIFORM, None, []),
        (Pace(), DENSE, 0.1, []),
    ],
)
def test_what_is_far_from_the_training_is_said_once_a_run(
    pace: Pace, clip: Clip, window: float | None, expected: list[str], shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hint = pace_hint(pace, clip, window)
    for _ in range(3):
        hint.of(shared / "videos" / "k400_test.mp4")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == bool(expected)
    if expected:
        named(lines[0], *expected)


def test_what_a_file_says_is_checked() -> None:
    assert Pace.of_text(Pace(25.0, None).text) == Pace(25.0, None)
    assert Pace.of_text(None) == Pace()
    for wrong in ({"rate": -1}, {"rate": "fast"}, {"seconds": float("inf")}, {"speed": 1}):
        with pytest.raises((ValueError, TypeError)):
            Pace.of_text(json.dumps(wrong))


def test_the_time_between_frames_is_known_where_the_training_tells() -> None:
    assert Pace(16.0, 4.0).apart(DENSE) == 0.25
    assert Pace(16.0, 4.0).apart(UNIFORM) == 0.5
    assert Pace().apart(DENSE) is None
