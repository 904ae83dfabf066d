"""Frames of a video side by side, as one small JPEG that stands inside the page."""

import base64
import io
from pathlib import Path

import numpy as np

from aim.engine.predictions import Predictions

FRAMES = 6
PIXELS = 84  # height of a strip
WIDEST = 112  # of a frame, from its middle
GAP = 2  # between frames
GREY = (128, 128, 128)
QUALITY = 65  # of the JPEG


def strip(found: Predictions, at: int, root: Path) -> str:
    """A data URI of frames evenly spread over what the views saw of a video. Raises BadVideo where it can't be read."""
    from aim.data.readers.frames import Frames
    from aim.data.readers.pyav import PyAV

    path = root / str(found.path[at])
    reader = Frames() if path.is_dir() else PyAV()
    seen = found.seconds[at, :, 0].min().item(), found.seconds[at, :, 1].max().item() + 1e-3
    span = seen if np.isfinite(seen).all() else tuple(found.span[at].tolist())
    known = not path.is_dir() and bool(np.isfinite(span).all())  # images have no times
    return encoded(reader(path, pick, PIXELS, span=span if known else None).numpy())


def pick(num_frames: int) -> "np.typing.NDArray[np.int64]":
    """The frames of a strip."""
    return np.linspace(0, num_frames - 1, FRAMES).round().astype(np.int64)


def encoded(frames: "np.typing.NDArray[np.uint8]") -> str:
    """Frames "t c h w" beside each other, each cut to `WIDEST`."""
    from PIL import Image

    height, width = frames.shape[-2:]
    size = (round(width * PIXELS / height), PIXELS)
    left = max(0, (size[0] - WIDEST) // 2)
    tile = size[0] - 2 * left
    image = Image.new("RGB", (FRAMES * (tile + GAP) - GAP, PIXELS), GREY)
    for i, frame in enumerate(frames.transpose(0, 2, 3, 1)):
        image.paste(Image.fromarray(frame).resize(size).crop((left, 0, left + tile, PIXELS)), (i * (tile + GAP), 0))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
