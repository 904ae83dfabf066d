"""The rows of a list of videos as text, and their meaning: the lines of a list file, or of a table with a header.

Between the fields of a row stand spaces, tabs, commas or semicolons. `video_of` makes a video of a row; nothing else
reads a label.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from aim.data.columns import Row, columns_in, rows_of_table
from aim.data.labels import Labels
from aim.data.lists import FOLLOWED, NONE, README, Video, entries, nfc, parse_class, read_lines, split_of, unquoted
from aim.data.scanning import is_video_name
from aim.ground.errors import UserError

A_LINE = "a line is a path and a label, with a space, a tab, a comma or a semicolon between them"


T = TypeVar("T")
R = TypeVar("R")


def video_of(row: Row, labels: Labels) -> Video:
    """The video of a row: its path, its part of the file, and the numbers of its classes. Raises ValueError.

    The one place where a label becomes a model's target.
    """
    return Video(row.path, NONE, *times(row)).labelled(labels.numbers(row.label))


def times(row: Row) -> tuple[float | None, float | None]:
    """The part of a file that a row is of, in seconds; all of it where it says nothing. Raises ValueError."""
    if not row.start and not row.end:
        return None, None
    try:
        start, end = in_seconds(row.start), in_seconds(row.end)
    except ValueError as error:
        raise ValueError(
            f"start={row.start!r} and end={row.end!r} must be seconds or a clock's 0:01:02.5, or both empty"
        ) from error
    if not 0 <= start < end < math.inf:
        raise ValueError(f"a segment from {start} to {end} seconds")
    return start, end


def in_seconds(text: str) -> float:
    """Seconds, or minutes or hours before them with colons: 62.5, 1:02.5, 0:01:02.5. Raises ValueError."""
    *larger, last = text.split(":")
    if not larger:
        return float(last)
    if len(larger) > 2 or not all(part.isdecimal() for part in larger):
        raise ValueError(f"{text!r} is no time")
    seconds = float(last)
    for factor, part in zip((60, 3600), reversed(larger), strict=False):
        seconds += factor * int(part)
    return seconds


def videos_of(rows: Iterable[Row], labels: Labels) -> list[Video]:
    """The videos of all rows. Raises UserError with the first wrong ones."""
    return _each(rows, lambda row: video_of(row, labels), lambda row: row.place)


def read_list(path: Path, classes: Sequence[str]) -> list[Video]:
    """The videos of a list file. Raises UserError with the first wrong lines."""
    return videos_of(read_rows(path, Labels(classes))[0], Labels(classes))


def read_rows(path: Path, labels: Labels, video: str = "") -> tuple[list[Row], str]:
    """The rows of a list file, and a table's columns in words. Raises UserError with the first wrong ones.

    A table is a file whose first line names a path and a label; or a label of one `video`, of which it is.
    """
    lines = [*entries(read_lines(path))]
    if not lines:
        raise UserError(f"{path} names no video; {README}")
    if {"path", "label"} - ({"path"} if video else set()) <= columns_in(lines[0][1]).keys():
        return rows_of_table(path, lines, video)
    place = "{}:{}".format
    rows = _each(lines, lambda line: divided(line[1], labels), lambda line: place(path, line[0]))
    return [row._replace(place=place(path, number)) for row, (number, _) in zip(rows, lines, strict=True)], ""


def _each(given: Iterable[T], change: Callable[[T], R], place: Callable[[T], str]) -> list[R]:
    """All of the given, changed. Raises UserError with the places and reasons of the first that can't be."""
    found, problems = [], []
    for one in given:
        try:
            found.append(change(one))
        except ValueError as error:
            problems.append(f"{place(one)}: {error}")
    if problems:
        raise UserError("; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else ""))
    return found


def divided(line: str, labels: Labels) -> Row:
    """A line without named columns: `path label`, or `path<TAB>start<TAB>end<TAB>label`; commas do as well.

    There may be several labels, `label,label`, or none, `-`. Of a path and of a label with spaces, the longest label
    counts. Raises ValueError with the reason.
    """
    name, rest = unquoted(line)
    text = line.strip()
    follows = None if name is not None else FOLLOWED.fullmatch(text)
    if name is None:
        sure = [text.find("\t")] * ("\t" in text) + ([follows.end(1)] if follows else [])
        found = _divided_at(sure, text, labels)
        rest = text[follows.end(1) :] if follows else text.partition("\t")[2]
    else:
        found = (name, *after) if name and (after := _after(rest, labels)) else None
    label = rest.strip(" \t,;")
    if found is None and name is None:
        spaces = [space.start() for space in re.finditer(r"\s+", text)] if labels.classes else []
        named = [end for end in spaces if nfc(text[end:].strip()) in labels.by_name]
        numbers = labels.each(text.rpartition(" ")[2])
        number = [text.rfind(" ")] if labels.classes and all(each.isdecimal() for each in numbers) else []
        every = [*re.finditer(r"\s+|\s*[,;]\s*", text)]
        only = [every[0].start()] if len(every) == 1 and not is_video_name(text) else []
        found = _divided_at([*number, *named, *only], text, labels)
    if found is not None:
        return Row(*found)
    if labels.classes and label and (name is not None or follows) and not is_video_name(text):
        try:
            labels.number(label)
        except ValueError as error:
            raise ValueError(f"{text!r}: {error}") from error
    raise ValueError(f"{text!r} has no label; {A_LINE}, and the label a number from 0 on, or a class's name")


def _divided_at(ends: Iterable[int], text: str, labels: Labels) -> tuple[str, str, str, str] | None:
    """Path, label, start and end of a line whose path ends at the first of these places where a label may follow."""
    for end in ends:
        path = text[:end].strip()
        if path and "\t" not in path and (after := _after(text[end:], labels)):
            return (path, *after)
    return None


def _after(rest: str, labels: Labels) -> tuple[str, str, str] | None:
    """The label, the start and the end that follow a path, with the separator before them; None for other text."""
    text = rest.strip(" ")
    sign = text[0] if text and text[0] in "\t,;" else " "
    body = text.removeprefix(sign).strip()
    fields = [field.strip() for field in body.split(sign, 2)]
    is_part = sign != " " and len(fields) == 3 and all(map(_is_number, fields[:2]))
    start, end, label = fields if is_part else ("", "", body)
    label = parse_class(label)
    return (label, start, end) if labels.fits(label) and "\t" not in label else None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def groups_of(rows: Iterable[Row]) -> dict[str, str]:
    """The group of each path by NFC, as far as rows say it. Raises UserError for a video in two groups."""
    found = dict[str, str]()
    for row in rows:
        if row.group and (first := found.setdefault(nfc(row.path), row.group)) != row.group:
            raise UserError(f"{row.place}: {row.path} is in group {first!r} and in {row.group!r}; keep one")
    return found


def check_split(rows: Iterable[Row], part: str) -> None:
    """Raise UserError if a list of a split has rows that say they are of another."""
    if other := next((row for row in rows if row.split and split_of(row.split) != part), None):
        raise UserError(
            f"{other.place}: split={other.split!r} in the list for {part}; a table with all splits is data.train=FILE "
            "alone, or lies in data.root without train.txt"
        )
