"""Features of a frozen trunk on this machine's disk: each clip's are computed once, and serve all that only read them.

A store is a folder for one trunk, one clip and one way to draw clips; in it is a safetensors file for each video, under
the hash of its content: `features` "v m" of v clips or views, packed to m numbers, and `seconds` "v 2" of views.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
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
from aim.data.readers.interface import BadVideo, Part, Source, file_of
from aim.data.stored.shards import source_of
from aim.data.transforms import Views
from aim.ground import files
from aim.ground.errors import UserError

GB = 10**9
ENDS = 2**16  # bytes at either end of a file that are hashed
LOCK = "store.lock"


@dataclass(frozen=True)
class Store:
    """A folder of features, which stay as long as it is `held`."""

    folder: Path

    def place(self, key: str) -> Path:
        """The file of a video's features."""
        return self.folder / key[:2] / f"{key[2:]}.safetensors"

    def write(self, key: str, features: Tensor, seconds: NDArray[np.float32]) -> None:
        """Keep the features "v m" of a video. Raises UserError where they can't be written."""
        tensors = {"features": features.contiguous(), "seconds": torch.from_numpy(np.ascontiguousarray(seconds))}
        files.write_atomically(self.place(key), lambda file: save_file(tensors, file))

    def read(self, key: str, rows: list[int] | slice) -> tuple[Tensor, NDArray[np.float32]]:
        """Some rows of a video's features, and their seconds."""
        with safe_open(self.place(key), "pt") as file:
            whole = file.get_slice("features")
            features = whole[:] if isinstance(rows, slice) else torch.cat([whole[row : row + 1] for row in rows])
            seconds: NDArray[np.float32] = file.get_tensor("seconds").numpy()
        return features, seconds

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody makes room of this folder inside the block."""
        files.make_folder(self.folder)
        with (self.folder / LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            os.utime(self.folder / LOCK)
            yield

    def make_room(self, needed: int, limit: float) -> None:
        """Delete stores that nobody holds, the least recently used first, until `needed` bytes more are in the limit.

        Raises UserError where that isn't enough, or the disk has less.
        """
        stores = sorted(self.folder.parent.glob(f"*/{LOCK}"), key=lambda lock: lock.stat().st_mtime)
        used = {lock.parent: bytes_in(lock.parent) for lock in stores}
        for folder in list(used):
            if sum(used.values()) + needed > limit and folder != self.folder and removed(folder):
                del used[folder]
        free = shutil.disk_usage(self.folder).free
        if sum(used.values()) + needed > limit or needed > free:
            kept = sum(used.values()) / GB
            raise UserError(
                f"the features of this run take {needed / GB:.2f} GB in {self.folder.parent}, where {kept:.2f} GB are "
                f"kept and {free / GB:.2f} GB are free; use a larger train.features_gb={limit / GB:g}, fewer "
                "train.draws, AIM_CACHE=DIR on a larger disk, or train.features=computed"
            )


def store_of(about: Mapping[str, Any]) -> Store:
    """The store for what decides features, all of it as text."""
    name = hashlib.sha256(json.dumps(about, sort_keys=True, default=repr).encode()).hexdigest()[:16]
    return Store(files.cache_folder() / "features" / name)


def bytes_in(folder: Path) -> int:
    """The size of all files below."""
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def removed(folder: Path) -> bool:
    """Whether a store could be deleted: no job holds it."""
    with (folder / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        shutil.rmtree(folder, ignore_errors=True)
        return True


def keys_of(root: Path, videos: list[Video]) -> dict[Video, str]:
    """The hash of each video's content and of the listed part of it; none of a file that can't be read."""
    found = {}
    for video in videos:
        with suppress(OSError):
            text = f"{content_of(source_of(root, video))} {span_of(video)}"
            found[video] = hashlib.sha256(text.encode()).hexdigest()[:32]
    return found


def content_of(source: Source) -> str:
    """Size and hashed ends of a file, or of its part; of a folder of frames, names, sizes and times."""
    path = file_of(source)
    if path.is_dir():
        frames = sorted((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in os.scandir(path))
        return repr(frames)
    with path.open("rb") as file:
        start, size = (source.offset, source.size) if isinstance(source, Part) else (0, path.stat().st_size)
        file.seek(start)
        head = file.read(min(ENDS, size))
        file.seek(start + max(0, size - ENDS))
        return f"{size} {hashlib.sha256(head + file.read(min(ENDS, size))).hexdigest()}"


@dataclass(frozen=True)
class Draws(VideoDataset):
    """A data set whose random clips are a function of the seed and the video's content, wherever it is listed."""

    keys: Mapping[Video, str] = field(default_factory=dict)

    def read_video(self, video: Video, epoch: int, index: int) -> tuple[Tensor, NDArray[np.float32] | None]:
        return VideoDataset.read_video(self, video, 0, int(self.keys[video][:12], 16))


@dataclass(frozen=True)
class Kept(Draws):
    """The same entries as a data set's, read from a store: packed features, "v m"."""

    store: Store = field(default=Store(Path()))
    size: int = 0  # m
    stored: torch.dtype = torch.float16
    draws: int = 1  # clips of a training video, which take turns over the epochs

    @property
    def shape(self) -> tuple[int, ...]:
        return super().shape[0], self.size

    @property
    def dtype(self) -> torch.dtype:
        return self.stored

    def read_video(self, video: Video, epoch: int, index: int) -> tuple[Tensor, NDArray[np.float32] | None]:
        views = isinstance(self.transform, Views)
        rows = slice(None) if views else [(epoch * self.clips + i) % self.draws for i in range(self.clips)]
        try:
            features, seconds = self.store.read(self.keys[video], rows)
        except (OSError, SafetensorError, KeyError) as error:
            raise BadVideo(f"{source_of(self.root, video)}: its kept features can't be read ({error})") from error
        return features, seconds if views else None
