"""Annotations that count frames: runs of frames with a label, and the seconds of a video's frames."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aim.data.sources.annotations import Files
from aim.ground.errors import UserError


@dataclass(frozen=True)
class FrameTimes:
    """When the frames of a video are shown, in seconds from the first."""

    path: str  # from the data's root
    seconds: NDArray[np.float64]  # rising
    duration: float

    @classmethod
    def of(cls, files: Files, name: str, where: Path) -> "FrameTimes":
        """The times of the video that a file of annotations names. Raises UserError if it's missing or bad."""
        from aim.data.readers.interface import BadVideo  # late: a list of files is read without PyAV
        from aim.data.windows import Windows, cut

        path = files.find_listed(Path(name).name, (), alone=True)
        if not (files.root / path).is_file():
            raise UserError(f"{where} counts frames of {name}, which isn't under {files.root}; put the video there")
        try:
            found = cut(files.root / path, Windows(1e9, 1e9), trust=True)
        except BadVideo as error:
            raise UserError(f"{where} counts frames of a video that can't be read: {error}") from error
        return cls(path, found.seconds, found.duration)

    def span(self, first: int, after: int) -> tuple[str, str]:
        """Start and end of the frames from `first` to the one before `after`, as a row has them."""
        ends = [float(self.seconds[at]) if at < len(self.seconds) else self.duration for at in (first, after)]
        return str(round(ends[0], 6)), str(round(ends[1], 6))


def runs(labels: Iterable[tuple[int, str | None]]) -> Iterator[tuple[str, int, int]]:
    """Label, first frame and the frame after the last of what holds from each frame to the next that is given."""
    found = list(labels)
    begin = 0
    for place, (frame, label) in enumerate(found):
        last = place + 1 == len(found)
        if last or found[place + 1][1] != label:
            if label is not None:
                yield label, found[begin][0], frame + 1 if last else found[place + 1][0]
            begin = place + 1
