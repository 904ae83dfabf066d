"""Copies of videos on this machine's own disk: made while reading, bounded, shared by all processes with this folder.

Copies read since the job began aren't evicted for new ones. An epoch reads every video once, in a new order: a cache of
half the data set that keeps the newest would serve 1/2 - ln(2)/2 = 15 % of the next epoch, one that doesn't rotate
serves half (Mohan et al., "Analyzing and Mitigating Data Stalls in DNN Training", VLDB 2021: MinIO).
"""

import errno
import hashlib
import logging
import os
import secrets
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, field
from pathlib import Path

from aim.data.readers.interface import Part, Source, file_of
from aim.ground import files
from aim.ground.clock import seconds_since_start
from aim.ground.errors import UserError

log = logging.getLogger(__name__)

GB = 10**9
LARGEST = 2**30  # bytes of a video that is copied: it's in memory meanwhile
LEFT_BEHIND = 600.0  # seconds after which an incomplete file belongs to a killed process
PAUSE = 60.0  # seconds without new copies after the disk has refused one
LOOKING = 0.05  # share of the time for the search of evictable copies
SLACK = 0.05  # share of the limit that is made free at once
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass
class State:
    """State shared by the processes, in a file; a count left wrong by a killed one is corrected by the next scan."""

    used: int = 0  # bytes
    look_again: float = 0.0  # Unix time before which no scan for evictable copies is needed
    refused: float = 0.0  # Unix time at which the disk last refused a copy

    FORMAT = struct.Struct("<qdd")


@dataclass(frozen=True)
class Cache:
    """A folder for copies of `limit` bytes in all. A copy belongs to a source as it is: its place, size and times.

    Of these the system alone sets the time of the last change of status, at each write and renaming. So it tells what a
    stamp (aim.data.stamp) does, which is for folders that move, and nothing has to be read from the slow disk for it.
    """

    folder: Path
    limit: int
    began: float  # Unix time; copies that were used since then stay
    resting: dict[str, float] = field(default_factory=dict, init=False, repr=False, compare=False)  # "until"

    def copy_of(self, source: Source) -> Path | None:
        """The copy of a video, made if there is room; None where there's none, or the source can't be read."""
        try:
            about = file_of(source).stat()
        except OSError:
            return None  # its reader says why
        offset, size = (source.offset, source.size) if isinstance(source, Part) else (0, about.st_size)
        if not stat.S_ISREG(about.st_mode) or size > LARGEST:
            return None
        copy = self._place(source, about)
        try:
            if self._is_there(copy, size):
                return copy
            if time.time() < self.resting.get("until", 0.0) or not self._has_room(size):
                return None
            content = _bytes(file_of(source), offset, size)
            if len(content) < size:
                return None
            self._write(copy, content)
        except OSError as error:
            self._rest(error)
            return None
        return copy

    def _place(self, source: Source, about: os.stat_result) -> Path:
        part = (source.offset, source.size) if isinstance(source, Part) else ()
        what = (os.path.realpath(file_of(source)), about.st_size, about.st_mtime_ns, about.st_ctime_ns, *part)
        digest = hashlib.sha256(repr(what).encode()).hexdigest()[:32]
        suffix = Path(source.name if isinstance(source, Part) else source).suffix
        return self.folder / digest[:2] / f"{digest[2:]}{suffix}"

    def _is_there(self, copy: Path, size: int) -> bool:
        """Whether there is a copy; marks it as used."""
        with suppress(FileNotFoundError):
            os.utime(copy)
            return copy.stat().st_size == size  # a power cut can leave less
        return False

    def _write(self, copy: Path, content: bytes) -> None:
        """Write a copy atomically."""
        # Containers on one machine have the same process numbers.
        part = self.folder / "part" / secrets.token_hex(16)
        try:
            part.write_bytes(content)
            copy.parent.mkdir(exist_ok=True)
            part.replace(copy)
        finally:
            part.unlink(missing_ok=True)

    def _has_room(self, size: int) -> bool:
        """Count `size` more bytes as used, where they are free or can be made so."""
        with self._state() as state:
            if state.used + size > self.limit and time.time() >= state.look_again:
                began = time.monotonic()
                state.used = self._evict(size)
                state.look_again = time.time() + (time.monotonic() - began) / LOOKING
            if state.used + size > self.limit:
                return False
            state.used += size
            return True

    def _evict(self, size: int) -> int:
        """Delete copies, the least recently used first, to make room for `size` bytes; return the bytes that remain."""
        self._clear()
        found = []
        for folder in self.folder.glob("??"):
            for file in os.scandir(folder):
                with suppress(FileNotFoundError):
                    about = file.stat()
                    found.append((about.st_mtime, about.st_size, file.path))
        left = sum(bytes_ for _, bytes_, _ in found)
        if left + size > self.limit:
            for used, bytes_, path in sorted(found):
                if used >= self.began or left + size <= (1 - SLACK) * self.limit:
                    break
                Path(path).unlink(missing_ok=True)
                left -= bytes_
        return left

    def _rest(self, error: OSError) -> None:
        """Make no copies for a while."""
        said = "until" in self.resting
        self.resting["until"] = time.time() + PAUSE
        with suppress(OSError), self._state() as state:
            said = said or state.refused >= self.began
            state.refused = time.time()
        if not said:
            log.warning("data.cache=%s: %s; videos are read without new copies there", self.folder, error.strerror)

    def _clear(self) -> None:
        """Delete incomplete files of killed processes."""
        for part in (self.folder / "part").iterdir():
            with suppress(FileNotFoundError):
                if time.time() - part.stat().st_mtime > LEFT_BEHIND:
                    part.unlink()

    def make(self) -> None:
        """Create the folder, or clear it, and check that it is writable."""
        (self.folder / "part").mkdir(parents=True, exist_ok=True)
        self._clear()
        with self._state():
            pass

    @contextmanager
    def _state(self) -> Iterator[State]:
        """The state, for this process alone."""
        with os.fdopen(os.open(self.folder / "state", os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0) as file:
            files.lock(file)
            content = file.read()
            known = len(content) == State.FORMAT.size
            state = State(*State.FORMAT.unpack(content)) if known else State(used=self._evict(0))
            try:
                yield state
            finally:
                file.seek(0)
                file.write(State.FORMAT.pack(*astuple(state)))


def _bytes(file: Path, offset: int, size: int) -> bytes:
    """The readable part of these bytes of a file."""
    try:
        with file.open("rb") as opened:
            opened.seek(offset)
            return opened.read(size)
    except OSError:
        return b""


def opened(folder: Path, gigabytes: float) -> Cache | None:
    """The cache in this folder, created if necessary; None, with a warning, if the disk is full.

    Raises UserError if it can't be.
    """
    cache = Cache(folder, int(gigabytes * GB), time.time() - seconds_since_start())
    try:
        cache.make()
    except OSError as error:
        if error.errno not in FULL:
            raise UserError(f"data.cache={folder} can't be used: {error.strerror}; name another folder") from error
        log.warning("data.cache=%s: %s; videos are read without copies there", folder, error.strerror)
        return None
    return cache
