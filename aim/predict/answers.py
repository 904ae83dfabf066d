"""Answers about a video, or about some seconds of it: as a table for a person, as JSON lines, as CSV."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.bar import Bar
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from aim.data.windows import Span
from aim.engine.scores.tasks import SINGLE_LABEL, Limit, Task
from aim.ground import files
from aim.ground.errors import printable
from aim.predict.timeline import Timeline

NONE = "none of these"
BAR, PERCENT, GAP = 24, 7, 2  # characters
SHORT = 12  # of a label, before a bar is shortened
INDENT, GIVEN = " ", "*"
SUFFIXES = (".csv", ".jsonl")
PREFIX = "probability:"  # of a class's column, whatever its name


@dataclass(frozen=True)
class Answer:
    """The labels of a video, or of a window of it; or why it can't be read."""

    name: str  # of the video, as it was given
    best: Sequence[tuple[str, float]] = ()  # label and probability, the most probable first
    given: Sequence[str] = ()  # those that are the answer
    several: bool = False  # there may be any number of them
    span: Span | None = None  # of the window
    error: str | None = None
    probability: Sequence[float] = ()  # of each class, in their order

    @property
    def label(self) -> str | Sequence[str] | None:
        """The label, None where it has none; where there may be several, all of them."""
        return self.given if self.several else next(iter(self.given), None)

    @property
    def shown(self) -> list[tuple[str, float | None]]:
        """The rows of a caption: where there may be several labels, those alone; NONE first where there is none."""
        best = [pair for pair in self.best if pair[0] in self.given or not self.given or not self.several]
        return [*([] if self.given else [(NONE, None)]), *best]


def answers_of(
    name: str,
    found: Tensor | Timeline | str,
    classes: Sequence[str],
    top: int,
    at_least: Limit,
    task: Task = SINGLE_LABEL,
) -> list[Answer]:
    """What there is to say of a video with probabilities "k", of each window of one, or of why it can't be read."""
    if isinstance(found, str):
        return [Answer(name, error=found)]
    if isinstance(found, Timeline):
        rows = zip(found.probability, found.spans, strict=True)
        return [_answer(name, probability, classes, top, at_least, found.task, span) for probability, span in rows]
    return [_answer(name, found, classes, top, at_least, task, None)]


def _answer(
    name: str,
    probability: Tensor,
    classes: Sequence[str],
    top: int,
    at_least: Limit,
    task: Task,
    span: Span | None,
) -> Answer:
    """The `top` labels and all that are given; equally probable ones in the order of the classes."""
    if probability.isnan().any():
        return Answer(name, span=span, error="no frames: a pause")
    given = task.given(probability, at_least).tolist()
    order = probability.argsort(descending=True, stable=True).tolist()
    best = [(classes[i], float(probability[i])) for rank, i in enumerate(order) if rank < top or given[i]]
    chosen = [classes[i] for i in order if given[i]]
    return Answer(name, best, chosen, task.several, span, probability=probability.tolist())


def as_json(found: Answer) -> str:
    """An answer as one line."""
    line: dict[str, Any] = {"path": found.name}
    if found.span:
        line |= {"start": round(found.span.start, 3), "end": round(found.span.end, 3)}
    if found.error is not None:
        line["error"] = found.error
    else:
        line["label"] = found.label
        line["labels"] = [{"label": label, "probability": round(value, 4)} for label, value in found.best]
    return json.dumps(line, ensure_ascii=False)


def write(path: Path, found: Sequence[Answer], classes: Sequence[str]) -> None:
    """Write all answers, by the name's suffix as CSV or JSON lines, whole or not at all.

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


def write_segments(
    path: Path, found: Sequence[tuple[str, Timeline | str]], classes: Sequence[str], at_least: Limit
) -> None:
    """Write the segments of time lines, or why there are none: path, start, end, label, mean probability, error."""
    rows = list[dict[str, Any]]()
    for name, line in found:
        if isinstance(line, str):
            rows.append({"path": name, "error": line})
            continue
        for x in line.segments(at_least):
            label = None if x.label is None else classes[x.label]
            span = {"start": round(x.start, 3), "end": round(x.end, 3)}
            rows.append({"path": name} | span | {"label": label, "probability": round(x.probability, 4)})
    if path.suffix == ".jsonl":
        files.write_lines(path, (json.dumps(row, ensure_ascii=False) for row in rows))
        return
    names = ("path", "start", "end", "label", "probability", "error")
    digits = {"start": 3, "end": 3, "probability": 4}

    def cell(value: str | float | None, key: str) -> str:
        return NONE if value is None else f"{value:.{digits[key]}f}" if isinstance(value, float) else value

    files.write_csv(path, names, ([cell(row.get(key, ""), key) for key in names] for row in rows))


def show(
    console: Console,
    name: str,
    found: Tensor | Timeline | str,
    classes: Sequence[str],
    top: int,
    at_least: Limit,
    task: Task = SINGLE_LABEL,
) -> None:
    """The video's name as it is, and under it a line for each label, or for each segment of a time line.

    Where a video may have several labels, a sign stands before those that are given.
    """
    console.print(printable(name), soft_wrap=True)
    if isinstance(found, Timeline):
        rows: list[tuple[str, str, float | None]] = [
            (f"{moment(x.start)} to {moment(x.end)}", NONE if x.label is None else classes[x.label], x.probability)
            for x in found.segments(at_least)
        ]
        console.print(bars(rows, console.width))
        return
    (said,) = answers_of(name, found, classes, top, at_least, task)
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
    """Lines of a time, a label, which is cut where the terminal is narrow, a bar and a percentage."""
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
