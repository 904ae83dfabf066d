"""Atomic file writes, names that fit; and the reasons why a file can't be written, in words."""

import contextlib
import csv
import errno
import hashlib
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError

from aim.ground.errors import UserError

REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "it would be larger than files may be here (ulimit -f)",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "that is not permitted",
    errno.EPERM: "that is not permitted",
    errno.EEXIST: "a file is where a folder should be",
    errno.ENOTDIR: "a file is where a folder should be",
}
AGAIN = "fix that, and the same command continues"
ELSEWHERE = "name another folder, such as run_dir=DIR"
LONGEST = 255  # bytes of a file's name, on all usual file systems
LEFTOVER = re.compile(r"\.[0-9a-f]{16}\.part")  # of `temporary_of`


@contextmanager
def writing(path: Path, way_out: str) -> Iterator[None]:
    """Make a refusal of the system to write `path` a UserError that says why, with the way out."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        number = _errno(error)
        if number is None:
            raise
        reason = REASONS.get(number, os.strerror(number))
        raise UserError(f"{path} can't be written: {reason}; {way_out}") from error


def _errno(error: BaseException) -> int | None:
    """The system's reason: safetensors tells it in its text, torch's own error has it for its context."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return cause.errno
        if found := re.search(r"\(os error (\d+)\)", str(cause)):
            return int(found[1])
        cause = cause.__cause__ or cause.__context__
    return None


def write_atomically(path: Path, write: Callable[[Path], object], kept: str = "the file before") -> None:
    """Let `write` fill a temporary file, then put it in the place of `path`: a crash leaves the old file or the new.

    Raises UserError if it can't be written; the message names the file that is `kept`, if there is any.
    """
    make_folder(path.parent)
    with writing(path, f"{kept} is kept: {AGAIN}" if path.exists() else AGAIN), replaced(path) as temporary:
        write(temporary)


@contextmanager
def replaced(path: Path, writer: str | None = None) -> Iterator[Path]:
    """The temporary file, empty at first, that takes the place of `path` at the end, unless there is an error."""
    with scratch(path, writer) as temporary:
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors makes its files private
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    _sync_folder(path.parent)


@contextmanager
def scratch(path: Path, writer: str | None = None) -> Iterator[Path]:
    """A temporary file beside `path`, empty at first, which is gone at the end."""
    temporary = temporary_of(path, writer)
    try:
        temporary.touch()
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raise UserError if a file can't be written later; nothing of it is left behind, and none is touched."""
    if path.is_dir():
        raise UserError(f"{path} can't be written: it is a folder; name a file")
    make_folder(path.parent)
    with writing(path, "name another file"):
        temporary = temporary_of(path)
        temporary.touch()
        temporary.unlink()


def make_folder(folder: Path) -> None:
    """Make the folder and those above it. Raises UserError if that can't be."""
    with writing(folder, ELSEWHERE):
        folder.mkdir(parents=True, exist_ok=True)


def temporary_of(path: Path, writer: str | None = None) -> Path:
    """Where a `writer`, by default this thread, makes a file before it takes its place; a name that always fits."""
    if writer is None:
        writer = f"{socket.gethostname()} {os.getpid()} {threading.get_ident()}"
    digest = hashlib.sha256(os.fsencode(f"{writer} {path.name}")).hexdigest()
    return path.with_name(f".{digest[:16]}.part")


def fitting(name: str) -> str:
    """A file's name, shortened where it is too long for a file system: a hash keeps such names apart."""
    if len(raw := os.fsencode(name)) <= LONGEST:
        return name
    ending = f"-{hashlib.sha256(raw).hexdigest()[:16]}{Path(name).suffix}"
    return raw[: LONGEST - len(os.fsencode(ending))].decode(errors="ignore") + ending


def lock(file: int | IO[Any], *, shared: bool = False, wait: bool = True) -> None:
    """Hold an open file alone, or `shared` with others that do, until it is closed; other processes wait, if they ask.

    Raises OSError where somebody holds it and this doesn't `wait`, and where the file system can't lock. Windows has no
    such lock: there nobody is waited for, and who doesn't `wait` gets none.
    """
    try:
        import fcntl
    except ImportError:
        if not wait:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK)) from None
        return
    fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))


def _sync_folder(folder: Path) -> None:
    """Make new names in the folder outlive a power cut, on the file systems that can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8, atomically; bytes of a file's name that aren't are escaped, as JSON does it, too."""
    write_atomically(path, lambda file: _fill(file, text))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as readable JSON, atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines of text, each with its end, atomically."""
    write_text(path, "".join(f"{line}\n" for line in lines))


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table as UTF-8 CSV under a line of names, atomically."""

    def fill(place: Path) -> None:
        with place.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            csv.writer(file).writerows([head, *rows])

    write_atomically(path, fill)


def add_line(path: Path, line: str) -> None:
    """Add a line to the end of a file; of one that a kill cuts short the end is missing. Raises UserError."""
    with writing(path, AGAIN), path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def write_first(path: Path, value: Any) -> bool:
    """Write `value` as JSON where no file is yet; False where another job was first: of several at once one wins."""
    with writing(path, AGAIN), scratch(path) as temporary:
        _fill(temporary, json.dumps(value, indent=2) + "\n")
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
        except OSError:  # a file system without links, where two at once may both be first
            if path.exists():
                return False
            temporary.replace(path)
    return True


def _fill(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def clear_leftovers(folder: Path) -> None:
    """Remove half-written files of killed jobs from a folder that is held."""
    for path in folder.iterdir():
        if LEFTOVER.fullmatch(path.name):
            path.unlink(missing_ok=True)
