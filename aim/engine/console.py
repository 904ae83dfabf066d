"""Lines, tables and bars on a terminal; names of files, classes and runs are never taken for markup or emojis."""

import time
from collections.abc import Iterable, Sequence
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from aim.clock import clock

LINE_SECONDS = 30.0  # without a terminal

Overflow = Literal["fold", "ellipsis"]


def plain_console(*, soft_wrap: bool = True, quiet: bool = False) -> Console:
    """A console that prints what it is given as it is."""
    return Console(markup=False, emoji=False, highlight=False, soft_wrap=soft_wrap, quiet=quiet)


def plain_table(
    rows: Iterable[Sequence[str]],
    head: Sequence[str] = (),
    *,
    title: str | None = None,
    overflow: Overflow = "ellipsis",
) -> Table:
    """A table of cells that are shown as they are; without a head it has none."""
    rows = list(rows)
    table = Table(title=None if title is None else Text(title, "table.title"), show_header=bool(head))
    for i in range(max(len(row) for row in (head, *rows))):
        table.add_column(Text(head[i]) if i < len(head) else "", overflow=overflow)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


class Display:
    """A bar on a terminal, a line every half minute elsewhere; silent on other ranks than the first."""

    def __init__(self, title: str, total: int, *, visible: bool, start: int = 0) -> None:
        self.console = plain_console(quiet=not visible)
        self.title, self.total, self.done, self.start = title, total, start, start
        self.began = self.last_line = time.monotonic()
        self.bar: Progress | None = None
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}", markup=False),
            )
            self.bar = Progress(*columns, console=self.console)
            self.task = self.bar.add_task(title, total=total, completed=start, text="")

    def __enter__(self) -> "Display":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def update(self, done: int, text: str) -> None:
        """Show that `done` of all steps are behind us."""
        self.done = done
        text = f"{text}  {clock(self.seconds_left)} left"
        if self.bar:
            self.bar.update(self.task, completed=done, text=text)
        elif time.monotonic() - self.last_line >= LINE_SECONDS:
            self.last_line = time.monotonic()
            self.say(f"{self.title} {done}/{self.total}  {text}")

    @property
    def seconds_left(self) -> float:
        pace = (time.monotonic() - self.began) / max(1, self.done - self.start)
        return pace * (self.total - self.done)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(text)
