"""Lines, tables and bars on a terminal; names of files, classes and runs are never taken for markup or emojis."""

import logging
import math
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column, Table
from rich.text import Text

from aim.ground.clock import clock
from aim.ground.errors import printable

LINE_SECONDS = 30.0  # without a terminal; and the longest step without an explanation
PACED_STEPS, PACED_SECONDS = 2, 5.0  # after which the time left can be told
SLOW = (  # ways to a shorter step of a model
    "a smaller trunk (backbone=NAME), train.batch_size, clip.size or clip.num_frames makes it shorter; "
    "aim.benchmark tells computing and reading apart"
)

Overflow = Literal["fold", "ellipsis"]


@contextmanager
def without_logs() -> Iterator[None]:
    """Inside, no library logs anything."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def plain_console(*, soft_wrap: bool = True, quiet: bool = False, stderr: bool = False) -> Console:
    """A console that prints text unchanged."""
    return Console(markup=False, emoji=False, highlight=False, soft_wrap=soft_wrap, quiet=quiet, stderr=stderr)


def plain_table(
    rows: Iterable[Sequence[str]],
    head: Sequence[str] = (),
    *,
    title: str | None = None,
    overflow: Overflow = "ellipsis",
) -> Table:
    """A table of cells that are shown as they are; without a head it has none."""
    rows = list(rows)
    table = Table(title=None if title is None else Text(printable(title), "table.title"), show_header=bool(head))
    for i in range(max(len(row) for row in (head, *rows))):
        table.add_column(Text(head[i]) if i < len(head) else "", overflow=overflow)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table


class Display:
    """A bar on a terminal, a line every half minute elsewhere; silent on other ranks than the first.

    With a `hint` it says, once, that a step takes longer than that. A display that `concludes` ends with a line,
    however short it was.
    """

    def __init__(
        self,
        title: str,
        total: int,
        *,
        visible: bool,
        start: int = 0,
        hint: str = "",
        concludes: bool = False,
        stderr: bool = False,
    ) -> None:
        self.console = plain_console(quiet=not visible, stderr=stderr)
        self.title, self.total, self.done = title, total, start
        self.hint, self.concludes, self.closed = hint if visible else "", concludes, threading.Event()
        self.last_line = self.last_step = time.monotonic()
        self.first: tuple[int, float] | None = None  # the step that was done first, and when: it starts processes
        self.bar: Progress | None = None
        if self.console.is_terminal:
            columns = (  # the most important first: a narrow terminal cuts the text at its end
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=10),
                MofNCompleteColumn(),
                TextColumn("{task.fields[left]}", markup=False),
                TextColumn("{task.fields[text]}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
            )
            # Lines printed meanwhile appear above the bar; output to a pipe must not.
            self.bar = Progress(*columns, console=self.console, expand=True, redirect_stdout=not stderr)
            self.task = self.bar.add_task(title, total=total, completed=start, left="", text="")

    def __enter__(self) -> "Display":
        if self.bar:
            self.bar.start()
        self.resume()
        if self.hint:
            threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()
        if self.bar:
            self.bar.stop()

    def update(self, done: int, text: str) -> None:
        """Show that `done` of all steps are behind us."""
        self.done, self.last_step = done, time.monotonic()
        self.first = self.first or (done, self.last_step)
        left = "" if self.seconds_left is None else f"{clock(self.seconds_left)} left"
        if self.bar:
            self.bar.update(self.task, completed=done, left=left, text=text)
        elif self.last_step - self.last_line >= LINE_SECONDS or (self.concludes and done == self.total):
            self.last_line = self.last_step
            self.say("  ".join(part for part in (f"{self.title} {done}/{self.total}", left, text) if part))

    def pause(self) -> None:
        """Pause for other work, up to `resume`."""
        self.last_step = math.inf

    def resume(self) -> None:
        """A step begins."""
        self.last_step = time.monotonic()

    def look(self) -> bool:
        """Whether the current step takes too long, with a message."""
        if slow := time.monotonic() - self.last_step > LINE_SECONDS:
            self.say(f"{self.title}: step {self.done + 1} takes longer than half a minute; {self.hint}")
        return slow

    def _watch(self) -> None:
        while not self.closed.wait(1.0) and not self.look():
            pass

    @property
    def seconds_left(self) -> float | None:
        """By the steps since the first one; None as long as those are too few to tell."""
        if self.done == self.total:
            return 0.0
        if self.first is None:
            return None
        done, seconds = self.done - self.first[0], self.last_step - self.first[1]
        if done < PACED_STEPS or seconds < PACED_SECONDS:
            return None
        return seconds / done * (self.total - self.done)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(printable(text))
