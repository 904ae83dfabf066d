"""Features of a frozen trunk on this machine's disk: each clip's are computed once, and serve all that only read them.

A store is a folder for one trunk, one clip and one way to draw clips; in it is a safetensors file for each video, under
the hash of its content: `features` "v m" of v clips or views, packed to m numbers, and `seconds` "v 2" of views.
"""

import hashlib
import json
import os
import shutil
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from aim.data.dataset import VideoDataset, span_of
from aim.data.lists import Video
from aim.data.readers.interface import BadVideo, file_of
from aim.data.stamp import content_of, stamps_of
from aim.data.stored.shards import source_of
from aim.data.transforms import Views
from aim.ground import files
from aim.ground.errors import UserError
from aim.ground.paths import cache_folder

GB = 10**9
IN_MEMORY = 2**30  # bytes of features at most that a process keeps, of a list
LOCK = "store.lock"
BROKEN_OFF = 3600.0  # seconds since a file was last written to, of which a write takes one
WAY_OUT = "set AIM_CACHE=DIR, a folder that can be written, or train.features=computed"


@dataclass(frozen=True)
class Store:
    """A folder of features, which stay as long as it is `held`; `memory` has those that were read, if it is to."""

    folder: Path
    memory: dict[str, tuple[Tensor, NDArray[np.float32]]] | None = None

    def place(self, key: str) -> Path:
        """The file of a video's features."""
        return self.folder / key[:2] / f"{key[2:]}.safetensors"

    def write(self, key: str, features: Tensor, seconds: NDArray[np.float32]) -> None:
        """Keep the features "v m" of a video. Raises UserError if they can't be written."""
        tensors = {"features": features.contiguous(), "seconds": torch.from_numpy(np.ascontiguousarray(seconds))}
        sums = json.dumps([checksum(row) for row in tensors["features"]])
        files.write_atomically(self.place(key), lambda file: save_file(tensors, file, {"crc32": sums}))

    def read(self, key: str, rows: list[int] | slice) -> tuple[Tensor, NDArray[np.float32]]:
        """Some rows of a video's features, and their seconds. Raises ValueError where they aren't as written."""
        if self.memory is None:
            return self._read(key, rows)
        if key not in self.memory:
            self.memory[key] = self._read(key, slice(None))
        features, seconds = self.memory[key]
        return features[rows], seconds

    def _read(self, key: str, rows: list[int] | slice) -> tuple[Tensor, NDArray[np.float32]]:
        """The same from the disk."""
        with safe_open(self.place(key), "pt") as file:
            whole, sums = file.get_slice("features"), json.loads((file.metadata() or {})["crc32"])
            wanted = range(*rows.indices(len(sums))) if isinstance(rows, slice) else rows
            features = torch.cat([whole[row : row + 1] for row in wanted])
            seconds: NDArray[np.float32] = file.get_tensor("seconds").numpy()
        if any(checksum(features[i]) != sums[row] for i, row in enumerate(wanted)):
            raise ValueError("its checksum is another")
        return features, seconds

    def has(self, key: str) -> bool:
        """Whether a video's features are there, in a file that can be opened."""
        try:
            with safe_open(self.place(key), "pt"):
                return True
        except (OSError, SafetensorError):
            return False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody makes room of this folder inside the block. One that can't be written is read."""
        with ExitStack() as stack:
            if self.folder.is_dir() and not os.access(self.folder, os.W_OK):
                with suppress(OSError):  # nobody here can delete it
                    files.lock(stack.enter_context((self.folder / LOCK).open()), shared=True)
                yield
                return
            with files.writing(self.folder, WAY_OUT):
                while not self._locked(stack):
                    pass  # another job has deleted it meanwhile
            yield

    def _locked(self, stack: ExitStack) -> bool:
        """Lock the folder, which is made where it isn't there; whether it's still there then."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            lock = stack.enter_context((self.folder / LOCK).open("a"))
            files.lock(lock, shared=True)
            os.utime(lock.fileno())
            return os.path.samestat(os.fstat(lock.fileno()), (self.folder / LOCK).stat())
        return False

    def make_room(self, needed: int, limit: float) -> None:
        """Delete stores that nobody holds, the least recently used first, until there is room for `needed` bytes more.

        So are files of this store whose writing broke off. Raises UserError, and deletes no store, where even that
        would leave less on the disk, or within `limit`.
        """
        if not os.access(self.folder, os.W_OK):
            raise UserError(f"{self.folder} lacks features of some videos and can't be written; {WAY_OUT}")
        for part in self.folder.glob("*/.*.part"):
            with suppress(FileNotFoundError):  # which another job has just finished
                if time.time() - part.stat().st_mtime > BROKEN_OFF:
                    part.unlink()
        used = {
            lock.parent: bytes_in(lock.parent) for lock in sorted(self.folder.parent.glob(f"*/{LOCK}"), key=used_at)
        }
        idle = [folder for folder in used if folder != self.folder and is_idle(folder)]
        free = shutil.disk_usage(self.folder).free
        over = max(sum(used.values()) + needed - limit, needed - free)  # bytes
        if over > sum(used[folder] for folder in idle):
            kept = sum(used.values()) / GB
            raise UserError(
                f"the features of this run take {needed / GB:.2f} GB in {self.folder.parent}, where {kept:.2f} GB are "
                f"kept and {free / GB:.2f} GB are free; use a larger train.features_gb={limit / GB:g}, fewer "
                "train.draws, AIM_CACHE=DIR on a larger disk, or train.features=computed"
            )
        for folder in idle:
            if over > 0 and is_idle(folder, remove=True):
                over -= used[folder]


def store_of(about: Mapping[str, Any]) -> Store:
    """The store by the properties that determine features, as text."""
    name = hashlib.sha256(json.dumps(about, sort_keys=True, default=repr).encode()).hexdigest()[:16]
    return Store(cache_folder() / "features" / name)


def bytes_in(folder: Path) -> int:
    """The size of all files below."""
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def used_at(lock: Path) -> float:
    """When a store was used last; long ago, if another job deletes it just now."""
    return lock.stat().st_mtime if lock.exists() else 0.0


def is_idle(folder: Path, *, remove: bool = False) -> bool:
    """Whether no job holds a store; then it may be deleted at once."""
    try:
        with (folder / LOCK).open("a") as lock:
            files.lock(lock, wait=False)
            if remove:
                shutil.rmtree(folder, ignore_errors=True)
            return True
    except OSError:
        return False


def checksum(row: Tensor) -> int:
    """The CRC-32 of a row's bytes."""
    return zlib.crc32(row.numpy().tobytes())


