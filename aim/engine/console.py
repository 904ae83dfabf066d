"""Lines and tables on a terminal, in which names of files, classes and runs are never taken for markup or emojis."""

from collections.abc import Iterable, Sequence
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

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
