"""Labels as people write them, numbers or names of classes; and the ones that a task accepts."""

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from aim.data.columns import Row
from aim.data.lists import BETWEEN, NOTHING, Lists, Video, labels_in, nfc
from aim.data.scanning import some
from aim.ground.errors import UserError, nearest

MANY = 5  # videos of a class, beside which one that a single video has may be a misspelling
WITHIN = "lie within others, and have the labels of these, too"
ACROSS = "overlap others, and have the labels of their own lines alone"
LIKE = 0.75  # of two names as difflib compares them, from which on they are near


@dataclass(frozen=True)
class Labels:
    """The classes as labels name them: by a name or, counted from 0, by a line of classes.txt.

    Without classes any text may be a name: `named_classes` finds them.
    """

    classes: Sequence[str] = ()
    numbers_are_names: bool = False  # of classes that are called 1, 2, 3

    @cached_property
    def by_name(self) -> dict[str, int]:
        """The classes by name, as it is compared with others."""
        return {nfc(name): number for number, name in enumerate(self.classes)}

    def knows(self, text: str) -> bool:
        """Whether a text may be a label."""
        return bool(text) and (not self.classes or text.isdecimal() or nfc(text) in self.by_name)

    def fits(self, text: str) -> bool:
        """Whether a text may be a label, several, or the sign of none."""
        return self.knows(text) or text == NOTHING or len(self.each(text)) > 1

    def each(self, text: str) -> list[str]:
        """The labels of a text, with a comma, a semicolon or a bar between several; an empty one and `-` have none."""
        if not text or (text == NOTHING and NOTHING not in self.by_name):
            return []
        return labels_in(text, self.by_name) or [text]

    def numbers(self, text: str) -> list[int]:
        """The classes of each label in a text. Raises ValueError for what names none."""
        return [self.number(each) for each in self.each(text)]

    def number(self, text: str) -> int:
        """The class that a label names. Raises ValueError for none."""
        if text.isdecimal() and not self.numbers_are_names:
            number = int(text)
            if number >= len(self.classes):
                raise ValueError(
                    f"label {text} is not among the {len(self.classes)} classes, 0 to {len(self.classes) - 1}"
                )
            return number
        if nfc(text) not in self.by_name:
            parts = re.split(BETWEEN, text)
            unknown = [part.strip() for part in parts if not self.knows(part.strip())]
            name = unknown[0] if len(unknown) < len(parts) else text
            near = nearest(name, self.classes)
            raise ValueError(f"{name!r} is neither a class of classes.txt nor a number{near}; add a new one at its end")
        return self.by_name[nfc(text)]


def settled(rows: Sequence[Row], classes: Sequence[str], where: Path) -> Labels:
    """The labels of these rows, where `where` names the classes. Raises UserError for labels that mean two things.

    That may be so with classes called 1, 2, 3, whose lines are 0, 1, 2.
    """
    labels = Labels(classes)
    numbers = {label for row in rows for label in labels.each(row.label) if label.isdecimal()}
    two = [text for text in sorted(numbers, key=int) if labels.by_name.get(text, int(text)) != int(text)]
    if not two:
        if str(len(classes)) in numbers and "0" not in numbers and all(int(text) <= len(classes) for text in numbers):
            row = next(row for row in rows if str(len(classes)) in labels.each(row.label))
            raise UserError(
                f"{row.place}: label {len(classes)} is not among the {len(classes)} classes of {where}, 0 to "
                f"{len(classes) - 1}, and none is 0: labels seem to count from 1; count from 0, or write the names"
            )
        return labels
    as_names = numbers <= labels.by_name.keys()
    if as_names and all(int(text) < len(classes) for text in numbers):
        text = two[0]
        raise UserError(
            f"{next(row.place for row in rows if text in labels.each(row.label))}: label {text} is class "
            f"{classes[int(text)]!r}, by the lines of {where} counted from 0, or the class named {text!r}; give the "
            f"classes of {where} names that are no numbers, or count from 0"
        )
    return Labels(classes, numbers_are_names=as_names)


def named_classes(rows: Sequence[Row], where: str) -> list[str]:
    """The classes that labels in words name, sorted, where no classes.txt does.

    Several labels are such where each is one of another video, too; the task says what others are (`Lists.in_words`).
    Raises UserError if no row has a label, and as `ordered` does.
    """
    counts = Counter(row.label for row in rows if row.label not in ("", NOTHING))
    if not counts:
        raise UserError(f"{rows[0].place}: none of the {len(rows)} rows has a label; fill the column, or name classes")
    alone = {nfc(name): 0 for name in counts if not re.search(BETWEEN, name)}
    for name in [*counts.keys() - alone.keys()]:
        if parts := labels_in(name, alone):
            number = counts.pop(name)
            counts.update(dict.fromkeys(parts, number))
    return ordered(counts, where)


def ordered(counts: Mapping[str, int], where: str) -> list[str]:
    """Names of classes in their order, from the numbers of their videos.

    Raises UserError for two spellings of a class, and for numbers beside words.
    """
    if twice := alike(counts):
        both = " and ".join(f"{name!r} ({counts[name]} videos)" for name in twice[0])
        raise UserError(
            f"{where}: {both} may be one class; write it in one way, or name both in classes.txt if they are two"
        )
    numbers = sorted((name for name in counts if name.isdecimal()), key=int)
    if numbers and len(numbers) < len(counts):
        word = next(name for name in counts if not name.isdecimal())
        raise UserError(f"{where}: some labels are numbers, such as {numbers[0]}, and some are words, such as {word!r}")
    return numbers or sorted({nfc(name): name for name in sorted(counts)}.values())


