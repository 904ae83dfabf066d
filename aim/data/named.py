"""The videos that a user names: files, folders, patterns, or a list on standard input."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from aim.data.lists import VIDEO_EXTENSIONS
from aim.data.readers.animated import is_animated
from aim.data.readers.frames import SUFFIXES as PICTURES
from aim.ground.errors import UserError

STDIN = "-"


class Input(NamedTuple):
    """A video, and why it can't be one, if that is known without opening it."""

    path: Path
    problem: str | None = None


def find_videos(named: str | Sequence[str], stdin: TextIO, *, folders: bool = False) -> list[Input]:
    """The videos of each name, in their order, none of them twice; of a folder all that are in it.

    With `folders`, a video is a folder of pictures (reader=frames). Raises UserError where there is nothing to read.
    """
    names = [named] if isinstance(named, str) else list(named)
    if STDIN in names:
        text = stdin.read()
        listed = [name for name in text.split("\0" if "\0" in text else "\n") if name.strip()]
        names = [*(name for name in names if name != STDIN), *listed]
        if not names:
            raise UserError("input=- reads a list of videos from standard input, one a line, and it was empty")
    elif not names:
        raise UserError("input=[] names no video; give files, folders or patterns")
    found = list(dict.fromkeys(item for name in names for item in _of_name(name, folders)))
    if all(item.problem for item in found):
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise UserError(f"input={found[0].path} {found[0].problem}{more}")
    return found


def _of_name(name: str, folders: bool) -> Iterable[Input]:
    path = Path(name).expanduser()
    if path.is_dir():
        inside = _folders_in(path) if folders else _files_in(path)
        return inside or [Input(path, _nothing_in(path, folders))]
    if path.is_file():
        return [Input(path, _refusal(path, folders))]
    if any(sign in name for sign in "*?["):
        inside = [item for match in sorted(_matches(path)) for item in _of_match(match, folders)]
        return inside or [Input(path, "matches no video")]
    return [Input(path, "doesn't exist; give a video file, a folder of them, a pattern, or - for a list")]


def _matches(pattern: Path) -> Iterable[Path]:
    """What a pattern such as a/*/b.mp4 or a/**/*.mp4 stands for."""
    return Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor)))


def _of_match(path: Path, folders: bool) -> list[Input]:
    """The videos that a pattern's match stands for; other files that match aren't meant."""
    if path.is_dir():
        return _folders_in(path) if folders else _files_in(path)
    return [Input(path)] if not folders and path.suffix.lower() in VIDEO_EXTENSIONS else []


def _files_in(folder: Path) -> list[Input]:
    files = (file for file in folder.rglob("*") if file.suffix.lower() in VIDEO_EXTENSIONS and file.is_file())
    return [Input(file) for file in sorted(files)]


def _folders_in(folder: Path) -> list[Input]:
    """This folder and those below it that hold pictures."""
    below = (path for path in (folder, *folder.rglob("*")) if path.is_dir() and _has_pictures(path))
    return [Input(path) for path in sorted(below)]


def _has_pictures(folder: Path) -> bool:
    return any(file.suffix.lower() in PICTURES for file in folder.iterdir())


def _nothing_in(folder: Path, folders: bool) -> str:
    if folders:
        return "holds no folder of pictures, which reader=frames takes for a video"
    if any(file.suffix.lower() in PICTURES for file in folder.rglob("*")):
        return "holds pictures and no video; reader=frames takes a folder of them for a video"
    return f"holds no video ({', '.join(VIDEO_EXTENSIONS)})"


def _refusal(file: Path, folders: bool) -> str | None:
    if folders:
        return "is a file; with reader=frames a video is a folder of pictures"
    if file.suffix.lower() in PICTURES and not is_animated(file):
        return (
            "is a picture, in which nothing moves: a clip of one repeated frame would get a label that means nothing; "
            "give the video that it is from, or with reader=frames the folder of its frames"
        )
    return None
