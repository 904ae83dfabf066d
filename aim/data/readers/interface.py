"""The interface of readers of video files, and their shared parts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2.functional import resize

Pick = Callable[[int], "Sequence[int] | NDArray[np.int64]"]


class BadVideo(RuntimeError):
    """A file that can't be read rightly; the message starts with its path."""


@dataclass(frozen=True)
class Part:
    """A video inside of a larger file: `size` bytes from `offset` on. It is called by its `name` there."""

    file: Path
    offset: int
    size: int
    name: str

    def __str__(self) -> str:
        return f"{self.file}/{self.name}"

    @property
    def url(self) -> str:
        """For FFmpeg, which reads these bytes as if they were a file (its documentation: Protocols, subfile)."""
        return f"subfile,,start,{self.offset},end,{self.offset + self.size},,:{self.file}"


Source = str | Path | Part


def file_of(source: Source) -> Path:
    """The file that holds it."""
    return source.file if isinstance(source, Part) else Path(source)


def url(source: Source) -> str:
    """What FFmpeg, and whatever is made with it, opens."""
    return source.url if isinstance(source, Part) else str(source)


class Reader(Protocol):
    """Reads the frames asked for, and never another: uint8 "t c h w", RGB, upright.

    `pick` maps the number of frames to the indices wanted, in any order, repeated or not. `short_side` scales the
    frames to that short side (see `scaled`). `span`, in seconds from the first frame: only frames with start <= time <
    end exist for `pick`. The file is opened and closed inside the call. Raises BadVideo for a file that is missing or
    can't be read rightly.
    """

    def __call__(
        self, path: Source, pick: Pick, short_side: int | None = None, *, span: tuple[float, float] | None = None
    ) -> Tensor: ...


def scaled(height: int, width: int, short_side: int | None) -> tuple[int, int]:
    """Height and width with this short side, rounded as the public implementation does (mmcv's `rescale_size`)."""
    if short_side is None:
        return height, width
    scale = short_side / min(height, width)
    return int(height * scale + 0.5), int(width * scale + 0.5)


def resized(frames: Tensor, short_side: int | None) -> Tensor:
    """Frames "t c h w" scaled to `short_side`, with antialiasing, as FFmpeg scales."""
    height, width = scaled(frames.shape[-2], frames.shape[-1], short_side)
    return resize(frames, [height, width], antialias=True) if frames.shape[-2:] != (height, width) else frames


def picked(path: Source, pick: Pick, num_frames: int) -> NDArray[np.int64]:
    """The indices that `pick` wants of `num_frames`, flat and checked. Raises BadVideo where there are no frames."""
    if num_frames < 1:
        raise BadVideo(f"{path}: no frame can be decoded")
    indices = np.asarray(pick(num_frames), dtype=np.int64).reshape(-1)
    assert indices.size, f"{path}: pick wants no frame"
    assert set(indices.tolist()) <= set(range(num_frames)), f"{path}: pick wants {indices} of {num_frames} frames"
    return indices


def in_span(path: Source, seconds: NDArray[np.float64], span: tuple[float, float] | None) -> NDArray[np.int64]:
    """The indices of the frames inside `span`; `seconds` are their times. Raises BadVideo where there are none."""
    if span is None:
        return np.arange(len(seconds))
    start, end = span
    seconds = seconds - seconds.min(initial=np.inf)
    # Half a microsecond forgives times that were written with fewer digits than the file's clock has.
    found = np.flatnonzero((seconds >= start - 5e-7) & (seconds < end - 5e-7))
    if not found.size:
        raise BadVideo(f"{path}: no frame between {start} and {end} seconds; it lasts {seconds.max(initial=0):.3f}")
    return found
