"""Animated WebP pictures, which FFmpeg can't decode, as a file that it can."""

from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from PIL import Image, ImageSequence

MILLISECONDS = Fraction(1, 1000)


def is_animated(file: Path) -> bool:
    """Whether it's a picture of several frames."""
    try:
        with Image.open(file) as image:
            return getattr(image, "n_frames", 1) > 1
    except (OSError, ValueError, SyntaxError):
        return False


def as_film(file: Path) -> BytesIO:
    """Its frames, without loss, as a film in memory."""
    film, time = BytesIO(), 0
    with Image.open(file) as image, av.open(film, "w", format="mov") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = *image.size, "rgb24"
        stream.codec_context.time_base = MILLISECONDS
        for each in ImageSequence.Iterator(image):
            frame = VideoFrame.from_ndarray(np.asarray(each.convert("RGB")), format="rgb24")
            frame.pts, frame.time_base, frame.duration = time, MILLISECONDS, int(each.info["duration"])
            time += frame.duration
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    film.seek(0)
    return film