def keys_of(root: Path, videos: Sequence[Video]) -> dict[Video, str]:
    """The hash of each video's content and of the listed part of it; none of a file that can't be read.

    Of a folder of pictures only the ends of two are read, so the times of all count.
    """
    sources = [source_of(root, video) for video in videos]
    found = {}
    for video, source, stamp in zip(videos, sources, stamps_of(sources), strict=True):
        if stamp:
            content = stamp if file_of(source).is_dir() else content_of(stamp)
            found[video] = hashlib.sha256(f"{content} {span_of(video)}".encode()).hexdigest()[:32]
    return found


@dataclass(frozen=True)
class Draws(VideoDataset):
    """A data set whose random clips are a function of the seed and the video's content, wherever it is listed."""

    keys: Mapping[Video, str] = field(default_factory=dict)

    def read_video(self, video: Video, epoch: int, index: int) -> tuple[Tensor, NDArray[np.float32] | None]:
        return super().read_video(video, 0, int(self.keys[video][:12], 16))


@dataclass(frozen=True)
class Kept(Draws):
    """The same entries as a data set's, read from a store: packed features, "v m"."""

    store: Store = field(default=Store(Path()))
    size: int = 0  # m
    stored: torch.dtype = torch.float16
    draws: int = 1  # clips of a training video, which take turns over the epochs

    @property
    def in_process(self) -> bool:
        return self.store.memory is not None

    @property
    def video_bytes(self) -> int:
        """The size of a video's features."""
        return (self.shape[0] if isinstance(self.transform, Views) else self.draws) * self.size * self.stored.itemsize

    @property
    def shape(self) -> tuple[int, ...]:
        return super().shape[0], self.size

    @property
    def dtype(self) -> torch.dtype:
        return self.stored

    def read_video(self, video: Video, epoch: int, index: int) -> tuple[Tensor, NDArray[np.float32] | None]:
        views = isinstance(self.transform, Views)
        rows = slice(None) if views else [(epoch * self.clips + i) % self.draws for i in range(self.clips)]
        if video not in self.keys or not (place := self.store.place(self.keys[video])).exists():
            raise BadVideo(f"{source_of(self.root, video)}: it couldn't be read when features were computed")
        try:
            features, seconds = self.store.read(self.keys[video], rows)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise UserError(
                f"{place} is damaged ({error}); delete it, and the same command computes it again"
            ) from error
        return features, seconds if views else None
