"""List files: the videos and their labels (format: data/README.md).

With a `test.txt` beside `train.txt` and `val.txt`, its videos are only for the test, and choose nothing. A line is
`path label`, the path relative to the data set's root, the label a line of `classes.txt` counted from 0, or its name; a
segment of a video is `path<TAB>start<TAB>end<TAB>label`, in seconds. A path that would be misread, such as one with a
space at an end, is written as a JSON string. `aim.data.rows` reads lines, and tables with a header.
"""

import codecs
import hashlib
import json
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aim.data.scanning import ENDINGS, is_video_name
from aim.ground.errors import UserError

README = "data/README.md says where each data set comes from and how its folder looks"
USUAL = {  # the names that a split's folder has, and its list file before its ending, in any case, by preference
    "train": ("train", "training"),
    "val": ("val", "validation", "valid", "dev", "eval"),
    "test": ("test", "testing"),
}
HELD_OUT = (*USUAL["val"], *USUAL["test"])
COMMENT = re.compile(r"#(\s|$)")
FOLLOWED = re.compile(rf".*?({'|'.join(map(re.escape, ENDINGS))})[\s,;]+(.*)", re.IGNORECASE | re.DOTALL)


class Stored(NamedTuple):
    """The range of bytes of a video inside a tar file below the data set's root."""

    shard: str
    offset: int
    size: int


NONE = -1  # in the place of a label
NOTHING = "-"  # in a list, in the place of a label
BETWEEN = "[,;|]"  # between the labels of a video


class Video(NamedTuple):
    """A labelled video, or its part from `start` to `end` seconds; a separate file unless it's `stored` in a tar."""

    path: str
    label: int  # of several the first, NONE without any
    start: float | None = None
    end: float | None = None
    stored: Stored | None = None  # in no list and no hash: it's the same video in any place
    also: tuple[int, ...] = ()  # its other labels, ascending

    @property
    def labels(self) -> tuple[int, ...]:
        """All of them, ascending."""
        return () if self.label == NONE else (self.label, *self.also)

    def labelled(self, labels: Iterable[int]) -> "Video":
        """The same video with these labels alone."""
        first, *others = sorted(set(labels)) or [NONE]
        return self._replace(label=first, also=tuple(others))


@dataclass(frozen=True)
class Lists:
    """The videos of a data set and the names of its classes. Those of the test are `val`, if there is no third list."""

    train: list[Video]
    val: list[Video]
    classes: list[str]
    bad: Mapping[str, str] = field(default_factory=dict)  # path -> why it can't be read, as far as that is known
    split: str = ""  # the source of the split: files, folders, a hash
    third: list[Video] | None = None  # for the test alone
    notes: tuple[str, ...] = ()  # on skipped or differently read entries
    held_out: float = 0.0  # the share of each class that a hash of the path chose; 0: the split is given
    in_words: bool = False  # the classes are the labels of rows, as no file names them
    groups: Mapping[str, str] = field(default_factory=dict)  # path by NFC -> group of videos that stay together

    @property
    def test(self) -> list[Video]:
        """The videos of the test."""
        return self.val if self.third is None else self.third

    @property
    def tests_apart(self) -> bool:
        """Whether the test has its own videos, separate from validation."""
        return self.third is not None and not set(self.third) & set(self.val)

    @property
    def parts(self) -> dict[str, list[Video]]:
        """The existing lists, by name."""
        return {"train": self.train, "val": self.val} | ({} if self.third is None else {"test": self.third})

    @property
    def videos(self) -> list[Video]:
        """Those of all lists."""
        return [video for part in self.parts.values() for video in part]

    def mapped(self, change: Callable[[list[Video]], list[Video]]) -> "Lists":
        """The same with each list changed."""
        train, val, *third = map(change, self.parts.values())
        return replace(self, train=train, val=val, third=third[0] if third else None)


