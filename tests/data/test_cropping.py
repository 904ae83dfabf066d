"""The part of a picture outside of a test's crops."""

from pathlib import Path

import pytest

from aim.data.cropping import hint, say_once
from aim.data.lists import Video
from aim.data.sampling import Clip
from aim.data.transforms import Views
from tests.messages import named

CLIP = Clip(num_frames=2, stride_frames=1, size=32, sampling="dense")


def test_that_a_tests_crop_leaves_the_sides_out_is_said_once_of_a_list(
    shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = [Video(name, 0) for name in ("absent.mp4", *["short_32_frames.mp4"] * 3)]  # of 340x256
    say_once(shared / "videos", videos, CLIP, Views(temporal=1, spatial=1, resize=64))
    (line,) = capsys.readouterr().err.splitlines()
    named(line, "short_32_frames.mp4", "views.spatial=3")
    for views in (Views(temporal=1, spatial=3, resize=64), Views(temporal=1, spatial=1, resize=32)):
        say_once(shared / "videos", videos, CLIP, views)
    assert not capsys.readouterr().err


def test_a_share_below_a_per_cent_is_not_nothing(shared: Path) -> None:
    narrow = hint(shared / "cases" / "inputs" / "px3x1000.mkv", CLIP, Views(temporal=1, spatial=1, resize=32), "a clip")
    named(narrow, "3x1000", "0.3 %")
