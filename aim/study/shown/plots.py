"""Plots of a study, for its page and for papers: lines, axes, legends, SVG. matplotlib is imported late."""

import io
import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from aim.pages.geometry import enclosing_ticks, log_ticks, number, short
from aim.study.findings.analysis import DESCENDING
from aim.study.findings.laws import Dot
from aim.study.shown.views import Curve, Study, capital, is_percent, point_text

COLUMN, PAGE = 3.3, 6.9  # inches: a column, and two with the gap between
CHART, TILE = (360, 230), (168, 112)  # pixels of a picture of the page, and of many small ones
COLOURS = ("#1f66c9", "#c8501e", "#16805a", "#8a3fb0", "#b0246a", "#7d6200", "#0f7c8c", "#5b636e")
MARKERS = ("o", "s", "^", "D", "v", "P", "<", ">")
DASHES: Sequence[Any] = ("-", (0, (2, 2)), (0, (5, 1, 1, 1)))  # of the first eight lines, of the next, of all others
INK, QUIET, RULE, GROUND = "#1d2126", "#555d68", "#d8d8d8", "#ffffff"
VARIABLES = {  # of the page's style, for light and dark
    **{colour: f"var(--s{i})" for i, colour in enumerate(COLOURS)},
    **{INK: "var(--ink)", QUIET: "var(--quiet)", RULE: "var(--rule)", GROUND: "var(--ground)"},
}  # fmt: skip
STYLE: Any = {
    "font.family": "DejaVu Sans", "font.size": 7.5, "axes.titlesize": 7.5, "axes.labelsize": 7.5,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7, "axes.spines.top": False,
    "axes.spines.right": False, "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
    "axes.grid": True, "axes.grid.axis": "y", "grid.linewidth": 0.4, "grid.color": RULE, "axes.axisbelow": True,
    "lines.linewidth": 1.2, "lines.markersize": 4, "legend.frameon": False, "legend.handlelength": 2.8,
    "pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "aim",
}  # fmt: skip
ON_PAGE: Any = {
    "axes.spines.left": False, "axes.spines.bottom": False, "xtick.major.size": 0, "ytick.major.size": 0,
    "xtick.major.pad": 6, "lines.linewidth": 2, "lines.markersize": 5.5, "grid.linewidth": 1,
    "lines.solid_capstyle": "round",
}  # fmt: skip

Axes = Any  # matplotlib's, imported late


@contextmanager
def drawing_style(more: Mapping[str, Any]) -> Iterator[None]:
    """The figures' style, without a window; missing letters are boxes, without a warning."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE | more), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        warnings.filterwarnings("ignore", message="constrained_layout not applied")  # names longer than a figure
        yield


def new(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, list[Axes]]:
    """A figure of a paper, and its axes row by row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).ravel())


def blank(size: tuple[int, int], left: float, right: float, top: float, bottom: float) -> tuple[Any, Axes]:
    """A picture of the page, with a size in pixels, and its axes with margins."""
    from matplotlib.figure import Figure

    width, height = size
    figure = Figure(figsize=(width / 72, height / 72), frameon=False)
    place = left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height
    return figure, figure.add_axes(place, frameon=False)


