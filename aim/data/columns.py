"""The columns of a table of videos, found by their names in its first line."""

import codecs
import csv
import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from aim.data.lists import README
from aim.data.scanning import is_video_name, some
from aim.ground.errors import UserError
from aim.ground.foreign import reading

COLUMNS = {  # names of a column, in any case and with any signs between its words
    "path": ("path", "file", "filename", "file_name", "filepath", "video", "video_path", "clip", "media_file_name"),
    "label": (
        "label",
        "class",
        "action",
        "category",
        "class_name",
        "label_name",
        "annotation",
        "behavior",
        "behaviour",
    ),
    "start": (
        "start",
        "t_start",
        "begin",
        "start_time",
        "start_s",
        "start_sec",
        "start_seconds",
        "begin_time",
        "begin_time_ss_msec",
    ),
    "end": ("end", "t_end", "stop", "end_time", "end_s", "end_sec", "end_seconds", "stop_s", "end_time_ss_msec"),
    "split": ("split", "subset", "set"),
    "group": ("group", "subject", "person", "participant"),
}
OF_ONE = {"start", "end", "label"}  # columns of a table of one video, which has its name
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", " ": "spaces"}
FIRST = 65536  # bytes in which a header ends


class Row(NamedTuple):
    """A video as a line of a list says it, all of it text; what isn't said is empty."""

    path: str
    label: str
    start: str = ""  # seconds
    end: str = ""
    split: str = ""
    group: str = ""
    place: str = ""  # FILE:LINE


def header(path: Path) -> str:
    """The first line of a file."""
    with path.open("rb") as file:
        content = file.read(FIRST)
    coding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    return content.decode(coding, errors="replace").lstrip().partition("\n")[0].removesuffix("\r")


def separator(line: str) -> str:
    """The sign between the columns of a table with this first line."""
    found = max(",;\t", key=line.count)
    return found if found in line else " "


def columns_in(line: str) -> dict[str, int]:
    """The places of the known columns in a table with this first line; of several names for one the first counts."""
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


def is_table(path: Path) -> bool:
    """Whether the first line of a file names a path and a label, or times and a label of the video beside it."""
    columns = columns_in(header(path)).keys()
    return {"path", "label"} <= columns or ("path" not in columns and columns >= OF_ONE and bool(video_beside(path)))


def video_beside(path: Path) -> str:
    """The name of the video that has a table's name, but for the ending; nothing where there is none."""
    names = sorted(other.name for other in path.parent.glob(f"{glob.escape(path.stem)}.*"))
    return next((name for name in names if is_video_name(name)), "")


def rows_of_table(path: Path, lines: Sequence[tuple[int, str]], video: str) -> tuple[list[Row], str]:
    """The rows of a table, whose first line names its columns, and in words what is in which.

    Without a column of paths they are of one `video`.
    """
    first = lines[0][1]
    sign, columns = separator(first), columns_in(first)
    reader = csv.reader([text for _, text in lines], delimiter=sign, skipinitialspace=True)
    with reading(path, "a table", README):
        (_, names), *read = [(lines[reader.line_num - 1][0], cells) for cells in reader]
    rows = list[Row]()
    for number, cells in read:
        place = f"{path}:{number}"
        found = {"path": video} | {what: cells[at].strip() if at < len(cells) else "" for what, at in columns.items()}
        if len(cells) > len(names) or not found["path"]:
            one = " and ".join(f"one {names[columns[what]]!r}" for what in ("path", "label") if what in columns)
            raise UserError(
                f"{place}: a row has {one} and no more than its {len(names)} columns, with {SEPARATORS[sign]} "
                "between them; quote a text that holds these"
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
    used = "" if "path" in columns else f"path={video!r} by the table's name, "
    used += ", ".join(f"{what}={names[at].strip()!r}" for what, at in columns.items())
    unread = [repr(name.strip()) for at, name in enumerate(names) if at not in columns.values()]
    others = f"; not read: {some(unread)}" if unread else ""
    empty = sum(not row.label for row in rows)
    others += f"; without a label: {empty} of {len(rows)} rows" if empty else ""
    return rows, f"columns of {path}, with {SEPARATORS[sign]} between them: {used}{others}"
