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

    def __call__(
        self, path: Source, pick: Pick, short_side: int | None = None, *, span: tuple[float, float] | None = None
    ) -> Tensor:
        """See `interface.Reader`."""
        with opened(path) as (container, _):
            seconds = (container.duration or 0) / MICROSECONDS
        if seconds > self.max_seconds:
            raise UnwantedVideo(f"{path}: {too_long(seconds, self.max_seconds)}")
        return self.reader(path, pick, short_side, span=span)


@dataclass(frozen=True)
class Cutting:
    """Cuts a video into windows: its `Cut`, and their clips as batches; all again if its packets were wrong."""

    clip: Clip
    views: Views
    batch_size: int
    max_seconds: float

    def __call__(self, task: tuple[Path, Windows]) -> Iterator[Cut | Arrays]:
        """Raises BadVideo for a video that can't be read, or is too long."""
        path, windows = task
        for trust in (True, False):
            found = cut(path, windows, trust=trust)
            if found.duration > self.max_seconds:
                raise BadVideo(f"{path}: {too_long(found.duration, self.max_seconds)}")
            if len(found.spans) > MAX_WINDOWS:
                raise BadVideo(f"{path}: {len(found.spans)} windows, more than {MAX_WINDOWS}; use a larger stride")
            yield found
            try:
                for batch in batches(found, self.clip, self.views, self.batch_size):
                    yield batch.index.numpy(), batch.video.numpy()
                return
            except MispromisedError:
                if not trust:
                    raise


def too_long(seconds: float, most: float) -> str:
    return f"lasts {seconds:.1f} seconds, more than max_seconds={most:g}; send a part of it"
