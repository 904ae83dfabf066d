"""The data set of list files: train.txt, val.txt, classes.txt and, if it is there, test.txt; or others by settings.

Labels in words name the classes if there is no classes.txt.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aim.data.columns import Row, header, is_table
from aim.data.labels import Labels, named_classes, settled
from aim.data.lists import README, USUAL, Lists, Video, nfc, read_classes, require_folder
from aim.data.rows import check_split, groups_of, read_rows, videos_of
from aim.data.scanning import some
from aim.ground.errors import UserError
from aim.ground.paths import path_of


@dataclass(frozen=True)
class ListFiles:
    """Reads list files: in the data set's root or, if missing there, by their own paths.

    If train.txt is given and missing, another usual name is used (USUAL), in any case; likewise for the others.
    """

    train: str
    val: str
    classes: str
    test: str | None = "test.txt"  # if it's there, and isn't `val`

    def __call__(self, root: Path) -> Lists:
        """Raises UserError with every missing file, and the first wrong lines."""
        require_folder(root)
        usual = usual_files(root)
        named = {"classes": self.classes, "train": self.train, "val": self.val, "test": self.test}
        places = {part: place(root, part, name, usual) for part, name in named.items() if name}
        if is_usual("test", named["test"]) and places.get("test") in (None, places["val"]):
            places.pop("test", None)
        files = {part: path for part, path in places.items() if path}
        lacking = [part for part, name in named.items() if name and part in places.keys() - files.keys()]
        if lacking and (lacking != ["classes"] or not is_usual("classes", self.classes)):
            raise UserError(lacks(root, [str(named[part]) for part in lacking], files))
        classes = read_classes(files["classes"]) if "classes" in files else []
        rows, problems, notes = dict[str, list[Row]](), [], list[str]()
        for part in [part for part in files if part != "classes"]:
            try:
                rows[part], columns = read_rows(files[part], Labels(classes))
                notes += [columns] if columns else []
            except UserError as error:
                problems.append(_of_test(part, error))
        if problems and not classes:
            raise UserError("; ".join(problems))
        every = [row for part in rows.values() for row in part]
        if not classes:
            if all(row.label.isdecimal() for row in every):
                raise UserError(lacks(root, [self.classes], files))
            classes = named_classes(every, str(root))
        labels = settled(every, classes, files.get("classes", root))
        lists = dict[str, list[Video]]()
        for part, own in rows.items():
            try:
                check_split(own, part)
                videos = videos_of(own, labels)
            except UserError as error:
                problems.append(_of_test(part, error))
            else:
                lists[part] = respelt(root, videos)
                if changed := [old.path for old, new in zip(videos, lists[part], strict=True) if old != new]:
                    where = f"in {files[part]} than on the disk"
                    notes.append(f"spelt otherwise {where}, and the same by NFC: {some(changed)}")
        if problems:
            raise UserError("; ".join(problems))
        open_to = [part for part in usual if is_usual(part, named[part])]  # any of its usual names
        unused = [name for part in open_to for name in usual[part] if root / name not in files.values()]
        if unused:
            notes.append(f"not used in {root}: {some(unused)}")
        if (other := beside(files["train"])) and other != files.get("classes"):
            if is_usual("classes", self.classes) and "classes" in files:
                check_unlike(files["classes"], other, rows.get("train", ()))
            notes.append(f"{other} isn't used; if the labels are its lines, add data.classes={other}")
        short = {part: path.relative_to(root) if path.is_relative_to(root) else path for part, path in files.items()}
        of_classes = f"the classes of {short['classes']}" if "classes" in short else "classes by their labels"
        names = " and ".join(str(short[part]) for part in lists)
        split = f"the files {names} in {root}, with {of_classes}"
        return Lists(
            lists["train"], lists["val"], classes,
            split=split, third=lists.get("test"), notes=tuple(notes), groups=groups_of(every),
            in_words="classes" not in files,
        )  # fmt: skip


def lacks(root: Path, names: Sequence[str], files: Mapping[str, Path]) -> str:
    """The missing files, the existing ones, and the ways out."""
    there = [str(path) for path in files.values()]
    other = next((path for path in files.values() if path.suffix in (".csv", ".tsv") and not is_table(path)), None)
    why = f" ({other} is no table: its first line, {header(other)!r}, doesn't name a path and a label)" if other else ""
    beside = f", beside {some(there)}" if there else ""
    return (
        f"{root} lacks {', '.join(names)}{beside}{why}: add the missing ones; or name other lists, "
        f"data.train=FILE data.val=FILE data.classes=FILE; or rename other files; {README}"
    )


def _of_test(part: str, error: UserError) -> str:
    """An error of a list; another file may be called test.txt."""
    return f"{error}{'; rename it if it is no list for the test alone' if part == 'test' else ''}"


USUAL_FILES = ListFiles("train.txt", "val.txt", "classes.txt")


def is_usual(part: str, name: str | None) -> bool:
    """Whether this is a usual name of a list, with alternatives."""
    return name in ("classes.txt", *(f"{usual}.txt" for usual in USUAL.get(part, ())))


def usual_files(root: Path) -> dict[str, list[str]]:
    """The files in a folder that have the usual name of a list, by what it is: train, val, test or classes."""
    usual = {name: part for part, names in {**USUAL, "classes": ("classes",)}.items() for name in names}
    stems = {path.name: path.stem.lower() for path in root.iterdir() if path.suffix.lower() == ".txt"}
    names = [name for name, stem in stems.items() if stem in usual and (root / name).is_file()]
    found: dict[str, list[str]] = {}
    for name in sorted(names, key=lambda name: ([*usual].index(stems[name]), not name.islower(), name)):
        found.setdefault(usual[stems[name]], []).append(name)
    return found


def place(root: Path, part: str, name: str, usual: Mapping[str, Sequence[str]]) -> Path | None:
    """Where the list of this name is: in the root or, if the name is no usual one, wherever else it leads."""
    named = root / path_of(name)
    if named.is_file():
        return named
    if not is_usual(part, name):
        path = path_of(name)
        return path if path.is_file() else None
    others = [*usual.get(part, ()), *(usual.get("test", ()) if part == "val" else ())]
    return root / others[0] if others else None


def beside(train: Path) -> Path | None:
    """The classes_NAME.txt that lies beside a train_NAME.txt."""
    stem = re.sub("train(ing)?", "classes", train.name, count=1, flags=re.IGNORECASE)
    path = train.with_name(stem)
    return path if path.is_file() and path != train else None


def check_unlike(taken: Path, other: Path, rows: Sequence[Row]) -> None:
    """Raise UserError if labels are numbers that both files of classes can name, and name differently."""
    names, others = map(read_classes, (taken, other))
    numbers = {int(row.label) for row in rows if row.label.isdecimal()}
    fit = max(numbers, default=len(names)) < min(len(names), len(others))
    if fit and any(nfc(names[number]) != nfc(others[number]) for number in numbers):
        raise UserError(
            f"the labels are numbers, and both {taken} and {other} could name them: add data.classes={other}, or "
            f"data.classes=./{taken.name} if it's that"
        )


def respelt(root: Path, videos: Sequence[Video]) -> list[Video]:
    """The videos with the names of the disk, where those are the listed ones by NFC and not by every sign."""
    inside: dict[Path, dict[str, str]] = {}
    found = []
    for video in videos:
        if not video.path.isascii() and not (root / video.path).exists():
            folder = root
            for name in Path(video.path).parts:
                if folder not in inside:
                    inside[folder] = {nfc(path.name): path.name for path in folder.iterdir()} if folder.is_dir() else {}
                folder /= inside[folder].get(nfc(name), name)
            if folder.exists():
                video = video._replace(path=folder.relative_to(root).as_posix())
        found.append(video)
    return found
