"""A long video as windows of some seconds, decoded once from its start, in constant memory."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from av.video.frame import VideoFrame
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from aim.data.loading.loader import Batch
from aim.data.readers.drawing import Drawing
from aim.data.readers.interface import UNTIMED, BadVideo
from aim.data.readers.packets import from_file, from_index
from aim.data.readers.pyav import decoded, opened
from aim.data.sampling import Clip, test_indices
from aim.data.transforms import Views
from aim.ground.errors import UserError

T = TypeVar("T")

EPSILON = 5e-7  # seconds of tolerance, as in `readers.interface.Choice`
LEAST = 0.001  # seconds between two windows


class Span(NamedTuple):
    """Seconds from the first frame: start <= time < end."""

    start: float
    end: float


class MispromisedError(Exception):
    """The packets' times disagree with the frames."""


@dataclass(frozen=True)
class Windows:
    """One of `length` seconds every `stride` seconds.

    If a remainder is left at a video's end, one more window ends with the video, at full length; or, with `on_grid`, it
    begins at the next multiple of `stride` like all others, and is shorter.
    """

    length: float
    stride: float
    on_grid: bool = False

    def __post_init__(self) -> None:
        for name, value in (("window", self.length), ("stride", self.stride)):
            if not 0 < value < float("inf"):
                raise UserError(f"{name}={value:g} must be seconds above 0")
        if self.stride < LEAST:
            raise UserError(f"stride={self.stride:g} is shorter than any camera's frame; use {LEAST:g} seconds or more")

    def over(self, duration: float) -> list[Span]:
        """Those that fit from the start on, and one for the remainder. A video that isn't longer is one window."""
        if duration <= self.length + EPSILON:
            return [Span(0.0, duration)]
        count = int((duration - self.length + EPSILON) / self.stride) + 1
        spans = [Span(i * self.stride, i * self.stride + self.length) for i in range(count)]
        if spans[-1].end > duration - EPSILON or (self.on_grid and count * self.stride > duration - EPSILON):
            return spans
        return [*spans, Span(count * self.stride if self.on_grid else duration - self.length, duration)]


@dataclass(frozen=True)
class Cut:
    """A video's windows, and the times of its frames, from 0 for the first."""

    path: Path
    seconds: NDArray[np.float64]  # rising
    duration: float
    spans: list[Span]
    listed: bool  # by the packets, not yet by a decode

    def frames_in(self, span: Span) -> range:
        """The frames of a window: a reader's choice for such a segment."""
        first, end = np.searchsorted(self.seconds, [span.start - EPSILON, span.end - EPSILON]).tolist()
        return range(first, end)


def cut(path: Path, windows: Windows, *, trust: bool) -> Cut:
    """Find the frames' times: with `trust` from unambiguous packets, else by decoding everything.

    Raises BadVideo for a file that can't be read, or has no times.
    """
    seconds = _listed(path) if trust else None
    listed = seconds is not None
    if seconds is None:
        seconds = np.array([math.nan if frame.pts is None else time for time, frame in decoded(path)])
    if not seconds.size:
        raise BadVideo(f"{path}: no frame can be decoded")
    if np.isnan(seconds).any():
        raise BadVideo(f"{path}: {UNTIMED}")
    # An AVI file with reordered frames has the right times in a wrong order.
    seconds = np.sort(seconds) - seconds.min()
    # The last frame is shown as long as most of the others.
    duration = float(seconds[-1] + (np.median(np.diff(seconds)) if seconds.size > 1 else 0.04))
    if not duration:
        raise BadVideo(f"{path}: no windows can be cut, for its frames have no time stamps that grow")
    return Cut(path, seconds, duration, windows.over(duration), listed)


def _listed(path: Path) -> NDArray[np.float64] | None:
    with opened(path) as (container, stream):
        for scan in (from_index, from_file):
            packets = scan(container, stream)
            if packets and not packets.doubt:
                return np.asarray(packets.pts[packets.order] * np.float64(stream.time_base or 1))
    return None


@dataclass
class _Open:
    """A window with missing frames."""

    place: int  # among all windows
    rows: dict[int, list[int]]  # frame -> its places in the window's clips
    clips: Tensor  # uint8 "s t c h w": crops, frames of all clips
    missing: int


def read(cut: Cut, clip: Clip, views: Views) -> Iterator[tuple[int, Tensor]]:
    """The place of each window with frames, in order, with its clips, uint8 "v t c h w".

    They equal those of `VideoDataset.read_video` for a segment of these seconds read by PyAV, to the bit. Raises
    MispromisedError if a decode shows other frames than listed.
    """
    ahead = deque((place, frames) for place, span in enumerate(cut.spans) if (frames := cut.frames_in(span)))
    open_ = deque[_Open]()
    draw = Drawing()
    shape = (views.spatial, views.temporal * clip.num_frames, 3, clip.size, clip.size)
    offset = None
    for i, (time, frame) in enumerate(decoded(cut.path)):
        offset = time if offset is None else offset
        if cut.listed and (i >= cut.seconds.size or abs(time - offset - cut.seconds[i]) > EPSILON):
            raise MispromisedError
        if not i:
            draw.begin(frame)
        while ahead and i in ahead[0][1]:
            place, frames = ahead.popleft()
            picks = (frames[0] + test_indices(len(frames), clip, views.temporal).ravel()).tolist()
            rows: dict[int, list[int]] = {}
            for row, pick in enumerate(picks):
                rows.setdefault(pick, []).append(row)
            open_.append(_Open(place, rows, torch.empty(shape, dtype=torch.uint8), len(rows)))
        if takers := [window for window in open_ if i in window.rows]:
            crops = crops_of(draw, frame, views, clip.size)
            for window in takers:
                window.clips[:, window.rows[i]] = crops
                window.missing -= 1
        while open_ and not open_[0].missing:
            done = open_.popleft()
            yield done.place, rearrange(done.clips, "s (v t) c h w -> (v s) t c h w", v=views.temporal)
        if not (open_ or ahead):
            return
    if open_ or ahead:
        raise MispromisedError


def crops_of(draw: Drawing, frame: VideoFrame, views: Views, size: int) -> Tensor:
    """A frame at the model's size, uint8 "s 1 c h w"."""
    image = torch.from_numpy(np.ascontiguousarray(draw(frame)))
    return views(rearrange(image, "h w c -> 1 c h w"), size)


def batches(cut: Cut, clip: Clip, views: Views, batch_size: int) -> Iterator[Batch]:
    """The windows with frames as a loader's batches, of about `batch_size` clips.

    Each batch's `index` holds the places of its windows among all.
    """
    windows, together = read(cut, clip, views), views.at_once(batch_size)
    while group := list(islice(windows, together)):
        index = torch.tensor([place for place, _ in group])
        yield batch_of(index, torch.stack([clips for _, clips in group]))


def batch_of(index: Tensor, video: Tensor) -> Batch:
    """A batch of windows at these places, int64 "b", with their clips "b v t c h w"."""
    return Batch(video, torch.zeros_like(index), index, torch.ones(len(index)))


def placed(cut: Cut, found: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """A row of each window, "w d", of places "n" and their rows "n d"; NaN for one without frames, in a pause."""
    rows = torch.full((len(cut.spans), found[0][1].shape[1]), torch.nan)
    for places, values in found:
        rows[places] = values
    return rows


def trusting(use: Callable[[bool], T]) -> T:
    """`use` of a video's windows by its trusted packets; if these disagree with the frames, by a decode."""
    try:
        return use(True)
    except MispromisedError:
        return use(False)
