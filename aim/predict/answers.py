"""Answers as a table on a terminal, as JSON lines, as CSV."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.bar import Bar
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from aim.engine.trained.answer import NONE, Answer, Asking, as_json
from aim.engine.trained.timeline import Timeline
from aim.ground import files
from aim.ground.errors import printable

BAR, PERCENT, GAP = 24, 7, 2  # characters
SHORT = 12  # of a label, before its bar is shortened
INDENT, GIVEN = " ", "*"
SUFFIXES = (".csv", ".jsonl")
PREFIX = "probability:"  # of a class's column, whatever its name


def write(path: Path, found: Sequence[Answer], classes: Sequence[str]) -> None:
    """Write all answers, by the name's suffix as CSV or JSON lines, atomically.

    A row of the CSV: path, the window's start and end in seconds, the label, an error, the best labels, and the
    probability of each class.
    """
    if path.suffix == ".jsonl":
        files.write_lines(path, map(as_json, found))
        return
    ranks = range(1, max((len(x.best) for x in found), default=0) + 1)
    head = ["path", "start", "end", "label", "error"]
    head += [f"{key}_{i}" for i in ranks for key in ("label", "probability")]

    def row(x: Answer) -> list[str]:
        span = [f"{value:.3f}" for value in x.span] if x.span else ["", ""]
        given = x.label
        label = (given if isinstance(given, str) else ",".join(given or ()) or NONE) if x.error is None else ""
        pairs = [cell for name, value in x.best for cell in (name, f"{value:.4f}")]
        pairs += [""] * (2 * len(ranks) - len(pairs))
        each = [f"{value:.6f}" for value in x.probability] or [""] * len(classes)
        return [x.name, *span, label, x.error or "", *pairs, *each]

    files.write_csv(path, [*head, *(f"{PREFIX}{name}" for name in classes)], map(row, found))


def write_segments(path: Path, found: Sequence[tuple[str, Timeline | str]], asking: Asking) -> None:
    """Write the segments of time lines, or the reason for none: path, start, end, label, mean probability, error."""
    rows = [row for name, line in found for row in asking.segments(name, line)]
    if path.suffix == ".jsonl":
        files.write_lines(path, (json.dumps(row, ensure_ascii=False) for row in rows))
        return
    names = ("path", "start", "end", "label", "probability", "error")
    digits = {"start": 3, "end": 3, "probability": 4}

    def cell(value: str | float | None, key: str) -> str:
        return NONE if value is None else f"{value:.{digits[key]}f}" if isinstance(value, float) else value

    files.write_csv(path, names, ([cell(row.get(key, ""), key) for key in names] for row in rows))


def show(console: Console, name: str, found: Tensor | Timeline | str, asking: Asking) -> None:
    """The video's name unchanged, and below it a line for each label, or for each segment of a time line.

    With several labels a video, a sign marks the given ones.
    """
    console.print(printable(name), soft_wrap=True)
    if isinstance(found, Timeline):
        rows: list[tuple[str, str, float | None]] = [
            (f"{moment(x.start)} to {moment(x.end)}", x.named(asking.classes) or NONE, x.probability)
            for x in found.segments(asking.at_least)
        ]
        console.print(bars(rows, console.width))
        return
    (said,) = asking.answers(name, found)
    if said.error is not None:
        console.print(f"  could not be read: {printable(said.error)}", soft_wrap=True)
        return
    rows = [] if said.given else [(INDENT, NONE, None)]
    signs = [GIVEN if said.several and label in said.given else INDENT for label, _ in said.best]
    rows += [(sign, *pair) for sign, pair in zip(signs, said.best, strict=True)]
    console.print(bars(rows, console.width))


def moment(seconds: float) -> str:
    """A time in a video: 0:01:05.2."""
    tenths = round(10 * seconds)
    return f"{tenths // 36000}:{tenths // 600 % 60:02d}:{tenths // 10 % 60:02d}.{tenths % 10}"


def bars(rows: Sequence[tuple[str, str, float | None]], width: int) -> Table:
    """Lines of a time, a label (cut on a narrow terminal), a bar and a percentage."""
    time = max(len(time) for time, _, _ in rows)
    room = width - time - PERCENT - 3 * GAP  # for label and bar
    bar = min(BAR, max(1, room - SHORT))
    label = min(max(cell_len(label) for _, label, _ in rows), room - bar)
    table = Table.grid(padding=(0, GAP, 0, 0))
    for column in (time, label, bar, PERCENT):
        table.add_column(width=column, overflow="ellipsis", no_wrap=True)
    for start, name, value in rows:
        shown = ["", ""] if value is None else [Bar(1, 0, value, width=bar), f"{100 * value:5.1f} %"]
        table.add_row(start, Text(printable(name)), *shown)
    return table
