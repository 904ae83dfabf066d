"""The charts of the page: numbers in, drawings out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aim.engine.scores import quality
from aim.engine.scores.predictions import Predictions
from aim.pages.drawing import Box, Drawing, Shape, Stroke, axes
from aim.pages.geometry import CHART, Scale, Tick, enclosing_ticks, number, ticks
from aim.report.runs import RunData, main_of
from aim.report.statistics import confusion, smoothed

POINTS = 300  # of a line at most
COLOURS = 8  # of lines, in the page's style


@dataclass(frozen=True)
class Line:
    """A line of a chart in its legend."""

    name: str
    colour: int
    dashed: bool
    last: str  # its newest value


@dataclass(frozen=True)
class Chart:
    """Lines over epochs."""

    title: str
    lines: Sequence[Line]
    drawing: Drawing


Series = tuple[str, int, bool, Sequence[tuple[float, float]]]  # name, colour, dashed, (epoch, value)


def line_chart(title: str, series: Sequence[Series], *, percent: bool = False) -> Chart | None:
    """A chart of the series with values, or None."""
    drawn = []
    for name, colour, dashed, points in series:
        if finite := [point for point in points if math.isfinite(point[1])]:
            across, up = (smoothed(column, POINTS) for column in zip(*finite, strict=True))
            drawn.append((name, colour, dashed, list(zip(across, up, strict=True)), finite[-1]))
    if not drawn:
        return None
    values = [y for _, _, _, points, _ in drawn for _, y in points]
    low, high = min(values), max(values)
    low = low if low > 0.6 * high else min(0.0, low)  # from zero, unless that would flatten everything
    steps = enclosing_ticks(low, high)
    last = max(newest[0] for *_, newest in drawn)
    x = Scale(0.0, last, CHART.left, CHART.right)
    y = Scale(steps[0], steps[-1], CHART.bottom, CHART.top)
    lines, shapes = list[Line](), list[Shape]()
    for name, colour, dashed, points, newest in drawn:
        places = [(x(a), y(b)) for a, b in points]
        value = f"{newest[1]:.1f} %" if percent else number(newest[1])
        lines.append(Line(name, colour % COLOURS, dashed, value))
        look = f"var(--s{colour % COLOURS})"
        shapes += [Stroke(places, look, dash="2 4" if dashed else "none"), Stroke(places[-1:], look, 6)]
    below = [Tick(x(at), number(at)) for at in ticks(0.0, last)]
    beside = [Tick(y(at), f"{at:g} %" if percent else number(at)) for at in steps]
    said = f"{title}: " + "; ".join(f"{line.name} ends at {line.last}" for line in lines)
    drawing = Drawing(CHART.width, CHART.height, [*axes(CHART, below, beside, "epoch"), *shapes], said)
    return Chart(title, lines, drawing)


def curves(runs: Sequence[RunData]) -> list[Chart]:
    """Loss, the main score, learning rate and the wait for data of the runs with a log, overlaid."""
    trained = [run for run in runs if run.log]
    main = main_of(trained)

    def of(key: str, factor: float = 1.0) -> list[Series]:
        return [
            (run.name, i, False, [(line["epoch"], factor * line[key]) for line in run.log if _is_number(line.get(key))])
            for i, run in enumerate(trained)
        ]

    def both(name: str) -> list[Series]:
        """The two lines of a single run: validation and training clips."""
        (_, _, _, validated), (_, _, _, clips) = of(f"val_{name}")[0], of(name)[0]
        return [("validation", 0, False, validated), ("training clips", 1, True, clips)]

    alone = len(trained) == 1
    charts = (
        line_chart("Loss" if alone else "Training loss", both("loss") if alone else of("loss")),
        line_chart(
            (main.words.capitalize() if main.words.islower() else main.words) if alone else f"Validation {main.words}",
            both(str(main.validated)) if alone else of(f"val_{main.validated}"),
            percent=True,
        ),
        line_chart("Learning rate", of("lr")),
        line_chart("Time spent waiting for data", of("waiting", 100.0), percent=True),
    )
    return [chart for chart in charts if chart is not None]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class Reliability:
    """The accuracy of predictions by confidence."""

    drawing: Drawing
    error: float  # expected calibration error, percent
    temperature: str = ""  # of the calibration, in words
    before: float = 0.0  # the error without it


def bins_of(found: Predictions, probability: NDArray[np.floating]) -> list[quality.Bin]:
    """The predicted classes by confidence; with several labels a video all labels."""
    if found.several:
        return quality.reliability_of(probability.ravel().astype(np.float64), found.label.ravel() > 0)
    return quality.reliability(probability, found.label)


def reliability(found: Predictions, temperature: float | Sequence[float] | None = None) -> Reliability:
    """The diagram of a test: bars of accuracy, and lines at their confidence.

    With a temperature it shows aim.predict's probabilities.
    """
    probability = found.probability if temperature is None else found.tempered(temperature)
    bins = bins_of(found, probability)
    x, y = Scale(0, 1, CHART.left, CHART.right), Scale(0, 1, CHART.bottom, CHART.top)
    fullest = max((part.videos for part in bins), default=0) or 1
    counted = "labels" if found.several else "videos"
    shares = (0, 0.25, 0.5, 0.75, 1)
    across, up = ([Tick(scale(s), f"{100 * s:g} %") for s in shares] for scale in (x, y))
    shapes = list(axes(CHART, across, up, f"probability of {'a label' if found.several else 'the predicted class'}"))
    shapes.append(Stroke([(CHART.left, CHART.bottom), (CHART.right, CHART.top)], "var(--quiet)", 1, "3 4"))
    for i, part in enumerate(bins):
        if part.videos:
            left, right = x(i / len(bins)), x((i + 1) / len(bins)) - 1
            top, expected = y(part.accuracy), y(part.confidence)
            said = f"{part.videos} {counted}, {100 * part.confidence:.0f} % sure: {100 * part.accuracy:.0f} % right"
            strength = 0.25 + 0.75 * part.videos / fullest
            shapes.append(Box(left, top, right - left, CHART.bottom - top, "var(--s0)", strength, said))
            shapes.append(Stroke([(left, expected), (right, expected)], "var(--warn)"))
    error = 100 * quality.calibration_error(bins)
    said = f"Reliability diagram; expected calibration error {error:.1f} percent"
    before = 100 * quality.calibration_error(bins_of(found, found.probability))
    one = isinstance(temperature, int | float)
    own = "" if temperature is None else f"temperature {temperature:.4g}" if one else "temperatures, one a class"
    return Reliability(Drawing(CHART.width, CHART.height, shapes, said), error, own, before)


@dataclass(frozen=True)
class Matrix:
    """Cells of two numbers for each pair of classes, of the row and of the column."""

    names: Sequence[str]
    rows: Sequence[Sequence[tuple[int, float]]]

    @classmethod
    def of(cls, found: Predictions, one: NDArray[np.int64], other: NDArray[Any]) -> "Matrix":
        """Of the classes of a test, from both numbers "k k"."""
        pairs = zip(one.tolist(), other.tolist(), strict=True)
        return cls(found.classes.tolist(), [list(zip(*row, strict=True)) for row in pairs])


def matrix(found: Predictions) -> Matrix:
    """The confusion matrix of a test: rows are true classes, columns predicted ones; (count, share of the row)."""
    counts = confusion(found)
    return Matrix.of(found, counts, (counts / np.maximum(1, counts.sum(1))[:, None]).round(3))
