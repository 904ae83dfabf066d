"""Annotations in a user's own table: a CSV with a header that names a path and a label."""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aim.data.columns import Row, columns_in, header, is_table, video_beside
from aim.data.folds import halves_by_hash
from aim.data.labels import Labels, joined, named_classes, settled
from aim.data.lists import README, Lists, nfc, read_classes, split_of
from aim.data.rows import groups_of, read_rows, videos_of
from aim.data.sources.annotations import Files, near
from aim.ground.errors import UserError
from aim.ground.paths import path_of


@dataclass(frozen=True)
class Table:
    """CSV files with the columns path and label, perhaps start and end in seconds, split, and group.

    A table of start, end and label that has the name of the one video beside it is of that.

    The split is a row's own, or that which the name of the file or of its folder says; without these a hash of the path
    holds out `val_share` of the files. Labels are names of classes, numbers too if there is no classes.txt.
    """

    val_share: float
    file: str | None = None  # the one table; else all that lie in the root or in a folder of it
    classes: str = "classes.txt"  # if it is there

    def recognises(self, root: Path) -> bool:
        return bool(tables(root))

    def __call__(self, root: Path) -> Lists:
        """Raises UserError for a row without a path or a label, and for a split or times that can't be."""
        found = tables(root) if self.file is None else [named_file(root, self.file)]
        if not found:
            raise UserError(
                f"{root} has no CSV whose first line names a path and a label, such as path,start,end,label"
            )
        return self.of_files(root, found)

    def of_files(self, root: Path, tables: Sequence[Path]) -> Lists:
        """The lists of some tables."""
        read = {table: read_rows(table, Labels(), of_video(root, table)) for table in tables}
        notes = [columns for _, columns in read.values() if columns]
        return self.of_rows(root, {table: rows for table, (rows, _) in read.items()}, notes)

    def of_rows(self, root: Path, written: Mapping[Path, Sequence[Row]], notes: Sequence[str]) -> Lists:
        """The lists of the rows of some files."""
        named, notes, tables = named_file(root, self.classes), [*notes], [*written]
        files = Files(root)
        rows = {
            table: [row._replace(path=file_of(row.path, files, row.place, beside(table, root))) for row in own]
            for table, own in written.items()
        }
        every = [row for own in rows.values() for row in own]
        if not every:
            raise UserError(f"{some_names(tables)}: no label of a video is in it; {README}")
        groups = groups_of(every)
        if named.is_file():
            classes = read_classes(named)
        else:
            classes = named_classes(every, some_names(tables))
            if classes and all(name.isdecimal() for name in classes):
                notes.append(f"labels are numbers, taken as the names of {len(classes)} classes; {named} names them")
        labels = settled(every, classes, named)
        parts = defaultdict[str, list[Row]](list)
        for table, own in rows.items():
            for row in own:
                parts[split_in(row, table, root)].append(row)
        by_hash = "" in parts
        if by_hash and len(parts) > 1:
            raise UserError(
                f"{parts[''][0].place}: some rows of the table say their split, and some don't; fill the column split"
            )
        lists = {part: videos_of(own, labels) for part, own in parts.items()}
        third = lists.get("test") if "val" in lists else None
        given = lists.get("train"), lists.get("val") or lists.get("test")
        train, val = halves_by_hash(lists[""], self.val_share) if by_hash else given
        names = some_names(tables)
        in_words = not named.is_file()
        divisible = by_hash and in_words and joined(classes) and len({video.path for video in lists[""]}) > 1
        if not train or (not val and not divisible):  # by the task, `folds.in_folds` holds out some of several labels
            lacks = "validation" if train else "training"
            way = "give each class two files or more, or a column split" if by_hash else "fill the column split"
            raise UserError(f"{names}: no row of the table is for {lacks}; {way}")
        by = f"{self.val_share:.0%} of the files of each class, by a hash of the path" if by_hash else "column split"
        if not by_hash and not any(row.split for row in every):
            by = "names of the files and folders"
        return Lists(
            train, val or [], classes,
            split=f"the table {names}: {by}", third=third, notes=tuple(notes),
            held_out=self.val_share if by_hash else 0.0, groups=groups,
            in_words=in_words,
        )  # fmt: skip


def of_video(root: Path, table: Path) -> str:
    """The path from the root of the one video that a table is of; nothing where it names its videos."""
    if "path" in columns_in(header(table)):
        return ""
    video = table.parent / video_beside(table)
    return video.relative_to(root).as_posix() if video.is_file() and video.is_relative_to(root) else ""


def named_file(root: Path, name: str) -> Path:
    """The file of this name in the root, or else wherever it leads."""
    path = path_of(name)
    return root / path if (root / path).is_file() or not path.is_file() else path


def some_names(tables: Sequence[Path]) -> str:
    """The tables, by their names."""
    return " and ".join(map(str, tables))


def beside(table: Path, root: Path) -> str:
    """The folder of a table, from the root on; the root's own where it lies elsewhere."""
    return table.parent.relative_to(root).as_posix() if table.is_relative_to(root) else "."


def file_of(name: str, files: Files, place: str, folder: str) -> str:
    """The path of a row's video: from the root, from the table's folder or, if unambiguous, from any folder on."""
    paths = files.by_stem.get(nfc(Path(name).stem), [])
    found = [path for path in paths if nfc(path) in (nfc(name), nfc(f"{folder}/{name}"))] or [
        path for path in paths if nfc(path).endswith(f"/{nfc(name)}")
    ]
    if len(found) > 1:
        raise UserError(f"{place}: {name} may be {' or '.join(found[:3])}; write its path from data.root on")
    return found[0] if found else name


def tables(root: Path) -> list[Path]:
    """The CSVs in the root or a folder of it that say in their first line that they list paths and labels."""
    return [path for path in near(root, "*.csv", "*.tsv") if is_table(path)]


def is_whole(path: Path, partners: Collection[str]) -> bool:
    """Whether a file is a table that says the split of its rows, or has no partners that would."""
    return is_table(path) and ("split" in columns_in(header(path)) or not partners)


def split_in(row: Row, path: Path, root: Path) -> str:
    """The split of a row: train, val or test, by itself or its file's or folder's name; else empty."""
    if row.split:
        if split := split_of(row.split):
            return split
        raise UserError(f"{row.place}: split={row.split!r} is none that is known; use train, val or test")
    folder = path.parent.name if path.parent.parent == root else ""
    words = re.split(r"[^a-z]+", f"{path.stem} {folder}".lower())
    return next((split for word in words if (split := split_of(word))), "")
