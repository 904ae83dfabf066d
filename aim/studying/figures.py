"""Figures of a study for a paper, one or two columns wide, as PNG and PDF; matplotlib draws them, if it is there."""

import importlib.util
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from aim.ground.errors import say
from aim.ground.files import write_atomically
from aim.pages.geometry import log_ticks, short
from aim.studying.curves import ALL
from aim.studying.plots import (
    COLOURS,
    COLUMN,
    MARKERS,
    PAGE,
    drawing_style,
    finish,
    legend,
    line,
    new,
    score_label,
    words,
)
from aim.studying.predicted import laws_of
from aim.studying.views import KINDS, Curve, Study, capital, is_percent

WIDE = 900  # pixels of the figure for a README
TASKS = 30  # panels of the figure of tasks


def draw(data: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write every figure that has something to show, and return their paths. Says a line where matplotlib is absent."""
    if importlib.util.find_spec("matplotlib") is None:
        say("no figures, as they need matplotlib: pip install 'aim-video[study]'")
        return []
    study, found = Study(data), []
    makers: Mapping[str, Callable[[Study], Any]] = {
        "scaling": lambda it: scaling(it, PAGE, 3.2, None), "scaling_column": lambda it: scaling(it, COLUMN, 2.9, 3),
        "data": by_data, "tasks": by_kind, "scores": side_by_side, "laws": laws,
    }  # fmt: skip
    for name, make in makers.items():
        with drawing_style():
            if (figure := make(study)) is not None:
                found += saved(figure, folder, name)
    return found


def saved(figure: Any, folder: Path, name: str) -> list[Path]:
    """The files of a figure; one and the same study gives the same bytes."""
    found = []
    width = figure.get_size_inches()[0]
    kinds: list[tuple[str, Mapping[str, Any]]] = [
        ("png", {"dpi": WIDE / width if name == "scaling" else 300, "metadata": {"Software": None}}),
        ("pdf", {"metadata": {"CreationDate": None, "Producer": None, "Creator": None}}),
        *([("svg", {"metadata": {"Date": None, "Creator": None}})] if name == "scaling" else []),
    ]
    for kind, options in kinds:
        path = folder / f"{name}.{kind}"
        write_atomically(path, partial(figure.savefig, format=kind, **options))
        found.append(path)
    return found


def scaling(study: Study, width: float, height: float, columns: int | None) -> Any:
    """The main score against the main axis, one line a series."""
    curves = [c for task in study.main_tasks for c in shown(study, task, study.axis, study.score)]
    if not curves:
        return None
    figure, (axes,) = new(width, height)
    names = [c.series or c.task if len(study.main_tasks) == 1 else f"{c.task} {c.series}".strip() for c in curves]
    styles = [study.style(c.series) if c.series else i for i, c in enumerate(curves)]
    for curve, name, style in zip(curves, names, styles, strict=True):
        line(axes, curve, name, style)
    finish(study, axes, curves)
    legend(figure, axes, columns)
    return figure


def shown(study: Study, task: str, axis: str | None, score: str | None) -> list[Curve]:
    """The curves of a chart that have points."""
    return [curve for curve in study.find(task=task, axis=axis or "", score=score or "") if curve.points]


def grid(count: int, columns: int, height: float) -> tuple[Any, list[Any]]:
    """So many panels over two columns of a paper."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure, panels = new(PAGE * min(1.0, max(columns, 2) / 4), 0.5 + height * rows, rows, columns)
    for axes in panels[count:]:
        axes.axis("off")
    return figure, panels[:count]


def by_data(study: Study) -> Any:
    """The main score against the number of videos, a panel for each trunk."""
    curves = shown(study, ALL, "videos", study.score)
    groups = [(t, [c for c in curves if study.split(c.series)[1] == t]) for t in (*study.trunks, "")]
    groups = [(trunk, found) for trunk, found in groups if found]
    if not groups or study.axis == "videos":
        return None
    figure, panels = grid(len(groups), 4, 1.75)
    for axes, (trunk, found) in zip(panels, groups, strict=True):
        for curve in found:
            line(axes, curve, study.split(curve.series)[0], study.style(curve.series))
        finish(study, axes, found, label=False)
        axes.set_title(words(trunk))
    labelled(figure, study, curves[0])
    legend(figure, panels[0], 4)
    return figure


def labelled(figure: Any, study: Study, curve: Curve) -> None:
    """What all panels have across and upward."""
    size = {"fontsize": 7.5}
    figure.supxlabel(words(capital(study.axis_name(curve.axis))), **size)
    figure.supylabel(words(score_label(study, curve.score)), **size)


def by_kind(study: Study) -> Any:
    """A panel for each task and series on the main axis, sorted by the kind of their curve."""
    found = [c for c in study.find(axis=study.axis or "", score=study.score or "") if c.task != ALL and c.points]
    if len(found) < 2:
        return None
    found = sorted(found, key=lambda curve: list(KINDS).index(curve.kind))[:TASKS]
    figure, panels = grid(len(found), 5, 1.25)
    for axes, curve in zip(panels, found, strict=True):
        line(axes, curve, "", study.style(curve.series))
        finish(study, axes, [curve], label=False)
        if curve.fit:
            factor = 100 if is_percent(curve.score) else 1
            x, y = zip(*curve.fit, strict=True)
            axes.plot(x, [factor * value for value in y], color="#222222", linewidth=0.7, linestyle=(0, (4, 2)))
        if curve.threshold:
            axes.axvline(curve.threshold[0], color="#222222", linewidth=0.7)
        axes.set_title(
            "\n".join(words(each, 24) for each in (curve.kind, curve.task, curve.series) if each), fontsize=6
        )
        axes.tick_params(labelsize=6)
    labelled(figure, study, found[0])
    return figure


def side_by_side(study: Study) -> Any:
    """Scores that count right answers above, continuous ones below, of the same cells."""
    rows = [
        [s for s in study.of_sort(thresholded) if shown(study, ALL, study.axis, s)] for thresholded in (True, False)
    ]
    if not all(rows):
        return None
    columns = max(map(len, rows))
    figure, panels = new(PAGE * min(1.0, max(columns, 2) / 4), 4.0, 2, columns)
    for i, axes in enumerate(panels):
        score = dict(enumerate(rows[i // columns])).get(i % columns)
        if score is None:
            axes.axis("off")
            continue
        curves = shown(study, ALL, study.axis, score)
        for curve in curves:
            line(axes, curve, curve.series, study.style(curve.series))
        finish(study, axes, curves, label=False)
        axes.set_title(words(score_label(study, score), 24))
    figure.supxlabel(words(capital(study.axis_name(study.axis or ""))), fontsize=7.5)
    legend(figure, panels[0], 4)
    return figure


def laws(study: Study) -> Any:
    """Measured against predicted loss of the law that was chosen, the held-out scale filled."""
    found = [(it.series, law.dots) for it in laws_of(study) for law in it.laws if law.chosen and law.dots]
    if not found:
        return None
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    figure, (axes,) = new(COLUMN, 3.3)
    axes.set(xscale="log", yscale="log")
    ends = [end for _, dots in found for dot in dots for end in (dot.predicted, dot.measured)]
    axes.plot([min(ends), max(ends)], [min(ends), max(ends)], color="#555555", linewidth=0.8, linestyle=(0, (4, 2)))
    for i, (series, dots) in enumerate(found):
        style = study.style(series) if series in study.adapters else i
        look = {"linestyle": "none", "marker": MARKERS[style % 8], "markeredgecolor": COLOURS[style % 8]}
        for held_out in (False, True):
            some = [dot for dot in dots if dot.held_out is held_out]
            axes.plot(
                [dot.predicted for dot in some], [dot.measured for dot in some], **look,
                markerfacecolor=COLOURS[style % 8] if held_out else "white", label=words(series) if held_out else None,
            )  # fmt: skip
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator(log_ticks(min(ends), max(ends))))
        axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        axis.set_minor_locator(NullLocator())
    axes.set_xlabel("Cross-entropy that the law predicts")
    axes.set_ylabel("measured (filled: held out)")
    legend(figure, axes, 3)
    return figure
