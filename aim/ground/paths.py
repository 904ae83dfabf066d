"""Paths as users write them: homes, patterns, and names at which the system refuses to look."""

import fnmatch
import os
import re
from collections.abc import Iterable
from pathlib import Path

from aim.ground.errors import UserError

MAGIC = "*?["  # signs of a pattern
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")  # RFC 3986, section 3.1, and an authority


def path_of(text: str | Path) -> Path:
    """The path that a text names: it begins at a home where its first part is `~`, or `~USER` of a user there is.

    So `~clip.mp4` is a file. Raises UserError for `~` where no home is known, and for an address.
    """
    if is_address(str(text)):
        raise UserError(
            f"{text} is an address, and only files and folders of this machine are read and written; download it, or "
            "mount it, and give its path"
        )
    first, _, rest = str(text).partition("/")
    if first == "~":
        return home(f"write {text} in full, or set HOME=DIR") / rest.lstrip("/")
    if first.startswith("~"):
        try:
            import pwd

            return Path(pwd.getpwnam(first[1:]).pw_dir, rest.lstrip("/"))
        except (ImportError, KeyError, ValueError):  # Windows; nobody; a NUL, or bytes that aren't UTF-8
            pass
    return Path(text)


def is_address(text: str) -> bool:
    """Whether a text is an address such as https://HOST/FILE, not a local name."""
    return ADDRESS.match(text) is not None and not exists(Path(text))


def home(way_out: str) -> Path:
    """This user's home. Raises UserError if none is known, as of a number without a name in a container."""
    found = os.environ.get("HOME") or os.environ.get("USERPROFILE")  # the latter of Windows
    if not found:
        try:
            import pwd

            found = pwd.getpwuid(os.getuid()).pw_dir
        except (ImportError, KeyError):
            raise UserError(f"this user has no home, as HOME isn't set; {way_out}") from None
    return Path(found)


def cache_folder() -> Path:
    """The folder of reproducible files: AIM_CACHE, or ~/.cache/aim-video. Raises UserError without a home."""
    named = os.environ.get("AIM_CACHE")
    return path_of(named) if named else home("set AIM_CACHE=DIR") / ".cache" / "aim-video"


def refusal(path: Path) -> str | None:
    """Why the system won't say whether something is there: a name too long, a folder that is forbidden. Else None."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return f"can't be looked at: {error.strerror}"
    except ValueError:
        return "has a NUL byte in its name"
    return None


def exists(path: Path) -> bool:
    """Whether something is there; at a name that the system refuses there is nothing."""
    return refusal(path) is None and path.exists()


def is_pattern(text: str) -> bool:
    """Whether a text that is no path may stand for several."""
    return any(sign in text for sign in MAGIC)


def matches(pattern: Path) -> list[Path]:
    """The paths that a pattern such as a/*/b.mp4 or a/**/*.mp4 matches, sorted; as in a shell, not hidden ones.

    Only a part that is `**` alone goes through folders below, through links to them, too, but into none twice. What
    can't be looked into holds nothing.
    """
    found = [Path(pattern.anchor)]
    for part in pattern.relative_to(pattern.anchor).parts:
        if part == "**":
            found = [folder for each in found for folder in _below(each)]
        elif is_pattern(part):
            found = [each / name for each in found for name in _names(each) if _fits(name, part)]
        else:
            found = [each / part for each in found if exists(each / part)]
    return sorted(dict.fromkeys(found))


def _below(folder: Path) -> Iterable[Path]:
    """The folder and those below it that aren't hidden."""
    seen = set[str]()
    for place, folders, _ in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(place)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - the names alone
    except OSError:
        return []


def _fits(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) and (pattern.startswith(".") or not name.startswith("."))
