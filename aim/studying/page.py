"""`study.html`: one file that needs no other, for the browser of whoever asks what a study found."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aim.pages.environment import environment
from aim.pages.geometry import CHART
from aim.studying import drawing
from aim.studying.curves import ALL
from aim.studying.drawing import TILE, Picture, picture
from aim.studying.intervals import finite
from aim.studying.predicted import laws_of
from aim.studying.views import (
    KINDS,
    Curve,
    Study,
    capital,
    interval_text,
    scale_text,
    unique,
)  # fmt: skip

TILES = 48  # of a kind and axis; the others are named alone
JUMPS = 24  # that are drawn beside their continuous scores
PLACES = 400  # thresholds of single tasks in a table


def render(data: Mapping[str, Any]) -> str:
    """The page of the study in this dict."""
    study = Study(data)
    return environment("aim.studying").get_template("study.html").render(
        study=study,
        title=data["title"] or data["name"],
        overviews=overviews(study),
        tiles=tiles(study),
        tasks=[found for axis in main_first(study) if (found := tasks(study, axis))],
        scores=scores(study),
        jumps=jumps(study),
        places=[found for axis in main_first(study) if (found := places(study, axis))],
        of_tasks=[each for each in data["thresholds"] if each["task"] != ALL][:PLACES],
        laws=laws_of(study),
        helps=study.helps,
        table=table(study),
        lost=[cell for cell in data["cells"] if cell["state"] != "done"],
        kinds=KINDS,
        chart_frame=CHART,
        scale_text=scale_text,
        capital=capital,
    )  # fmt: skip


def main_first(study: Study) -> list[str]:
    """The axes, that of the model's size ahead."""
    return sorted(study.axes, key=lambda axis: axis != study.axis)


def pictures(found: Iterable[Picture | None]) -> list[Picture]:
    """Those that show anything."""
    return [each for each in found if each is not None]


def overviews(study: Study) -> list[Picture]:
    """The main score of all series over each axis; of series that name their trunk, a chart for each trunk."""
    found = []
    for task in study.main_tasks:
        for axis in study.axes:
            curves = study.find(task=task, axis=axis, score=study.score or "")
            for trunk in unique(study.split(curve.series)[1] for curve in curves):
                part = [curve for curve in curves if study.split(curve.series)[1] == trunk]
                title = f"{study.axis_name(axis) if task == ALL else task}{f', {trunk}' if trunk else ''}"
                found.append(picture(study, title, part, beside=curves))
    return pictures(found)


def tiles(study: Study) -> list[tuple[Curve, Picture]]:
    """Each series alone, with what was fitted, on the main axis."""
    curves = study.find(task=ALL, axis=study.axis or "", score=study.score or "")
    return tiled(study, curves, [curve.series for curve in curves])


def tiled(study: Study, curves: Sequence[Curve], titles: Sequence[str]) -> list[tuple[Curve, Picture]]:
    """Small charts with the same axes."""
    drawn = [(c, picture(study, title, [c], TILE, curves)) for c, title in zip(curves, titles, strict=True)]
    return [(curve, it) for curve, it in drawn if it is not None]


def tasks(study: Study, axis: str) -> dict[str, Any] | None:
    """The tasks on an axis by kind: a table of kinds, and a small chart for each task and series."""
    curves = [c for c in study.find(axis=axis, score=study.score or "") if c.task in study.tasks]
    if not curves:
        return None
    series = unique(curve.series for curve in curves)
    kinds = {(curve.task, curve.series): curve.kind for curve in curves}
    by_kind = {kind: [curve for curve in curves if curve.kind == kind] for kind in KINDS}
    drawn = {kind: tiled(study, found[:TILES], list(map(titled, found[:TILES]))) for kind, found in by_kind.items()}
    return {
        "axis": axis,
        "series": series,
        "rows": [(task, [kinds.get((task, each), "") for each in series]) for task in unique(c.task for c in curves)],
        "kinds": [(kind, len(found), drawn[kind], found[TILES:]) for kind, found in by_kind.items() if found],
    }


def titled(curve: Curve) -> str:
    """A task and its series."""
    return f"{curve.task}, {curve.series}" if curve.series else curve.task


def scores(study: Study) -> list[tuple[str, list[Picture]]]:
    """Every score of all series on the main axis: those that count right answers, and those that are continuous."""
    found = []
    for title, thresholded in (("Counting right answers", True), ("Continuous", False)):
        drawn = pictures(
            picture(study, study.score_name(score), study.find(task=task, axis=study.axis or "", score=score))
            for task in study.main_tasks[:1]
            for score in study.of_sort(thresholded)
        )
        found += [(title, drawn)] if drawn else []
    return found if len(found) == 2 else []


def jumps(study: Study) -> list[tuple[str, list[Picture]]]:
    """Every jump with its sentence; beside it the score that jumps and those that are smooth, of the first ones."""
    found = []
    for i, each in enumerate(sorted(study.data["mirages"], key=lambda each: each["axis"] != study.axis)):
        keys = {key: each[key] for key in ("task", "series", "axis")}
        shown = i < JUMPS and each["axis"] == study.axis
        names = [each["jump"], *each["smooth_in"][:2]] if shown else []
        curves = [(study.score_name(score), study.find(**keys, score=score)) for score in names]
        drawn = pictures(picture(study, name, part, TILE) for name, part in curves)
        found.append((each["sentence"], drawn))
    return found


def places(study: Study, axis: str) -> dict[str, Any] | None:
    """Where each series leaves chance on an axis, as parts of its length, percent."""
    found = [each for each in study.data["thresholds"] if (each["axis"], each["task"]) == (axis, ALL)]
    curves = [curve for curve in study.find(axis=axis, task=ALL) if curve.points]
    if not found or not curves:
        return None
    x, ticks = drawing.across(axis, curves, drawing.PERCENT, 4)
    rows = []
    for each in found:
        at, low, high = (finite(each[key]) for key in ("scale", "low", "high"))
        ends = [min(max(x(end), 0.0), 100.0) for end in (low or x.low, high or x.high)] if at else []
        rows.append({
            "series": each["series"], "colour": study.style(each["series"]) % drawing.COLOURS,
            "at": x(at) if at else None, "from": min(ends, default=0.0), "to": max(ends, default=0.0),
            "text": span_text(at, low, high), "sentence": each["sentence"],
        })  # fmt: skip
    return {"axis": axis, "rows": rows, "ticks": ticks}


def span_text(at: float | None, low: float | None, high: float | None) -> str:
    """A place with its interval; an end that is missing is open."""
    if at is None:
        return "nowhere"
    if low and high:
        return f"{scale_text(at)} ({scale_text(low)} to {scale_text(high)})"
    if high:
        return f"{scale_text(at)} or less" if high <= at else f"{scale_text(at)} (at most {scale_text(high)})"
    return scale_text(at) + (f" (at least {scale_text(low)})" if low else "")


def table(study: Study) -> dict[str, Any] | None:
    """Every cell: what decided it, what it cost, and its scores with their intervals."""
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
    return {"heads": heads, "rows": rows}
