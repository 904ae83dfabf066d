"""Diving-48 v2."""

from dataclasses import dataclass
from pathlib import Path

from aim.data.lists import Lists, Video
from aim.data.sources.annotations import Files, checked_label, near, only, read_json


@dataclass(frozen=True)
class Diving48:
    """Diving-48 v2: Diving48_V2_train.json, Diving48_V2_test.json, Diving48_vocab.json, and rgb/*.mp4."""

    def recognises(self, root: Path) -> bool:
        return bool(near(root, "Diving48_*train.json"))

    def __call__(self, root: Path) -> Lists:
        """Raises UserError for a JSON that is missing; the labels of the first version are wrong."""
        paths = [only(root, f"Diving48_V2_{split}.json") for split in ("train", "test")]
        classes = [" ".join(parts) for parts in read_json(only(root, "Diving48_vocab.json"))]
        files = Files(root)
        lists = [
            [
                Video(
                    files.find(entry["vid_name"], f"rgb/{entry['vid_name']}.mp4"),
                    checked_label(entry["label"], classes, path),
                )
                for entry in read_json(path)
            ]
            for path in paths
        ]
        return Lists(lists[0], lists[1], classes)
