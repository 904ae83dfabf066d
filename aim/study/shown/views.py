"""The views of a study: its curves by axis, series, task and score, and their numbers as text."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from aim.ground.clock import clock
from aim.pages.geometry import number, short, short_commit
from aim.study.findings.curves import ALL
from aim.study.findings.intervals import finite
from aim.study.findings.scores import MAIN

KINDS = {  # in the order of the page, with their meaning
    "smooth": "grows with scale, and passes through values in between",
    "emergent": "at chance over several scales, then a rise that is short against the measured range",
    "flat": "scale changes nothing",
    "falling": "gets worse with scale",
    "too few": "too few scales, or too noisy ones, to tell",
}


@dataclass(frozen=True)
class Point:
    """A mean over seeds, with its interval if there is one."""

    scale: float
    mean: float
    low: float
    high: float
    seeds: int  # 0: unknown
    whole: bool  # whether every seed has a result


@dataclass(frozen=True)
class Curve:
    """A score of one series on one task over one axis."""

    task: str
    series: str
    score: str
    axis: str
    kind: str
    why: str
    chance: float | None
    runs: Sequence[Sequence[Point]]  # parts without a hole, by scale
    fit: Sequence[tuple[float, float]]
    threshold: tuple[float, float | None, float | None] | None  # where it leaves chance; open ends are None

    @property
    def points(self) -> list[Point]:
        return [point for run in self.runs for point in run]


def curve_of(found: Mapping[str, Any], cells: Sequence[tuple[float, bool]]) -> Curve:
    """A curve of study.json, and its cells as (scale, whether it is done).

    A point without a value, or with no finished cell, leaves a hole.
    """
    rows = [tuple(row) for row in zip(*(found[key] for key in ("scale", "mean", "low", "high")), strict=True)]
    lost = [(at, None, None, None) for at in {at for at, _ in cells} if not any(same(at, row[0]) for row in rows)]
    runs: list[list[Point]] = [[]]
    for scale, *values in sorted([*rows, *lost], key=lambda row: row[0]):
        mean, low, high = (finite(value) for value in values)
        if mean is None:
            runs.append([])
        else:
            ends = (mean if low is None else low, mean if high is None else high)
            seeds = [done for at, done in cells if same(at, scale)]
            runs[-1].append(Point(float(scale), mean, *ends, sum(seeds), all(seeds)))
    fit = found["fit"] or {"scale": [], "value": []}
    drawn = zip(fit["scale"], map(finite, fit["value"]), strict=True)
    at, low, high = map(finite, found["threshold"] or (None,) * 3)
    return Curve(
        found["task"], found["series"], found["score"], found["axis"], found["kind"], found["why"],
        finite(found["chance"]), [run for run in runs if run], [(float(x), y) for x, y in drawn if y is not None],
        None if at is None else (at, low, high),
    )  # fmt: skip


def same(one: float, other: float) -> bool:
    """Whether two places on an axis are equal up to rounding."""
    return math.isclose(one, other, rel_tol=1e-6)


@dataclass(frozen=True)
class Study:
    """The dict of study.json, with views for pages."""

    data: Mapping[str, Any]

    @cached_property
    def curves(self) -> list[Curve]:
        cells = {key: self.cells_of(*key) for key in {(each["series"], each["axis"]) for each in self.data["curves"]}}
        return [curve_of(found, cells[found["series"], found["axis"]]) for found in self.data["curves"]]

    def cells_of(self, series: str, axis: str) -> list[tuple[float, bool]]:
        """The places of a series' cells on an axis, and whether each is done: over videos those of all shares."""
        adapter, trunk = self.split(series)
        among = self.data["cells"] if axis == "difficulty" else self.plain
        most = max((cell["share"] for cell in among), default=0.0)
        return [
            (place, cell["state"] == "done")
            for cell in among
            if cell["adapter"] == adapter and trunk in ("", cell["trunk"])
            if axis == "videos" or cell["share"] == most
            if (place := finite(cell.get(axis))) is not None
        ]

    @cached_property
    def plain(self) -> list[Mapping[str, Any]]:
        """The cells at the difficulty of all axes but its own."""
        return [cell for cell in self.data["cells"] if cell.get("difficulty") == self.data.get("difficulty")]

    def find(self, **wanted: str) -> list[Curve]:
        """The curves with these attributes, in the order of the study."""
        return [curve for curve in self.curves if all(getattr(curve, key) == value for key, value in wanted.items())]

    @cached_property
    def axes(self) -> list[str]:
        """Those with curves."""
        return [axis for axis in self.data["axes"] if self.find(axis=axis)]

    @cached_property
    def axis(self) -> str | None:
        """The main axis for scale: the size of the model if it varies."""
        return next((axis for axis in ("parameters", *self.axes) if axis in self.axes), None)

    @cached_property
    def scores(self) -> list[str]:
        return [score for score in self.data["scores"] if self.find(score=score)]

    @cached_property
    def score(self) -> str | None:
        """The main score for a model's quality, also of thresholds."""
        return next((score for score in (MAIN, *self.scores) if score in self.scores), None)

    def of_sort(self, thresholded: bool) -> list[str]:
        """The scores that count right answers, or the others."""
        return [score for score in self.scores if self.data["scores"][score]["thresholded"] is thresholded]

    @cached_property
    def tasks(self) -> list[str]:
        """All but the one of all classes."""
        return unique(curve.task for curve in self.curves if curve.task != ALL)

    @cached_property
    def main_tasks(self) -> list[str]:
        """Those with a chart each: that of all classes, or the first ones of a table from elsewhere."""
        return [ALL] if self.find(task=ALL) else self.tasks[:6]

    @cached_property
    def trunks(self) -> list[str]:
        return unique(cell["trunk"] for cell in self.data["cells"])

    def split(self, series: str) -> tuple[str, str]:
        """The adapter of a series, and its trunk where that is part of its name."""
        adapter, _, trunk = series.rpartition(", ")
        return (adapter, trunk) if adapter and trunk in self.trunks else (series, "")

    @cached_property
    def adapters(self) -> list[str]:
        """The adapters, in the order of their colours and markers."""
        cells = (cell["adapter"] for cell in self.data["cells"])
        return unique([*cells, *(self.split(curve.series)[0] for curve in self.curves)])

    def style(self, series: str) -> int:
        """The number of a series' colour and marker."""
        return self.adapters.index(self.split(series)[0])

    @cached_property
    def helps(self) -> list[str]:
        """The findings on which series is better: all classes before single tasks, on the main axis first."""
        found = sorted(self.data["helps"], key=lambda each: each["axis"] != self.axis)
        said = unique(each["sentence"] for each in found)
        return sorted(said, key=lambda sentence: any(f" on {task}:" in sentence for task in self.tasks))

    def cells(self, state: str) -> list[Mapping[str, Any]]:
        return [cell for cell in self.data["cells"] if cell["state"] == state]

    def axis_name(self, axis: str) -> str:
        return str(self.data["axes"].get(axis, axis))

    def score_name(self, score: str) -> str:
        return str(self.data["scores"].get(score, {}).get("name", score))

    @property
    def rule_rates(self) -> str:
        """The error rates of the rule that sorts curves."""
        rule = self.data["rule"]
        wrong, found = (f"{100 * rule[key]:.1f} % of" for key in ("false_emergent", "found_steps"))
        said = f"On {rule['simulations']} simulations it called {wrong} smooth curves emergent"
        return f"{said}, and found {found} steps."

    @cached_property
    def facts(self) -> list[tuple[str, str]]:
        """The facts of a study: cells, axes, machine, time."""
        states = {state: len(self.cells(state)) for state in ("done", "failed", "missing")}
        commit = self.data["commit"]
        hard = [cell for cell in self.data["cells"] if cell.get("difficulty") is not None]
        rows = {
            "cells": ", ".join(f"{count} {state}" for state, count in states.items() if count or state == "done"),
            "trunks": ", ".join(self.trunks),
            "adapters": ", ".join(unique(cell["adapter"] for cell in self.data["cells"])),
            "shares of the videos": ", ".join(unique(f"{100 * c['share']:g} %" for c in self.data["cells"])),
            "difficulties": ", ".join(unique(f"{c['difficulty']:g}" for c in hard)),
            "seeds": ", ".join(unique(str(cell["seed"]) for cell in self.data["cells"])),
        }
        rows = rows if self.data["cells"] else {"curves": str(len(self.curves))}
        rows |= {"machine": str(self.data["machine"]), "commit": short_commit(commit) if commit else ""}
        rows["time"] = clock(self.data["seconds"]) if finite(self.data["seconds"]) else ""
        return [(name, text) for name, text in rows.items() if text]


