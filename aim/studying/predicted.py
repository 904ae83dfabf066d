"""What a law predicts against what was measured: a chart for each series, and the rows of a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aim.pages.geometry import CHART, LogScale, Tick, log_ticks, number
from aim.studying import laws
from aim.studying.intervals import finite
from aim.studying.views import Study, unique


@dataclass(frozen=True)
class Dot:
    """A cell's loss: what the law says of it and what it is. `held_out` ones were not seen by the fit."""

    predicted: float
    measured: float
    held_out: bool


@dataclass(frozen=True)
class Law:
    """A fitted form of one series."""

    form: str
    parameters: str
    error: float | None  # of the largest scale, which was held out; a share
    extrapolates: bool
    chosen: bool
    sentence: str
    dots: Sequence[Dot]

    @property
    def miss(self) -> str:
        """The error as it is said."""
        return "-" if self.error is None else f"{100 * self.error:.1f} %"


@dataclass(frozen=True)
class Laws:
    """All forms that were fitted to one series, and the chart of the one that was chosen."""

    series: str
    colour: int
    laws: Sequence[Law]
    ticks: Sequence[tuple[Tick, Tick]]  # across and upward
    places: Sequence[tuple[float, float, bool, str]]  # x, y, held out, what is said of it


def law_of(study: Study, found: Mapping[str, Any]) -> Law:
    """A law of study.json, with its dots if it was chosen."""
    dots = dots_of(study, found["series"], found["score"], found["form"]) if found["chosen"] else []
    parameters = ", ".join(f"{name} = {parameter_text(values)}" for name, values in found["parameters"].items())
    return Law(
        found["form"], parameters, finite(found["held_out_error"]),
        bool(found["extrapolates"]), bool(found["chosen"]), found["sentence"], dots,
    )  # fmt: skip


def dots_of(study: Study, series: str, score: str, form: laws.Form) -> list[Dot]:
    """The cells of an adapter as a law predicts them that is fitted without the largest, which are held out."""
    rows = [
        (cell["parameters"], cell["videos"], loss)
        for cell in study.plain
        if (cell["adapter"], cell["state"]) == (series, "done")
        if (loss := finite((cell["scores"].get(score) or [None])[0])) is not None
    ]
    if not rows:
        return []
    x, d, loss = np.asarray(rows, np.float64).T
    points = laws.Points(x / np.exp(np.log(x).mean()), d / np.exp(np.log(d).mean()), loss)
    axis = points.x if len(np.unique(points.x)) > 1 else points.d
    held_out = axis == axis.max()
    rest = points[~held_out]
    if len({*zip(rest.x, rest.d, strict=True)}) < max(2, len(laws.parameters(rest, form))):
        return []
    guesses = laws.evaluate(laws.fit(rest, form), points.x, points.d)
    dots = zip(guesses.tolist(), loss.tolist(), held_out.tolist(), strict=True)
    return [Dot(*dot) for dot in dots if finite(dot[0]) and min(dot[:2]) > 0]


def parameter_text(values: Sequence[Any]) -> str:
    """A parameter with its interval."""
    value, low, high = map(finite, values)
    said = "?" if value is None else number(float(f"{value:.3g}"))
    return said if low is None or high is None else f"{said} ({low:.2g} to {high:.2g})"


def laws_of(study: Study) -> list[Laws]:
    """The laws of each series. All charts reach as far, for the eye to compare."""
    by_series = [
        (series, [law_of(study, each) for each in study.data["laws"] if each["series"] == series])
        for series in unique(each["series"] for each in study.data["laws"])
    ]
    ends = [end for _, found in by_series for dot in chosen_dots(found) for end in (dot.predicted, dot.measured)]
    low, high = (min(ends), max(ends)) if ends else (0.5, 2.0)
    room = (high / low) ** 0.04 if high > low else 2.0
    x = LogScale(low / room, high * room, CHART.left, CHART.right)
    y = LogScale(low / room, high * room, CHART.bottom, CHART.top)
    ticks = [(Tick(x(step), number(step)), Tick(y(step), number(step))) for step in log_ticks(low, high)]
    return [
        Laws(series, study.style(series) % 8 if series in study.adapters else 0, found, ticks, [
            (x(dot.predicted), y(dot.measured), dot.held_out, dot_text(dot)) for dot in chosen_dots(found)
        ])
        for series, found in by_series
    ]  # fmt: skip


def chosen_dots(found: Sequence[Law]) -> Sequence[Dot]:
    """Those of the law that was chosen."""
    return next((law.dots for law in found if law.chosen), [])


def dot_text(dot: Dot) -> str:
    """What is said of a cell to whoever points at it."""
    return f"predicted {dot.predicted:.3g}, measured {dot.measured:.3g}{', held out' if dot.held_out else ''}"
