"""The rows of a list of videos as text, and what they mean: the lines of a list file, or of a table with a header.

Between the fields of a row stand spaces, tabs, commas or semicolons. `video_of` makes a video of a row; nothing else
reads a label.
"""

import codecs
import csv
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeVar

from aim.data.lists import (
    BETWEEN,
    FOLLOWED,
    NONE,
    NOTHING,
    README,
    Video,
    entries,
    labels_in,
    nfc,
    read_lines,
    split_of,
    unquoted,
)
from aim.data.scanning import is_video_name, some
from aim.ground.errors import UserError, nearest
from aim.ground.foreign import reading

COLUMNS = {  # what a column may be called, in any case and with any signs between its words
    "path": ("path", "file", "filename", "file_name", "filepath", "video", "video_path", "clip"),
    "label": ("label", "class", "action", "category", "class_name", "label_name"),
    "start": ("start", "t_start", "begin", "start_time", "start_s", "start_sec", "start_seconds"),
    "end": ("end", "t_end", "stop", "end_time", "end_s", "end_sec", "end_seconds"),
    "split": ("split", "subset", "set"),
    "group": ("group", "subject", "person", "participant"),
}
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", " ": "spaces"}
A_LINE = "a line is a path and a label, with a space, a tab, a comma or a semicolon between them"
FIRST = 65536  # bytes in which a header ends


T = TypeVar("T")
R = TypeVar("R")


class Row(NamedTuple):
    """A video as a line of a list says it, all of it text; what isn't said is empty."""

    path: str
    label: str
    start: str = ""  # seconds
    end: str = ""
    split: str = ""
    group: str = ""
    place: str = ""  # FILE:LINE


@dataclass(frozen=True)
class Labels:
    """The classes as labels name them: by a name or, counted from 0, by a line of classes.txt.

    Without classes any text may be a name: `named_classes` finds them.
    """

    classes: Sequence[str] = ()
    numbers_are_names: bool = False  # of classes that are called 1, 2, 3

    @cached_property
    def by_name(self) -> dict[str, int]:
        """The classes by name, as it is compared with others."""
        return {nfc(name): number for number, name in enumerate(self.classes)}

    def knows(self, text: str) -> bool:
        """Whether a text may be a label."""
        return bool(text) and (not self.classes or text.isdecimal() or nfc(text) in self.by_name)

    def fits(self, text: str) -> bool:
        """Whether a text may be a label, several, or the sign of none."""
        return self.knows(text) or text == NOTHING or len(self.each(text)) > 1

    def each(self, text: str) -> list[str]:
        """The labels of a text, with a comma, a semicolon or a bar between several; `-` is none."""
        if text == NOTHING and NOTHING not in self.by_name:
            return []
        return labels_in(text, self.by_name) or [text]

    def numbers(self, text: str) -> list[int]:
        """The classes of each label in a text. Raises ValueError for what names none."""
        return [self.number(each) for each in self.each(text)]

    def number(self, text: str) -> int:
        """The class that a label names. Raises ValueError for none."""
        if text.isdecimal() and not self.numbers_are_names:
            number = int(text)
            if number >= len(self.classes):
                raise ValueError(
                    f"label {text} is not among the {len(self.classes)} classes, 0 to {len(self.classes) - 1}"
                )
            return number
        if not text:
            raise ValueError(f"no label; {A_LINE}")
        if nfc(text) not in self.by_name:
            raise ValueError(f"{text!r} is neither a class of classes.txt nor a number{nearest(text, self.classes)}")
        return self.by_name[nfc(text)]


def video_of(row: Row, labels: Labels) -> Video:
    """The video of a row: its path, its part of the file, and the numbers of its classes. Raises ValueError.

    The one place where a label becomes what a model learns.
    """
    return Video(row.path, NONE, *times(row)).labelled(labels.numbers(row.label))


def times(row: Row) -> tuple[float | None, float | None]:
    """The part of a file that a row is of, in seconds; all of it where it says nothing. Raises ValueError."""
    if not row.start and not row.end:
        return None, None
    try:
        start, end = float(row.start), float(row.end)
    except ValueError as error:
        raise ValueError(f"start={row.start!r} and end={row.end!r} must be seconds, or both empty") from error
    if not 0 <= start < end:
        raise ValueError(f"a segment from {start} to {end} seconds")
    return start, end


