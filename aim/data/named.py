"""The videos that a user names: files, folders, patterns, or a list on standard input."""

import itertools
import os
import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO
from urllib.parse import unquote, urlsplit

from aim.data.lists import entries, unquoted
from aim.data.readers.animated import is_animated
from aim.data.readers.frames import SUFFIXES as PICTURES
from aim.data.scanning import ANIMATED, ENDINGS, STILL, UNKNOWN, left_for, look, told
from aim.ground.errors import UserError, say
from aim.ground.paths import exists, is_address, is_pattern, matches, path_of, refusal

STDIN = "-"
AT_ONCE = 2**16  # bytes of a list that comes


class Input(NamedTuple):
    """A video, and why it can't be one, if that is known without opening it."""

    path: Path
    problem: str | None = None
    given: str | None = None  # its given name, if named individually

    @property
    def name(self) -> str:
        """Its name in messages and answers."""
        return str(self.path) if self.given is None else self.given


def find_videos(named: str | Sequence[str], stdin: TextIO, *, folders: bool = False) -> list[Input]:
    """The videos of each name, in order, without duplicates; of a folder all videos in it.

    With `folders`, a video is a folder of pictures (reader=frames). Raises UserError if there is nothing to read.
    """
    names = [named] if isinstance(named, str) else list(named)
    if STDIN in names:
        text = stdin.read()
        end = "\0" if "\0" in text else "\n"
        listed = _listed(text.split(end), end)
        names = [*(name for name in names if name != STDIN), *listed]
        if not names:
            raise UserError("input=- reads a list of videos from standard input, one a line, and it was empty")
    elif not names:
        raise UserError("input=[] names no video; give files, folders or patterns")
    unique = dict[Path, Input]()
    for item in (item for name in names for item in _of_name(name, folders)):
        unique.setdefault(item.path, item)
    found = list(unique.values())
    if all(item.problem for item in found):
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise UserError(f"input={found[0].name} {found[0].problem}{more}")
    return found


def arriving(stdin: TextIO, *, folders: bool = False) -> Iterator[list[Input]]:
    """The videos of a streamed list on standard input: those of all waiting lines, at least one.

    Each line has its videos in its place, also repeated ones, or its problem.
    """
    rest, end = b"", b""
    while True:
        chunk = os.read(stdin.fileno(), AT_ONCE)
        rest = (rest + chunk).removeprefix(b"" if end else BOM_UTF8)
        if not end and (first := re.search(rb"[\0\n]", rest)):
            end = first[0]
        *lines, rest = (rest if chunk else rest + (end or b"\n")).split(end or b"\n")
        names = _listed(map(os.fsdecode, lines), os.fsdecode(end))
        if found := [item for name in names for item in _of_line(name, folders)]:
            yield found
        if not chunk:
            return


def _listed(lines: Iterable[str], end: str) -> list[str]:
    """The names in the lines of a list; where zeros end them, each is as it is."""
    if end == "\0":
        return [line for line in lines if line.strip()]
    return [unquoted(line)[0] or line for _, line in entries(lines)]


def _of_line(name: str, folders: bool) -> Iterable[Input]:
    try:
        return _of_name(name, folders)
    except UserError as error:  # no home
        return [Input(Path(name), str(error), name)]


def _of_name(name: str, folders: bool) -> Iterable[Input]:
    if is_address(name):
        return [Input(Path(name), of_address(name), name)]
    path = path_of(name)
    if problem := refusal(path):
        return [Input(path, problem, name)]
    if path.is_dir():
        inside = _folders_in(path) if folders else _files_in(path)
        return inside or [Input(path, _nothing_in(path, folders), name)]
    if path.is_file():
        return [Input(path, of_file(path, folders=folders), name)]
    if is_pattern(name):
        inside = [item for match in matches(path) for item in _of_match(match, folders)]
        return inside or [Input(path, "matches no video", name)]
    why = "is no file" if path.exists() else "doesn't exist"
    return [Input(path, f"{why}; give a video file, a folder of them, a pattern, or - for a list", name)]


def bases(named: str | Sequence[str]) -> list[Path]:
    """The folders that the user names: of a pattern the one before its first sign."""
    found = list[Path]()
    for name in [named] if isinstance(named, str) else named:
        if is_address(name):
            continue
        path = path_of(name)
        parts = list(itertools.takewhile(lambda part: not is_pattern(part), path.parts))
        if path.is_dir():
            found.append(path)
        elif name != STDIN and len(parts) < len(path.parts) and not exists(path):
            found.append(Path(*parts))
    return found


def below(paths: Sequence[Path], named: str | Sequence[str]) -> list[Path]:
    """The path of each video from the common folder of all that the user `named`.

    So it depends neither on other content of a folder, nor on its mount point.
    """
    parents = [path.parent.resolve() for path in paths]
    tops = [*(path.resolve() for path in bases(named)), *parents]
    common = next(parent for parent in (tops[0], *tops[0].parents) if all(top.is_relative_to(parent) for top in tops))
    return [parent.relative_to(common) / path.name for path, parent in zip(paths, parents, strict=True)]


def of_address(name: str) -> str:
    """The way out if an address is given for a file."""
    if name.startswith("file://"):
        return f"is an address; give the path, {unquote(urlsplit(name).path)}"
    return (
        "is an address, and files are read: download it, or save a part of a stream first, as with "
        f"ffmpeg -i '{name}' -t 60 -c copy part.mkv"
    )


def _of_match(path: Path, folders: bool) -> list[Input]:
    """The videos of a pattern's match; other matching files aren't meant."""
    if path.is_dir():
        return _folders_in(path) if folders else _files_in(path)
    return [Input(path)] if not folders and not left_for(str(path)) else []


def _files_in(folder: Path) -> list[Input]:
    found = look(folder)
    if left := told(found.left):
        say(f"not used in {folder}: {left}")
    return [Input(file) for file in sorted(folder / path for path in found.videos)]


def _folders_in(folder: Path) -> list[Input]:
    """This folder and those below it that hold pictures."""
    return [Input(path) for path in sorted({path.parent for path in _pictures_in(folder)})]


def _pictures_in(folder: Path) -> list[Path]:
    left = look(folder).left
    others = [*left.get(UNKNOWN, ()), *left.get(STILL, ())]
    return [folder / path for path in others if Path(path).suffix.lower() in PICTURES]


def _nothing_in(folder: Path, folders: bool) -> str:
    if folders:
        return "holds no folder of pictures, which reader=frames takes for a video"
    if _pictures_in(folder):
        return "holds pictures and no video; reader=frames takes a folder of them for a video"
    return f"holds no video ({', '.join(ENDINGS)})"


def of_file(file: Path, *, folders: bool) -> str | None:
    """The reason why a file isn't a video, if known without reading it; with `folders`, none is."""
    if folders:
        return "is a file; with reader=frames a video is a folder of pictures"
    if file.suffix.lower() in {*PICTURES, *ANIMATED} and not is_animated(file):
        return (
            "is a picture, in which nothing moves: a clip of one repeated frame would get a label that means nothing; "
            "give the video that it is from, or with reader=frames the folder of its frames"
        )
    return None
