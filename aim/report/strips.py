"""Videos of a test in a page: frames side by side, as one small embedded JPEG."""

import base64
import io
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from aim.data.lists import Lists, Video
from aim.data.readers.frames import Frames
from aim.data.readers.interface import Source, file_of
from aim.data.readers.pyav import PyAV
from aim.data.stored.shards import located, source_of
from aim.engine.scores.predictions import Predictions
from aim.ground.errors import UserError
from aim.report import several

FRAMES = 6
PIXELS = 84  # height of a strip
WIDEST = 112  # of a frame, around its middle
GAP = 2  # between frames
GREY = (128, 128, 128)
QUALITY = 65  # of the JPEG


@dataclass(frozen=True)
class Strip:
    """A video of a test, for the page."""

    path: str
    when: str  # seconds of the views
    image: str  # a data URI; empty if the video can't be read


@dataclass(frozen=True)
class Example(Strip):
    """A video that has one label."""

    true: str
    predicted: str
    confidence: float  # of the predicted class, percent
    own: float  # probability of the true class, percent


@dataclass(frozen=True)
class Wrong(Strip):
    """A wrongly given or missed label of a video, if there may be several."""

    label: str
    probability: float  # percent, calibrated
    listed: str
    given: str


def examples(found: Predictions, places: Sequence[int], root: Path) -> list[Example]:
    """The videos at these places, with their frames if they can be read under `root`."""
    names, made = found.classes.tolist(), list[Example]()
    for at, seen, answer in zip(places, shown(found, places, root), found.predicted[places].tolist(), strict=True):
        likely, true = (100 * float(found.probability[at, i]) for i in (answer, found.label[at]))
        made.append(Example(*seen, names[found.label[at]], names[answer], likely, true))
    return made


def wrong(found: Predictions, places: Sequence[tuple[int, int]], root: Path) -> list[Wrong]:
    """The labels at these places (video, class), with the videos' frames."""
    probability, told, names, made = several.calibrated(found), several.given(found), found.classes, list[Wrong]()
    for (at, label), seen in zip(places, shown(found, [at for at, _ in places], root), strict=True):
        listed, given = (", ".join(names[row].tolist()) or "none" for row in (found.label[at] > 0, told[at]))
        made.append(Wrong(*seen, str(names[label]), 100 * float(probability[at, label]), listed, given))
    return made


def shown(found: Predictions, places: Sequence[int], root: Path) -> Iterator[tuple[str, str, str]]:
    """Of each video its path, the seconds that its views saw, and frames as a data URI; none where it can't be read."""
    listed = [Video(str(found.path[at]), 0) for at in places]
    with suppress(UserError):  # damaged shards: their videos have no frames
        listed = located(root, Lists(listed, [], [])).train
    for at, video in zip(places, listed, strict=True):
        first, last = float(found.seconds[at, :, 0].min()), float(found.seconds[at, :, 1].max())
        seen = math.isfinite(first) and math.isfinite(last)
        span = (first, last + 1e-3) if seen else (float(found.span[at, 0]), float(found.span[at, 1]))
        try:
            image = strip(source_of(root, video), span if math.isfinite(span[0]) else None)
        except (
            RuntimeError,
            OSError,
            ValueError,
            MemoryError,
        ):  # a picture is worth no report; the lost are counted
            image = ""
        yield str(found.path[at]), f"{first:.1f} to {last:.1f} s" if seen else "", image


def strip(source: Source, span: tuple[float, float] | None) -> str:
    """A data URI of frames evenly spread over a part of a video. Raises BadVideo if it can't be read."""
    if file_of(source).is_dir():
        return encoded(Frames()(source, pick).numpy())  # images, which have no times
    return encoded(PyAV()(source, pick, span=span).numpy())


def pick(num_frames: int) -> NDArray[np.int64]:
    """The frames of a strip."""
    return np.linspace(0, num_frames - 1, FRAMES).round().astype(np.int64)


def encoded(frames: NDArray[np.uint8]) -> str:
    """Frames "t c h w" side by side, each cut to `WIDEST`."""
    height, width = frames.shape[-2:]
    size = (max(1, round(width * PIXELS / height)), PIXELS)
    left = max(0, (size[0] - WIDEST) // 2)
    tile = size[0] - 2 * left
    image = Image.new("RGB", (len(frames) * (tile + GAP) - GAP, PIXELS), GREY)
    for i, frame in enumerate(frames.transpose(0, 2, 3, 1)):
        image.paste(Image.fromarray(frame).resize(size).crop((left, 0, left + tile, PIXELS)), (i * (tile + GAP), 0))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
