"""Folds and groups: held-out videos, and videos that are never divided."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from aim.data.list_files import ListFiles
from aim.data.lists import NONE, USUAL, Lists, Video, hold_out, nfc, set_apart
from aim.data.scanning import some
from aim.ground import folds
from aim.ground.errors import UserError


def in_folds(lists: Lists, fold: str | int | None, pattern: str | None) -> Lists:
    """The lists as one of N folds; or, if a hash divides them, with groups kept together and a share of each label.

    Groups are by `pattern`, or else by a table's column.

    Folds are of all videos but those for the test alone, stratified by class as well as groups allow. They depend only
    on paths from the data set's root, and labels.
    """
    groups = groups_of(lists, pattern)
    lists = replace(lists, groups={nfc(path): group for path, group in groups.items()})
    number = len({*groups.values()})
    by = f"{number} by data.groups={pattern}" if pattern is not None else f"{number} by a table's column"
    together = f", groups kept together ({by})" if groups else ""
    if fold is not None:
        return one_fold(lists, *folds.parsed(fold, None), groups, together)
    if lists.held_out and (groups or any(len(video.labels) != 1 for video in lists.videos)):
        videos = [*lists.train, *lists.val]
        train, val = halves(videos, held_out_of(videos, groups, lists.held_out))
        return replace(lists, train=train, val=val, split=f"{lists.split}{together}")
    if groups:
        learnt, *others = ({groups[video.path] for video in part} for part in lists.parts.values())
        both = sorted(learnt & set[str]().union(*others))
        said = f"of the groups ({by}) {len(both)} are in training and in another list"
        return replace(lists, notes=(*lists.notes, f"warning: {said} ({some(both)})" if both else said))
    return lists


def one_fold(lists: Lists, number: int, count: int, groups: Mapping[str, str], together: str) -> Lists:
    """The lists of the fold of this number, from 1; `together` says of groups how they were kept."""
    videos = [*lists.train, *lists.val]
    places = folds_of(videos, groups, count)
    check_folds(videos, places, lists.classes, count)
    train, val = halves(videos, {path for path, place in places.items() if place == number - 1})
    where = f"{len(videos)} videos, by a hash of the path{together}"
    split = f"fold {number} of {count} of {where}; without folds: {lists.split}"
    without = lacking(val, lists)
    notes = [f"no video of fold {number} is of class {some(without)}"] if without else []
    if lists.third is not None:
        notes.append(f"{len(lists.third)} videos for the test alone are in no fold, and not used")
    return replace(lists, train=train, val=val, third=None, split=split, notes=(*lists.notes, *notes), held_out=0.0)


def halves(videos: Sequence[Video], chosen: Container[str]) -> tuple[list[Video], list[Video]]:
    """The videos without those of the chosen paths, and these."""
    rest, own = ([video for video in videos if (video.path in chosen) == held] for held in (False, True))
    return rest, own


def halves_by_hash(videos: Sequence[Video], share: float) -> tuple[list[Video], list[Video]]:
    """The videos for training, and about this share for validation; all parts of a file are in one of them."""
    labels = defaultdict[str, set[tuple[int, ...]]](set)
    for video in videos:
        labels[video.path].add(video.labels)
    many = any(len(own) > 1 or len(min(own)) != 1 for own in labels.values())
    if many and len(labels) > 1:
        return halves(videos, held_out_of(videos, {}, share))
    by_class = defaultdict[tuple[int, ...], list[str]](list)
    for path, own in labels.items():
        by_class[min(own)].append(path)
    return halves(videos, {path for paths in by_class.values() for path in hold_out(paths, share)[1]})


def apart(lists: Lists, share: float) -> tuple[list[Video], list[Video]]:
    """The training videos without a share of each class, and these; groups are kept together, where there are any."""
    if not lists.groups:
        return set_apart(lists.train, share)
    groups = {video.path: lists.groups.get(nfc(video.path), video.path) for video in lists.train}
    return halves(lists.train, held_out_of(lists.train, groups, share))


def groups_of(lists: Lists, pattern: str | None) -> dict[str, str]:
    """The group of each path, by a pattern or by a table's column; empty where there are none.

    A group is what the brackets of the pattern match, or all of it without brackets. Raises UserError for a path that
    it doesn't match.
    """
    paths = dict.fromkeys(video.path for video in lists.videos)
    if pattern is None:
        return {path: lists.groups.get(nfc(path), path) for path in paths} if lists.groups else {}
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"data.groups={pattern} is no regular expression ({error}); write 'data.groups=...'") from error
    matches = {path: compiled.search(path) for path in paths}
    if other := [path for path, match in matches.items() if match is None]:
        raise UserError(
            f"data.groups={pattern} is not in {len(other)} of {len(paths)} paths, such as {other[0]}; use a regular "
            "expression that is found in each path from data.root on"
        )
    return {
        path: "/".join(part or "" for part in match.groups()) or match[0] for path, match in matches.items() if match
    }


def folds_of(videos: Sequence[Video], groups: Mapping[str, str], count: int) -> dict[str, int]:
    """The fold of each path, from 0 to count - 1. Raises UserError if there are more folds than groups."""
    units = {groups.get(video.path, video.path) for video in videos}
    if len(units) < count:
        what = "groups" if groups else "videos"
        raise UserError(
            f"data.fold=K/{count}: {len(units)} {what} leave a fold empty; use data.fold=K/{len(units)} or fewer folds"
        )
    return assigned(videos, groups, [1 / count] * count)


def held_out_of(videos: Sequence[Video], groups: Mapping[str, str], share: float) -> set[str]:
    """The paths that are held out, about this share of each class. Raises UserError if there is one group."""
    units = Counter(groups.get(video.path, video.path) for video in videos)
    if len(units) < 2:
        raise UserError(
            f"data.groups: all videos are of group {next(iter(units), None)!r}, so that none can be held out; use a "
            "pattern with several groups"
        )
    places = assigned(videos, groups, [share, 1 - share])
    if not any(place == 0 for place in places.values()):
        least = min(units, key=lambda unit: (units[unit], _rank(unit)))
        places |= {path: 0 for path in places if groups.get(path, path) == least}
    return {path for path, place in places.items() if place == 0}


def assigned(videos: Sequence[Video], groups: Mapping[str, str], shares: Sequence[float]) -> dict[str, int]:
    """The part of each path, where parts have these shares of each class, and groups aren't divided.

    From the largest group on (ties by a hash of their names), each goes where the sum over classes of the squared
    distance from the share, divided by it, grows least; then where there are fewest videos.
    """
    units = defaultdict[str, Counter[int]](Counter)
    for video in videos:
        units[groups.get(video.path, video.path)].update(video.labels or [NONE])
    total = sum(units.values(), Counter[int]())
    counts = [Counter[int]() for _ in shares]
    place = dict[str, int]()
    for unit in sorted(units, key=lambda unit: (-units[unit].total(), _rank(unit))):
        own = units[unit]

        def cost(part: int, own: Mapping[int, int] = own) -> tuple[float, float]:
            grown = 0.0
            for label, more in own.items():
                wanted = shares[part] * total[label]
                grown += more * (2 * (counts[part][label] - wanted) + more) / wanted
            return round(grown, 9), counts[part].total() / shares[part]

        place[unit] = min(range(len(shares)), key=cost)
        counts[place[unit]].update(own)
    return {video.path: place[groups.get(video.path, video.path)] for video in videos}


def _rank(unit: str) -> str:
    return hashlib.sha256(f"fold {unit}".encode()).hexdigest()


def check_folds(videos: Sequence[Video], places: Mapping[str, int], classes: Sequence[str], count: int) -> None:
    """Raise UserError if a fold leaves a class without training videos."""
    inside = defaultdict[int, set[int]](set)
    for video in videos:
        for label in video.labels:
            inside[label].add(places[video.path])
    if alone := [label for label, own in sorted(inside.items()) if len(own) == 1]:
        names = some([classes[label] for label in alone])
        fold = next(iter(inside[alone[0]])) + 1
        raise UserError(
            f"data.fold={fold}/{count} holds out all videos of class {names}; use a data.groups by which a class is in "
            "two groups or more, or leave the class out"
        )


def lacking(videos: Sequence[Video], lists: Lists) -> list[str]:
    """The classes without a video."""
    there, known = ({label for video in own for label in video.labels} for own in (videos, lists.videos))
    return [name for label, name in enumerate(lists.classes) if label in known - there]


def listed_in(root: Path, folder: str, fold: str | int, classes: str | None) -> ListFiles:
    """The lists of a fold, in a folder of them. Raises UserError if there is no such fold, or half of one."""
    place = folds.inside(root, folder)
    every = folds.files_in(place)
    number, _ = folds.parsed(fold, folder)
    if number not in every:
        raise UserError(f"data.fold={number}: {place} has the folds {', '.join(map(str, every))}; use one of them")
    parts: dict[str, Path] = {}
    for path in every[number]:
        words = re.split(r"[^a-z]+", path.stem.lower())
        part = next((part for part, names in USUAL.items() if any(word.startswith(names) for word in words)), None)
        if part is None:
            continue
        if part in parts:
            raise UserError(f"data.folds={place}: {parts[part]} and {path} are both lists of fold {number}; keep one")
        parts[part] = path
    if "val" not in parts and "test" in parts:
        parts["val"] = parts.pop("test")
    if not {"train", "val"} <= parts.keys():
        lacks = "train" if "train" not in parts else "val"
        there = some([str(path) for path in every[number]])
        raise UserError(f"data.folds={place} lacks the list {lacks} of fold {number}; it has {there}")
    own = place / "classes.txt"
    named = classes or (str(own) if own.is_file() and not (root / own.name).is_file() else own.name)
    return ListFiles(str(parts["train"]), str(parts["val"]), named, str(parts["test"]) if "test" in parts else None)