def as_svg(figure: Any) -> str:
    """Matplotlib's SVG of a figure, the same bytes for the same figure; an artist's gid is its tooltip."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    found = re.sub(r"<!--.*?-->", "", text.getvalue()[text.getvalue().index("<svg") :], flags=re.DOTALL)
    found = re.sub(r"""<g id=(["'])say:(.*?)\1>""", r"<g><title>\2</title>", found, flags=re.DOTALL)
    found = re.sub(r'<g id="class:(.*?)">', r'<g class="\1">', found)
    return re.sub(r"\s*\n\s*", " ", re.sub(r'<g id="[^"]*"', "<g", found)).replace("> <", "><")


def on_page(figure: Any, name: str, summary: str) -> str:
    """The figure for the page: with its fonts and colours. `name` is unique on the page."""
    inner = as_svg(figure)
    width, height = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', inner)[0]
    inner = inner[inner.index(">") + 1 :]
    inner = re.sub(r"<defs><style.*?</defs>| transform=\"rotate\(-0 .*?\)\"| ?font-family: [^;\"]*;?", "", inner)
    inner = re.sub(r'(id="|href="#|url\(#)(?=[mpC])', rf"\1{name}", inner.replace("xlink:", ""))
    inner = re.sub('#[0-9a-f]{6}(?=[;"])', lambda found: VARIABLES.get(found[0], found[0]), inner)
    return f'<svg viewBox="0 0 {width} {height}" {summary}>{inner}'


def words(text: str, width: int = 200) -> str:
    """Text that matplotlib takes neither for a formula nor for a hidden label, wrapped to a width."""
    text = "\n".join(textwrap.wrap(text, width)).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def look(style: int) -> dict[str, Any]:
    """A line's colour, marker and dashes by its number."""
    dash = DASHES[min(style // len(COLOURS), len(DASHES) - 1)]
    at = style % len(COLOURS)
    return {"color": COLOURS[at], "linestyle": dash, "marker": MARKERS[at], "markeredgewidth": 1.0}


def key(style: int) -> Any:
    """A figure of a line's look."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(30 / 72, 12 / 72), frameon=False)
    figure.add_artist(Line2D([0.05, 0.5, 0.95], [0.5] * 3, markevery=[1], **look(style)))
    return figure


def factor(curve: Curve) -> float:
    """Shares are drawn in percent."""
    return 100.0 if is_percent(curve.score) else 1.0


def line(axes: Axes, study: Study, curve: Curve, style: int) -> None:
    """A curve with its band. Holes are holes; points that lack seeds are hollow."""
    own, times = look(style), factor(curve)
    colour = own["color"]
    for run in curve.runs:
        x = [point.scale for point in run]
        mean, low, high = ([times * getattr(point, key) for point in run] for key in ("mean", "low", "high"))
        if len(run) < 2:
            continue
        if low != high:
            axes.fill_between(x, low, high, color=colour, alpha=0.14, linewidth=0)
        axes.plot(x, mean, clip_on=False, **own | {"marker": None})
    for before, after in pairwise(curve.runs):
        ends = before[-1], after[0]
        x, mean = [point.scale for point in ends], [times * point.mean for point in ends]
        axes.plot(x, mean, color=colour, linewidth=1.0, linestyle=(0, (1, 3)), gid="class:bridge")
    for point in curve.points:
        face = {"linestyle": "none", "markerfacecolor": colour if point.whole else GROUND, "clip_on": False}
        face |= {} if point.whole else {"markersize": 6, "markeredgewidth": 1.4}
        said = point_text(study, curve, point)
        axes.plot([point.scale], [times * point.mean], **own | face, zorder=3, gid=f"say:{said}")


def details(axes: Axes, curve: Curve, style: int, *, threshold: bool = True) -> None:
    """The fit of a single curve, and the place where it leaves chance."""
    if curve.fit:
        x, y = zip(*curve.fit, strict=True)
        fit = {"color": INK, "linewidth": 0.8, "linestyle": (0, (4, 2)), "zorder": 2.5, "gid": "class:fit"}
        axes.plot(x, [factor(curve) * value for value in y], **fit)
    if curve.threshold and threshold:
        at, *ends = curve.threshold
        low, high = sorted(axes.get_xlim())
        colour = look(style)["color"]
        axes.axvspan(max(ends[0] or low, low), min(ends[1] or high, high), color=colour, alpha=0.12, linewidth=0)
        axes.axvline(at, color=colour, linewidth=1.2, gid="class:threshold")


def leaving(axes: Axes, study: Study, curves: Sequence[Curve]) -> None:
    """The places where curves leave chance, with their intervals, stacked over the axis."""
    low, high = sorted(axes.get_xlim())
    for i, curve in enumerate(curves):
        if curve.threshold:
            at, first, last = curve.threshold
            own = {"color": look(study.style(curve.series))["color"], "transform": axes.get_xaxis_transform()}
            y = 0.022 + i * min(0.027, 0.13 / len(curves))
            axes.plot([max(first or low, low), min(last or high, high)], [y, y], linewidth=1.6, **own)
            axes.plot([at], [y], marker="|", markersize=7, markeredgewidth=3, **own, gid="class:threshold")


def score_label(study: Study, score: str) -> str:
    """A score with its unit."""
    return capital(study.score_name(score)) + (" (%)" if is_percent(score) else "")


def reach(places: Sequence[float]) -> tuple[float, float]:
    """The ends of an axis around all of them, with some margin."""
    low, high = min(places), max(places)
    if low <= 0:
        room = 0.04 * (high - low) or 1.0
        return low - room, high + room
    room = (high / low) ** 0.04 if high > low else 2.0
    return low / room, high * room


def finish(study: Study, axes: Axes, curves: Sequence[Curve], *, count: int = 5, words_at: bool = True) -> None:
    """Axes, ticks, and the line of chance; the axes cover these curves, drawn or not."""
    curve, ends = curves[0], reach([point.scale for each in curves for point in each.points])
    if ends[0] > 0:
        axes.set_xscale("log")
        axes.set_xticks(log_ticks(*ends, max(count, 3)))
        axes.minorticks_off()
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    axes.set_xlim(*ends[:: -1 if curve.axis in DESCENDING else 1])
    values = [factor(curve) * end for each in curves for point in each.points for end in (point.low, point.high)]
    values += [factor(curve) * each.chance for each in curves if each.chance is not None]
    low, high = min(values), max(values)
    if is_percent(curve.score):
        low, high = 0.0, 100.0 if curve.score.startswith("top") else min(100.0, max(high, 1.0))
    elif 0 < low < 0.6 * high:
        low = 0.0
    steps = enclosing_ticks(low, high, count)
    axes.set_ylim(steps[0], steps[-1])
    axes.set_yticks(steps)
    axes.yaxis.set_major_formatter(lambda value, _: number(round(value, 9)))
    if words_at:
        axes.set_xlabel(words(capital(study.axis_name(curve.axis))))
        axes.set_ylabel(words(score_label(study, curve.score)))
    if (chance := chance_of(curves)) is not None:
        axes.axhline(factor(curve) * chance, **CHANCE, zorder=1, gid="class:chance")


CHANCE: Any = {"color": QUIET, "linewidth": 1.0, "linestyle": (0, (2, 3))}


def chance_of(curves: Sequence[Curve]) -> float | None:
    """The level of chance, if it is the same for all."""
    chances = {curve.chance for curve in curves}
    return chances.pop() if len(chances) == 1 else None


def legend(
    figure: Any, names: Mapping[str, int], *, chance: bool, columns: int | None = None, lines: bool = True
) -> None:
    """Names of the lines, or of marks alone: in columns above, or stacked on the right."""
    from matplotlib.lines import Line2D

    alone = {} if lines else {"linestyle": "none"}
    drawn = [Line2D([], [], label=words(name), **look(style) | alone) for name, style in names.items()]
    drawn += [Line2D([], [], label="chance", **CHANCE)] if chance else []
    if columns is None and len(drawn) <= 16:
        figure.legend(handles=drawn, loc="outside right center")
    else:
        figure.legend(handles=drawn, loc="outside upper center", ncols=columns or 4)


def law(axes: Axes, dots: Sequence[Dot], style: int, beside: Sequence[Dot]) -> None:
    """Measured against predicted losses, those of the held-out scale filled; the axes cover `beside`."""
    ends = [end for dot in beside for end in (dot.predicted, dot.measured)]
    span = reach(ends)
    axes.set(xscale="log", yscale="log", xlim=span, ylim=span)
    axes.plot(span, span, color=QUIET, linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
    own = look(style)
    for dot in dots:
        face = {"linestyle": "none", "markerfacecolor": own["color"] if dot.held_out else GROUND}
        said = f"predicted {dot.predicted:.3g}, measured {dot.measured:.3g}{', held out' if dot.held_out else ''}"
        axes.plot([dot.predicted], [dot.measured], **own | face, gid=f"say:{said}")
    axes.minorticks_off()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(log_ticks(min(ends), max(ends)))
        axis.set_major_formatter(lambda value, _: short(value))
