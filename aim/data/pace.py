"""The frame rate and length of a model's training videos, and their comparison with others."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from aim.data.hint import LOOKED_AT, Hint
from aim.data.lists import Video, spread
from aim.data.readers.interface import BadVideo, Source
from aim.data.readers.pyav import opened
from aim.data.sampling import Clip
from aim.data.stored.shards import source_of

FAR = 1.5  # times a rate or a window's length; 25 and 30 frames a second are near
LONG = 5.0  # times the length of videos, which differ more


@dataclass(frozen=True)
class Pace:
    """Medians over training videos, by their headers; None if unknown, as for folders of frames."""

    rate: float | None = None  # frames a second
    seconds: float | None = None  # of a video, or of its listed part

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not (isinstance(value, int | float) and 0 < value < math.inf):
                raise ValueError(f"{name} {value!r}")

    @staticmethod
    def of_text(text: str | None) -> "Pace":
        """The inverse of `text`; unknown for older files. Raises ValueError or TypeError."""
        return Pace(**json.loads(text)) if text else Pace()

    @property
    def text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    def apart(self, clip: Clip) -> float | None:
        """The seconds between two frames of a clip: in dense sampling; of uniform sampling in a usual video."""
        if clip.sampling == "dense":
            return clip.stride_frames / self.rate if self.rate else None
        return self.seconds / clip.num_frames if self.seconds else None

    def doubt(self, path: Path, clip: Clip, window: float | None) -> str:
        """The difference of a video's pace, or of windows' seconds, from the training's; or empty."""
        if self == UNPACED:
            return ""
        rate, seconds = measured(path)
        if clip.sampling == "dense" and rate and self.rate and far(rate, self.rate):
            return (
                f"{path.name} has {rate:.4g} frames a second and the training's videos had {self.rate:.4g}: a clip of "
                f"{clip.num_frames} frames lasts {clip.span / rate:.2g} s in place of {clip.span / self.rate:.2g}; "
                f"ffmpeg -i FILE -r {self.rate:.4g} NEW.mp4 gives it that rate"
            )
        if clip.sampling == "dense" and window and self.rate and window < clip.span / self.rate / FAR:
            clip_lasts = f"{clip.span / self.rate:.2g}"
            return f"window={window:g} is shorter than a clip of the training, {clip_lasts} s; window={clip_lasts}"
        if clip.sampling == "uniform" and self.seconds:
            usual = f"{self.seconds:.2g}"
            if window and far(window, self.seconds):
                return f"window={window:g}, and the training's videos lasted {usual} s; window={usual} is as they were"
            if not window and seconds and seconds > LONG * self.seconds:
                return (
                    f"{path.name} lasts {seconds:.0f} s and the training's videos {usual} s, and {clip.num_frames} "
                    f"frames are seen of it; window={usual} looks at parts"
                )
        return ""


UNPACED = Pace()


def far(one: float, other: float) -> bool:
    """Whether two numbers above 0 differ by more than FAR."""
    return max(one, other) / min(one, other) > FAR


def measured(source: Source) -> tuple[float | None, float | None]:
    """A video's frames a second and its seconds, by its header; None if unknown."""
    try:
        with opened(source) as (container, stream):
            rate, length = float(stream.average_rate or 0), (container.duration or 0) / 1e6
    except BadVideo:
        return None, None
    return rate or None, length if length > 0 else None


def pace_of(root: Path, videos: Sequence[Video]) -> Pace:
    """The pace of a list's videos, by a few of them."""
    rates, lengths = list[float](), list[float]()
    for video in spread(videos, LOOKED_AT):
        rate, seconds = measured(source_of(root, video))
        if video.start is not None and video.end is not None:
            seconds = video.end - video.start
        rates += [rate] if rate else []
        lengths += [seconds] if seconds else []
    return Pace(*(round(median(found), 3) or None if found else None for found in (rates, lengths)))


def pace_hint(pace: Pace, clip: Clip, window: float | None) -> Hint:
    """Says, once, that a video or the windows are far from the training's."""
    return Hint(lambda path: f"warning: {doubt}" if (doubt := pace.doubt(path, clip, window)) else "")
