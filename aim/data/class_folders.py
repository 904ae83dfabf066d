"""A folder of videos by class, as lists."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from aim.data.columns import columns_in, header
from aim.data.labels import alike, misspelt
from aim.data.list_files import USUAL_FILES, usual_files
from aim.data.lists import USUAL, Lists, Video, hold_out, nfc, read_classes, require_folder, split_of
from aim.data.scanning import UNKNOWN, folders_in, look, some, told
from aim.data.sources.table import Table, tables
from aim.ground.errors import UserError, nearest

OUTSIDE = "outside of the folders of classes"


@dataclass(frozen=True)
class ClassFolders:
    """Lists a folder of videos by class: train/CLASS/* and val/CLASS/*, or CLASS/* split by a hash of the path.

    The usual names of both are taken (USUAL), in any case. List files that lie there already (train.txt, val.txt,
    classes.txt) are used instead; so is a table with a column for the split, or with no folders of classes beside it.
    Nothing is written.
    """

    val_share: float  # of each class, at least one video where it has two

    def __call__(self, root: Path) -> Lists:
        """Raises UserError if there are no classes, a class has no training video, or half of a split is missing."""
        require_folder(root)
        usual = usual_files(root)
        if usual.keys() & USUAL.keys():
            return USUAL_FILES(root)
        found = tables(root)
        if whole := [table for table in found if "split" in columns_in(header(table))]:
            return Table(self.val_share).of_files(root, whole)
        try:
            lists = self.scan(root)
        except UserError:
            if not found:
                raise
            return Table(self.val_share)(root)
        if found:
            offer = f"data.train={found[0].relative_to(root)} or a column split takes it"
            note = f"not used, though it names paths and labels: {found[0]}; {offer}"
            lists = replace(lists, notes=(*lists.notes, note))
        if "classes" in usual:
            check_named(root / usual["classes"][0], lists.classes)
        return lists

    def scan(self, root: Path) -> Lists:
        """The lists by the folders alone."""
        folders, notes = split_folders(root, self.val_share)
        held_out = 0.0
        parts = {split: find_by_class(root, folder, notes) for split, folder in (folders or {"train": ""}).items()}
        if folders:
            split = f"the folders {' and '.join(folders.values())} in {root}"
        else:
            held_out = self.val_share
            split = f"{held_out:.0%} of each class of {root}, by a hash of the path, as there is no folder val"
            halves = {name: hold_out(paths, self.val_share) for name, paths in parts["train"].items()}
            train, val = ({name: each[i] for name, each in halves.items()} for i in range(2))
            parts = {"train": train, "val": val}
        classes = sorted(parts["train"])
        if len(classes) < 2:
            raise UserError(
                f"{root / folders.get('train', '')} holds {len(classes)} folders with videos; put the videos of each "
                f"class into one{''.join(f'; {note}' for note in notes)}"
            )
        notes += [f"warning: {' and '.join(own)} are two classes here, and may be one" for own in alike(classes)]
        notes += misspelt({name: sum(len(part.get(name, ())) for part in parts.values()) for name in classes})
        spelt = {nfc(name): name for name in classes}
        for part in [part for part in folders if part != "train"]:
            if unknown := sorted(name for name in parts[part] if nfc(name) not in spelt):
                raise UserError(
                    f"{root / folders[part]} has classes that {folders['train']} lacks: {', '.join(unknown[:5])}"
                    f"{nearest(unknown[0], classes)}"
                )
            if renamed := [name for name in parts[part] if name not in classes]:
                notes.append(f"spelt otherwise in {folders[part]}, and the same by NFC: {some(renamed)}")
            parts[part] = {spelt[nfc(name)]: paths for name, paths in parts[part].items()}
        lists = {
            part: [Video(path, label) for label, name in enumerate(classes) for path in videos.get(name, [])]
            for part, videos in parts.items()
        }
        if not lists["val"]:
            where = root / folders.get("val", "val")
            raise UserError(f"{root}: no video is left for validation; give each class two or more, or fill {where}")
        third = lists.get("test") or None
        return Lists(
            lists["train"], lists["val"], classes, split=split, third=third, notes=tuple(notes), held_out=held_out
        )


def split_folders(root: Path, val_share: float) -> tuple[dict[str, str], list[str]]:
    """The folders of the splits, none if there are only classes; and notes on others beside them.

    A folder with the name of a split is never a class. Raises UserError for one without its partner.
    """
    names = folders_in(root)
    splits: dict[str, list[str]] = {}
    for name, split in splits_named(names).items():
        splits.setdefault(split, []).append(name)
    if twice := [folders for folders in splits.values() if len(folders) > 1]:
        raise UserError(f"{root} holds {' and '.join(twice[0])}, which mean the same; keep one of them")
    taken = {split: folder for split, (folder,) in splits.items()}
    if "test" in taken and "val" not in taken:
        taken["val"] = taken.pop("test")
    taken = {split: taken[split] for split in USUAL if split in taken}
    if taken and not {"train", "val"} <= taken.keys():
        here = [*taken.values()]
        lacks = "val (or validation, valid, dev, test)" if "train" in taken else "train"
        raise UserError(
            f"{root} holds {' and '.join(here)}, the name of a split, and lacks its other half: add a folder {lacks}, "
            f"or take data.root={root / here[0]}, of which {val_share:.0%} is held out; give a class another name"
        )
    unused = [name for name in names if taken and name not in taken.values()]
    return taken, [f"not used, beside {' and '.join(taken.values())}: {some(unused)}"] if unused else []


def splits_named(names: Sequence[str]) -> dict[str, str]:
    """The split of each folder that is one: by its whole name or, beside the same words, `x_train` and `x_test`."""
    if whole := {name: split for name in names if (split := split_of(name))}:
        return whole
    by_rest = defaultdict[tuple[str, ...], dict[str, str]](dict)
    for name in names:
        words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+", name)
        for i, word in enumerate(words):
            if split := split_of(word):
                by_rest[*words[:i], *words[i + 1 :]][name] = split
    return next((found for found in by_rest.values() if "train" in found.values() and len({*found.values()}) > 1), {})


def find_by_class(root: Path, below: str, notes: list[str]) -> dict[str, list[str]]:
    """The videos of each class, sorted, under root/below/CLASS, by paths relative to `root`; others are noted.

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
    if said := told(left | {UNKNOWN: in_class}):
        notes.append(f"not used in {root / below}: {said}")
    folders = {path: path.removeprefix(start) for path in found.folders}
    empty = [path for path, name in folders.items() if "/" not in name and name not in by_class]
    notes += [f"no video is in {root / path}: it is no class" for path in empty]
    if splits := [path for path, name in folders.items() if "/" in name and split_of(Path(name).name)]:
        notes.append(f"folders inside of classes split nothing, with any name: {some(splits)}; train/CLASS does")
    return merged(by_class, notes)


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
    """Raise UserError if classes.txt names other classes than the folders do."""
    listed, there = ({nfc(name) for name in names} for names in (read_classes(path), classes))
    if listed != there:
        lacking = [f"without a folder: {some(sorted(listed - there))}"] if listed - there else []
        extra = [f"not in it: {some(sorted(there - listed))}"] if there - listed else []
        raise UserError(
            f"{path} names other classes than the folders do ({'; '.join(lacking + extra)}); correct it, add the lists "
            "train.txt and val.txt, or take it away"
        )
