"""Annotations in a table of one's own: a CSV with a header that names a path and a label."""

import csv
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aim.data.lists import Lists, Video, hold_out, nfc, read_classes, read_lines, split_of
from aim.data.sources.annotations import Files, near
from aim.ground.errors import UserError

COLUMNS = {  # what a column may be called, in any case
    "path": ("path", "file", "filename", "file_name", "video", "video_path", "clip"),
    "label": ("label", "class", "action", "category"),
    "start": ("start", "begin", "start_time", "start_seconds"),
    "end": ("end", "stop", "end_time", "end_seconds"),
    "split": ("split", "subset", "set"),
}
DELIMITERS = ",;\t"


@dataclass(frozen=True)
class Table:
    """CSV files with the columns path and label, perhaps start and end in seconds, and split.

    The split is a row's own, or that which the file's name says; without either a hash of the path holds out
    `val_share` of the files. Labels are names of classes, numbers too if there is no classes.txt.
    """

    val_share: float

    def recognises(self, root: Path) -> bool:
        return bool(tables(root))

    def __call__(self, root: Path) -> Lists:
        """Raises UserError for a row without a path or a label, and for a split or times that can't be."""
        rows = [(path, number, row) for path in tables(root) for number, row in enumerate(read(path), 2)]
        if not rows:
            raise UserError(
                f"{root} has no CSV whose first line names a path and a label, such as path,start,end,label"
            )
        names = {nfc(row["label"]) for *_, row in rows}
        classes = read_classes(root / "classes.txt") if (root / "classes.txt").exists() else sorted(names)
        labels = {nfc(name): label for label, name in enumerate(classes)}
        if unknown := sorted(names - labels.keys()):
            raise UserError(f"{root / 'classes.txt'} lacks classes of the table: {', '.join(unknown[:5])}")
        files = Files(root)
        lists = defaultdict[str, list[Video]](list)
        for path, number, row in rows:
            place = f"{path}:{number}"
            video = Video(file_of(row["path"], files, place), labels[nfc(row["label"])], *times(row, place))
            lists[split_in(row, path, place)].append(video)
        by_hash = "" in lists
        if by_hash and len(lists) > 1:
            raise UserError(f"{root}: some rows of the table say their split, and some don't; fill the column split")
        third = lists["test"] if lists["val"] else []
        train, val = self._halves(lists[""]) if by_hash else (lists["train"], lists["val"] or lists["test"])
        if not train or not val:
            raise UserError(f"{root}: no row of the table is for {'validation' if train else 'training'}")
        split = f"{self.val_share:.0%} of the files of each class, by a hash of the path" if by_hash else "the table"
        return Lists(train, val, classes, split=split, third=third or None)

    def _halves(self, videos: Sequence[Video]) -> tuple[list[Video], list[Video]]:
        """The videos for training and validation; all parts of a file are in one of them."""
        by_class = defaultdict[int, list[str]](list)
        for path, label in {video.path: video.label for video in videos}.items():
            by_class[label].append(path)
        chosen = {path for paths in by_class.values() for path in hold_out(paths, self.val_share)[1]}
        train, val = ([video for video in videos if (video.path in chosen) == held] for held in (False, True))
        return train, val


def file_of(name: str, files: Files, place: str) -> str:
    """The path of a row's video: from the root or, if that is unambiguous, from any folder on."""
    paths = files.by_stem.get(nfc(Path(name).stem), [])
    found = [path for path in paths if nfc(path) == nfc(name)] or [
        path for path in paths if nfc(path).endswith(f"/{nfc(name)}")
    ]
    if len(found) > 1:
        raise UserError(f"{place}: {name} may be {' or '.join(found[:3])}; write its path from data.root on")
    return found[0] if found else name


def tables(root: Path) -> list[Path]:
    """The CSVs in the root or a folder of it that say in their first line that they list paths and labels."""
    return [path for path in near(root, "*.csv", "*.tsv") if {"path", "label"} <= columns(path).keys()]


def columns(path: Path) -> dict[str, str]:
    """What is in which column of a table, by the names in its first line."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = file.readline()
    names = next(csv.reader([first], delimiter=delimiter(first)), [])
    known = {name.strip().lower(): name for name in names}
    return {what: known[name] for what, usual in COLUMNS.items() for name in reversed(usual) if name in known}


def delimiter(line: str) -> str:
    """What stands between the columns of a table with this first line."""
    return max(DELIMITERS, key=line.count)


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a table, by what is in their columns. Raises UserError for one without a path or a label."""
    lines, known = read_lines(path), columns(path)
    rows = []
    for number, row in enumerate(csv.DictReader(lines, delimiter=delimiter(lines[0])), 2):
        found = {what: (row[name] or "").strip() for what, name in known.items()}
        if not found["path"] or not found["label"] or None in row:
            raise UserError(
                f"{path}:{number}: a row has one {known['path']}, one {known['label']} and no more than its columns"
            )
        rows.append(found)
    return rows


def times(row: Mapping[str, str], place: str) -> tuple[float | None, float | None]:
    """The part of a file that a row is of, in seconds; all of it where it says nothing."""
    start, end = row.get("start", ""), row.get("end", "")
    if not start and not end:
        return None, None
    try:
        found = float(start), float(end)
    except ValueError as error:
        raise UserError(f"{place}: start={start!r} and end={end!r} must be seconds, or both empty") from error
    if not 0 <= found[0] < found[1]:
        raise UserError(f"{place}: a segment from {start} to {end} seconds")
    return found


def split_in(row: Mapping[str, str], path: Path, place: str) -> str:
    """The split of a row: train, val or test; nothing where neither it nor the file's name says."""
    if named := row.get("split", ""):
        if split := split_of(named):
            return split
        raise UserError(f"{place}: split={named!r} is none that is known; use train, val or test")
    words = re.split(r"[^a-z]+", path.stem.lower())
    return next((split for word in words if (split := split_of(word))), "")
