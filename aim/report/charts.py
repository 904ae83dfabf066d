"""The charts of the page: numbers in, drawings out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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


class Line(NamedTuple):
    """A line of a chart; `last` is its newest value, in the legend."""

    name: str
    colour: int
    dashed: bool
    points: Sequence[tuple[float, float]]  # (epoch, value)
    last: str = ""


@dataclass(frozen=True)
class Chart:
    """Lines over epochs."""

    title: str
    lines: Sequence[Line]
    drawing: Drawing


def line_chart(title: str, series: Sequence[Line], *, percent: bool = False) -> Chart | None:
    """A chart of the series with values, or None."""
    known = [each._replace(points=[point for point in each.points if math.isfinite(point[1])]) for each in series]
    if not (known := [each for each in known if each.points]):
        return None
    drawn = [[smoothed(column, POINTS) for column in zip(*each.points, strict=True)] for each in known]
    values = [value for _, up in drawn for value in up]
    low, high = min(values), max(values)
    low = low if low > 0.6 * high else min(0.0, low)  # from zero, unless that would flatten everything
    steps = enclosing_ticks(low, high)
    last = max(each.points[-1][0] for each in known)
    x = Scale(0.0, last, CHART.left, CHART.right)
    y = Scale(steps[0], steps[-1], CHART.bottom, CHART.top)
    lines, shapes = list[Line](), list[Shape]()
    for each, columns in zip(known, drawn, strict=True):
        places = [(x(a), y(b)) for a, b in zip(*columns, strict=True)]
        newest, colour = each.points[-1][1], each.colour % COLOURS
        lines.append(each._replace(colour=colour, last=f"{newest:.1f} %" if percent else number(newest)))
        look = f"var(--s{colour})"
        shapes += [Stroke(places, look, dash="2 4" if each.dashed else "none"), Stroke(places[-1:], look, 6)]
    below = [Tick(x(at), number(at)) for at in ticks(0.0, last)]
    beside = [Tick(y(at), f"{at:g} %" if percent else number(at)) for at in steps]
    said = f"{title}: " + "; ".join(f"{line.name} ends at {line.last}" for line in lines)
    drawing = Drawing(CHART.width, CHART.height, [*axes(CHART, below, beside, "epoch"), *shapes], said)
    return Chart(title, lines, drawing)


def curves(runs: Sequence[RunData]) -> list[Chart]:
    """Loss, the main score, learning rate and the wait for data of the runs with a log, overlaid."""
    trained = [run for run in runs if run.log]
    main = main_of(trained)

    def of(key: str, factor: float = 1.0) -> list[Line]:
        points = [[(line["epoch"], factor * line[key]) for line in run.log if key in line] for run in trained]
        return [Line(run.name, i, False, own) for i, (run, own) in enumerate(zip(trained, points, strict=True))]

    def both(name: str) -> list[Line]:
        """The two lines of a single run: validation and training clips."""
        validated, clips = of(f"val_{name}")[0].points, of(name)[0].points
        return [Line("validation", 0, False, validated), Line("training clips", 1, True, clips)]

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


Matrix = Sequence[Sequence[tuple[int, float]]]  # two numbers for each pair of classes: of the row and of the column


def matrix_of(one: NDArray[np.int64], other: NDArray[Any]) -> Matrix:
    """The cells of both numbers "k k"."""
    return [list(zip(*row, strict=True)) for row in zip(one.tolist(), other.tolist(), strict=True)]


def matrix(found: Predictions) -> Matrix:
    """The confusion matrix of a test: rows are true classes, columns predicted ones; (count, share of the row)."""
    counts = confusion(found)
    return matrix_of(counts, (counts / np.maximum(1, counts.sum(1))[:, None]).round(3))
