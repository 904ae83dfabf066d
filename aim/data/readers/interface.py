"""The interface of readers of video files, and their shared parts."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

P = TypeVar("P", Path, str)
T = TypeVar("T")
Pick = Callable[[int], "Sequence[int] | NDArray[np.int64]"]
UNTIMED = "no time stamps, so that it has no seconds; ffmpeg -r RATE -i FILE -c copy NEW.mp4 gives it some"


class BadVideo(RuntimeError):
    """A file that can't be read rightly; the message starts with its path."""


def each_read(read: Callable[[P], T], paths: Iterable[P]) -> Iterator[tuple[P, T | str]]:
    """What `read` makes of each file, or why it can't be read."""
    for path in paths:
        try:
            yield path, read(path)
        except BadVideo as error:
            yield path, str(error).removeprefix(f"{path}: ")


class UnwantedVideo(BadVideo):
    """A file that no other reader is to try, either."""


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
        return f"subfile,,start,{self.offset},end,{self.offset + self.size},,:{url(self.file)}"


Source = str | Path | Part


def file_of(source: Source) -> Path:
    """The file that holds it."""
    return source.file if isinstance(source, Part) else Path(source)


def url(source: Source) -> str:
    """The URL for FFmpeg and programs made with it: always of a file, whatever address its name looks like."""
    return source.url if isinstance(source, Part) else f"file:{source}"


class Reader(Protocol):
    """Reads the frames asked for, and never another: uint8 "t c h w", RGB, upright.

    `pick` maps the number of frames to the indices wanted, in any order, repeated or not. `span`, in seconds from the
    first frame: only frames with start <= time < end exist for `pick`. All frames are turned and mirrored as the file
    asks for its first one; pixels are taken to be square, as the paper's pipelines do. The file is opened and closed
    inside the call. Raises BadVideo for a file that is missing or can't be read rightly.
    """

    def __call__(self, path: Source, pick: Pick, *, span: tuple[float, float] | None = None) -> Tensor: ...


def scaled(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Height and width with this short side, rounded as the public implementation does (mmcv's `rescale_size`)."""
    scale = short_side / min(height, width)
    return int(height * scale + 0.5), int(width * scale + 0.5)


@dataclass
class Timed:
    """A `pick` that learns when the frames are shown from which it picks, in seconds from the file's first frame.

    NaN where the file doesn't tell. Empty where a reader doesn't.
    """

    pick: Pick
    seconds: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def __call__(self, num_frames: int) -> "Sequence[int] | NDArray[np.int64]":
        return self.pick(num_frames)


class Choice:
    """The frames that `pick` wants of a file's frames inside `span`.

    `pick` is asked once for a number of frames, so that a second reader gets the same ones.
    """

    def __init__(self, path: Source, pick: Pick, span: tuple[float, float] | None) -> None:
        self.path, self.pick, self.span = path, pick, span
        self.known: dict[int, NDArray[np.int64]] = {}

    def __call__(self, seconds: NDArray[np.float64]) -> NDArray[np.int64]:
        """Their indices, flat and checked, by the times of all frames, NaN where they aren't known.

        Raises BadVideo if there is no frame.
        """
        if not seconds.size:
            raise BadVideo(f"{self.path}: no frame can be decoded")
        seconds = np.sort(seconds) - seconds.min()  # an AVI file with reordered frames has them in a wrong order
        exist = self._inside(seconds)
        if isinstance(self.pick, Timed):
            self.pick.seconds = seconds[exist]
        if exist.size not in self.known:
            indices = self.known[exist.size] = np.asarray(self.pick(exist.size), dtype=np.int64).reshape(-1)
            assert indices.size, f"{self.path}: pick wants no frame"
            wrong = set(indices.tolist()) - set(range(exist.size))
            assert not wrong, f"{self.path}: pick wants {indices} of {exist.size} frames"
        return exist[self.known[exist.size]]

    def _inside(self, seconds: NDArray[np.float64]) -> NDArray[np.int64]:
        if self.span is None:
            return np.arange(seconds.size)
        if np.isnan(seconds).any():
            raise BadVideo(f"{self.path}: {UNTIMED}")
        start, end = self.span
        # Half a microsecond forgives times that were written with fewer digits than the file's clock has.
        found = np.flatnonzero((seconds >= start - 5e-7) & (seconds < end - 5e-7))
        if not found.size:
            raise BadVideo(f"{self.path}: no frame between {start} and {end} seconds; it lasts {seconds[-1]:.3f}")
        return found
