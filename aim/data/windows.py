"""A long video as windows of some seconds, decoded once from its start, in memory that doesn't grow with its length."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from aim.data.loading.loader import Batch
from aim.data.readers.drawing import Drawing
from aim.data.readers.interface import BadVideo
from aim.data.readers.packets import from_file, from_index
from aim.data.readers.pyav import decoded, opened
from aim.data.sampling import Clip, test_indices
from aim.data.transforms import Views
from aim.ground.errors import UserError

T = TypeVar("T")

EPSILON = 5e-7  # seconds, forgiven as `readers.interface.in_span` forgives them


class Span(NamedTuple):
    """Seconds from the first frame: start <= time < end."""

    start: float
    end: float


class MispromisedError(Exception):
    """The packets' times disagree with the frames."""


@dataclass(frozen=True)
class Windows:
    """One of `length` seconds every `stride` seconds."""

    length: float
    stride: float

    def __post_init__(self) -> None:
        for name, value in (("window", self.length), ("stride", self.stride)):
            if not 0 < value < float("inf"):
                raise UserError(f"{name}={value:g} must be seconds above 0")

    def over(self, duration: float) -> list[Span]:
        """Those that fit from the start on, and one that ends with the video where something is left over.

        A video that isn't longer is one window.
        """
        if duration <= self.length + EPSILON:
            return [Span(0.0, duration)]
        count = int((duration - self.length + EPSILON) / self.stride) + 1
        spans = [Span(i * self.stride, i * self.stride + self.length) for i in range(count)]
        return spans if spans[-1].end > duration - EPSILON else [*spans, Span(duration - self.length, duration)]


@dataclass(frozen=True)
class Cut:
    """A video's windows, and when its frames are shown, by a clock that stands at 0 for the first of them."""

    path: Path
    seconds: NDArray[np.float64]  # rising
    duration: float
    spans: list[Span]
    listed: bool  # by the packets, not yet by a decode

    def frames_in(self, span: Span) -> range:
        """The frames that exist in a window: those that a reader picks from for such a segment."""
        first, end = np.searchsorted(self.seconds, [span.start - EPSILON, span.end - EPSILON]).tolist()
        return range(first, end)


def cut(path: Path, windows: Windows, *, trust: bool) -> Cut:
    """Find the frames' times: with `trust` from the packets, where they leave no doubt, else by decoding everything.

    Raises BadVideo for a file that can't be read.
    """
    listed = _listed(path) if trust else None
    seconds = np.array([time for time, _ in decoded(path)]) if listed is None else listed
    if not seconds.size:
        raise BadVideo(f"{path}: no frame can be decoded")
    # An AVI file with reordered frames has the right times in a wrong order.
    seconds = np.sort(seconds) - seconds.min()
    # The last frame is shown as long as most of the others.
    duration = float(seconds[-1] + (np.median(np.diff(seconds)) if seconds.size > 1 else 0.04))
    return Cut(path, seconds, duration, windows.over(duration), listed is not None)


def _listed(path: Path) -> NDArray[np.float64] | None:
    with opened(path) as (container, stream):
        for scan in (from_index, from_file):
            packets = scan(container, stream)
            if packets and not packets.doubt:
                return np.asarray(packets.pts[packets.order] * np.float64(stream.time_base or 1))
    return None


@dataclass
class _Open:
    """A window of which not all frames have come yet."""

    span: Span
    rows: dict[int, list[int]]  # frame -> its places in the window's clips
    clips: Tensor  # uint8 "s t c h w": crops, frames of all clips
    missing: int


def read(cut: Cut, clip: Clip, views: Views) -> Iterator[tuple[Span, Tensor]]:
    """Each window that has frames, in their order, with its clips, uint8 "v t c h w".

    They are what `VideoDataset.read_video` gives for a segment of these seconds that PyAV reads, to the bit. Raises
    MispromisedError where a decode shows other frames than listed.
    """
    ahead = deque((span, frames) for span in cut.spans if (frames := cut.frames_in(span)))
    open_ = deque[_Open]()
    draw = Drawing(None)
    shape = (views.spatial, views.temporal * clip.num_frames, 3, clip.size, clip.size)
    offset = None
    for i, (time, frame) in enumerate(decoded(cut.path)):
        offset = time if offset is None else offset
        if cut.listed and (i >= cut.seconds.size or abs(time - offset - cut.seconds[i]) > EPSILON):
            raise MispromisedError
        while ahead and i in ahead[0][1]:
            span, frames = ahead.popleft()
            picks = (frames[0] + test_indices(len(frames), clip, views.temporal).ravel()).tolist()
            rows: dict[int, list[int]] = {}
            for row, pick in enumerate(picks):
                rows.setdefault(pick, []).append(row)
            open_.append(_Open(span, rows, torch.empty(shape, dtype=torch.uint8), len(rows)))
        if takers := [window for window in open_ if i in window.rows]:
            image = torch.from_numpy(np.ascontiguousarray(draw(frame)))
            crops = views(rearrange(image, "h w c -> 1 c h w"), clip.size)
            for window in takers:
                window.clips[:, window.rows[i]] = crops
                window.missing -= 1
        while open_ and not open_[0].missing:
            done = open_.popleft()
            yield done.span, rearrange(done.clips, "s (v t) c h w -> (v s) t c h w", v=views.temporal)
        if not (open_ or ahead):
            return
    if open_ or ahead:
        raise MispromisedError


def batches(cut: Cut, clip: Clip, views: Views, batch_size: int, spans: list[Span]) -> Iterator[Batch]:
    """The windows as a loader's batches, as many at once as have about `batch_size` clips; `spans` gets theirs."""
    windows, together = read(cut, clip, views), views.at_once(batch_size)
    while group := list(islice(windows, together)):
        index = torch.arange(len(spans), len(spans) + len(group))
        spans.extend(span for span, _ in group)
        video = torch.stack([clips for _, clips in group])
        yield Batch(video, torch.zeros_like(index), index, torch.ones(len(group)))


def trusting(path: Path, windows: Windows, use: Callable[[Cut], T]) -> T:
    """`use` of a video's windows by its packets; if these disagree with the frames, again by a decode."""
    try:
        return use(cut(path, windows, trust=True))
    except MispromisedError:
        return use(cut(path, windows, trust=False))
