"""Repeated videos of a data set: in two lists, twice in one, or under two labels."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain, combinations
from pathlib import Path

from aim.data.lists import Video
from aim.data.scanning import some
from aim.data.stamp import hash_of_ends


def repeats(root: Path, lists: Mapping[str, Sequence[Video]], classes: Sequence[str], *, compare: bool) -> list[str]:
    """Warnings about videos that are listed more than once, by their paths and, if `compare`, their content.

    `lists` are by the words for their videos, such as "training".
    """
    paths = sorted({video.path for video in chain(*lists.values()) if not video.stored})
    first = same_content(root, paths) if compare else {}
    every = [first.get(video.path, video.path) for video in chain(*lists.values())]
    if len(set(every)) == len(every):
        return []
    files = {
        words: {video.path: first.get(video.path, video.path) for video in videos} for words, videos in lists.items()
    }
    said = []
    for words, videos in lists.items():
        again = Counter((video.path, video.start, video.end, video.labels) for video in videos)
        if twice := [path for (path, *_), count in again.items() if count > 1]:
            said.append(f"repeated lines in the {words} list: {len(videos) - len(again)} ({some(twice)})")
        own = files[words]
        if copies := [f"{path} = {other}" for path, other in own.items() if path != other and other in own]:
            said.append(f"{words} videos that are copies of others: {len(copies)} ({some(copies)})")
    for one, other in combinations(lists, 2):
        known = {content: path for path, content in files[one].items()}
        if both := {path: known[content] for path, content in files[other].items() if content in known}:
            named = [path if path == same else f"{path} = {same}" for path, same in both.items()]
            said.append(
                f"{other} videos that are {one} videos, too: {len(both)} of {len(files[other])} ({some(named)})"
            )
    labels = defaultdict[tuple[str, float | None, float | None], set[tuple[int, ...]]](set)
    for video in chain(*lists.values()):
        labels[first.get(video.path, video.path), video.start, video.end].add(video.labels)
    several = {path: sorted(own) for (path, *_), own in labels.items() if len(own) > 1}
    if torn := [
        f"{path}: {' and '.join(','.join(classes[i] for i in each) or 'none' for each in own)}"
        for path, own in several.items()
    ]:
        said.append(f"videos under two labels or more: {len(torn)} ({some(torn)})")
    return said


def same_content(root: Path, paths: Iterable[str]) -> dict[str, str]:
    """The files that have the size of others, each with the first of those whose head and tail are the same."""
    by_size = defaultdict[int, list[str]](list)
    for path in paths:
        try:
            size = (root / path).stat().st_size
        except OSError:
            continue  # it's missing, and said so elsewhere
        if size:
            by_size[size].append(path)
    found = dict[str, str]()
    for size, alike in by_size.items():
        if len(alike) > 1:
            seen = dict[str, str]()
            for path in alike:
                with suppress(OSError):  # its reader says why
                    found[path] = seen.setdefault(hash_of_ends(root / path, 0, size), path)
    return found
