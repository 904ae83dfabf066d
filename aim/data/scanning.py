"""One look through a folder for its videos, for every verb: what it takes, and what it leaves and why."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

VIDEO_EXTENSIONS = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".3gp")
BROKEN = "broken links"
CIRCLE = "links to a folder that they are in"
HIDDEN = "hidden"
UNREADABLE = "unreadable folders"
UNKNOWN = "unknown endings"
NAMED = 3  # of those that are left for one reason


@dataclass(frozen=True)
class Found:
    """What a folder holds, by paths with slashes: a folder's own files before those of the folders in it, by name."""

    videos: list[str]
    folders: list[str]  # that were looked into, without the first
    left: Mapping[str, list[str]]  # why -> paths; hidden ones only where they'd be looked at otherwise


def look(root: Path, below: str = "") -> Found:
    """Look through `root`, or the folder `below` it; all paths are relative to `root`.

    Links are followed, but not into a folder that they are in. Hidden names are left at every depth.
    """
    videos, folders = list[str](), list[str]()
    left = defaultdict[str, list[str]](list)
    todo: list[tuple[str, frozenset[tuple[int, int]]]] = [(below, frozenset())]
    while todo:
        inside, above = todo.pop()
        try:
            own = os.stat(root / inside)  # noqa: PTH116 - a million Paths would take a minute
            entries = sorted(os.scandir(root / inside), key=lambda entry: entry.name)
        except OSError:
            left[UNREADABLE].append(inside)
            continue
        if (own.st_dev, own.st_ino) in above:
            left[CIRCLE].append(inside)
            continue
        if inside != below:
            folders.append(inside)
        within = above | {(own.st_dev, own.st_ino)}
        deeper = list[str]()
        for entry in entries:
            name = entry.name
            path = f"{inside}/{name}" if inside else name
            is_video = is_video_name(name)
            if name.startswith("."):
                if is_video or kind(entry) == "folder":
                    left[HIDDEN].append(path)
                continue
            match kind(entry):
                case "folder":
                    deeper.append(path)
                case "file":
                    (videos if is_video else left[UNKNOWN]).append(path)
                case "broken":
                    left[BROKEN].append(path)
        todo += [(path, within) for path in reversed(deeper)]
    return Found(videos, folders, left)


def is_video_name(name: str) -> bool:
    """Whether a file of this name is taken for a video."""
    return os.path.splitext(name)[1].lower() in VIDEO_EXTENSIONS  # noqa: PTH122 - of a million names


def kind(entry: os.DirEntry[str]) -> str:
    """What lies behind a name: a file, a folder, a broken link, or what is none of them."""
    try:
        found = "folder" if entry.is_dir() else "file" if entry.is_file() else ""
    except OSError:  # a link to itself, or through what can't be entered
        found = ""
    return found or ("broken" if entry.is_symlink() else "other")


def folders_in(root: Path) -> list[str]:
    """The names of the folders directly in `root` that aren't hidden."""
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and kind(entry) == "folder")


def told(left: Mapping[str, Sequence[str]]) -> str:
    """What was left and why, with numbers and some names: "broken links: 2 (a, b); unknown endings: 1 (.mts)"."""
    parts = []
    for why, paths in left.items():
        if paths:
            names = list(_endings(paths)) if why == UNKNOWN else paths
            parts.append(f"{why}: {len(paths)} ({some(names)})")
    return "; ".join(parts)


def some(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = [f"and {len(names) - NAMED} more"] if len(names) > NAMED else []
    return ", ".join([*names[:NAMED], *more])


def _endings(paths: Sequence[str]) -> Iterator[str]:
    """The endings of some files, the most frequent first, and how often each is there if there are several."""
    counts = Counter(os.path.splitext(path)[1].lower() or "no ending" for path in paths)  # noqa: PTH122
    for ending, count in counts.most_common():
        yield ending if len(counts) == 1 else f"{count} {ending}"
