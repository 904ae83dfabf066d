"""EPIC-KITCHENS-100."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aim.data.lists import NONE, README, Lists, Video, read_lines
from aim.data.rows import in_seconds
from aim.data.sources.annotations import Files, checked_label, near, only
from aim.ground.foreign import reading


@dataclass(frozen=True)
class EpicKitchens:
    """EPIC-KITCHENS-100: EPIC_100_train.csv, EPIC_100_validation.csv, the classes of verbs and nouns, and ID.MP4.

    Each row is a part of a video with one verb and one noun: `labels` says which is learnt. `both` are two labels
    a part, for task=multi_label.
    """

    labels: Literal["verb", "noun", "both"]

    def recognises(self, root: Path) -> bool:
        return bool(near(root, "EPIC_100_train.csv"))

    def __call__(self, root: Path) -> Lists:
        """Raises UserError for a file that is missing, and for a class that doesn't exist."""
        kinds = ("verb", "noun") if self.labels == "both" else (self.labels,)
        names = {kind: _classes(only(root, f"EPIC_100_{kind}_classes.csv")) for kind in kinds}
        files = Files(root)
        train, val = (_videos(only(root, f"EPIC_100_{split}.csv"), files, names) for split in ("train", "validation"))
        mark = "{kind} {name}" if len(kinds) > 1 else "{name}"
        return Lists(train, val, [mark.format(kind=kind, name=name) for kind in kinds for name in names[kind]])


def _classes(path: Path) -> list[str]:
    """The names of classes, of which each has its number."""
    with reading(path, "classes of EPIC-KITCHENS", README):
        found = {int(row["id"]): row["key"] for row in csv.DictReader(read_lines(path))}
        return [found[number] for number in range(len(found))]


def _videos(path: Path, files: Files, names: dict[str, list[str]]) -> list[Video]:
    """The parts of a list; those of the second kind have numbers after the first."""
    with reading(path, "a list of EPIC-KITCHENS", README):
        found = []
        for row in csv.DictReader(read_lines(path)):
            labels, first = [], 0
            for kind, classes in names.items():
                labels.append(first + checked_label(int(row[f"{kind}_class"]), classes, path))
                first += len(classes)
            name = row["video_id"]
            place = files.find(name, f"{row['participant_id']}/videos/{name}.MP4")
            start, end = in_seconds(row["start_timestamp"]), in_seconds(row["stop_timestamp"])
            found.append(Video(place, NONE, start, end).labelled(labels))
    return found
