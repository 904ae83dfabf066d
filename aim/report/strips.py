"""Videos of a test in a page: frames side by side, as one small embedded JPEG."""

import base64
import io
import math
from collections.abc import Sequence
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
class Example:
    """A video of a test, for the page."""

    path: str
    true: str
    predicted: str
    confidence: float  # of the predicted class, percent
    own: float  # probability of the true class, percent
    when: str  # seconds of the views
    image: str  # a data URI; empty if the video can't be read


@dataclass(frozen=True)
class Wrong:
    """A wrongly given or missed label of a video, if there may be several."""

    path: str
    label: str
    probability: float  # percent, calibrated
    listed: str
    given: str
    when: str
    image: str


def examples(found: Predictions, places: Sequence[int], root: Path) -> list[Example]:
    """The videos at these places, with their frames if they can be read under `root`."""
    names, probability, predicted = found.classes, found.probability, found.predicted

    def one(at: int, source: Source) -> Example:
        when, image = shown(found, at, source)
        own, answer = int(found.label[at]), int(predicted[at])
        likely, true = (100 * float(probability[at, i]) for i in (answer, own))
        return Example(str(found.path[at]), str(names[own]), str(names[answer]), likely, true, when, image)

    return [one(at, source) for at, source in zip(places, sources(found, places, root), strict=True)]


def wrong(found: Predictions, places: Sequence[tuple[int, int]], root: Path) -> list[Wrong]:
    """The labels at these places (video, class), with the videos' frames."""
    probability, told, names = several.calibrated(found), several.given(found), found.classes

    def words(row: NDArray[np.bool_]) -> str:
        return ", ".join(names[row].tolist()) or "none"

    def one(at: int, label: int, source: Source) -> Wrong:
        when, image = shown(found, at, source)
        percent = 100 * float(probability[at, label])
        listed, given = words(found.label[at] > 0), words(told[at])
        return Wrong(str(found.path[at]), str(names[label]), percent, listed, given, when, image)

    videos = sources(found, [at for at, _ in places], root)
    return [one(at, label, source) for (at, label), source in zip(places, videos, strict=True)]


def sources(found: Predictions, places: Sequence[int], root: Path) -> list[Source]:
    """The files of the videos at these places."""
    listed = [Video(str(found.path[at]), 0) for at in places]
    with suppress(UserError):  # damaged shards: their videos have no frames
        listed = located(root, Lists(listed, [], [])).train
    return [source_of(root, video) for video in listed]


def shown(found: Predictions, at: int, source: Source) -> tuple[str, str]:
    """The seconds of a video's views, and frames of it as a data URI; none of an unreadable one."""
    first, last = float(found.seconds[at, :, 0].min()), float(found.seconds[at, :, 1].max())
    seen = math.isfinite(first) and math.isfinite(last)
    span = (first, last + 1e-3) if seen else (float(found.span[at, 0]), float(found.span[at, 1]))
    try:
        image = strip(source, span if math.isfinite(span[0]) else None)
    except (
        RuntimeError,
        OSError,
        ValueError,
        MemoryError,
    ):  # the report continues; the page counts missing ones
        image = ""
    return f"{first:.1f} to {last:.1f} s" if seen else "", image


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
