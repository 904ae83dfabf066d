"""An explanation as a film: the clip, its heat beside it, each frame's weight; and the writing of pictures."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from aim.data.readers.interface import url
from aim.explain import heat
from aim.explain.explanation import Explanation
from aim.explain.heat import FOR, MUTED, Canvas, broken, line_height
from aim.explain.page import EDGE, GAP, overlay_of, page, verdicts, weights

PANE, HEAD = 320, 84
SECONDS = 2.5  # that a clip's frames take, whatever they took in the video: it's there to be looked at
SUFFIXES = (".png", ".gif", ".mp4")


def save(explanation: Explanation, about: str, path: Path, suffix: str) -> None:
    """Write the picture of one of SUFFIXES to a path of any name."""
    if suffix == ".png":
        page(explanation, about).save(path, "PNG", optimize=True)
        return
    shown = film(explanation, about)
    if suffix == ".mp4":
        encode(path, shown, Fraction(len(shown)) / Fraction(SECONDS))
        return
    first, *rest = [picture.quantize(256, Image.Quantize.MAXCOVERAGE) for picture in shown]
    first.save(path, "GIF", save_all=True, append_images=rest, duration=round(1000 * SECONDS / len(shown)), loop=0)


def encode(path: Path, pictures: list[Image.Image], rate: Fraction) -> None:
    """Write pictures as H.264 in an MP4, which every browser plays."""
    with av.open(url(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "18"})
        stream.width, stream.height = pictures[0].size
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")))
        container.mux(stream.encode())


def film(explanation: Explanation, about: str) -> list[Image.Image]:
    """A picture for each frame: the clip, its heat beside it, and below the weights of all frames."""
    clip, overlay = explanation.clip, overlay_of(explanation)
    width, below = 2 * PANE + GAP, HEAD + PANE
    p = float(explanation.probability[explanation.label])
    verdict = broken(verdicts(explanation), 13, width)
    height = below + 100 + len(verdict) * line_height(13)
    found = []
    for i in range(len(clip)):
        canvas = Canvas(width + 2 * EDGE, height + height % 2)  # for 4:2:0
        canvas.text(EDGE, 14, f"{explanation.name}  {100 * p:.1f} %", 24, width=width)
        canvas.text(EDGE, 50, about, 13, MUTED, width=width)
        canvas.image.paste(heat.picture(clip[i], (PANE, PANE)), (EDGE, HEAD))
        canvas.image.paste(heat.picture(overlay[i], (PANE, PANE)), (EDGE + PANE + GAP, HEAD))
        weights(canvas, explanation, range(len(clip)), EDGE, below + 12, width / len(clip), 52, now=i)
        canvas.text(EDGE, below + 72, "evidence lost if the frame stands still", 13, MUTED)
        canvas.lines(EDGE, below + 94, verdict, 13, FOR if explanation.doubts else MUTED, width)
        found.append(canvas.image)
    return found
