"""Packs videos into shards, tar files of a gigabyte each with its index; only complete shards count."""

import io
import os
import re
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from aim.data.lists import NOTHING, Lists
from aim.data.readers.interface import Part, Source, file_of
from aim.data.stamp import stamps_of
from aim.data.stored import shards
from aim.data.stored.shards import Entry
from aim.ground import files
from aim.ground.errors import UserError
from aim.prepare.notes import Notes

SHARD_BYTES = 10**9


@dataclass(frozen=True)
class Item:
    """A video that waits for its shard: its path in the lists, its present place, and its source's stamp."""

    path: str
    source: Source
    size: int
    stamp: str

    @property
    def mtime(self) -> int:
        """The time of its source, in seconds."""
        return int(self.stamp.split()[1]) // 10**9


class Packer:
    """Gathers the videos of `lists` in `folder`, each split in separate shards; a full shard is written immediately."""

    def __init__(self, folder: Path, lists: Lists, notes: Notes, packed: Callable[[Source], None]) -> None:
        """`packed` is called with safely packed videos. Raises UserError for damaged shards."""
        self.folder, self.notes, self.packed = folder, notes, packed
        self.split: dict[str, str] = {}
        self.labels: dict[str, set[str]] = {}
        for split, videos in lists.parts.items():
            for video in videos:
                self.split.setdefault(video.path, split)
                self.labels.setdefault(video.path, set()).add(",".join(map(str, video.labels)) or NOTHING)
        self.waiting: dict[str, list[Item]] = {split: [] for split in lists.parts}
        self.there: dict[str, tuple[Path, Entry]] = {}
        for shard in shards.find(folder):
            index_shard(shard)
            self.there |= {entry.path: (shard, entry) for entry in shards.entries(shard)}
        self.replaced = set[str]()  # paths of sources changed meanwhile
        keys = dict[str, str]()
        for path in self.split:
            if (other := keys.setdefault(shards.key_of(shards.member_name(path)), path)) != path:
                raise UserError(
                    f"{other} and {path} would be one sample of a shard; rename one, or remove transcode=null"
                )

    def has(self, path: str) -> bool:
        """Whether a shard holds a video of this path."""
        return path in self.there

    def check(self, stamps: Mapping[str, str | None]) -> None:
        """Raise UserError if a shard's video has a source with another stamp, or another label."""
        stale = dict[Path, str]()
        for path, (shard, entry) in self.there.items():
            if path in stamps and not (
                (shard.name.partition("-")[0], entry.label) == (self.split[path], self._label(path))
                and self.notes.has(path, stamps[path], entry.size)
            ):
                stale.setdefault(shard, path)
        if stale:
            told = ", ".join(f"{shard} ({path})" for shard, path in stale.items())
            raise UserError(
                f"not of today's sources and labels, or of sources that an earlier version didn't note, are videos in "
                f"{told}; delete {' '.join(f'{shard}*' for shard in stale)}, and the same command makes them again"
            )

    def add(self, path: str, source: Source, stamp: str) -> None:
        """Take a complete video, made from the source with this stamp."""
        size = source.size if isinstance(source, Part) else file_of(source).stat().st_size
        waiting = self.waiting[self.split[path]]
        waiting.append(Item(path, source, size, stamp))
        if sum(item.size for item in waiting) >= SHARD_BYTES:
            self._write(self.split[path])

    def close(self) -> None:
        """Write the remaining videos, into a smaller shard."""
        for split, items in self.waiting.items():
            if items:
                self._write(split)

    def _write(self, split: str) -> None:
        numbers = [int(found[1]) for path in shards.find(self.folder) if (found := _number(path, split))]
        shard = self.folder / f"{split}-{max(numbers, default=-1) + 1:06d}.tar"
        items, self.waiting[split] = [item for item in self.waiting[split] if self._is_same(item)], []
        if not items:
            return
        files.write_atomically(shard, lambda file: self._write_tar(file, items))
        index_shard(shard)
        for item in items:
            if self._is_same(item):
                self.notes.add(item.path, item.stamp, item.size, self.notes.shorter.get(item.path))
            self.packed(item.source)

    def _is_same(self, item: Item) -> bool:
        """Whether its source is unchanged; a re-encoded video is noted, and no longer depends on it."""
        if self.notes.has(item.path, item.stamp, item.size):
            return True
        same = next(stamps_of([item.source])) == item.stamp
        if not same:
            self.replaced.add(item.path)
        return same

    def _write_tar(self, file: Path, items: list[Item]) -> None:
        with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as tar:
            for item in items:
                name = shards.member_name(item.path)
                offset = item.source.offset if isinstance(item.source, Part) else 0
                with file_of(item.source).open("rb") as content:
                    if content.seek(0, os.SEEK_END) < offset + item.size:
                        raise UserError(f"{item.source} was replaced during packing; the same command continues")
                    content.seek(offset)
                    tar.addfile(_info(name, item.size, item.mtime), content)
                if label := self._label(item.path).encode():
                    info = _info(f"{shards.key_of(name)}.cls", len(label), item.mtime)
                    tar.addfile(info, io.BytesIO(label))

    def _label(self, path: str) -> str:
        """The video's label; empty if its segments have several."""
        labels = self.labels[path]
        return next(iter(labels)) if len(labels) == 1 else ""


def _number(shard: Path, split: str) -> re.Match[str] | None:
    return re.fullmatch(rf"{split}-(\d+)\.tar", shard.name)


def _info(name: str, size: int, mtime: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, mtime, 0o644
    return info


def index_shard(shard: Path) -> None:
    """Write the missing index of a shard. Raises UserError if the shard is damaged."""
    if not (index := shards.index_of(shard)).exists():
        text = shards.format_index(shard.stat().st_size, shards.scan(shard))
        files.write_text(index, text)
