"""What the figures of a study are drawn with: their style, lines, axes and legends. matplotlib is imported late."""

import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from aim.pages.geometry import log_ticks, short
from aim.studying.analysis import DESCENDING
from aim.studying.views import Curve, Study, capital, is_percent

COLUMN, PAGE = 3.3, 6.9  # inches: a column, and two with the gap between
COLOURS = ("#1f66c9", "#c8501e", "#16805a", "#8a3fb0", "#b0246a", "#7d6200", "#0f7c8c", "#5b636e")  # the page's
MARKERS = ("o", "s", "^", "D", "v", "P", "<", ">")  # the page's
DASHES = ("-", (0, (5, 1.5)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (6, 1, 1, 1, 1, 1)), (0, (2, 1)))
STYLE: Any = {
    "font.family": "DejaVu Sans", "font.size": 7.5, "axes.titlesize": 7.5, "axes.labelsize": 7.5,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7, "axes.spines.top": False,
    "axes.spines.right": False, "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
    "axes.grid": True, "axes.grid.axis": "y", "grid.linewidth": 0.4, "grid.color": "#d8d8d8", "axes.axisbelow": True,
    "lines.linewidth": 1.2, "lines.markersize": 4, "legend.frameon": False, "legend.handlelength": 2.8,
    "pdf.fonttype": 42, "svg.hashsalt": "aim", "figure.constrained_layout.use": True,
}  # fmt: skip

Axes = Any  # matplotlib's, which is imported late


@contextmanager
def drawing_style() -> Iterator[None]:
    """The figures' style, without a window; letters that the font lacks are boxes, and no warning."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        warnings.filterwarnings("ignore", message="constrained_layout not applied")  # names longer than a figure
        yield


def new(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, list[Axes]]:
    """A figure without a window, and its axes row by row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False).ravel())


def words(text: str, width: int = 200) -> str:
    """Text that matplotlib takes for no formula, and for no label to be left out, in lines of such a width."""
    text = "\n".join(textwrap.wrap(text, width)).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def line(axes: Axes, curve: Curve, name: str, style: int) -> None:
    """A curve with its band. Holes are holes; points that lack seeds are hollow."""
    colour, factor = COLOURS[style % len(COLOURS)], 100 if is_percent(curve.score) else 1
    look = {"color": colour, "linestyle": DASHES[style % len(DASHES)], "marker": MARKERS[style % len(MARKERS)]}
    for i, run in enumerate(curve.runs):
        x = [point.scale for point in run]
        mean, low, high = ([factor * getattr(point, key) for point in run] for key in ("mean", "low", "high"))
        axes.plot(x, mean, label=words(name) if i == 0 else None, clip_on=False, **look)
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    for before, after in pairwise(curve.runs):
        ends = before[-1], after[0]
        x, mean = [point.scale for point in ends], [factor * point.mean for point in ends]
        axes.plot(x, mean, color=colour, linewidth=0.6, linestyle=(0, (1, 3)))
    for point in curve.points:
        if not point.whole:
            hollow = {"marker": look["marker"], "markerfacecolor": "white", "markeredgecolor": colour}
            axes.plot([point.scale], [factor * point.mean], linestyle="none", zorder=3, clip_on=False, **hollow)


def score_label(study: Study, score: str) -> str:
    """A score with its unit."""
    return capital(study.score_name(score)) + (" (%)" if is_percent(score) else "")


def finish(study: Study, axes: Axes, curves: Sequence[Curve], *, label: bool = True) -> None:
    """Axes, ticks, and the line of chance."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    curve = curves[0]
    scales = [point.scale for each in curves for point in each.points]
    if min(scales) > 0:
        axes.set_xscale("log")
        room = (max(scales) / min(scales)) ** 0.04 if max(scales) > min(scales) else 2.0
        axes.set_xlim(min(scales) / room, max(scales) * room)
        axes.xaxis.set_major_locator(FixedLocator(log_ticks(min(scales), max(scales), 5 if label else 3)))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    if curve.axis in DESCENDING:
        axes.invert_xaxis()
    if is_percent(curve.score):
        axes.set_ylim(0, 102 if curve.score.startswith("top") else None)
    if label:
        axes.set_xlabel(words(capital(study.axis_name(curve.axis))))
        axes.set_ylabel(words(score_label(study, curve.score)))
    chances = {each.chance for each in curves if each.chance is not None}
    for chance in chances if len(chances) == 1 else ():
        height = 100 * chance if is_percent(curve.score) else chance
        axes.axhline(height, color="#555555", linewidth=0.8, linestyle=(0, (1, 2)), label="chance", zorder=1)


def legend(figure: Any, axes: Axes, columns: int | None = None) -> None:
    """Names of the lines: so many beside each other above, or under each other on the right."""
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    if columns is None and len(labels) <= 16:
        figure.legend(handles, labels, loc="outside right center")
    else:
        figure.legend(handles, labels, loc="outside upper center", ncols=columns or 4)
