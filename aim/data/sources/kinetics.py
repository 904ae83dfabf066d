"""Kinetics-400, -600, -700."""

import csv
from dataclasses import dataclass
from pathlib import Path

from aim.data.lists import README, Lists, Video, read_lines
from aim.data.sources.annotations import Files, near, one
from aim.ground.errors import UserError
from aim.ground.foreign import reading


@dataclass(frozen=True)
class Kinetics:
    """Kinetics-400, -600, -700: CSVs with `label,youtube_id,time_start,time_end`, in any of the usual layouts.

    A video is ID_000010_000020.mp4; a copy under CVDF's folder of replacements for corrupted files goes first.
    Classes are in alphabetical order, as everywhere.
    """

    def recognises(self, root: Path) -> bool:
        return any(_is_kinetics(path) for path in near(root, "*train*.csv"))

    def __call__(self, root: Path) -> Lists:
        """Raises UserError for a CSV that is missing, and for columns that lack."""
        rows = {"train": self._rows(root, "train"), "val": self._rows(root, "val")}
        classes = sorted({row["label"] for row in rows["train"]})
        if not classes:
            raise UserError(f"{root}: the training CSV lists no video; {README}")
        numbers = {name: i for i, name in enumerate(classes)}
        if unknown := sorted({row["label"] for row in rows["val"]} - set(classes)):
            raise UserError(
                f"{root}: the validation CSV has classes that the training CSV lacks: {', '.join(unknown[:5])}"
            )
        files = Files(root)
        folders = {name for paths in files.by_stem.values() for path in paths for name in path.split("/")[:-1]}
        corrected = sorted(name for name in folders if name.startswith("replacement"))
        lists: dict[str, list[Video]] = {}
        for split, listed in rows.items():
            lists[split] = []
            for row in listed:
                try:
                    start, end = (int(float(row[key])) for key in ("time_start", "time_end"))
                except (TypeError, ValueError, OverflowError) as error:
                    raise UserError(f"{root}: a row of the {split} CSV has no times: {row}; {README}") from error
                stem = f"{row['youtube_id']}_{start:06d}_{end:06d}"
                path = files.find(stem, f"{split}/{stem}.mp4", [*corrected, split])
                lists[split].append(Video(path, numbers[row["label"]]))
        return Lists(lists["train"], lists["val"], classes)

    def _rows(self, root: Path, split: str) -> list[dict[str, str]]:
        paths = [path for path in near(root, f"*{split}*.csv") if _is_kinetics(path)]
        path = one(root, paths, f"CSV for {split}, such as annotations/{split}.csv")
        with reading(path, "a CSV of Kinetics", README):
            rows = list(csv.DictReader(read_lines(path)))
            if short := next((row for row in rows if None in row.values()), None):
                raise ValueError(f"a row of fewer cells than columns: {short}")
        return rows


def _is_kinetics(path: Path) -> bool:
    with reading(path, "text", README), path.open(encoding="utf-8-sig", errors="replace") as file:
        return {"label", "youtube_id", "time_start", "time_end"} <= set(
            file.readline().strip().replace('"', "").split(",")
        )