def videos_of(rows: Iterable[Row], labels: Labels) -> list[Video]:
    """The videos of all rows. Raises UserError with the first wrong ones."""
    return _each(rows, lambda row: video_of(row, labels), lambda row: row.place)


def read_list(path: Path, classes: Sequence[str]) -> list[Video]:
    """The videos of a list file. Raises UserError with the first wrong lines."""
    return videos_of(read_rows(path, Labels(classes))[0], Labels(classes))


def read_rows(path: Path, labels: Labels) -> tuple[list[Row], str]:
    """The rows of a list file, and what is in its columns if it is a table. Raises UserError with the first wrong ones.

    A table is a file whose first line names a path and a label.
    """
    lines = [*entries(read_lines(path))]
    if not lines:
        raise UserError(f"{path} names no video; {README}")
    if {"path", "label"} <= columns_in(lines[0][1]).keys():
        return _rows_of_table(path, lines)
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
    label = _plain(label)
    return (label, start, end) if labels.fits(label) and "\t" not in label else None


def _plain(text: str) -> str:
    """A label without the quotes around it."""
    name, rest = unquoted(text)
    return text if name is None or rest.strip() else name


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def header(path: Path) -> str:
    """The first line of a file."""
    with path.open("rb") as file:
        content = file.read(FIRST)
    coding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    return content.decode(coding, errors="replace").lstrip().partition("\n")[0].removesuffix("\r")


def separator(line: str) -> str:
    """What stands between the columns of a table with this first line."""
    found = max(",;\t", key=line.count)
    return found if found in line else " "


def columns_in(line: str) -> dict[str, int]:
    """What is in which column of a table with this first line, by their names; the first of several counts."""
    cells = next(csv.reader([line], delimiter=separator(line), skipinitialspace=True), [])
    known = {_letters(name): place for place, name in reversed([*enumerate(cells)])}
    return {
        what: known[_letters(name)]
        for what, usual in COLUMNS.items()
        for name in reversed(usual)
        if _letters(name) in known
    }


def _letters(name: str) -> str:
    """A column's name without case, spaces and signs: `Video Path`, `video-path` and VideoPath are video_path."""
    return re.sub(r"[\W_]+", "", name.casefold())


def _rows_of_table(path: Path, lines: Sequence[tuple[int, str]]) -> tuple[list[Row], str]:
    """The rows of a table, whose first line names its columns, and in words what is in which."""
    first = lines[0][1]
    sign, columns = separator(first), columns_in(first)
    reader = csv.reader([text for _, text in lines], delimiter=sign, skipinitialspace=True)
    with reading(path, "a table", README):
        (_, names), *read = [(lines[reader.line_num - 1][0], cells) for cells in reader]
    rows = list[Row]()
    for number, cells in read:
        place = f"{path}:{number}"
        found = {what: cells[at].strip() if at < len(cells) else "" for what, at in columns.items()}
        if len(cells) > len(names) or not found["path"]:
            raise UserError(
                f"{place}: a row has one {names[columns['path']]!r}, one {names[columns['label']]!r} and no more than "
                f"its {len(names)} columns, with {SEPARATORS[sign]} between them; quote a text that holds these"
            )
        rows.append(Row(**found, place=place))
    if not rows:
        raise UserError(f"{path} names columns and no video; {README}")
    if ("start" in columns) != ("end" in columns):
        has, lacks = ("start", "end") if "start" in columns else ("end", "start")
        raise UserError(f"{path} has a column {names[columns[has]]!r} and none for the {lacks}; {README}")
    without = [row for row in rows if not row.start and not row.end]
    if without and len(without) < len(rows):
        raise UserError(
            f"{without[0].place}: {len(without)} of {len(rows)} rows of the table have no start and end; fill them in "
            "all rows, or split the table in two"
        )
    used = ", ".join(f"{what}={names[at].strip()!r}" for what, at in columns.items())
    unread = [repr(name.strip()) for at, name in enumerate(names) if at not in columns.values()]
    others = f"; not read: {some(unread)}" if unread else ""
    return rows, f"columns of {path}, with {SEPARATORS[sign]} between them: {used}{others}"