def split_of(name: str) -> str | None:
    """The split of a folder or a list with this name: train, val or test."""
    return next((split for split, names in USUAL.items() if name.lower() in names), None)


def require_folder(root: Path) -> None:
    """Raise UserError if the data set's root is not a folder."""
    if not root.is_dir():
        raise UserError(f"data.root={root} is not a folder; {README}")


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, UTF-8 or what its byte order mark says. Raises UserError if it can't be read."""
    try:
        content = path.read_bytes()
        coding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
        text = re.sub("\r\n?", "\n", content.decode(coding))
        if "\0" in text:
            raise UserError(f"{path} is not UTF-8 text (a NUL byte in it); save it as UTF-8")
        if digits := re.search(rf"\d{{{sys.int_info.default_max_str_digits + 1}}}", text):
            line = text.count("\n", 0, digits.start()) + 1
            raise UserError(f"{path}:{line}: a number of thousands of digits; count from 0, or write names")
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}); {README}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    return text.removesuffix("\n").split("\n") if text else []  # a name may hold what else ends a line


def entries(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """The non-empty lines of a list, each with its number from 1, of any system.

    Empty lines and comments, which begin with a # and a space, are left out.
    """
    for number, line in enumerate(lines, 1):
        text = (line.removeprefix("\ufeff") if number == 1 else line).removesuffix("\n").removesuffix("\r")
        if text.strip() and not COMMENT.match(text):
            yield number, text


def quoted(text: str) -> str:
    """A text for a list: unchanged, or as a JSON string if `unquoted` would not restore it."""
    plain = text == text.strip() and not text.startswith('"') and not any(sign in text for sign in "\t\n\r")
    if plain and not COMMENT.match(text) and (is_video_name(text) or not FOLLOWED.fullmatch(text)):
        return text
    return json.dumps(text, ensure_ascii=False)


def unquoted(text: str) -> tuple[str | None, str]:
    """The JSON string at the start of a text, and the rest; None and all of the text if there is none."""
    if text.startswith('"'):
        try:
            found, end = json.JSONDecoder().raw_decode(text)
        except json.JSONDecodeError:
            return None, text
        if not text[end:].strip(" ") or text[end] in " \t,;":
            return str(found), text[end:]
    return None, text


def nfc(name: str) -> str:
    """A name for comparisons: macOS writes an accented e as two characters, others as one."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def same_classes(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two lists name the same classes in the same order."""
    return [*map(nfc, one)] == [*map(nfc, other)]


def read_classes(path: Path) -> list[str]:
    """The class names, one a line. Raises UserError for a duplicate name, and for an empty file."""
    names = [parse_class(line) for line in read_lines(path)]
    while names and not names[-1]:
        names.pop()
    seen = set[str]()
    for number, name in enumerate(names, 1):
        if not name or nfc(name) in seen:
            raise UserError(
                f"{path}:{number}: {'an empty line' if not name else f'{name!r} stands twice'}; one class a line"
            )
        seen.add(nfc(name))
    if not names:
        raise UserError(f"{path} is empty; it names the classes, one a line")
    return names


def parse_class(line: str) -> str:
    """The name that a line of classes.txt or a label gives; `quoted` writes it."""
    name, rest = unquoted(line.strip())
    return line.strip() if name is None or rest else name


def labels_in(text: str, labels: Mapping[str, int]) -> list[str]:
    """The several labels of a text, numbers or names of classes; empty for a single one."""
    if _is_label(text, labels):
        return []
    for separator in (rf"\s*{BETWEEN}\s*", rf"(?:\s|{BETWEEN})+"):
        parts = re.split(separator, text)
        if len(parts) > 1 and all(_is_label(part, labels) for part in parts):
            return parts
    return []


def _is_label(text: str, labels: Mapping[str, int]) -> bool:
    return text.isdecimal() or nfc(text) in labels


def format_line(video: Video) -> str:
    """The line of a list file for this video (aim.data.rows)."""
    labels = ",".join(map(str, video.labels)) or NOTHING
    if video.start is None or video.end is None:
        return f"{quoted(video.path)} {labels}"
    return f"{quoted(video.path)}\t{video.start}\t{video.end}\t{labels}"


def data_hash(videos: Sequence[Video], classes: Sequence[str]) -> str:
    """The sha256 of the sorted lines and the class names: the identity of the tested videos."""
    lines = sorted(format_line(video) for video in videos)
    return hashlib.sha256("\n".join([*lines, *classes]).encode()).hexdigest()


def ordered_hash(videos: Sequence[Video], classes: Sequence[str]) -> str:
    """The sha256 of the lines as they follow each other and the class names: their order decides that of training."""
    return hashlib.sha256("\n".join([*map(format_line, videos), *classes]).encode()).hexdigest()


def share_of(videos: Sequence[Video], share: float) -> list[Video]:
    """A share of the videos of each class, at least one, in the order of the list; a hash of their lines chooses.

    With several labels a video's class is the rarest. A smaller share is part of a larger one, in any order of the
    list.
    """
    if share == 1:
        return list(videos)
    chosen = _chosen(_by_class(videos), share)
    return [video for video in videos if video in chosen]


def set_apart(videos: Sequence[Video], share: float) -> tuple[list[Video], list[Video]]:
    """The videos without a share (0.5 at most) of each class that has more than one, and that share: in their order."""
    apart = _chosen([own for own in _by_class(videos) if len(own) > 1], share)
    return [video for video in videos if video not in apart], [video for video in videos if video in apart]


def _by_class(videos: Sequence[Video]) -> list[list[Video]]:
    """The videos of each class; one with several labels is of the rarest, one without of a class of its own."""
    counts = Counter(label for video in videos for label in video.labels)
    found = dict[int, list[Video]]()
    for video in videos:
        rarest = min(video.labels, key=lambda label: (counts[label], label), default=NONE)
        found.setdefault(rarest, []).append(video)
    return [*found.values()]


def _chosen(by_class: Iterable[Sequence[Video]], share: float) -> set[Video]:
    """A share of each class, at least one video; a hash of their lines chooses."""

    def rank(video: Video) -> bytes:
        return hashlib.sha256(f"share {format_line(video)}".encode()).digest()

    return {video for own in by_class for video in sorted(own, key=rank)[: max(1, round(share * len(own)))]}


def targets(videos: Sequence[Video], several: int | None) -> NDArray[np.int64]:
    """The labels for a task: "n", or for `several` labels a video 0 or 1 for each class, "n k"."""
    if several is None:
        return np.array([video.label for video in videos], np.int64)
    found = np.zeros((len(videos), several), np.int64)
    for row, video in zip(found, videos, strict=True):
        row[list(video.labels)] = 1
    return found


def hold_out(paths: Sequence[str], share: float) -> tuple[list[str], list[str]]:
    """The paths of a class for training and for validation, which gets at least one of two; a hash chooses."""
    ranked = sorted(paths, key=lambda path: hashlib.sha256(path.encode()).hexdigest())
    count = max(1, round(share * len(paths))) if len(paths) > 1 else 0
    return sorted(ranked[count:]), sorted(ranked[:count])


def spread(videos: Sequence[Video], sample: int = 64) -> Sequence[Video]:
    """Some of the videos, evenly spread over the list."""
    return videos[:: max(1, len(videos) // sample)][:sample]


def check_present(root: Path, videos: Sequence[Video]) -> None:
    """Look for some of the videos. Raises UserError if most of them are missing."""
    looked_for = spread(videos)
    missing = [video.path for video in looked_for if not video.stored and not (root / video.path).exists()]
    if len(missing) > len(looked_for) / 2:
        raise UserError(
            f"{len(missing)} of {len(looked_for)} listed videos that were looked for are not under {root}, such as "
            f"{missing[0]}; is data.root right? {README}"
        )
