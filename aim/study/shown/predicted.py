"""Predictions of a law against measurements, for each series."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aim.pages.geometry import number
from aim.study.findings import laws
from aim.study.findings.intervals import finite
from aim.study.shown.views import Study, unique


@dataclass(frozen=True)
class Dot:
    """A cell's loss: what the law says of it and what it is. `held_out` ones were not seen by the fit."""

    predicted: float
    measured: float
    held_out: bool

    @property
    def text(self) -> str:
        """It as it is said."""
        return f"predicted {self.predicted:.3g}, measured {self.measured:.3g}{', held out' if self.held_out else ''}"


@dataclass(frozen=True)
class Law:
    """A fitted form of one series."""

    form: str
    parameters: str
    error: float | None  # of the largest scale, which was held out; a share
    extrapolates: bool
    chosen: bool
    sentence: str

    @property
    def miss(self) -> str:
        """The error as it is said."""
        return "-" if self.error is None else f"{100 * self.error:.1f} %"


@dataclass(frozen=True)
class Laws:
    """All forms that were fitted to one series, and the cells by the one that was chosen."""

    series: str
    style: int
    laws: Sequence[Law]
    dots: Sequence[Dot]

    @property
    def sentences(self) -> list[str]:
        """What is said of the chosen form, or of why there is none."""
        return [law.sentence for law in self.laws if law.chosen or not law.parameters]


def law_of(found: Mapping[str, Any]) -> Law:
    """A law of study.json."""
    parameters = ", ".join(f"{name} = {parameter_text(values)}" for name, values in found["parameters"].items())
    return Law(
        found["form"], parameters, finite(found["held_out_error"]),
        bool(found["extrapolates"]), bool(found["chosen"]), found["sentence"],
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
    """The laws of each series."""
    made = []
    for i, series in enumerate(unique(each["series"] for each in study.data["laws"])):
        found = [each for each in study.data["laws"] if each["series"] == series]
        dots = [dots_of(study, series, each["score"], each["form"]) for each in found if each["chosen"]]
        style = study.style(series) if series in study.adapters else i
        made.append(Laws(series, style, list(map(law_of, found)), dots[0] if dots else []))
    return made