def unique(names: Iterable[str]) -> list[str]:
    """Each once, in the order of first occurrence."""
    return list(dict.fromkeys(names))


def capital(text: str) -> str:
    """The text with a capital, as a sentence."""
    return text[:1].upper() + text[1:]


def is_percent(score: str) -> bool:
    """Whether a score is a share of right answers, 0 to 1, shown in percent."""
    return re.fullmatch(r"(top|exact)\d+", score) is not None


def value_text(score: str, value: float | None) -> str:
    """A score in words."""
    if value is None:
        return "-"
    return f"{100 * value:.1f} %" if is_percent(score) else number(float(f"{value:.3g}"))


def interval_text(score: str, values: Sequence[Any] | None) -> str:
    """A score with its interval in words; `values` are (value, low, high)."""
    value, low, high = map(finite, values or (None,) * 3)
    if value is None or low is None or high is None:
        return value_text(score, value)
    factor = 100 if is_percent(score) else 1
    digits = 1 if is_percent(score) else 3
    return f"{factor * value:.{digits}f} ({factor * low:.{digits}f} to {factor * high:.{digits}f})"


def point_text(study: Study, curve: Curve, point: Point) -> str:
    """A point in words."""
    value = value_text(curve.score, point.mean)
    if point.low < point.high:
        value = interval_text(curve.score, (point.mean, point.low, point.high))
    seeds = f", {point.seeds} seed{'s' if point.seeds != 1 else ''}" if point.seeds else ""
    return f"{curve.series or curve.task}, {short(point.scale)} {study.axis_name(curve.axis)}: {value}{seeds}"


def scale_text(value: Any) -> str:
    """A place on an axis in words."""
    known = finite(value)
    return "-" if known is None else short(known)
