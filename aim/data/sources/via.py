"""CSVs of the VGG Image Annotator for video (VIA 3): segments of time with attributes."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from aim.data.columns import Row, header
from aim.data.lists import README, Lists, read_lines
from aim.data.sources.annotations import near
from aim.data.sources.table import Table
from aim.ground.errors import UserError
from aim.ground.foreign import reading

COLUMNS, ATTRIBUTES = "# CSV_HEADER = ", ("# ATTRIBUTE = ", "# ATTRIBUTES = ")
SEGMENT = 2  # times, where one is a point
CHECKBOX = 2  # type of an attribute of which any number of options may be chosen


class Segment(NamedTuple):
    """A row of the CSV that is of a segment of time."""

    video: str
    start: str
    end: str
    values: Mapping[str, str]  # by the numbers of attributes
    place: str


@dataclass(frozen=True)
class VIA:
    """Exports of VIA's video annotator, "as CSV", beside the videos, of which a hash of the path holds out a share.

    A label is the value of an attribute of a segment; points in time and shapes in a frame aren't read.
    """

    val_share: float
    attribute: str | None  # its name; None: the only one that segments have

    def recognises(self, root: Path) -> bool:
        return bool(exports(root))

    def __call__(self, root: Path) -> Lists:
        """Raises UserError if there is no such CSV, and for several attributes of which none is named."""
        if not (found := exports(root)):
            raise UserError(f"{root} has no CSV that VIA exported, with a line '{COLUMNS}...'; {README}")
        notes = list[str]()
        return Table(self.val_share).of_rows(root, {path: self._rows(path, notes) for path in found}, notes)

    def _rows(self, path: Path, notes: list[str]) -> list[Row]:
        with reading(path, "a CSV of VIA", README):
            attributes, segments, left = parsed(path)
            used = sorted({key for segment in segments for key in segment.values})
            names = {key: str(attributes.get(key, {}).get("aname", key)) for key in used}
        chosen = [key for key in used if self.attribute in (None, names[key])]
        left += sum(not {*chosen} & segment.values.keys() for segment in segments)
        if len(chosen) != 1 and used:
            raise UserError(
                f"{path}: segments have the attributes {', '.join(names.values())}; name that of the labels by "
                f"format.attribute=NAME{'' if self.attribute is None else f' (now {self.attribute})'}"
            )
        if left:
            notes.append(f"left out of {path}: {left} rows that are no segment of time, or without the attribute")
        return [
            Row(segment.video, value(segment.values[key], attributes.get(key, {})), segment.start, segment.end,
                place=segment.place)
            for segment in segments for key in chosen if key in segment.values
        ]  # fmt: skip


def exports(root: Path) -> list[Path]:
    """The CSVs that VIA wrote."""
    return [path for path in near(root, "*.csv") if header(path).startswith("# Exported using VGG Image Annotator")]


def parsed(path: Path) -> tuple[dict[str, dict[str, Any]], list[Segment], int]:
    """The attributes by their numbers, the segments of time, and how many rows are none.

    Raises whatever a wrong file leads to.
    """
    attributes, columns, segments, left = dict[str, dict[str, Any]](), list[str](), list[Segment](), 0
    for number, line in enumerate(read_lines(path), 1):
        if line.startswith(ATTRIBUTES):
            found = json.loads(line.partition(" = ")[2])
            attributes = {key: each if isinstance(each, dict) else {"aname": each} for key, each in found.items()}
        elif line.startswith(COLUMNS):
            columns = [name.strip() for name in line.removeprefix(COLUMNS).split(",")]
        elif line.strip() and not line.startswith("#"):
            row = dict(zip(columns, next(csv.reader([line])), strict=False))
            times = json.loads(row["temporal_coordinates"]) if "temporal_coordinates" in row else [
                float(row["temporal_segment_start"]), float(row["temporal_segment_end"])
            ]  # fmt: skip
            if len(times) != SEGMENT:
                left += 1
            else:
                video = unquote(json.loads(row["file_list"])[0]).replace("\\", "/").rpartition("/")[2]
                start, end = map(str, times)
                segments.append(Segment(video, start, end, json.loads(row["metadata"]), f"{path}:{number}"))
    return attributes, segments, left


def value(text: str, attribute: Mapping[str, Any]) -> str:
    """The label that a value is: an option by its number, several of a checkbox, or free text."""
    options = attribute.get("options", {})
    if attribute.get("type") == CHECKBOX:
        return ";".join(options.get(each, each) for each in text.split(",") if each)
    return str(options.get(text, text))
