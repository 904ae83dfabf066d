"""`study.html`: one self-contained page about a study."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from markupsafe import Markup

from aim.pages.environment import environment
from aim.pages.geometry import Scale, Tick, log_ticks, short, ticks
from aim.study.findings.analysis import DESCENDING
from aim.study.findings.curves import ALL
from aim.study.findings.intervals import finite
from aim.study.shown import figures, plots
from aim.study.shown.plots import CHART, TILE
from aim.study.shown.predicted import Laws, laws_of, miss_text, parameters_text
from aim.study.shown.views import (  # fmt: skip
    KINDS,
    Curve,
    Study,
    capital,
    interval_text,
    is_percent,
    scale_text,
    unique,
    value_text,
)

TILES = 48  # of a kind and axis; the others are only named
JUMPS = 24  # drawn beside their continuous scores
PLACES = 400  # thresholds of single tasks in a table
LETTERS = ("axes.labelsize", "xtick.labelsize", "ytick.labelsize")


@dataclass(frozen=True)
class Picture:
    """A chart of the page; `lines` are its legend: style, name, last value."""

    title: str
    svg: Markup
    lines: Sequence[tuple[int, str, str]] = ()
    chance: bool = False


@dataclass(frozen=True)
class Album:
    """The pictures of one page; none without matplotlib."""

    study: Study
    drawn: Iterator[int] = field(default_factory=count)

    def picture(
        self, title: str, curves: Sequence[Curve], beside: Sequence[Curve] = (), *, tile: bool = False,
        thresholds: bool = True,
    ) -> Picture | None:  # fmt: skip
        """A chart of curves of one score over one axis, or None without points.

        Its axes have the range of the curves `beside` it, for comparison.
        """
        study, curves = self.study, [curve for curve in curves if curve.points]
        if not curves or not figures.there():
            return None
        names = [study.split(curve.series)[0] for curve in curves]
        names = names if len(set(names)) == len(names) else [curve.series for curve in curves]
        size = TILE if tile else CHART
        with plots.drawing_style(plots.ON_PAGE | dict.fromkeys(LETTERS, 10 if tile else 11.5)):
            figure, axes = plots.blank(size, *((36, 6, 8, 20) if tile else (46, 10, 12, 36)))
            plots.finish(study, axes, [*curves, *beside], count=2 if tile else 5, words_at=False)
            if is_percent(curves[0].score):
                axes.yaxis.set_major_formatter("{x:g} %")
            for curve in curves:
                plots.line(axes, study, curve, study.style(curve.series))
            if thresholds and len(curves) > 1:
                plots.leaving(axes, study, curves)
            elif len(curves) == 1:
                plots.details(axes, curves[0], study.style(curves[0].series), threshold=thresholds)
            if not tile:
                less = ", less to the right" if curves[0].axis in DESCENDING else ""
                axes.set_xlabel(plots.words(study.axis_name(curves[0].axis) + less))
            last = [value_text(c.score, c.points[0 if c.axis in DESCENDING else -1].mean) for c in curves]
            said = f"{title}: " + "; ".join(map(" ".join, zip(names, last, strict=True)))
            lines = list(zip([study.style(curve.series) for curve in curves], names, last, strict=True))
            return Picture(title, self.finished(figure, said), lines, plots.chance_of(curves) is not None)

    def law(self, it: Laws, beside: Sequence[Laws]) -> Picture | None:
        """Measured against predicted losses of a series."""
        if not it.dots or not figures.there():
            return None
        with plots.drawing_style(plots.ON_PAGE | dict.fromkeys(LETTERS, 11.5)):
            figure, axes = plots.blank(CHART, 46, 10, 12, 36)
            plots.law(axes, it.dots, it.style, [dot for each in beside for dot in each.dots])
            axes.set_xlabel("cross-entropy that the law predicts")
            title = f"{it.series}: measured against predicted"
            return Picture(title, self.finished(figure, f"{title} loss, {len(it.dots)} points"))

    def key(self, style: int) -> Markup:
        """A line of the legend."""
        with plots.drawing_style(plots.ON_PAGE):
            return Markup(plots.on_page(plots.key(style), f"f{next(self.drawn)}", Markup('id="key{}"').format(style)))

    def finished(self, figure: Any, said: str) -> Markup:
        """The SVG of a figure, with its alternative text."""
        about = Markup('role="img" aria-label="{}"').format(said)
        return Markup(plots.on_page(figure, f"f{next(self.drawn)}", about))


def render(data: Mapping[str, Any]) -> str:
    """The page of the study in this dict."""
    study, laws = Study(data), laws_of(Study(data))
    album = Album(study)
    return environment("aim.study.shown").get_template("study.html").render(
        program="aim.study",
        study=study,
        title=data["title"] or data["name"],
        overviews=overviews(album),
        tiles=tiles(album),
        tasks=[found for axis in main_first(study) if (found := tasks(album, axis))],
        scores=scores(album),
        jumps=jumps(album),
        places=[found for axis in main_first(study) if (found := places(study, axis))],
        of_tasks=[each for each in data["thresholds"] if each["task"] != ALL][:PLACES],
        laws=laws,
        predicted=pictures(album.law(it, laws) for it in laws),
        helps=study.helps,
        table=table(study),
        lost=[cell for cell in data["cells"] if cell["state"] != "done"],
        kinds=KINDS,
        keys=[album.key(style) for style in range(len(study.adapters))] if figures.there() else [],
        drawable=figures.there(),
        scale_text=scale_text,
        miss_text=miss_text,
        parameters_text=parameters_text,
        capital=capital,
    )  # fmt: skip


def main_first(study: Study) -> list[str]:
    """The axes, that of the model's size ahead."""
    return sorted(study.axes, key=lambda axis: axis != study.axis)


