"""Drawings of boxes, lines and words: as SVG in a page, or as an image; both from the same shapes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from PIL import Image, ImageColor, ImageDraw

from aim.pages import letters
from aim.pages.geometry import Frame, Tick

SCALE = 2  # pixels of an image a pixel here


@dataclass(frozen=True)
class Box:
    """A filled rectangle, with a tooltip."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    opacity: float = 1.0
    hint: str = ""


@dataclass(frozen=True)
class Words:
    """A line of text from x on, to x, or around it, on the base line y."""

    x: float
    y: float
    text: str
    size: float = 13
    anchor: str = "start"


@dataclass(frozen=True)
class Stroke:
    """A line through points; a dot for one point. Only in pages."""

    points: Sequence[tuple[float, float]]
    colour: str
    width: float = 2
    dash: str = "none"


Shape = Box | Words | Stroke


@dataclass(frozen=True)
class Drawing:
    """Shapes with their size in pixels; `label` is the alternative text."""

    width: float
    height: float
    shapes: Sequence[Shape]
    label: str

    @property
    def svg(self) -> Markup:
        shapes = Markup("").join(map(_svg, self.shapes))
        start = Markup('<svg viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">')
        return start.format(self.width, self.height, self.label) + shapes + Markup("</svg>")


def _svg(shape: Shape) -> Markup:
    if isinstance(shape, Words):
        text = Markup(
            '<text x="{0.x:.1f}" y="{0.y:.1f}" font-size="{0.size:g}" text-anchor="{0.anchor}">{0.text}</text>'
        )
        return text.format(shape)
    if isinstance(shape, Stroke):
        line = Markup(
            '<polyline points="{1}" fill="none" stroke-width="{0.width:g}" stroke-dasharray="{0.dash}" '
            'stroke-linejoin="round" stroke-linecap="round" style="stroke:{0.colour}"/>'
        )
        ends = [*shape.points, *shape.points[: len(shape.points) == 1]]
        return line.format(shape, " ".join(f"{x:g},{y:g}" for x, y in ends))
    box = Markup(
        '<rect x="{0.x:.2f}" y="{0.y:.1f}" width="{0.width:.2f}" height="{0.height:.1f}" style="fill:{0.colour}" '
        'fill-opacity="{0.opacity:.2f}">{1}</rect>'
    )
    return box.format(shape, Markup("<title>{}</title>").format(shape.hint) if shape.hint else "")


def axes(frame: Frame, x_ticks: Sequence[Tick], y_ticks: Sequence[Tick], x_label: str) -> Iterator[Shape]:
    """The axes of a chart in the colours of a page: grid lines, numbers, the x axis's name."""
    for tick in y_ticks:
        yield Stroke([(frame.left, tick.at), (frame.right, tick.at)], "var(--rule)", 1)
        yield Words(frame.left - 6, tick.at + 4, tick.text, 11.5, "end")
    for tick in x_ticks:
        yield Words(tick.at, frame.bottom + 15, tick.text, 11.5, "middle")
    yield Words((frame.left + frame.right) / 2, frame.height - 5, x_label, 11.5, "middle")


def as_image(drawings: Sequence[Drawing]) -> Image.Image:
    """The boxes and words of drawings, each below the one before, on white."""
    size = max(each.width for each in drawings), sum(each.height for each in drawings)
    image = Image.new("RGB", (round(size[0] * SCALE), round(size[1] * SCALE)), "white")
    pen, top = ImageDraw.Draw(image), 0.0
    for drawing in drawings:
        for shape in drawing.shapes:
            if isinstance(shape, Words):
                anchor = {"start": "ls", "end": "rs", "middle": "ms"}[shape.anchor]
                place = (shape.x * SCALE, (top + shape.y) * SCALE)
                letters.write(pen, place, shape.text, round(shape.size * SCALE), "#222222", anchor)
            elif isinstance(shape, Box):
                corner = (shape.x + shape.width, top + shape.y + shape.height)
                # If neighbours share a pixel, the later one has it.
                bounds = [round(v * SCALE) for v in (shape.x, top + shape.y)], [round(v * SCALE) - 1 for v in corner]
                colour = (round(255 + (part - 255) * shape.opacity) for part in ImageColor.getrgb(shape.colour))
                pen.rectangle([*bounds[0], *map(max, *bounds)], tuple(colour))
        top += drawing.height
    return image
