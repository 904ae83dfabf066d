"""The stamp of a video: it shows whether a source is still the one used before.

Anything made from a video, and reproducible, keeps the stamp of its source: its size, its time in nanoseconds, and a
hash of its first and last bytes. Two stamps are compared whole. Exchanged or replaced videos differ in it, whatever
their names and times; the comparison takes two short reads.
"""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from aim.data.readers.interface import Part, Source, file_of

ENDS = 2**16  # bytes at the beginning, and as many at the end
AT_ONCE = 16  # files, as a network disk takes its time for each


def stamp_of(source: Source) -> str:
    """`SIZE TIME HASH` of a file, a part of one, or a folder of pictures. Raises OSError where it can't be read."""
    path = file_of(source)
    about = path.stat()
    if stat.S_ISDIR(about.st_mode):
        return _of_folder(path)
    if not stat.S_ISREG(about.st_mode):  # a pipe would be waited for
        raise OSError(f"{path} is not a file")
    offset, size = (source.offset, source.size) if isinstance(source, Part) else (0, about.st_size)
    return f"{size} {about.st_mtime_ns} {hash_of_ends(path, offset, size)}"


def stamps_of(sources: Iterable[Source]) -> Iterator[str | None]:
    """The stamp of each, in order; None for what can't be read."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        yield from threads.map(_stamp_or_none, sources)


def content_of(stamp: str) -> str:
    """`SIZE HASH` of a stamp: the content, independent of place and time."""
    return " ".join(stamp.split()[::2])


def same_content(one: str | None, other: str | None) -> bool:
    """Whether two stamps have the same content; an unreadable file has none."""
    return None not in (one, other) and content_of(str(one)) == content_of(str(other))


def differs_in_time_alone(one: str, other: str) -> bool:
    """Whether a file was touched rather than replaced, as far as that can be told without reading all of it."""
    return one != other and content_of(one) == content_of(other)


def _stamp_or_none(source: Source) -> str | None:
    with suppress(OSError):
        return stamp_of(source)
    return None


def hash_of_ends(path: Path, offset: int, size: int) -> str:
    """A hash of the first and the last bytes of so many from `offset` on."""
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        digest = hashlib.sha256(file.read(min(ENDS, size)))
        if size > ENDS:
            last = min(ENDS, size - ENDS)
            file.seek(offset + size - last)
            digest.update(file.read(last))
    return digest.hexdigest()[:32]


def _of_folder(folder: Path) -> str:
    """Of all its files names, sizes and times, and the ends of the first and the last."""
    entries = sorted((entry for entry in os.scandir(folder) if entry.is_file()), key=lambda entry: entry.name)
    sizes = [entry.stat().st_size for entry in entries]
    names = "\0".join(f"{entry.name} {size}" for entry, size in zip(entries, sizes, strict=True))
    digest = hashlib.sha256(os.fsencode(names))
    for i in sorted({0, len(entries) - 1} if entries else ()):
        digest.update(hash_of_ends(Path(entries[i]), 0, sizes[i]).encode())
    return f"{sum(sizes)} {sum(entry.stat().st_mtime_ns for entry in entries)} {digest.hexdigest()[:32]}"
