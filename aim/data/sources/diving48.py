"""Diving-48 v2."""

from dataclasses import dataclass
from pathlib import Path

from aim.data.lists import README, Lists, Video
from aim.data.sources.annotations import Files, checked_label, near, only
from aim.ground.foreign import read_json, reading


@dataclass(frozen=True)
class Diving48:
    """Diving-48 v2: Diving48_V2_train.json, Diving48_V2_test.json, Diving48_vocab.json, and rgb/*.mp4."""

    def recognises(self, root: Path) -> bool:
        return bool(near(root, "Diving48_*train.json"))

    def __call__(self, root: Path) -> Lists:
        """Raises UserError for a JSON that is missing; the labels of the first version are wrong."""
        paths = [only(root, f"Diving48_V2_{split}.json") for split in ("train", "test")]
        vocabulary = only(root, "Diving48_vocab.json")
        with reading(vocabulary, "the classes of Diving-48", README):
            classes = [" ".join(parts) for parts in read_json(vocabulary, list, "a list of classes", README)]
        files = Files(root)
        train, test = (_videos(path, files, classes) for path in paths)
        return Lists(train, test, classes)


def _videos(path: Path, files: Files, classes: list[str]) -> list[Video]:
    """The videos of one of the lists."""
    with reading(path, "a list of Diving-48", README):
        entries = [(entry["vid_name"], entry["label"]) for entry in read_json(path, list, "a list of videos", README)]
        return [
            Video(files.find(name, f"rgb/{name}.mp4"), checked_label(label, classes, path)) for name, label in entries
        ]
