"""An explanation as a page: frames, heat, weight of each frame, predictions, and faithfulness of the map."""

import torch
from PIL import Image

from aim.explain import heat
from aim.explain.explanation import Explanation
from aim.explain.heat import AGAINST, FOR, INK, LINE, MUTED, REST, Canvas, broken, line_height
from aim.explain.order import ORDERS

FRAME, GAP, GUTTER, EDGE = 144, 8, 96, 28  # of a page
ACROSS = 8  # frames of a row
HEAD, BARS, PANEL = 108, 92, 236  # heights
TRUSTED = "Nothing speaks against the map."
ROW = 2 * (FRAME + GAP) + BARS + 20


def overlay_of(explanation: Explanation) -> torch.Tensor:
    """The clip in grey under the map as smooth heat: float "t c h w", 0 to 1."""
    pixels = explanation.grid.spread(explanation.relevance)
    return heat.overlaid(explanation.clip, heat.smooth(pixels, pixels.shape[-1] // explanation.grid.shape[-1]))


def page(explanation: Explanation, about: str) -> Image.Image:
    """Frames, heat, the frames' weights, predictions, and the scores of the map; `about` stands under the title."""
    t = len(explanation.clip)
    rows = -(-t // ACROSS)
    width = 2 * EDGE + GUTTER + ACROSS * (FRAME + GAP)
    verdict, below = broken(verdicts(explanation), 15, width - 2 * EDGE), HEAD + rows * ROW + PANEL
    canvas = Canvas(width, below + len(verdict) * line_height(15) + EDGE)
    title(canvas, explanation, about, EDGE, EDGE, width - 2 * EDGE)
    overlay = overlay_of(explanation)
    for first in range(0, t, ACROSS):
        frames_row(canvas, explanation, overlay, range(first, min(t, first + ACROSS)), HEAD + first // ACROSS * ROW)
    scores_panel(canvas, explanation, EDGE, HEAD + rows * ROW, width - 2 * EDGE)
    canvas.lines(EDGE, below, verdict, 15, FOR if explanation.doubts else MUTED, width - 2 * EDGE)
    return canvas.image


def verdicts(explanation: Explanation) -> list[str]:
    """Whether the map should be trusted, in sentences."""
    begins = ["Don't trust the map:", *["And"] * len(explanation.doubts)]
    return [f"{begin} {text}." for begin, text in zip(begins, explanation.doubts, strict=False)] or [TRUSTED]


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
        canvas.image.paste(heat.picture(explanation.clip[frame], (FRAME, FRAME)), (x, y))
        canvas.image.paste(heat.picture(overlay[frame], (FRAME, FRAME)), (x, y + FRAME + GAP))
    below = y + 2 * (FRAME + GAP) + 18
    for i, line in enumerate(("evidence lost", "if the frame", "stands still")):
        canvas.text(EDGE, below + 16 * i, line, 13, MUTED)
    weights(canvas, explanation, frames, left, below, FRAME + GAP, BARS - 36)


def weights(
    canvas: Canvas,
    explanation: Explanation,
    frames: range,
    x: float,
    y: float,
    column: float,
    height: float,
    now: int | None = None,
) -> None:
    """The evidence lost where each cell of time stands still, as bars over columns of frames; gains hang down.

    The other cells than that of the frame `now` are grey.
    """
    most = float(explanation.frames.abs().max().clamp_min(1e-6))
    low = max(0.0, -float(explanation.frames.min()) / most)
    room = height / (1 + low)
    base = y + room
    gap = min(GAP, column / 4)
    canvas.line([(x, base), (x + len(frames) * column - gap, base)])
    cells = zip(explanation.steps[:-1], explanation.steps[1:], explanation.frames.tolist(), strict=True)
    for begin, end, value in cells:
        shown = range(max(begin, frames.start), min(end, frames.stop))
        if not shown:
            continue
        left, width = x + (shown.start - frames.start) * column, len(shown) * column - gap
        up, inset = room * value / most, min(12, width / 12)
        colour = (FOR if value > 0 else AGAINST) if now is None or begin <= now < end else REST
        canvas.box(left + inset, base, width - 2 * inset, -up, colour)
        if now is None:
            canvas.text(left + width / 2, base - max(0.0, up) - 4, f"{value:+.2f}", 13, INK, "mb")


def scores_panel(canvas: Canvas, explanation: Explanation, x: int, y: int, width: int) -> None:
    """The prediction, the effect of the order of frames, and the scores of the map."""
    canvas.line([(x, y), (x + width, y)])
    third = (width - 2 * 40) // 3
    places = [x + i * (third + 40) for i in range(3)]
    heads = ("Prediction", "Its probability in another order", "Is the map true to the model?")
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
        left = x + i * (side + 84)
        canvas.line([(left, y), (left, y + side), (left + side + 40, y + side)], LINE, 2)
        canvas.curve(left, y, side + 40, side, values, colour)
        canvas.text(left, y + side + 8, f"{name}: {mine:.2f} (chance {chance:.2f})", 13, MUTED)
    likeness = ", ".join(f"{name} {value:+.2f}" for name, value in explanation.similarity.items())
    canvas.text(x, y + side + 28, f"likeness with random {likeness}", 13, MUTED, width=width)
