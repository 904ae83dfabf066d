"""The geometry of a study's charts for the page: curves in, places in an SVG out. The templates draw them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from aim.pages.geometry import CHART, Frame, LogScale, Scale, Tick, enclosing_ticks, log_ticks, number, short, ticks
from aim.studying.analysis import DESCENDING
from aim.studying.views import Curve, Point, Study, interval_text, is_percent, value_text

TILE = Frame(168.0, 112.0, 36.0, 162.0, 8.0, 92.0)  # of many small ones
PERCENT = Frame(100.0, 0.0, 0.0, 100.0, 0.0, 0.0)  # of a length
COLOURS = MARKERS = 8  # in the page's style and template


@dataclass(frozen=True)
class Mark:
    """A point with what is said of it; one that lacks seeds is hollow."""

    x: float
    y: float
    hollow: bool
    text: str


@dataclass(frozen=True)
class Drawn:
    """A curve: its points, the band of its intervals, what was fitted, and where it leaves chance."""

    name: str
    style: int
    lines: Sequence[str]  # of SVG polylines
    bridges: Sequence[str]  # the same, over holes
    bands: Sequence[str]  # of SVG polygons
    fit: str
    marks: Sequence[Mark]
    threshold: tuple[float, float, float, float] | None  # x, from, to, and its height
    said: str

    @property
    def colour(self) -> int:
        return self.style % COLOURS

    @property
    def dashed(self) -> bool:
        return self.style >= COLOURS


@dataclass(frozen=True)
class Picture:
    """Curves on one pair of axes."""

    title: str
    frame: Frame
    x_label: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    chance: float | None
    curves: Sequence[Drawn]

    @property
    def summary(self) -> str:
        """The chart for whoever can't see it."""
        return f"{self.title}: " + "; ".join(f"{curve.name} {curve.said}".strip() for curve in self.curves)


def picture(
    study: Study, title: str, curves: Sequence[Curve], frame: Frame = CHART, beside: Sequence[Curve] = ()
) -> Picture | None:
    """A chart of curves of one score over one axis, or None where none has a point.

    Its axes reach as far as those of the curves that stand `beside` it, for the eye to compare.
    """
    curves = [curve for curve in curves if curve.points]
    if not curves:
        return None
    beside = [*curves, *beside]
    axis, score, tile = curves[0].axis, curves[0].score, frame is not CHART
    x, x_ticks = across(axis, beside, frame, 3 if tile else 5)
    y, y_ticks = upward(score, beside, frame, 2 if tile else 5)
    gap = min(5.0, 24.0 / len(curves))
    names = [study.split(curve.series)[0] for curve in curves]
    names = names if len(set(names)) == len(names) else [curve.series for curve in curves]
    drawn = [
        drawn_curve(study, c, name, x, y, frame, 4 + gap * i)
        for i, (c, name) in enumerate(zip(curves, names, strict=True))
    ]
    chances = {curve.chance for curve in curves}
    chance = chances.pop() if len(chances) == 1 else None
    label = study.axis_name(axis) + (", less to the right" if axis in DESCENDING else "")
    return Picture(title, frame, "" if tile else label, x_ticks, y_ticks, None if chance is None else y(chance), drawn)


def across(axis: str, curves: Sequence[Curve], frame: Frame, count: int) -> tuple[Scale, list[Tick]]:
    """The axis of scale: logarithmic, unless something lies at zero."""
    places = [point.scale for curve in curves for point in curve.points]
    low, high = min(places), max(places)
    if low > 0:
        room = (high / low) ** 0.04 if high > low else 2.0
        marks, low, high = log_ticks(low, high, count), low / room, high * room
    else:
        room = 0.04 * (high - low) or 1.0
        marks, low, high = ticks(low, high, count), low - room, high + room
    ends = (frame.right, frame.left) if axis in DESCENDING else (frame.left, frame.right)
    scale = (LogScale if low > 0 else Scale)(low, high, *ends)
    marks = [mark for mark in marks if low <= mark <= high] or places[:1]
    return scale, [Tick(scale(mark), short(mark)) for mark in marks]


def upward(score: str, curves: Sequence[Curve], frame: Frame, count: int) -> tuple[Scale, list[Tick]]:
    """The axis of a score: right answers from 0, of top-1 to 100 %; others as far as there is something."""
    ends = [end for curve in curves for point in curve.points for end in (point.low, point.high)]
    ends += [curve.chance for curve in curves if curve.chance is not None]
    low, high = min(ends), max(ends)
    if is_percent(score):
        low, high = 0.0, 1.0 if score.startswith("top") else min(1.0, max(high, 0.01))
    elif 0 < low < 0.6 * high:
        low = 0.0
    steps = enclosing_ticks(low, high, count)
    scale = Scale(steps[0], steps[-1], frame.bottom, frame.top)
    return scale, [Tick(scale(s), f"{100 * s:.4g} %" if is_percent(score) else number(s)) for s in steps]


def drawn_curve(study: Study, curve: Curve, name: str, x: Scale, y: Scale, frame: Frame, height: float) -> Drawn:
    """Where a curve's parts lie; `height` is that of its threshold above the axis."""

    def place(scale: float, value: float) -> str:
        return f"{x(scale):g},{min(max(y(value), frame.top), frame.bottom):g}"

    lines = [" ".join(place(point.scale, point.mean) for point in run) for run in curve.runs if len(run) > 1]
    edges = [
        [place(p.scale, p.high) for p in run] + [place(p.scale, p.low) for p in reversed(run)]
        for run in curve.runs if len(run) > 1 and any(p.low < p.high for p in run)
    ]  # fmt: skip
    marks = [
        Mark(x(p.scale), min(max(y(p.mean), frame.top), frame.bottom), not p.whole, point_text(study, curve, p))
        for p in curve.points
    ]
    bridges = [f"{place(a[-1].scale, a[-1].mean)} {place(b[0].scale, b[0].mean)}" for a, b in pairwise(curve.runs)]
    last = value_text(curve.score, curve.points[0 if curve.axis in DESCENDING else -1].mean)
    return Drawn(
        name, study.style(curve.series), lines, bridges, [" ".join(edge) for edge in edges],
        " ".join(place(*point) for point in curve.fit), marks, threshold_of(curve, x, frame, height), last,
    )  # fmt: skip


def point_text(study: Study, curve: Curve, point: Point) -> str:
    """What is said of a point to whoever points at it."""
    value = interval_text(curve.score, (point.mean, point.low, point.high) if point.low < point.high else None)
    value = value if point.low < point.high else value_text(curve.score, point.mean)
    seeds = f", {point.seeds} seed{'s' if point.seeds != 1 else ''}" if point.seeds else ""
    return f"{curve.series or curve.task}, {short(point.scale)} {study.axis_name(curve.axis)}: {value}{seeds}"


def threshold_of(curve: Curve, x: Scale, frame: Frame, height: float) -> tuple[float, float, float, float] | None:
    """Where it leaves chance, from, to, and how high that is drawn; what lies outside ends at the axes' ends."""
    if curve.threshold is None:
        return None
    at, low, high = curve.threshold
    ends = sorted((frame.left, frame.right))
    first, last = sorted(min(max(x(end), ends[0]), ends[1]) for end in (low or x.low, high or x.high))
    return x(at), first, last, frame.bottom - height
