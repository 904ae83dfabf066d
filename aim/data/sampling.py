"""The frames of a clip: pure functions of the number of frames.

Dense sampling (Kinetics) takes frames at a fixed stride, uniform sampling (Something-Something, Diving-48) one frame
from each of `num_frames` equal segments of the video. Both follow the public AIM implementation, recorded in
`shared/golden/frame_sampling.json`.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from aim.ground.errors import check_least

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Clip:
    """The input of the model: `num_frames` frames of `size` x `size` pixels, `stride_frames` apart if dense."""

    num_frames: int
    stride_frames: int
    size: int
    sampling: Literal["dense", "uniform"]
    short_videos: Literal["loop", "repeat_last"] = "loop"

    def __post_init__(self) -> None:
        check_least(self, 1, "num_frames", "stride_frames", "size", prefix="clip.")

    @property
    def span(self) -> int:
        """The number of video frames spanned by a dense clip."""
        return self.num_frames * self.stride_frames


def train_indices(num_frames: int, clip: Clip, rng: np.random.Generator, clips: int = 1) -> Indices:
    """Indices "v t" of `clips` random clips of a video of `num_frames` frames."""
    if clip.sampling == "uniform":
        first, last = _segments(num_frames, clip)
        return rng.integers(first, last, size=(clips, clip.num_frames), endpoint=True)
    starts = rng.integers(max(num_frames - clip.span + 1, 1), size=clips)
    return _dense(starts, num_frames, clip)


def test_indices(num_frames: int, clip: Clip, views: int) -> Indices:
    """Indices "v t" of `views` clips spread evenly over a video of `num_frames` frames.

    The public implementation gives equal views for uniform sampling; here several views take different frames of each
    segment, and a single one takes its middle.
    """
    view = np.arange(views)
    if clip.sampling == "uniform":
        first, last = _segments(num_frames, clip)
        return first + (last - first) * (2 * view[:, None] + 1) // (2 * views)
    room = max(num_frames - clip.span + 1, 0) / views
    return _dense((view * room + room / 2).astype(np.int64), num_frames, clip)


test_indices.__test__ = False  # type: ignore[attr-defined]  # pytest takes the name for a test's


def _dense(starts: Indices, num_frames: int, clip: Clip) -> Indices:
    indices = starts[:, None] + np.arange(clip.num_frames) * clip.stride_frames
    return indices % num_frames if clip.short_videos == "loop" else np.minimum(indices, num_frames - 1)


def _segments(num_frames: int, clip: Clip) -> tuple[Indices, Indices]:
    """First and last frame, both inclusive, of each segment."""
    bounds = np.round((num_frames - 1) / clip.num_frames * np.arange(clip.num_frames + 1)).astype(np.int64)
    return bounds[:-1], bounds[1:]
