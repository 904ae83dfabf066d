"""Tar shards from other tools, in WebDataset's naming."""

import re
from dataclasses import dataclass
from pathlib import Path

from aim.data.folds import halves_by_hash
from aim.data.lists import HELD_OUT, USUAL, Lists, Stored, Video, read_classes
from aim.data.scanning import VIDEO_EXTENSIONS, look
from aim.data.stored import shards
from aim.ground.errors import UserError


@dataclass(frozen=True)
class WebDataset:
    """Shards such as train-000000.tar and val-000000.tar, whose samples have a label in KEY.cls or KEY.json.

    Without labels, the folder of a video in the tar is its class. Where no shard is named val, validation, valid or
    test, a hash of the path holds out `val_share` of each class; test beside another of these is a third list. Labels
    are lines of classes.txt if that lies there.
    """

    val_share: float

    def recognises(self, root: Path) -> bool:
        return bool(shards.find(root)) and not look(root).videos

    def __call__(self, root: Path) -> Lists:
        """Raises UserError for a video without a label, and for labels that aren't among the classes."""
        places = shards.Places(root, shards.find(root))
        named = places.named()
        labels = {path: places.labels[stored] for path, stored in named.items()}
        if not labels:
            raise UserError(f"the shards in {root} hold no videos ({', '.join(VIDEO_EXTENSIONS)})")
        if unlabelled := sorted(path for path, label in labels.items() if not label):
            raise UserError(
                f"{len(unlabelled)} of {len(labels)} videos in the shards of {root} have no label, such as "
                f"{unlabelled[0]}; a sample needs KEY.cls, or KEY.json with one of {', '.join(shards.LABEL_KEYS)}"
            )
        classes = _classes(root, set(labels.values()))
        by_name = {name: i for i, name in enumerate(classes)}
        videos = [
            Video(path, int(label) if label.isdecimal() else by_name[label], stored=named[path])
            for path, label in labels.items()
        ]
        split = {video.path: _split(named[video.path]) for video in videos}
        held_out = next((name for name in HELD_OUT if name in split.values()), None)
        if not held_out:
            return Lists(*halves_by_hash(videos, self.val_share), classes)
        of_test = [] if held_out in USUAL["test"] else USUAL["test"]
        train, val, test = (
            [video for video in videos if split[video.path] in names] for names in ([""], [held_out], of_test)
        )
        return Lists(train, val, classes, third=test or None)


def _classes(root: Path, labels: set[str]) -> list[str]:
    """The class names: those of classes.txt, or else the labels themselves."""
    numbers = [int(label) for label in labels if label.isdecimal()]
    if numbers and len(numbers) < len(labels):
        raise UserError(
            f"the labels in the shards of {root} are partly numbers and partly names, {min(labels)} and {max(labels)}"
        )
    if not (root / "classes.txt").exists():
        return [str(i) for i in range(max(numbers) + 1)] if numbers else sorted(labels)
    classes = read_classes(root / "classes.txt")
    if unknown := {str(i) for i in numbers if i >= len(classes)} if numbers else labels - set(classes):
        raise UserError(
            f"label {min(unknown)} in the shards of {root} is none of the {len(classes)} classes in classes.txt"
        )
    return classes


def _split(stored: Stored) -> str:
    """The name of a held-out split that the shard's path has as a word, or nothing: then it's for training."""
    words = re.split(r"[^a-z]+", stored.shard.lower())
    return next((name for name in HELD_OUT if name in words), "")