def settled(rows: Sequence[Row], classes: Sequence[str], where: Path) -> Labels:
    """The labels of these rows, where `where` names the classes. Raises UserError for labels that mean two things.

    That may be so with classes called 1, 2, 3, whose lines are 0, 1, 2.
    """
    labels = Labels(classes)
    numbers = {label for row in rows for label in labels.each(row.label) if label.isdecimal()}
    two = [text for text in sorted(numbers, key=int) if labels.by_name.get(text, int(text)) != int(text)]
    if not two:
        if str(len(classes)) in numbers and "0" not in numbers and all(int(text) <= len(classes) for text in numbers):
            row = next(row for row in rows if str(len(classes)) in labels.each(row.label))
            raise UserError(
                f"{row.place}: label {len(classes)} is not among the {len(classes)} classes of {where}, 0 to "
                f"{len(classes) - 1}, and none is 0: labels seem to count from 1; count from 0, or write the names"
            )
        return labels
    as_names = numbers <= labels.by_name.keys()
    if as_names and all(int(text) < len(classes) for text in numbers):
        text = two[0]
        raise UserError(
            f"{next(row.place for row in rows if text in labels.each(row.label))}: label {text} is class "
            f"{classes[int(text)]!r}, by the lines of {where} counted from 0, or the class named {text!r}; give the "
            f"classes of {where} names that are no numbers, or count from 0"
        )
    return Labels(classes, numbers_are_names=as_names)


def named_classes(rows: Sequence[Row], where: str) -> list[str]:
    """The classes that labels in words name, sorted, where no classes.txt does.

    Several labels are such where each is one of another video, too. Raises UserError for two spellings of a class,
    numbers beside words, and for several labels of which only some are of other videos.
    """
    counts = Counter(row.label for row in rows if row.label not in ("", NOTHING))
    alone = {nfc(name): 0 for name in counts if not re.search(BETWEEN, name)}
    for name in [*counts.keys() - alone.keys()]:
        if several := labels_in(name, alone):
            number = counts.pop(name)
            counts.update(dict.fromkeys(several, number))
        elif known := [part for part in re.split(rf"\s*{BETWEEN}\s*", name) if nfc(part) in alone]:
            raise UserError(
                f"{where}: {name!r} may be one class or several, as {known[0]!r} is one; name them in classes.txt"
            )
    if twice := alike(counts):
        both = " and ".join(f"{name!r} ({counts[name]} videos)" for name in twice[0])
        raise UserError(
            f"{where}: {both} may be one class; write it in one way, or name both in classes.txt if they are two"
        )
    numbers = sorted((name for name in counts if name.isdecimal()), key=int)
    if numbers and len(numbers) < len(counts):
        word = next(name for name in counts if not name.isdecimal())
        raise UserError(f"{where}: some labels are numbers, such as {numbers[0]}, and some are words, such as {word!r}")
    return numbers or sorted({nfc(name): name for name in sorted(counts)}.values())


def alike(names: Iterable[str]) -> list[list[str]]:
    """The names that may be spellings of one: they differ in case, in spaces, or in signs that stand for these."""
    spelt = defaultdict[str, list[str]](list)
    for name in sorted(names):
        spelt[re.sub(r"[\s_-]+", " ", nfc(name)).strip().casefold()].append(name)
    return [own for own in spelt.values() if len({*map(nfc, own)}) > 1]


def groups_of(rows: Iterable[Row]) -> dict[str, str]:
    """The group of each path by NFC, as far as rows say it. Raises UserError for a video in two groups."""
    found = dict[str, str]()
    for row in rows:
        if row.group and (first := found.setdefault(nfc(row.path), row.group)) != row.group:
            raise UserError(f"{row.place}: {row.path} is in group {first!r} and in {row.group!r}; keep one")
    return found


def check_split(rows: Iterable[Row], part: str) -> None:
    """Raise UserError where a list of a split has rows that say they are of another."""
    if other := next((row for row in rows if row.split and split_of(row.split) != part), None):
        raise UserError(
            f"{other.place}: split={other.split!r} in the list for {part}; a table with all splits is data.train=FILE "
            "alone, or lies in data.root without train.txt"
        )
