"""Charades."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aim.data.lists import NONE, README, Lists, Video, entries, read_lines
from aim.data.sources.annotations import Files, near, only
from aim.ground.errors import UserError
from aim.ground.foreign import reading


@dataclass(frozen=True)
class Charades:
    """Charades: Charades_v1_train.csv, Charades_v1_test.csv, Charades_v1_classes.txt, and ID.mp4.

    A video has any number of labels: it's for task=multi_label. With `parts` each action is a part of its video.
    """

    parts: bool

    def recognises(self, root: Path) -> bool:
        return bool(near(root, "Charades_*train.csv"))

    def __call__(self, root: Path) -> Lists:
        """Raises UserError for a file that is missing, and for an action that is none of the classes."""
        lines = [line.strip().partition(" ") for _, line in entries(read_lines(only(root, "Charades_v1_classes.txt")))]
        numbers = {code: number for number, (code, _, _) in enumerate(lines)}
        files = Files(root)
        train, test = (
            list(self._videos(only(root, f"Charades_v1_{split}.csv"), files, numbers)) for split in ("train", "test")
        )
        return Lists(train, test, [name for _, _, name in lines])

    def _videos(self, path: Path, files: Files, numbers: dict[str, int]) -> Iterator[Video]:
        with reading(path, "a CSV of Charades", README):
            rows = [(row["id"], row["actions"]) for row in csv.DictReader(read_lines(path))]
            actions = [[action.split() for action in text.split(";") if action] for _, text in rows]
            found = [[(code, float(start), float(end)) for code, start, end in each] for each in actions]
        for (name, _), each in zip(rows, found, strict=True):
            if unknown := [code for code, *_ in each if code not in numbers]:
                raise UserError(f"{path}: {name}: the action {unknown[0]} is not among the classes")
            video = Video(files.find(name, f"Charades_v1_480/{name}.mp4"), NONE)
            if self.parts:
                parts = [(numbers[code], start, end) for code, start, end in each if start < end]
                yield from (video._replace(label=label, start=start, end=end) for label, start, end in parts)
            else:
                yield video.labelled(numbers[code] for code, *_ in each)