def alike(names: Iterable[str]) -> list[list[str]]:
    """The names that may be spellings of one: they differ in case, in spaces, or in signs that stand for these."""
    spelt = defaultdict[str, list[str]](list)
    for name in sorted(name for name in names if not re.fullmatch(r"-?\d+", name)):
        spelt[re.sub(r"[\s_-]+", " ", nfc(name)).strip().casefold()].append(name)
    return [own for own in spelt.values() if len({*map(nfc, own)}) > 1]


def misspelt(counts: Mapping[str, int]) -> list[str]:
    """Warnings of names that one video alone has, and that are near in spelling to a class of MANY or more.

    Names that differ in their numbers alone are none.
    """
    many = {nfc(name).casefold(): name for name, count in counts.items() if count >= MANY}
    said = []
    for name in [name for name, count in counts.items() if count == 1]:
        near = difflib.get_close_matches(nfc(name).casefold(), many, n=1, cutoff=LIKE)
        if near and re.sub(r"\d+", "", near[0]) != re.sub(r"\d+", "", nfc(name).casefold()):
            other = many[near[0]]
            said.append(f"warning: class {name!r} has one video, and may be {other!r} ({counts[other]}) misspelt")
    return said


def counted(lists: Lists) -> Counter[str]:
    """The classes that videos have, with the number of these."""
    return Counter(lists.classes[label] for video in lists.videos for label in video.labels)


def single(lists: Lists) -> Lists:
    """The lists as they are. Raises UserError if a video has no label or several."""
    lists = worded(lists, many=False)
    for part, videos in lists.parts.items():
        if other := [video for video in videos if len(video.labels) != 1]:
            names = ", ".join(lists.classes[label] for label in other[0].labels) or "none"
            raise UserError(
                f"{len(other)} of {len(videos)} videos of the {part} list have several labels, or none, such as "
                f"{other[0].path} ({names}); add task=multi_label, or keep one label a video"
            )
    return noted(lists, misspelt(counted(lists))) if lists.in_words else lists


def worded(lists: Lists, *, many: bool) -> Lists:
    """The lists with each label in words as a class or, with `many`, as several where a sign of BETWEEN stands in it.

    A warning names those that are one class in spite of a sign. Raises UserError for a label that may be one class or
    several, and as `ordered` does.
    """
    names = joined(lists.classes) if lists.in_words else []
    if not names:
        return lists
    if many:
        return divided(lists)
    known = {nfc(name) for name in lists.classes}
    way = "add task=multi_label where its words are several labels, or name the classes in classes.txt"
    for name in names:
        if inside := [part for part in parts_of(name) if nfc(part) in known - {nfc(name)}]:
            raise UserError(f"label {name!r} may be one class or several, as {inside[0]!r} is one; {way}")
    if not lists.val:
        raise UserError(f"label {names[0]!r} has one file, as has each class, so that none is held out; {way}")
    return noted(lists, [f"warning: each label is one class, its words together: {some(names)}; {way}"])


def joined(names: Iterable[str]) -> list[str]:
    """The names in which a sign stands between words, as between several labels."""
    return [name for name in names if parts_of(name) != [name]]


def parts_of(name: str) -> list[str]:
    """The labels of a text in words that has several."""
    return [part.strip() for part in re.split(BETWEEN, name) if part.strip()]


def several(lists: Lists) -> Lists:
    """The lists with each part of a video once, with all labels that lines give it or a part that it lies within.

    Parts that overlap, and of which neither lies within the other, keep the labels of their own lines. Labels in words
    are several where a sign of BETWEEN stands in them. Notes say of how many parts that is so, and that no video has
    several labels.
    """
    overlaps = Counter[str]()
    lists = worded(lists, many=True)
    found = lists.mapped(lambda videos: _together(videos, overlaps))
    notes = [f"{count} parts of videos {what}" for what, count in overlaps.items() if count]
    notes += misspelt(counted(found)) if lists.in_words else []
    if found.videos and all(len(video.labels) == 1 for video in found.videos):
        notes.append("every video has one label; task=single_label asks which of the classes it is")
    return noted(found, notes)


def noted(lists: Lists, notes: Sequence[str]) -> Lists:
    """The lists with more to be said of them."""
    return replace(lists, notes=(*lists.notes, *notes)) if notes else lists


def divided(lists: Lists) -> Lists:
    """The lists with each class in words that is several as these. Raises UserError as `ordered` does."""
    counts = Counter[str]()
    for name, count in counted(lists).items():
        counts.update(dict.fromkeys(parts_of(name), count))
    classes = ordered(counts, lists.split)
    places = {nfc(name): place for place, name in enumerate(classes)}
    labels = [[places[nfc(part)] for part in parts_of(name)] for name in lists.classes]
    found = lists.mapped(
        lambda videos: [video.labelled(x for i in video.labels for x in labels[i]) for video in videos]
    )
    return replace(found, classes=classes)


def _together(videos: list[Video], overlaps: Counter[str]) -> list[Video]:
    """The videos in the order of their first lines; it's counted how many parts take labels of others, or don't."""
    labels = dict[Video, set[int]]()
    for video in videos:
        labels.setdefault(video.labelled(()), set()).update(video.labels)
    timed = [(x.path, x.start, x.end, x) for x in labels if x.start is not None and x.end is not None]
    around = list[tuple[float, Video]]()  # parts of the same file that begin no later, with their ends
    for path, start, end, part in sorted(timed, key=lambda each: (each[0], each[1], -each[2])):
        around = [(until, other) for until, other in around if other.path == path and until > start]
        within = [other for until, other in around if until >= end]  # whose labels are complete already
        more = labels[part].union(*(labels[other] for other in within))
        overlaps[WITHIN] += more != labels[part]
        overlaps[ACROSS] += len(within) < len(around)
        labels[part] = more
        around.append((end, part))
    return [video.labelled(own) for video, own in labels.items()]
