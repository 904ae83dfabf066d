"""An explanation as a film: the clip, its heat beside it, what each frame counts for; and how pictures are written."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from aim.explaining import drawing
from aim.explaining.drawing import FOR, LINE, MUTED, Canvas
from aim.explaining.explanation import Explanation
from aim.explaining.pictures import EDGE, GAP, overlay_of, page

PANE = 320
SECONDS = 2.5  # that a clip's frames take, whatever they took in the video: it's there to be looked at
SUFFIXES = (".png", ".gif", ".mp4")


def save(explanation: Explanation, about: str, path: Path, suffix: str) -> None:
    """Write the picture of one of SUFFIXES to a path of any name."""
    if suffix == ".png":
        page(explanation, about).save(path, "PNG", optimize=True)
        return
    pictures = frames(explanation, about)
    seconds = SECONDS / len(pictures)
    if suffix == ".gif":
        small = [picture.quantize(128, dither=Image.Dither.NONE) for picture in pictures]
        small[0].save(path, "GIF", save_all=True, append_images=small[1:], duration=round(1000 * seconds), loop=0)
    else:
        encode(path, pictures, Fraction(len(pictures)) / Fraction(SECONDS))


def encode(path: Path, pictures: list[Image.Image], rate: Fraction) -> None:
    """Write pictures as H.264 in an MP4, which every browser plays."""
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "18"})
        stream.width, stream.height = pictures[0].size
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")))
        container.mux(stream.encode())


def frames(explanation: Explanation, about: str) -> list[Image.Image]:
    """The frames of a film: the clip, its heat beside it, and the weights of all frames with the present one."""
    overlay = overlay_of(explanation)
    width = 2 * EDGE + 2 * PANE + GAP
    found = []
    for i in range(len(explanation.clip)):
        canvas = Canvas(width, 84 + PANE + 96)
        p = float(explanation.probability[explanation.label])
        canvas.text(EDGE, 14, f"{explanation.name}  {100 * p:.1f} %", 24, width=width - 2 * EDGE)
        canvas.text(EDGE, 50, about, 13, MUTED, width=width - 2 * EDGE)
        canvas.image.paste(drawing.picture(explanation.clip[i], (PANE, PANE)), (EDGE, 84))
        canvas.image.paste(drawing.picture(overlay[i], (PANE, PANE)), (EDGE + PANE + GAP, 84))
        strip(canvas, explanation, i, EDGE, 84 + PANE + 12, width - 2 * EDGE)
        found.append(canvas.image)
    return found


def strip(canvas: Canvas, explanation: Explanation, now: int, x: int, y: int, width: int) -> None:
    """A bar for each cell of time, the present one in colour."""
    most = float(explanation.frames.clamp_min(0).max().clamp_min(1e-6))
    wide = width / len(explanation.clip)
    canvas.line([(x, y + 56), (x + width, y + 56)])
    for begin, end, value in zip(
        explanation.steps[:-1], explanation.steps[1:], explanation.frames.tolist(), strict=True
    ):
        colour = FOR if begin <= now < end else LINE
        canvas.box(x + begin * wide + 3, y + 56, (end - begin) * wide - 6, -50 * max(0.0, value) / most, colour)
    canvas.text(x, y + 62, "evidence lost if the frame stands still", 13, MUTED)