def pictures(found: Iterable[Picture | None]) -> list[Picture]:
    """Those with content."""
    return [each for each in found if each is not None]


def overviews(album: Album) -> list[Picture]:
    """The main score of all series over each axis; a chart for each trunk that series name."""
    study = album.study
    found = []
    for task in study.main_tasks:
        for axis in study.axes:
            curves = study.find(task=task, axis=axis, score=study.score or "")
            for trunk in unique(study.split(curve.series)[1] for curve in curves):
                part = [curve for curve in curves if study.split(curve.series)[1] == trunk]
                title = f"{study.axis_name(axis) if task == ALL else task}{f', {trunk}' if trunk else ''}"
                found.append(album.picture(title, part, curves))
    return pictures(found)


def tiles(album: Album) -> list[tuple[Picture, str]]:
    """Each series alone, with its fitted curve, on the main axis."""
    study = album.study
    curves = study.find(task=ALL, axis=study.axis or "", score=study.score or "")
    return tiled(album, curves, [(curve.series, f"{curve.kind}: {curve.why}") for curve in curves])


def tiled(album: Album, curves: Sequence[Curve], texts: Sequence[tuple[str, str]]) -> list[tuple[Picture, str]]:
    """Small charts with the same axes; `texts` are above and below each."""
    drawn = [
        (album.picture(over, [c], curves, tile=True), under) for c, (over, under) in zip(curves, texts, strict=True)
    ]
    return [(it, under) for it, under in drawn if it is not None]


def tasks(album: Album, axis: str) -> dict[str, Any] | None:
    """The tasks on an axis by kind: a table of kinds, and a small chart for each task and series."""
    study = album.study
    curves = [c for c in study.find(axis=axis, score=study.score or "") if c.task in study.tasks]
    if not curves:
        return None
    series = unique(curve.series for curve in curves)
    kinds = {(curve.task, curve.series): curve.kind for curve in curves}
    by_kind = {kind: [curve for curve in curves if curve.kind == kind] for kind in KINDS}
    drawn = {kind: tiled(album, part, [(", ".join(filter(None, (c.task, c.series))), c.why) for c in part])
             for kind, found in by_kind.items() for part in [found[:TILES]]}  # fmt: skip
    return {
        "axis": axis,
        "series": series,
        "rows": [(task, [kinds.get((task, each), "") for each in series]) for task in unique(c.task for c in curves)],
        "kinds": [(kind, len(found), drawn[kind], found[TILES:]) for kind, found in by_kind.items() if found],
    }


