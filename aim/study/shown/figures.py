"""Figures of a study for a paper, one or two columns wide, as PNG and PDF, by matplotlib."""

import importlib.util
import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from aim.ground.errors import say
from aim.ground.files import write_atomically, write_text
from aim.pages import letters
from aim.study.findings.curves import ALL
from aim.study.shown import plots
from aim.study.shown.plots import COLUMN, PAGE, words
from aim.study.shown.predicted import laws_of
from aim.study.shown.views import KINDS, Curve, Study, capital

WIDE = 900  # pixels of the figure for a README
TASKS = 30  # panels of the figure of tasks


def draw(data: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write every figure with content, and return their paths. Prints a line without matplotlib."""
    if not there():
        say("no figures, as they need matplotlib: pip install 'aim-video[study]'")
        return []
    study, found = Study(data), []
    makers: Mapping[str, Callable[[Study], Any]] = {
        "scaling": lambda it: scaling(it, PAGE, 3.2, None), "scaling_column": lambda it: scaling(it, COLUMN, 2.9, 3),
        "data": by_data, "tasks": by_kind, "scores": side_by_side, "laws": laws,
    }  # fmt: skip
    style = {"font.family": families(json.dumps(data, ensure_ascii=False))}
    for name, make in makers.items():
        with plots.drawing_style(style):
            if (figure := make(study)) is not None:
                found += saved(figure, folder, name)
    return found


def families(text: str) -> list[str]:
    """The fonts with the characters of a text, by matplotlib's names."""
    from matplotlib import font_manager

    files = letters.files_of(text)
    for file in files:
        font_manager.fontManager.addfont(file)
    return [plots.STYLE["font.family"], *(font_manager.FontProperties(fname=file).get_name() for file in files)]


def there() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def saved(figure: Any, folder: Path, name: str) -> list[Path]:
    """The files of a figure; the same study gives the same bytes."""
    found = []
    width = figure.get_size_inches()[0]
    kinds: list[tuple[str, Mapping[str, Any]]] = [
        ("png", {"dpi": WIDE / width if name == "scaling" else 300, "metadata": {"Software": None}}),
        ("pdf", {"metadata": {"CreationDate": None, "Producer": None, "Creator": None}}),
    ]
    for kind, options in kinds:
        path = folder / f"{name}.{kind}"
        write_atomically(path, partial(figure.savefig, format=kind, **options))
        found.append(path)
    if name == "scaling":
        found.append(folder / f"{name}.svg")
        write_text(found[-1], plots.as_svg(figure))
    return found


def scaling(study: Study, width: float, height: float, columns: int | None) -> Any:
    """The main score against the main axis, one line a series."""
    curves = [c for task in study.main_tasks for c in shown(study, task, study.axis, study.score)]
    if not curves:
        return None
    figure, (axes,) = plots.new(width, height)
    names = [c.series or c.task if len(study.main_tasks) == 1 else f"{c.task} {c.series}".strip() for c in curves]
    styles = [study.style(curve.series) if curve.series else i for i, curve in enumerate(curves)]
    for curve, style in zip(curves, styles, strict=True):
        plots.line(axes, study, curve, style)
    plots.finish(study, axes, curves)
    plots.legend(
        figure, dict(zip(names, styles, strict=True)), chance=plots.chance_of(curves) is not None, columns=columns
    )
    return figure


def shown(study: Study, task: str, axis: str | None, score: str | None) -> list[Curve]:
    """The curves of a chart with points."""
    return [curve for curve in study.find(task=task, axis=axis or "", score=score or "") if curve.points]


def grid(count: int, columns: int, height: float) -> tuple[Any, list[Any]]:
    """A number of panels over two columns of a paper."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure, panels = plots.new(PAGE * min(1.0, max(columns, 2) / 4), 0.5 + height * rows, rows, columns)
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
        panel(study, axes, found)
        axes.set_title(words(trunk))
    labelled(figure, study, curves[0])
    named(figure, study, groups[0][1])
    return figure


def panel(study: Study, axes: Any, curves: Sequence[Curve]) -> None:
    """Curves on a small pair of axes."""
    for curve in curves:
        plots.line(axes, study, curve, study.style(curve.series))
    plots.finish(study, axes, curves, count=3, words_at=False)


def named(figure: Any, study: Study, curves: Sequence[Curve]) -> None:
    """The legend of panels."""
    names = {study.split(curve.series)[0]: study.style(curve.series) for curve in curves}
    plots.legend(figure, names, chance=plots.chance_of(curves) is not None, columns=4)


def labelled(figure: Any, study: Study, curve: Curve) -> None:
    """The common labels of all panels."""
    size = {"fontsize": 7.5}
    figure.supxlabel(words(capital(study.axis_name(curve.axis))), **size)
    figure.supylabel(words(plots.score_label(study, curve.score)), **size)


def by_kind(study: Study) -> Any:
    """A panel for each task and series on the main axis, sorted by the kind of their curve."""
    found = [c for c in study.find(axis=study.axis or "", score=study.score or "") if c.task != ALL and c.points]
    if len(found) < 2:
        return None
    found = sorted(found, key=lambda curve: list(KINDS).index(curve.kind))[:TASKS]
    figure, panels = grid(len(found), 5, 1.25)
    for axes, curve in zip(panels, found, strict=True):
        panel(study, axes, [curve])
        plots.details(axes, curve, study.style(curve.series))
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
    figure, panels = grid(2 * columns, columns, 1.75)
    for i, axes in enumerate(panels):
        score = dict(enumerate(rows[i // columns])).get(i % columns)
        if score is None:
            axes.axis("off")
            continue
        curves = shown(study, ALL, study.axis, score)
        panel(study, axes, curves)
        axes.set_title(words(plots.score_label(study, score), 24))
    figure.supxlabel(words(capital(study.axis_name(study.axis or ""))), fontsize=7.5)
    named(figure, study, shown(study, ALL, study.axis, rows[0][0]))
    return figure


def laws(study: Study) -> Any:
    """Measured against predicted loss of the chosen law, the held-out scale filled."""
    found = [it for it in laws_of(study) if it.dots]
    if not found:
        return None
    figure, (axes,) = plots.new(COLUMN, 3.3)
    for it in found:
        plots.law(axes, it.dots, it.style, [dot for each in found for dot in each.dots])
    axes.set_xlabel("Cross-entropy that the law predicts")
    axes.set_ylabel("measured (filled: held out)")
    plots.legend(figure, {it.series: it.style for it in found}, chance=False, columns=3, lines=False)
    return figure
