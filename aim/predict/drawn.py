"""A video with its labels drawn on it."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from aim.data.readers.drawing import Drawing
from aim.data.readers.interface import BadVideo, url
from aim.data.readers.pyav import container_of, decoded, opened
from aim.engine.trained.answer import Answer, Asking
from aim.engine.trained.timeline import SILENT, Timeline
from aim.ground import files
from aim.ground.console import Display
from aim.ground.errors import UserError
from aim.pages import letters

SUFFIXES = (".mp4",)
LABELS = 3  # at most
READABLE = 240  # pixels of the short side; smaller videos are enlarged by a whole factor
LONGEST = 8192  # pixels of an enlarged side
MOST = 16384  # largest side of x264, pixels
MARGIN = 8  # pixels between a frame's borders and its text
CLOCK = Fraction(1, 90000)  # seconds, of the new file
SOUNDS = ("aac", "mp3", "ac3", "eac3", "alac", "opus", "flac")  # codecs that an MP4 file may hold

Pixels = NDArray[np.uint8]


def write(
    path: Path,
    source: Path,
    found: Tensor | Timeline,
    asking: Asking,
    bar: Callable[[str, int], Display] = SILENT,
) -> None:
    """Decode `source` again, and write it as H.264 with the labels of each moment, and its sound if MP4 supports it.

    In a time line, a moment has the labels of the window with the nearest middle. Written atomically. Raises UserError
    for a video that can't be decoded to its end.
    """
    answers = replace(asking, top=LABELS).answers(str(source), found)
    index = found.at if isinstance(found, Timeline) else lambda time: 0
    duration = math.ceil(found.duration) if isinstance(found, Timeline) else 1

    def fill(file: Path) -> None:
        try:
            _write(file, source, answers, index, duration, bar)
        except BadVideo as error:
            raise UserError(f"{path} isn't written, as the video can't be decoded to its end: {error}") from error

    files.write_atomically(path, fill)


def _write(
    path: Path,
    source: Path,
    answers: Sequence[Answer],
    index: Callable[[float], int],
    duration: int,
    bar: Callable[[str, int], Display],
) -> None:
    caption = lru_cache(2)(lambda i, height, width: Caption(answers[i], height, width))
    draw, first, last = Drawing(), None, -1
    with opened(source) as (_, stream):
        rate = stream.average_rate or Fraction(25)
    options = {"crf": "20", "preset": "veryfast"}
    with (
        bar(f"drawing {source.name}", duration) as display,
        av.open(url(path), "w", format="mp4", options={"movflags": "faststart"}) as container,
        sound_of(source) as (sound, packets),
    ):
        video = container.add_stream("libx264", rate=rate, options=options)
        track = None if sound is None else container.add_stream_from_template(sound)
        packet = next(packets, None)
        for time, frame in decoded(source):
            image = enlarged(draw(frame))
            if first is None:
                first = time
                video.width, video.height, video.pix_fmt = image.shape[1], image.shape[0], "yuv420p"
                video.codec_context.time_base = CLOCK
            time -= first
            if answers[index(time)].best:
                caption(index(time), *image.shape[:2]).draw_on(image)
            shown = VideoFrame.from_ndarray(image, format="rgb24")
            last = max(last + 1, round(time / CLOCK))  # times that don't increase would confuse players
            shown.pts, shown.time_base = last, CLOCK
            container.mux(video.encode(shown))
            while packet is not None and packet.pts * packet.time_base - first <= time:
                _mux(container, packet, track, first)
                packet = next(packets, None)
            display.update(min(duration, int(time)), "")
        display.update(duration, "")
        container.mux(video.encode())
        while packet is not None:
            _mux(container, packet, track, first or 0.0)
            packet = next(packets, None)


@contextmanager
def sound_of(source: Path) -> Iterator[tuple[Any, Iterator[Any]]]:
    """The first audio stream that MP4 supports, and its packets; or neither."""
    with container_of(url(source)) as container:
        streams = [stream for stream in container.streams.audio if stream.codec_context.name.split("_")[0] in SOUNDS]
        if not streams:
            yield None, iter(())
            return
        yield streams[0], (packet for packet in container.demux(streams[0]) if packet.size and packet.pts is not None)


def _mux(container: Any, packet: Any, track: Any, first: float) -> None:
    """Copy a packet of sound, by the clock of the first frame; sound before it is dropped."""
    shift = round(first / packet.time_base)
    if packet.pts < shift:
        return
    packet.pts -= shift
    packet.dts = packet.pts
    packet.stream = track
    container.mux(packet)


def enlarged(image: Pixels) -> Pixels:
    """A copy with even sides, for 4:2:0, enlarged for readable text if its long side allows that.

    A frame too large for x264 is made smaller, by dropping rows and columns.
    """
    every = math.ceil(max(image.shape[:2]) / MOST)
    image = image[::every, ::every]
    factor = min(math.ceil(READABLE / min(image.shape[:2])), LONGEST // max(image.shape[:2]))
    large = image.repeat(factor, 0).repeat(factor, 1) if factor > 1 else image
    height, width = (max(2, side // 2 * 2) for side in large.shape[:2])
    return np.array(large[:height, :width])


class Caption:
    """The best labels of a moment, in the lower left corner of a frame: names, bars, percentages."""

    def __init__(self, found: Answer, height: int, width: int) -> None:
        size = max(12, min(height, width) // 20)
        rows = found.shown
        line, bar = round(size * 1.35), size * 5
        room = width - 2 * MARGIN - bar - 5 * size
        rows = [(letters.cut(name, size, room), value) for name, value in rows]
        names = max(round(letters.width(name, size)) for name, _ in rows)
        self.image = Image.new("RGBA", (names + bar + 5 * size, line * len(rows) + size // 2), (0, 0, 0, 150))
        pen = ImageDraw.Draw(self.image)
        for i, (name, value) in enumerate(rows):
            y = size // 4 + i * line
            letters.write(pen, (size // 2, y + line // 2), name, size, "white", "lm")
            if value is not None:
                left = names + size
                pen.rectangle([left, y + line // 4, left + round(bar * value), y + 3 * line // 4], (86, 180, 233, 255))
                end = self.image.width - size // 2
                letters.write(pen, (end, y + line // 2), f"{100 * value:.0f} %", size, "white", "rm")

    def draw_on(self, image: Pixels) -> None:
        """Blend it into a frame "h w c"; its part outside of the frame is lost."""
        pixels = np.asarray(self.image)[: max(0, image.shape[0] - MARGIN), : max(0, image.shape[1] - MARGIN)]
        height, width = pixels.shape[:2]
        part = image[-height - MARGIN : -MARGIN, MARGIN : MARGIN + width]
        opacity = pixels[..., 3:] / np.float32(255)
        part[:] = (part * (1 - opacity) + pixels[..., :3] * opacity).astype(np.uint8)
