"""Predictions of a law against measurements, for each series."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aim.pages.geometry import number
from aim.study.findings.intervals import finite
from aim.study.findings.laws import Dot
from aim.study.shown.views import Study, unique


@dataclass(frozen=True)
class Laws:
    """All forms fitted to one series, and the cells by the chosen one."""

    series: str
    style: int
    laws: Sequence[Mapping[str, Any]]  # of study.json
    dots: Sequence[Dot]

    @property
    def sentences(self) -> list[str]:
        """The sentence of the chosen form, or the reason for none."""
        return [law["sentence"] for law in self.laws if law["chosen"] or not law["parameters"]]


def parameters_text(law: Mapping[str, Any]) -> str:
    """All parameters of a law with their intervals."""
    return ", ".join(f"{name} = {parameter_text(values)}" for name, values in law["parameters"].items())


def miss_text(law: Mapping[str, Any]) -> str:
    """The error of a law at the held-out largest scale."""
    error = finite(law["held_out_error"])
    return "-" if error is None else f"{100 * error:.1f} %"


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
        dots = [Dot(*dot) for each in found for dot in each["dots"]]
        style = study.style(series) if series in study.adapters else i
        made.append(Laws(series, style, found, dots))
    return made
