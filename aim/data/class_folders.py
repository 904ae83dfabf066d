"""A folder of videos by class, as lists."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aim.data.lists import (
    USUAL,
    USUAL_FILES,
    Lists,
    Video,
    nfc,
    read_classes,
    require_folder,
    split_of,
    usual_files,
)
from aim.data.scanning import UNKNOWN, folders_in, look, some, told
from aim.ground.errors import UserError, nearest

OUTSIDE = "outside of the folders of classes"


@dataclass(frozen=True)
class ClassFolders:
    """Lists a folder of videos by class: train/CLASS/* and val/CLASS/*, or CLASS/* split by a hash of the path.

    The usual names of both are taken (USUAL), in any case. List files that lie there already (train.txt, val.txt,
    classes.txt) are used instead. Nothing is written.
    """

    val_share: float  # of each class, at least one video where it has two

    def __call__(self, root: Path) -> Lists:
        """Raises UserError where there are no classes, a class has no training video, or half of a split is missing."""
        require_folder(root)
        usual = usual_files(root)
        if usual.keys() & USUAL.keys():
            return USUAL_FILES(root)
        lists = self.scan(root)
        if "classes" in usual:
            check_named(root / usual["classes"][0], lists.classes)
        return lists

    def scan(self, root: Path) -> Lists:
        """The lists by the folders alone."""
        train_folder, val_folder, notes = split_folders(root, self.val_share)
        if train_folder:
            train, val = find_by_class(root, train_folder), find_by_class(root, val_folder)
            split = f"the folders {train_folder} and {val_folder}"
            parts = [train, val]
        else:
            every = find_by_class(root, "")
            halves = {name: hold_out(paths, self.val_share) for name, paths in every.videos.items()}
            train = Classes({name: half[0] for name, half in halves.items()})
            val = Classes({name: half[1] for name, half in halves.items()})
            split = f"{self.val_share:.0%} of each class, by a hash of the path, as there is no folder val"
            parts = [every]
        notes += [note for part in parts for note in part.notes]
        classes = sorted(train.videos)
        if len(classes) < 2:
            raise UserError(
                f"{root / train_folder} holds {len(classes)} folders with videos; put the videos of each class into "
                f"one{''.join(f'; {note}' for note in notes)}"
            )
        spelt = {nfc(name): name for name in classes}
        if unknown := sorted(name for name in val.videos if nfc(name) not in spelt):
            raise UserError(
                f"{root / val_folder} has classes that {train_folder} lacks: {', '.join(unknown[:5])}"
                f"{nearest(unknown[0], classes)}"
            )
        if renamed := [name for name in val.videos if name not in train.videos]:
            notes.append(f"taken as equal by NFC, though spelt otherwise in {val_folder}: {some(renamed)}")
        held_out = {spelt[nfc(name)]: paths for name, paths in val.videos.items()}
        lists = [
            [Video(path, label) for label, name in enumerate(classes) for path in part.get(name, [])]
            for part in (train.videos, held_out)
        ]
        if not lists[1]:
            raise UserError(
                f"{root / val_folder}: no video is left for validation; give each class two or more, or fill {root}/val"
            )
        return Lists(lists[0], lists[1], classes, split=split, notes=tuple(notes))


@dataclass(frozen=True)
class Classes:
    """The videos of each class, sorted, by the name of its folder, and what is to be said of it."""

    videos: Mapping[str, list[str]]
    notes: list[str] = field(default_factory=list)


def split_folders(root: Path, val_share: float) -> tuple[str, str, list[str]]:
    """The folders for training and validation, two empty names where there are only classes, and what is to be said.

    A folder with the name of a split is never a class. Raises UserError for one without its partner.
    """
    names = folders_in(root)
    splits: dict[str, list[str]] = {}
    for name in names:
        if split := split_of(name):
            splits.setdefault(split, []).append(name)
    if not splits:
        return "", "", []
    if twice := [folders for folders in splits.values() if len(folders) > 1]:
        raise UserError(f"{root} holds {' and '.join(twice[0])}, which mean the same; keep one of them")
    held_out = splits.get("val") or splits.get("test")
    if "train" not in splits or not held_out:
        here = [name for (name,) in splits.values()]
        lacks = "val (or validation, valid, dev, test)" if "train" in splits else "train"
        alone = f", or take data.root={root / here[0]} and {val_share:.0%} of it is held out" if len(here) == 1 else ""
        raise UserError(
            f"{root} holds {' and '.join(here)}, the name of a split, and lacks its other half: add a folder "
            f"{lacks}{alone}; if it's a class, give it another name"
        )
    taken = splits["train"][0], held_out[0]
    unused = [name for name in names if name not in taken]
    return *taken, [f"beside {taken[0]} and {taken[1]}, and not used: {some(unused)}"] if unused else []


def find_by_class(root: Path, below: str) -> Classes:
    """The videos under root/below/CLASS, by paths relative to `root`; other videos are named.

    Raises UserError for names that no list can hold.
    """
    start = f"{below}/" if below else ""
    found = look(root, below)
    by_class: dict[str, list[str]] = {}
    left = {why: list(paths) for why, paths in found.left.items()}
    for path in found.videos:
        if re.search(r"[\n\r\ud800-\udfff]", path):
            raise UserError(f"{path!r} has a line break or bytes that aren't UTF-8 in its name; rename it")
        name, inside, _ = path.removeprefix(start).partition("/")
        (by_class.setdefault(name, []) if inside else left.setdefault(OUTSIDE, [])).append(path)
    in_class = [path for path in left.get(UNKNOWN, []) if "/" in path.removeprefix(start)]
    notes = []
    if said := told(left | {UNKNOWN: in_class}):
        notes.append(f"not used in {root / below}: {said}")
    folders = {path: path.removeprefix(start) for path in found.folders}
    notes += [
        f"no video is in {root / path}: it is no class" for path, name in folders.items() if is_empty(name, by_class)
    ]
    if splits := [path for path, name in folders.items() if "/" in name and split_of(Path(name).name)]:
        notes.append(f"inside of classes folders split nothing, whatever their name: {some(splits)}; train/CLASS does")
    return Classes(merged(by_class, notes), notes)


def is_empty(folder: str, by_class: Mapping[str, Sequence[str]]) -> bool:
    """Whether a folder would be that of a class, if it held videos."""
    return "/" not in folder and folder not in by_class


def merged(by_class: Mapping[str, list[str]], notes: list[str]) -> dict[str, list[str]]:
    """The classes, sorted; those whose names are equal by NFC are one, which is noted."""
    spelt: dict[str, str] = {}
    found: dict[str, list[str]] = {}
    for name in sorted(by_class):
        first = spelt.setdefault(nfc(name), name)
        found[first] = sorted([*found.get(first, []), *by_class[name]])
        if first != name:
            notes.append(f"taken as equal by NFC, though spelt otherwise: two folders named {name}")
    return found


def check_named(path: Path, classes: Sequence[str]) -> None:
    """Raise UserError where classes.txt names other classes than the folders do."""
    listed, there = ({nfc(name) for name in names} for names in (read_classes(path), classes))
    if listed != there:
        lacking = [f"without a folder: {some(sorted(listed - there))}"] if listed - there else []
        extra = [f"not in it: {some(sorted(there - listed))}"] if there - listed else []
        raise UserError(
            f"{path} names other classes than the folders do ({'; '.join(lacking + extra)}); correct it, add the lists "
            "train.txt and val.txt, or take it away"
        )


def hold_out(paths: Sequence[str], share: float) -> tuple[list[str], list[str]]:
    """The paths of a class for training and for validation, which gets at least one of two; a hash chooses."""
    ranked = sorted(paths, key=lambda path: hashlib.sha256(path.encode()).hexdigest())
    count = max(1, round(share * len(paths))) if len(paths) > 1 else 0
    return sorted(ranked[count:]), sorted(ranked[:count])
