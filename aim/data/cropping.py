"""The visible part of a picture in a test's crops."""

from collections.abc import Sequence
from pathlib import Path

from aim.data.hint import Hint
from aim.data.lists import Video, spread
from aim.data.readers.drawing import Drawing
from aim.data.readers.interface import BadVideo, scaled
from aim.data.readers.pyav import decoded
from aim.data.sampling import Clip
from aim.data.transforms import Views

ENOUGH = 0.7  # of the long side; a square has 0.75 of 4:3
LOOKED_AT = 8  # videos of a list


def shown(height: int, width: int, clip: Clip, views: Views) -> float:
    """The share of a picture's long side that some crop shows: one in the middle, or three along it."""
    long = max(scaled(height, width, views.resize))
    return min(1.0, views.spatial * clip.size / long)


def say_once(root: Path, videos: Sequence[Video], clip: Clip, views: Views) -> None:
    """Say, once, that a test's crops leave much of the picture out, by a few of its videos."""
    cropped = crop_hint(clip, views, "a clip of the test")
    for video in spread(videos, LOOKED_AT):
        cropped.of(root / video.path)


def crop_hint(clip: Clip, views: Views, whose: str = "a clip") -> Hint:
    """Says, once, that crops leave much of a video's picture out."""
    return Hint(lambda path: hint(path, clip, views, whose))


def hint(path: Path, clip: Clip, views: Views, whose: str) -> str:
    """A hint on the part of the pictures that no crop shows, if it's large, and the setting that changes it."""
    try:
        height, width = next(Drawing()(frame).shape[:2] for _, frame in decoded(path))
    except (BadVideo, StopIteration):
        return ""
    share = shown(height, width, clip, views)
    if share >= ENOUGH:
        return ""
    side, ends = ("width", "the sides") if width > height else ("height", "top and bottom")
    more = "; views.spatial=3 shows more, in three clips for one" if views.spatial == 1 else ""
    return (
        f"{path.name} has pictures of {width}x{height}, and {whose} shows the middle {100 * share:.2g} % of their "
        f"{side}: {ends} aren't seen{more}"
    )
