"""Annotations of FERAL: a JSON with the labels of every frame."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aim.data.columns import Row
from aim.data.lists import NOTHING, README, Lists
from aim.data.sources.annotations import Files, near
from aim.data.sources.frame_times import FrameTimes, runs
from aim.data.sources.table import Table
from aim.ground.errors import UserError
from aim.ground.foreign import read_json, reading

KEYS = {"class_names", "labels", "splits"}
USED = ("train", "val", "test")  # splits; those for inference have no labels


@dataclass(frozen=True)
class FERAL:
    """FERAL's JSON of class_names, splits and, by the names of videos, the labels of each frame, beside the videos.

    Neighbouring frames with the same labels are a part. Of several labels a frame there is 0 or 1 for each class.
    """

    val_share: float  # where there are no splits

    def recognises(self, root: Path) -> bool:
        return bool(exports(root))

    def __call__(self, root: Path) -> Lists:
        """Raises UserError if there is no such file, and for a video that is missing, whose frames have no times."""
        if not (found := exports(root)):
            raise UserError(f"{root} has no JSON with {', '.join(sorted(KEYS))}, as FERAL reads it; {README}")
        files = Files(root)
        return Table(self.val_share).of_rows(root, {path: [*self._rows(path, files)] for path in found}, [])

    def _rows(self, path: Path, files: Files) -> Iterator[Row]:
        with reading(path, "annotations of FERAL", README):
            found: dict[str, Any] = read_json(path, dict, "annotations of FERAL", README)
            names = {int(number): str(name) for number, name in found["class_names"].items()}
            splits = {video: split for split in USED for video in found["splits"].get(split, ())}
            parts = {
                video: [*runs(enumerate(text(label, names) for label in labels))]
                for video, labels in found["labels"].items()
                if video in splits
            }
        for video, own in parts.items():
            times = FrameTimes.of(files, video, path)
            for label, first, after in own:
                yield Row(times.path, label, *times.span(first, after), split=splits[video], place=f"{path}: {video}")


def text(label: int | list[int], names: Mapping[int, str]) -> str:
    """The classes of a frame, as a row has them."""
    if isinstance(label, int):
        return names[label]
    return ";".join(names[at] for at, there in enumerate(label) if there) or NOTHING


def exports(root: Path) -> list[Path]:
    """The JSON files of FERAL."""
    return [path for path in near(root, "*.json") if is_export(path)]


def is_export(path: Path) -> bool:
    """Whether a file may be one."""
    try:
        return read_json(path, dict, "annotations", README).keys() >= KEYS
    except UserError:
        return False
