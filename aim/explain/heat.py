"""Drawing of explanations: heat over frames, bars, curves, and text that fits.

Lengths are pixels. Shapes: t frames, h w pixels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from aim.pages import letters

Colour = tuple[int, int, int]
PAPER, INK, MUTED, LINE = (255, 255, 255), (31, 35, 40), (110, 118, 129), (216, 222, 228)
FOR, AGAINST, REST = (217, 72, 15), (76, 110, 180), (200, 207, 215)  # for a class, against it, and other
# From none to most, over violet and orange: brighter is more, also for the colour-blind and in grey.
HEAT = (
    torch.tensor(
        [(20, 11, 52), (78, 18, 110), (137, 34, 106), (196, 60, 78), (237, 105, 37), (251, 165, 20), (252, 236, 130)]
    )
    / 255
)


class Canvas:
    """A picture for drawing."""

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width, height), PAPER)
        self.draw = ImageDraw.Draw(self.image)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: int = 15,
        colour: Colour = INK,
        anchor: str = "la",
        width: float = 1e9,
    ) -> None:
        """Text at its anchor (Pillow's), truncated to `width`."""
        letters.write(self.draw, (x, y), letters.cut(text, size, width), size, colour, anchor)

    def lines(self, x: float, y: float, texts: Sequence[str], size: int, colour: Colour, width: float) -> None:
        """Texts below each other, such as those of `broken`."""
        for i, line in enumerate(texts):
            self.text(x, y + i * line_height(size), line, size, colour, width=width)

    def box(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        """A filled box; a negative height goes up."""
        if width >= 1 and abs(height) >= 1:
            self.draw.rectangle((x, min(y, y + height), x + width - 1, max(y, y + height) - 1), colour)

    def line(self, points: Sequence[tuple[float, float]], colour: Colour = LINE, width: int = 1) -> None:
        """Straight lines from point to point."""
        self.draw.line([*points], colour, width, joint="curve")

    def bar(self, x: float, y: float, width: float, share: float, label: str, text: str, colour: Colour) -> None:
        """A label, a bar as long as a share of the rest of the width, and a text behind it."""
        self.text(x, y, label, width=0.42 * width, colour=INK)
        left, room = x + 0.45 * width, 0.55 * width - 60
        self.box(left, y + 2, room, 13, (238, 241, 244))
        self.box(left, y + 2, room * share, 13, colour)
        self.text(x + width, y, text, colour=MUTED, anchor="ra")

    def curve(self, x: float, y: float, width: float, height: float, values: Tensor, colour: Colour) -> None:
        """Values from 0 to 1 over equal steps, in a box whose upper left corner is at x, y."""
        step = width / (len(values) - 1)
        points = [(x + i * step, y + height * (1 - value)) for i, value in enumerate(values.tolist())]
        self.line(points, colour, 3)

    def heat_bar(self, x: int, y: int, width: int, height: int) -> None:
        """The colours of heat from none to most."""
        ramp = colours(torch.linspace(0, 1, width).expand(height, width))
        self.image.paste(picture(rearrange(ramp, "h w c -> c h w"), (width, height)), (x, y))


def line_height(size: int) -> int:
    """From one line to the next."""
    return round(1.4 * size)


def broken(texts: Sequence[str], size: int, width: float) -> list[str]:
    """The lines of texts, broken at spaces to the width."""
    found = list[str]()
    for text in texts:
        line = ""
        for word in text.split():
            longer = f"{line} {word}" if line else word
            if line and letters.width(longer, size) > width:
                found.append(line)
                longer = word
            line = longer
        found.append(line)
    return found


def colours(heat: Tensor) -> Tensor:
    """The colours of heat, 0 to 1: "..." -> "... c", 0 to 1."""
    place = heat.clamp(0, 1) * (len(HEAT) - 1)
    below = place.long().clamp_max(len(HEAT) - 2)
    share = (place - below)[..., None]
    return HEAT[below] * (1 - share) + HEAT[below + 1] * share


def smooth(relevance: Tensor, cell: int) -> Tensor:
    """The positive part of a map "t h w", as heat from 0 to 1, smoothed over the borders of its cells."""
    positive = relevance.clamp_min(0)
    kernel = min(2 * cell + 1, 2 * min(positive.shape[-2:]) - 1)
    blurred: Tensor = gaussian_blur(positive, [kernel, kernel], [cell / 2, cell / 2])
    return blurred / blurred.max().clamp_min(torch.finfo(blurred.dtype).tiny)


def overlaid(clip: Tensor, heat: Tensor) -> Tensor:
    """Heat "t h w" over the grey frames of a clip, uint8 "t c h w": float "t c h w", 0 to 1."""
    frames = clip.float() / 255
    grey = frames.mean(1, keepdim=True).expand_as(frames)
    under = 0.75 * (0.7 * grey + 0.3 * frames) + 0.1
    alpha = (0.85 * heat.clamp(0, 1).sqrt())[:, None]
    return under * (1 - alpha) + rearrange(colours(heat), "t h w c -> t c h w") * alpha


def picture(frame: Tensor, size: tuple[int, int]) -> Image.Image:
    """A frame "c h w", uint8 or 0 to 1, as a picture of `size` (width, height)."""
    if frame.dtype != torch.uint8:
        frame = (255 * frame.clamp(0, 1)).round().to(torch.uint8)
    array = np.ascontiguousarray(rearrange(frame, "c h w -> h w c").numpy())
    return Image.fromarray(array).resize(size, Image.Resampling.BICUBIC)
