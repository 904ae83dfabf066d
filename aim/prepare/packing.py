"""Packs videos into shards, tar files of a gigabyte each with its index: a shard counts once it's whole."""

import io
import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aim.data.lists import Lists
from aim.data.readers.interface import Part, Source, file_of
from aim.data.stored import shards
from aim.data.stored.shards import Entry
from aim.ground import files
from aim.ground.errors import UserError

SHARD_BYTES = 10**9
SAME_TIME = 2.5  # seconds; some file systems round, and a tar holds whole ones


@dataclass(frozen=True)
class Item:
    """A video that waits for its shard: its path in the lists, and where it is now."""

    path: str
    source: Source
    size: int
    mtime: int


class Packer:
    """Gathers the videos of `lists` in `folder`, each split in shards of its own; a full shard is written at once."""

    def __init__(self, folder: Path, lists: Lists, packed: Callable[[Source], None]) -> None:
        """`packed` is told what has been packed safely. Raises UserError for shards that are damaged."""
        self.folder, self.packed = folder, packed
        self.split: dict[str, str] = {}
        self.labels: dict[str, set[str]] = {}
        for split, videos in lists.parts.items():
            for video in videos:
                self.split.setdefault(video.path, split)
                self.labels.setdefault(video.path, set()).add(str(video.label))
        self.waiting: dict[str, list[Item]] = {split: [] for split in lists.parts}
        self.there: dict[str, tuple[Path, Entry]] = {}
        for shard in shards.find(folder):
            index_shard(shard)
            self.there |= {entry.path: (shard, entry) for entry in shards.entries(shard)}

    def has(self, path: str, seconds: float) -> bool:
        """Whether a shard holds the video as its source of that time is. Raises UserError where it holds another."""
        if path not in self.there:
            return False
        shard, entry = self.there[path]
        split = shard.name.partition("-")[0]
        if (split, entry.label) == (self.split[path], self._label(path)) and is_of(entry.mtime, seconds):
            return True
        raise UserError(
            f"{shard} holds {path} with label {entry.label or 'none'}, as it was before its source or the annotations "
            f"changed; delete the shard and {shards.index_of(shard).name}, and the same command makes it anew"
        )

    def add(self, path: str, source: Source) -> None:
        """Take a video that is whole."""
        about = file_of(source).stat()
        size = source.size if isinstance(source, Part) else about.st_size
        waiting = self.waiting[self.split[path]]
        waiting.append(Item(path, source, size, int(about.st_mtime)))
        if sum(item.size for item in waiting) >= SHARD_BYTES:
            self._write(self.split[path])

    def close(self) -> None:
        """Write what is left, into a smaller shard."""
        for split, items in self.waiting.items():
            if items:
                self._write(split)

    def _write(self, split: str) -> None:
        numbers = [int(found[1]) for path in shards.find(self.folder) if (found := _number(path, split))]
        shard = self.folder / f"{split}-{max(numbers, default=-1) + 1:06d}.tar"
        items, self.waiting[split] = self.waiting[split], []
        files.write_atomically(shard, lambda file: self._write_tar(file, items))
        index_shard(shard)
        for item in items:
            self.packed(item.source)

    def _write_tar(self, file: Path, items: list[Item]) -> None:
        with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as tar:
            for item in items:
                name = shards.member_name(item.path)
                with file_of(item.source).open("rb") as content:
                    content.seek(item.source.offset if isinstance(item.source, Part) else 0)
                    tar.addfile(_info(name, item.size, item.mtime), content)
                if label := self._label(item.path).encode():
                    info = _info(f"{shards.key_of(name)}.cls", len(label), item.mtime)
                    tar.addfile(info, io.BytesIO(label))

    def _label(self, path: str) -> str:
        """The video's label; nothing where its segments have several."""
        labels = self.labels[path]
        return next(iter(labels)) if len(labels) == 1 else ""


def _number(shard: Path, split: str) -> re.Match[str] | None:
    return re.fullmatch(rf"{split}-(\d+)\.tar", shard.name)


def _info(name: str, size: int, mtime: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, mtime, 0o644
    return info


def is_of(seconds: float, source: float) -> bool:
    """Whether what was written with this time was made of a source with that one."""
    return abs(seconds - source) < SAME_TIME


def index_shard(shard: Path) -> None:
    """Write the index of a shard that has none. Raises UserError where the shard is damaged."""
    if not (index := shards.index_of(shard)).exists():
        text = shards.format_index(shard.stat().st_size, shards.scan(shard))
        files.write_atomically(index, lambda file: files.write_text(file, text))
