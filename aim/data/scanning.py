"""The scan of a folder for videos, for every verb: the used ones, and the skipped ones with reasons."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

VIDEO_EXTENSIONS = (
    ".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".3gp",
    ".mts", ".m2ts", ".m2v", ".vob", ".ogv", ".asf", ".3g2", ".f4v", ".mxf", ".dv", ".y4m",
)  # fmt: skip
ANIMATED = (".webp", ".gif")  # pictures that are videos if they have several frames
ENDINGS = (*VIDEO_EXTENSIONS, *ANIMATED)  # of the names that a video may have
BROKEN = "broken links"
CIRCLE = "links to a folder that they are in"
HIDDEN = "hidden"
STILL = "pictures of one frame"
UNREADABLE = "unreadable folders"
UNKNOWN = "unknown endings"
NAMED = 3  # of those skipped for one reason


@dataclass(frozen=True)
class Found:
    """The content of a folder by paths with slashes: a folder's own files before those of its folders, by name."""

    videos: list[str]
    folders: list[str]  # that were looked into, without the first
    left: Mapping[str, list[str]]  # reason -> paths; hidden ones only if they'd be used otherwise


def look(root: Path, below: str = "") -> Found:
    """Look through `root`, or the folder `below` it; all paths are relative to `root`.

    Links are followed, except into their own parent folders. Hidden names are skipped at every depth.
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
            if name.startswith("."):
                if is_video_name(name) or kind(entry) == "folder":
                    left[HIDDEN].append(path)
                continue
            match kind(entry):
                case "folder":
                    deeper.append(path)
                case "file":
                    why = left_for(f"{root}/{path}")
                    (left[why] if why else videos).append(path)
                case "broken":
                    left[BROKEN].append(path)
        todo += [(path, within) for path in reversed(deeper)]
    return Found(videos, folders, left)


def is_video_name(name: str) -> bool:
    """Whether a file of this name counts as a video, without opening it."""
    return ending(name) in VIDEO_EXTENSIONS


def left_for(file: str) -> str:
    """The reason why a file isn't a video, by its name and, for a picture, its frames; empty for a video."""
    if is_video_name(file):
        return ""
    if ending(file) not in ANIMATED:
        return UNKNOWN
    from aim.data.readers.animated import is_animated  # late: a report and --help don't need PyAV

    return "" if is_animated(Path(file)) else STILL


def ending(name: str) -> str:
    """The ending of a file's name, in small letters."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - of a million names


def kind(entry: os.DirEntry[str]) -> str:
    """The kind of an entry: a file, a folder, a broken link, or another."""
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
    """The skipped entries by reason, with numbers and names: "broken links: 2 (a, b); unknown endings: 1 (.mts)"."""
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
    """The endings of some files, the most frequent first, with counts if there are several."""
    counts = Counter(ending(path) or "no ending" for path in paths)
    for each, count in counts.most_common():
        yield each if len(counts) == 1 else f"{count} {each}"
