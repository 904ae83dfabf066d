"""Decoding of uploaded videos in separate processes, with a time limit."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from aim.data.readers.interface import BadVideo, Pick, Reader, Source, UnwantedVideo
from aim.data.readers.pyav import opened
from aim.data.sampling import Clip
from aim.data.transforms import Views
from aim.data.windows import Cut, MispromisedError, Windows, batches, cut

MICROSECONDS = 10**6  # of a second: FFmpeg's AV_TIME_BASE
MAX_WINDOWS = 5000
Arrays = tuple[NDArray[np.int64], NDArray[np.uint8]]  # of a batch: its index and its video


@dataclass(frozen=True)
class Limited:
    """A reader of videos of at most `max_seconds`, by their files' headers."""

    reader: Reader
    max_seconds: float

    def __call__(self, path: Source, pick: Pick, *, span: tuple[float, float] | None = None) -> Tensor:
        """See `interface.Reader`."""
        with opened(path) as (container, _):
            seconds = (container.duration or 0) / MICROSECONDS
        if seconds > self.max_seconds:
            raise UnwantedVideo(f"{path}: {too_long(seconds, self.max_seconds)}")
        return self.reader(path, pick, span=span)


@dataclass(frozen=True)
class Cutting:
    """Cuts a video into windows: its `Cut`, and their clips as batches; None where its packets turn out to be wrong."""

    clip: Clip
    views: Views
    batch_size: int
    max_seconds: float

    def __call__(self, task: tuple[Path, Windows, bool]) -> Iterator[Cut | Arrays | None]:
        """Of a path, its windows, and whether to trust its packets. Raises BadVideo for a bad video or a long one."""
        path, windows, trust = task
        found = cut(path, windows, trust=trust)
        if found.duration > self.max_seconds:
            raise BadVideo(f"{path}: {too_long(found.duration, self.max_seconds)}")
        if len(found.spans) > MAX_WINDOWS:
            raise BadVideo(f"{path}: {len(found.spans)} windows, more than {MAX_WINDOWS}; use a larger stride")
        yield found
        try:
            for batch in batches(found, self.clip, self.views, self.batch_size):
                yield batch.index.numpy(), batch.video.numpy()
        except MispromisedError:
            yield None


def too_long(seconds: float, most: float) -> str:
    return f"lasts {seconds:.1f} seconds, more than max_seconds={most:g}; send a part of it"
