"""An explanation as a page: frames, heat, what each frame counts for, predictions, and how far to trust the map."""

import torch
from PIL import Image

from aim.explaining import drawing
from aim.explaining.drawing import AGAINST, FOR, INK, LINE, MUTED, Canvas
from aim.explaining.explanation import Explanation
from aim.explaining.order import ORDERS

FRAME, GAP, GUTTER, EDGE = 144, 8, 96, 28  # of a page
ACROSS = 8  # frames of a row
HEAD, BARS, PANEL = 108, 92, 236  # heights
ROW = 2 * (FRAME + GAP) + BARS + 20


def overlay_of(explanation: Explanation) -> torch.Tensor:
    """The clip in grey under the map as smooth heat: float "t c h w", 0 to 1."""
    pixels = explanation.grid.spread(explanation.relevance)
    heat = drawing.smooth(pixels, pixels.shape[-1] // explanation.grid.shape[-1])
    return drawing.overlaid(explanation.clip, heat)


def page(explanation: Explanation, about: str) -> Image.Image:
    """Frames, heat, the frames' weights, predictions, and the scores of the map; `about` stands under the title."""
    t = len(explanation.clip)
    rows = -(-t // ACROSS)
    width = 2 * EDGE + GUTTER + ACROSS * (FRAME + GAP)
    canvas = Canvas(width, HEAD + rows * ROW + PANEL + EDGE)
    title(canvas, explanation, about, EDGE, EDGE, width - 2 * EDGE)
    overlay = overlay_of(explanation)
    for first in range(0, t, ACROSS):
        frames_row(canvas, explanation, overlay, range(first, min(t, first + ACROSS)), HEAD + first // ACROSS * ROW)
    scores_panel(canvas, explanation, EDGE, HEAD + rows * ROW, width - 2 * EDGE)
    return canvas.image


def title(canvas: Canvas, explanation: Explanation, about: str, x: int, y: int, width: int) -> None:
    """The class with its probability, what was done under it, and the colours' meaning on the right."""
    p = float(explanation.probability[explanation.label])
    canvas.text(x, y - 6, f"{explanation.name}  {100 * p:.1f} %", 30, width=width - 330)
    canvas.text(x, y + 36, about, 15, MUTED, width=width - 330)
    right = x + width
    canvas.heat_bar(right - 300, y, 300, 14)
    canvas.text(right - 300, y + 20, "counts for nothing", 13, MUTED)
    canvas.text(right, y + 20, "for most", 13, MUTED, "ra")


def frames_row(canvas: Canvas, explanation: Explanation, overlay: torch.Tensor, frames: range, y: int) -> None:
    """Some frames, their heat, and bars of the evidence that is lost where they stand still."""
    left = EDGE + GUTTER
    for row, name in ((0, "frames"), (1, "heat")):
        canvas.text(EDGE, y + row * (FRAME + GAP) + FRAME / 2, name, 15, MUTED, "lm")
    for column, frame in enumerate(frames):
        x = left + column * (FRAME + GAP)
        canvas.image.paste(drawing.picture(explanation.clip[frame], (FRAME, FRAME)), (x, y))
        canvas.image.paste(drawing.picture(overlay[frame], (FRAME, FRAME)), (x, y + FRAME + GAP))
    bars(canvas, explanation, frames, y + 2 * (FRAME + GAP))


def bars(canvas: Canvas, explanation: Explanation, frames: range, y: int) -> None:
    """The evidence lost where each cell of time stands still, under its frames; what is gained hangs down."""
    most = float(explanation.frames.abs().max().clamp_min(1e-6))
    low = max(0.0, -float(explanation.frames.min()) / most)
    room = (BARS - 36) / (1 + low)
    base = y + 18 + room
    canvas.text(EDGE, y + 18, "evidence lost", 13, MUTED)
    canvas.text(EDGE, y + 34, "if the frame", 13, MUTED)
    canvas.text(EDGE, y + 50, "stands still", 13, MUTED)
    left = EDGE + GUTTER
    canvas.line([(left, base), (left + len(frames) * (FRAME + GAP) - GAP, base)])
    for begin, end, value in zip(
        explanation.steps[:-1], explanation.steps[1:], explanation.frames.tolist(), strict=True
    ):
        shown = range(max(begin, frames.start), min(end, frames.stop))
        if not shown:
            continue
        x = left + (shown.start - frames.start) * (FRAME + GAP)
        wide = len(shown) * (FRAME + GAP) - GAP
        height = -room * value / most
        canvas.box(x + 12, base, wide - 24, height, FOR if value > 0 else AGAINST)
        canvas.text(x + wide / 2, base + min(0.0, height) - 4, f"{value:+.2f}", 13, INK, "mb")


def scores_panel(canvas: Canvas, explanation: Explanation, x: int, y: int, width: int) -> None:
    """What was predicted, what the order means, and how far to trust the map."""
    canvas.line([(x, y), (x + width, y)])
    third = (width - 2 * 40) // 3
    places = [x + i * (third + 40) for i in range(3)]
    heads = ("Prediction", f"{explanation.name} in another order", "Is the map true to the model?")
    for left, head in zip(places, heads, strict=True):
        canvas.text(left, y + 18, head, 17, width=third)
    for i, (name, p) in enumerate(explanation.top):
        colour = FOR if name == explanation.name else MUTED
        canvas.bar(places[0], y + 54 + 28 * i, third, p, name, f"{100 * p:.1f} %", colour)
    for i, (order, p) in enumerate(zip(ORDERS, explanation.orders[:, explanation.label].tolist(), strict=True)):
        canvas.bar(places[1], y + 54 + 28 * i, third, p, order, f"{100 * p:.1f} %", FOR)
    curves(canvas, explanation, places[2], y + 54, third)


def curves(canvas: Canvas, explanation: Explanation, x: int, y: int, width: int) -> None:
    """The probability as cells go or come back, with areas by chance, and the likeness to maps of random weights."""
    side = 116
    found = explanation.faithfulness
    both = (("removed", found.deletion, AGAINST), ("put back", found.insertion, FOR))
    for i, ((name, values, colour), mine, chance) in enumerate(zip(both, found.areas, explanation.chance, strict=True)):
        left = x + i * (side + 66)
        canvas.line([(left, y), (left, y + side), (left + side + 40, y + side)], LINE, 2)
        canvas.curve(left, y, side + 40, side, values, colour)
        canvas.text(left, y + side + 8, f"{name}: {mine:.2f} (chance {chance:.2f})", 13, MUTED)
    likeness = ", ".join(f"{name} {value:+.2f}" for name, value in explanation.similarity.items())
    canvas.text(x, y + side + 28, f"likeness with random {likeness}", 13, MUTED, width=width)
