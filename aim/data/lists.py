"""List files: the videos and their labels (format: data/README.md).

Where `test.txt` lies beside `train.txt` and `val.txt`, its videos choose nothing: the test alone sees them.
A line is `path label`, the path relative to the data set's root, the label a line of `classes.txt` counted from 0; a
segment of a video is `path<TAB>start<TAB>end<TAB>label`, in seconds.
"""

import hashlib
import itertools
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from aim.ground.errors import UserError

VIDEO_EXTENSIONS = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".3gp")
README = "data/README.md says where each data set comes from and how its folder looks"
TEST = "test"  # the name of a folder of videos that choose nothing, beside train and another of these
HELD_OUT = ("val", "validation", "valid", TEST)  # names of the folder beside train, by preference


class Stored(NamedTuple):
    """The range of bytes of a video inside a tar file below the data set's root."""

    shard: str
    offset: int
    size: int


class Video(NamedTuple):
    """A labelled video, or its part from `start` to `end` seconds; a separate file unless it's `stored` in a tar."""

    path: str
    label: int
    start: float | None = None
    end: float | None = None
    stored: Stored | None = None  # no list says so, and no hash: it's the same video wherever it lies


@dataclass(frozen=True)
class Lists:
    """The videos of a data set and the names of its classes. Those of the test are `val`, if there is no third list."""

    train: list[Video]
    val: list[Video]
    classes: list[str]
    bad: Mapping[str, str] = field(default_factory=dict)  # path -> why it can't be read, as far as that is known
    split: str = ""  # how `val` was chosen, where the data set doesn't say
    third: list[Video] | None = None  # for the test alone

    @property
    def test(self) -> list[Video]:
        """The videos of the test."""
        return self.val if self.third is None else self.third

    @property
    def parts(self) -> dict[str, list[Video]]:
        """The lists that there are, by name."""
        return {"train": self.train, "val": self.val} | ({} if self.third is None else {"test": self.third})

    @property
    def videos(self) -> list[Video]:
        """Those of all lists."""
        return [video for part in self.parts.values() for video in part]

    def mapped(self, change: Callable[[list[Video]], list[Video]]) -> "Lists":
        """The same with each list changed."""
        train, val, *third = map(change, self.parts.values())
        return replace(self, train=train, val=val, third=third[0] if third else None)


def require_folder(root: Path) -> None:
    """Raise UserError where the data set's root is not a folder."""
    if not root.is_dir():
        raise UserError(f"data.root={root} is not a folder; {README}")


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file, with or without a byte order mark. Raises UserError where it is missing."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        return text.removesuffix("\n").split("\n") if text else []  # a name may hold what else ends a line
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}); {README}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error


def read_classes(path: Path) -> list[str]:
    """The class names, one a line. Raises UserError for a duplicate name, and for an empty file."""
    names = [line.strip() for line in read_lines(path)]
    while names and not names[-1]:
        names.pop()
    seen = set[str]()
    for number, name in enumerate(names, 1):
        if not name or name in seen:
            raise UserError(
                f"{path}:{number}: {'an empty line' if not name else f'{name!r} stands twice'}; one class a line"
            )
        seen.add(name)
    if not names:
        raise UserError(f"{path} is empty; it names the classes, one a line")
    return names


