"""Exports of Label Studio: JSON or JSON-MIN of tasks with a video."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from aim.data.columns import Row
from aim.data.lists import README, Lists
from aim.data.scanning import is_video_name
from aim.data.sources.annotations import Files, near
from aim.data.sources.table import Table
from aim.ground.errors import UserError
from aim.ground.foreign import read_json, reading

EXPORT = "a list of Label Studio's tasks"
TRACKS = "sequence"  # key of a rectangle that moves


@dataclass(frozen=True)
class LabelStudio:
    """Exports of Label Studio, JSON or JSON-MIN, beside the videos, of which a hash of the path holds out a share.

    Labels are the spans of a time line (TimelineLabels, or Labels with seconds), and the choices of a whole video. Of
    several annotations of a task the first one that wasn't cancelled counts. Boxes aren't read.
    """

    val_share: float
    frame_rate: float  # by which the interface counted frames: that of its tag Video

    def __post_init__(self) -> None:
        if not 0 < self.frame_rate < float("inf"):
            raise UserError(f"format.frame_rate={self.frame_rate:g} must be frames a second, above 0")

    def recognises(self, root: Path) -> bool:
        return bool(exports(root))

    def __call__(self, root: Path) -> Lists:
        """Raises UserError if there is no such file, and for a task without a video."""
        if not (found := exports(root)):
            raise UserError(f"{root} has no JSON that Label Studio exported; {README}")
        files = Files(root)
        tasks = {path: read_json(path, list, EXPORT, README) for path in found}
        rows = {path: [*self._rows(path, own, files)] for path, own in tasks.items()}
        every = [row for own in rows.values() for row in own]
        left = sum(map(len, tasks.values())) - len({row.place for row in every})
        notes = [f"left out: {left} tasks without a span or a choice"] if left else []
        if any(row.start for row in every):
            notes.append(f"frames are counted by format.frame_rate={self.frame_rate:g}, that of the tag Video")
        return Table(self.val_share).of_rows(root, rows, notes)

    def _rows(self, path: Path, tasks: Sequence[dict[str, Any]], files: Files) -> Iterator[Row]:
        for number, task in enumerate(tasks, 1):
            place = f"{path}: task {number}"
            with reading(path, EXPORT, README):
                video, rows = video_in(task), [*self._labels(task)]
            if video is None:
                raise UserError(f"{place} names no video; export tasks of videos")
            yield from (row._replace(path=place_of(video, files), place=place) for row in rows)

    def _labels(self, task: dict[str, Any]) -> Iterator[Row]:
        """The rows of a task, without its video. Raises whatever a wrong file leads to."""
        for value in values_in(task):
            if "choices" in value:
                yield Row("", ";".join(value["choices"]))
            elif "timelinelabels" in value:
                frames = [(each["start"] - 1, each["end"]) for each in value["ranges"]]
                spans = [[str(round(end / self.frame_rate, 6)) for end in each] for each in frames]
                yield from (Row("", label, *span) for label in value["timelinelabels"] for span in spans)
            elif "labels" in value and "start" in value and TRACKS not in value:
                yield from (Row("", label, str(value["start"]), str(value["end"])) for label in value["labels"])


def values_in(task: dict[str, Any]) -> list[dict[str, Any]]:
    """The values of annotations: of JSON those of an annotation's results, of JSON-MIN those beside the video."""
    if "annotations" in task:
        done = [each for each in task["annotations"] if not each.get("was_cancelled")]
        return [result["value"] for result in done[0]["result"]] if done else []
    beside = [each for value in task.values() for each in (value if isinstance(value, list) else [value])]
    return [each for each in beside if isinstance(each, dict)]


def video_in(task: dict[str, Any]) -> str | None:
    """The first address or path of a video in a task's data."""
    named = [each for each in task.get("data", task).values() if isinstance(each, str)]
    return next((each for each in map(unquote, named) if is_video_name(each.partition("?X-")[0])), None)


def place_of(address: str, files: Files) -> str:
    """The file that an address leads to: what was uploaded has eight signs before its name."""
    name = re.split(r"[/=]", address.partition("?X-")[0])[-1]
    found = files.find_listed(name, (), alone=True)
    return found if (files.root / found).is_file() else re.sub(r"^[0-9a-f]{8}-", "", name)


def exports(root: Path) -> list[Path]:
    """The JSON files of Label Studio: lists whose tasks have annotations, or spans or choices beside a video."""
    return [path for path in near(root, "*.json") if is_export(path)]


def is_export(path: Path) -> bool:
    """Whether a file may be one."""
    try:
        found = read_json(path, list, EXPORT, README)
    except UserError:
        return False
    first = found[0] if found else None
    if not isinstance(first, dict) or "id" not in first:
        return False
    return "annotations" in first or video_in(first) is not None
