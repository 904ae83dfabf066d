"""Presentation times of a file's frames, from its header and index: nothing is decoded."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aim.data.readers.frames import Frames, pictures
from aim.data.readers.interface import BadVideo, Part, Reader, Source, in_span
from aim.data.readers.packets import family
from aim.data.readers.pyav import opened


def seconds_of(
    source: Source, indices: NDArray[np.int64], reader: Reader, span: tuple[float, float] | None = None
) -> NDArray[np.float64]:
    """Seconds from the file's first frame to those of `indices`, counted inside `span`; NaN where nothing tells."""
    try:
        seconds = frame_seconds(source, reader)
        seconds = seconds[in_span(str(source), seconds, span)]
    except BadVideo:
        seconds = np.empty(0)
    return seconds[np.minimum(indices, seconds.size - 1)] if seconds.size else np.full(indices.shape, np.nan)


def frame_seconds(source: Source, reader: Reader) -> NDArray[np.float64]:
    """Seconds from a file's first frame to each of its frames; none where nothing tells. Raises BadVideo.

    An MP4's index has the times of decoding: in a file of reordered frames of varying length they are off by a frame.
    The frames of other containers are taken to be evenly spread.
    """
    if not isinstance(source, Part) and Path(source).is_dir():
        fps = reader.fps if isinstance(reader, Frames) else None
        return np.arange(len(pictures(Path(source)))) / np.float64(fps) if fps else np.empty(0)
    with opened(source) as (container, stream):
        if family(container) == "mov":
            shown = np.array([entry.timestamp for entry in stream.index_entries if not entry.is_discard], np.int64)
            return (np.sort(shown) - shown.min()) * np.float64(stream.time_base or 1) if shown.size else np.empty(0)
        rate = float(stream.average_rate or 0)
        count = stream.frames or round((container.duration or 0) / 1e6 * rate)
        return np.arange(count) / rate if rate else np.empty(0)