def scores(album: Album) -> list[tuple[str, list[Picture]]]:
    """Every score of all series on the main axis: thresholded and continuous ones."""
    study = album.study
    found = []
    for title, thresholded in (("Counting right answers", True), ("Continuous", False)):
        drawn = pictures(
            album.picture(
                study.score_name(score), study.find(task=task, axis=study.axis or "", score=score), thresholds=False
            )
            for task in study.main_tasks[:1]
            for score in study.of_sort(thresholded)
        )
        found += [(title, drawn)] if drawn else []
    return found if len(found) == 2 else []


def jumps(album: Album) -> list[tuple[str, list[tuple[Picture, str]]]]:
    """Every jump with its sentence; for the first ones with charts of the jumping and the smooth scores."""
    study = album.study
    found = []
    for i, each in enumerate(sorted(study.data["mirages"], key=lambda each: each["axis"] != study.axis)):
        keys = {key: each[key] for key in ("task", "series", "axis")}
        shown = i < JUMPS and each["axis"] == study.axis
        names = [each["jump"], *each["smooth_in"][:2]] if shown else []
        curves = [(study.score_name(score), study.find(**keys, score=score)) for score in names]
        drawn = pictures(album.picture(name, part, tile=True, thresholds=False) for name, part in curves)
        found.append((each["sentence"], [(it, "") for it in drawn]))
    return found


def places(study: Study, axis: str) -> dict[str, Any] | None:
    """The places where each series leaves chance on an axis, in percent of its length."""
    found = [each for each in study.data["thresholds"] if (each["axis"], each["task"]) == (axis, ALL)]
    curves = [curve for curve in study.find(axis=axis, task=ALL) if curve.points]
    if not found or not curves:
        return None
    first, last = plots.reach([point.scale for curve in curves for point in curve.points])
    x = Scale(first, last, *((100, 0) if axis in DESCENDING else (0, 100)), log=first > 0)
    marks = [mark for mark in (log_ticks if first > 0 else ticks)(first, last, 4) if first <= mark <= last]
    rows = []
    for each in found:
        at, low, high = (finite(each[key]) for key in ("scale", "low", "high"))
        ends = [min(max(x(end), 0.0), 100.0) for end in (low or x.low, high or x.high)] if at else []
        rows.append({
            "series": each["series"], "colour": study.style(each["series"]) % len(plots.COLOURS),
            "at": x(at) if at else None, "from": min(ends, default=0.0), "to": max(ends, default=0.0),
            "text": span_text(at, low, high), "sentence": each["sentence"],
        })  # fmt: skip
    return {"axis": axis, "rows": rows, "ticks": [Tick(x(mark), short(mark)) for mark in marks]}


def span_text(at: float | None, low: float | None, high: float | None) -> str:
    """A place with its interval; a missing end is open."""
    if at is None:
        return "nowhere"
    if low and high:
        return f"{scale_text(at)} ({scale_text(low)} to {scale_text(high)})"
    if high:
        return f"{scale_text(at)} or less" if high <= at else f"{scale_text(at)} (at most {scale_text(high)})"
    return scale_text(at) + (f" (at least {scale_text(low)})" if low else "")


def table(study: Study) -> dict[str, Any] | None:
    """Every cell: its place in the grid, its cost, and its scores with their intervals."""
    cells = study.data["cells"]
    if not cells:
        return None
    axes = [axis for axis in study.data["axes"] if any(cell.get(axis) is not None for cell in cells)]
    scores = [score for score in study.data["scores"] if any(score in cell["scores"] for cell in cells)]
    rows = []
    for cell in cells:
        values = [(score, cell["scores"].get(score)) for score in scores]
        numbers = [(interval_text(score, each), finite(each[0]) if each else None) for score, each in values]
        numbers += [(scale_text(cell.get(key)), finite(cell.get(key))) for key in (*axes, "seconds")]
        rows.append({"cell": cell, "numbers": numbers})
    heads = [*map(study.score_name, scores), *map(study.axis_name, axes), "seconds"]
    return {"heads": [f">{head}" for head in heads], "rows": rows}