def read_list(path: Path, num_classes: int) -> list[Video]:
    """The videos of a list file. Raises UserError with the first wrong lines."""
    videos, problems = [], []
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            videos.append(parse(line, num_classes))
        except ValueError as error:
            problems.append(f"{path}:{number}: {error}")
    if problems:
        raise UserError("; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else ""))
    if not videos:
        raise UserError(f"{path} names no video; {README}")
    return videos


def parse(line: str, num_classes: int) -> Video:
    """One line of a list file. Raises ValueError with the reason."""
    fields = line.split("\t")
    start = end = None
    if len(fields) == 4:
        name, label = fields[0], fields[3]
        start, end = float(fields[1]), float(fields[2])
        if not 0 <= start < end:
            raise ValueError(f"a segment from {start} to {end} seconds")
    else:
        name, _, label = line.rstrip().rpartition(" ")
    if not name.strip() or not label.strip().isdecimal():
        raise ValueError(f"{line.strip()!r} has no label; a line is a path, a space and a label from 0 on")
    if int(label) >= num_classes:
        raise ValueError(f"label {label.strip()} is not among the {num_classes} classes, 0 to {num_classes - 1}")
    return Video(name.strip(), int(label), start, end)


def format_line(video: Video) -> str:
    """The line of a list file that `parse` reads as this video."""
    if video.start is None or video.end is None:
        return f"{video.path} {video.label}"
    return f"{video.path}\t{video.start}\t{video.end}\t{video.label}"


def write_list(path: Path, videos: Iterable[Video]) -> None:
    """Write a list file atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text("".join(f"{format_line(video)}\n" for video in videos), encoding="utf-8")
    temporary.replace(path)


def data_hash(videos: Sequence[Video], classes: Sequence[str]) -> str:
    """The sha256 of the sorted lines and the class names: the identity of the tested videos."""
    lines = sorted(format_line(video) for video in videos)
    return hashlib.sha256("\n".join([*lines, *classes]).encode()).hexdigest()


def ordered_hash(videos: Sequence[Video], classes: Sequence[str]) -> str:
    """The sha256 of the lines as they follow each other and the class names: their order decides that of training."""
    return hashlib.sha256("\n".join([*map(format_line, videos), *classes]).encode()).hexdigest()


@dataclass(frozen=True)
class ListFiles:
    """Reads the list files in the data set's root."""

    train: str
    val: str
    classes: str
    test: str | None = "test.txt"  # if it's there, and isn't `val`

    def __call__(self, root: Path) -> Lists:
        """Raises UserError with every missing file, and the first wrong lines."""
        require_folder(root)
        missing = [name for name in (self.classes, self.train, self.val) if not (root / name).is_file()]
        if missing:
            raise UserError(f"{root} lacks {', '.join(missing)}; {README}")
        classes = read_classes(root / self.classes)
        lists, problems = [], []
        third = [self.test] if self.test and self.test != self.val and (root / self.test).is_file() else []
        for name in (self.train, self.val, *third):
            try:
                lists.append(read_list(root / name, len(classes)))
            except UserError as error:
                problems.append(f"{error}{'; rename it if it is no list for the test alone' if name in third else ''}")
        if problems:
            raise UserError("; ".join(problems))
        return Lists(lists[0], lists[1], classes, third=lists[2] if third else None)


@dataclass(frozen=True)
class ClassFolders:
    """Lists a folder of videos by class: train/CLASS/* and val/CLASS/*, or CLASS/* split by a hash of the path.

    Instead of val, it may be validation, valid or test; test beside one of those is a third list.

    List files that lie there already (train.txt, val.txt, classes.txt) are used instead. Nothing is written.
    """

    val_share: float  # of each class, at least one video where it has two

    def __call__(self, root: Path) -> Lists:
        """Raises UserError where there are no classes, or a class has no training video."""
        require_folder(root)
        ready = ListFiles("train.txt", "val.txt", "classes.txt")
        if all((root / name).is_file() for name in (ready.train, ready.val, ready.classes)):
            return ready(root)
        return self.scan(root)

    def scan(self, root: Path) -> Lists:
        """The lists by the folders alone."""
        held_out, split = next((name for name in HELD_OUT if (root / name).is_dir()), None), ""
        third = dict[str, list[str]]()
        if (root / "train").is_dir() and held_out:
            train, val = find_by_class(root, "train"), find_by_class(root, held_out)
            if held_out != TEST and (root / TEST).is_dir():
                third = find_by_class(root, TEST)
        else:
            train, val = {}, {}
            split = f"{self.val_share:.0%} of each class, by a hash of the path, as there is no folder val"
            for name, paths in find_by_class(root, "").items():
                train[name], val[name] = hold_out(paths, self.val_share)
        classes = sorted(train)
        if len(classes) < 2:
            raise UserError(f"{root} holds {len(classes)} folders with videos; put the videos of each class into one")
        for folder, part in ((held_out, val), (TEST, third)):
            if unknown := sorted(set(part) - set(classes)):
                raise UserError(f"{root}/{folder} has classes that train lacks: {', '.join(unknown[:5])}")
        lists = [
            [Video(path, classes.index(name)) for name in classes for path in part.get(name, [])]
            for part in (train, val, third)
        ]
        if not lists[1]:
            raise UserError(f"{root}: no video is left for validation; give each class two or more, or fill {root}/val")
        return Lists(lists[0], lists[1], classes, split=split, third=lists[2] or None)


def hold_out(paths: Sequence[str], share: float) -> tuple[list[str], list[str]]:
    """The paths of a class for training and for validation, which gets at least one of two; a hash chooses."""
    ranked = sorted(paths, key=lambda path: hashlib.sha256(path.encode()).hexdigest())
    count = max(1, round(share * len(paths))) if len(paths) > 1 else 0
    return sorted(ranked[count:]), sorted(ranked[:count])


def share_of(videos: Sequence[Video], share: float) -> list[Video]:
    """A share of the videos of each class, at least one, in the order of the list; a hash of their lines chooses.

    A smaller share is part of a larger one, whatever the order of the list.
    """
    if share == 1:
        return list(videos)
    by_class = dict[int, list[Video]]()
    for video in videos:
        by_class.setdefault(video.label, []).append(video)

    def rank(video: Video) -> bytes:
        return hashlib.sha256(f"share {format_line(video)}".encode()).digest()

    chosen = set[Video]()
    for each in by_class.values():
        chosen.update(sorted(each, key=rank)[: max(1, round(share * len(each)))])
    return [video for video in videos if video in chosen]


def find_by_class(root: Path, split: str) -> dict[str, list[str]]:
    """Class name -> paths of the videos under root/split/CLASS, relative to `root`, sorted."""
    folders = sorted(path for path in (root / split).iterdir() if path.is_dir() and not path.name.startswith("."))
    found = {
        folder.name: sorted(
            path.relative_to(root).as_posix()
            for path in folder.rglob("*")
            if path.suffix.lower() in VIDEO_EXTENSIONS and path.is_file()
        )
        for folder in folders
    }
    for path in itertools.chain.from_iterable(found.values()):
        if not re.fullmatch(r"[^\n\r\t\ud800-\udfff]+", path):
            raise UserError(f"{path!r} has a line break, a tab or bytes that aren't UTF-8 in its name; rename it")
    return {name: paths for name, paths in found.items() if paths}


def without_videos(root: Path) -> list[str]:
    """The folders under `root`, relative to it, that look like those of classes and hold no video."""
    splits = [root / name for name in ("train", *HELD_OUT) if (root / name).is_dir()]
    parents = splits if len(splits) > 1 and splits[0].name == "train" else [root]
    folders = (path for parent in parents for path in sorted(parent.iterdir()) if path.is_dir())
    return [
        folder.relative_to(root).as_posix()
        for folder in folders
        if not folder.name.startswith(".")
        and not any(path.suffix.lower() in VIDEO_EXTENSIONS for path in folder.rglob("*"))
    ]


def spread(videos: Sequence[Video], sample: int = 64) -> Sequence[Video]:
    """Some of the videos, evenly spread over the list."""
    return videos[:: max(1, len(videos) // sample)][:sample]


def check_present(root: Path, videos: Sequence[Video]) -> None:
    """Look for some of the videos. Raises UserError when most of them are missing."""
    looked_for = spread(videos)
    missing = [video.path for video in looked_for if not video.stored and not (root / video.path).exists()]
    if len(missing) > len(looked_for) / 2:
        raise UserError(
            f"{len(missing)} of {len(looked_for)} listed videos that were looked for are not under {root}, such as "
            f"{missing[0]}; is data.root right? {README}"
        )
