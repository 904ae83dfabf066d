"""VideoDataset: an entry of a list file -> a clip, or the views of a test."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from aim.data.class_folders import ClassFolders
from aim.data.folds import in_folds, listed_in
from aim.data.labels import several, single
from aim.data.list_files import USUAL_FILES, ListFiles, usual_files
from aim.data.lists import Lists, Video, check_present, share_of, targets
from aim.data.loading.judge import OnError
from aim.data.readers.interface import BadVideo, Pick, Reader, Source, Timed, UnwantedVideo, file_of
from aim.data.readers.pyav import PyAV
from aim.data.sampling import Clip, test_indices, train_indices
from aim.data.sources.table import Table, is_whole, named_file
from aim.data.stored import cache
from aim.data.stored.cache import Cache
from aim.data.stored.shards import located, source_of
from aim.data.transforms import Augment, Views
from aim.ground import folds
from aim.ground.errors import UserError, check_all
from aim.ground.marks import Auto, Mark
from aim.ground.paths import path_of


@dataclass(frozen=True)
class Data:
    """The place of a data set and the settings of its reading; the values of a configs/data/*.yaml."""

    root: Annotated[str | None, Mark.MACHINE, Mark.PATH]  # null: it must be given where videos are read
    lists: Callable[[Path], Lists]
    num_classes: int | None  # null: as many as the lists name
    directional: bool  # labels distinguish left from right: clips must not be mirrored
    on_error: Annotated[OnError, Mark.MACHINE]  # in training; a skipped one keeps its place, with weight 0
    eval_on_error: Annotated[OnError, Mark.MACHINE]  # a test that skips says so in its result
    max_bad: Annotated[float, Mark.MACHINE]  # share of videos that may be skipped
    timeout: Annotated[float, Mark.MACHINE]  # seconds for one video
    workers: Annotated[int, Auto(8), Mark.MACHINE]  # decoding processes a rank; 0: in the training process itself
    cache: Annotated[str | None, Mark.MACHINE, Mark.PATH] = None  # a folder on a local disk for copies of videos
    cache_gb: Annotated[float, Mark.MACHINE] = 100.0  # that they may take in all
    share: float = 1.0  # of the training videos, of each class
    train: Annotated[str | None, Mark.CONTENT, Mark.PATH] = None  # list files of another name, in the root or elsewhere
    val: Annotated[str | None, Mark.CONTENT, Mark.PATH] = None
    test: Annotated[str | None, Mark.CONTENT, Mark.PATH] = None
    classes: Annotated[str | None, Mark.CONTENT, Mark.PATH] = None
    folds: Annotated[str | None, Mark.CONTENT, Mark.PATH] = None  # a folder with the lists of each fold
    fold: str | int | None = None  # K of these, or K/N: of N parts of all videos the K-th is held out
    groups: Annotated[str | None, Mark.TEXT] = None  # a regular expression on paths: what it matches is never divided

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UserError(f"data.share={self.share}; use a share of the training videos above 0 and up to 1")
        if self.folds is not None and self.fold is None:
            raise UserError(
                f"data.folds={self.folds} without a fold; add data.fold=1, or data.fold=all for each in turn"
            )
        if self.fold is not None:
            folds.parsed(self.fold, self.folds)
        if self.cache_gb <= 0:
            raise UserError(f"data.cache_gb={self.cache_gb} must be more than 0; data.cache=null reads without copies")

    @property
    def folder(self) -> Path:
        """The root, with ~ spelt out. Raises UserError if there is none."""
        if self.root is None:
            raise UserError("data.root must be given: add data.root=DIR, the folder of the videos")
        return path_of(self.root)

    def load(self, *, many: bool = False) -> Lists:
        """The lists, checked against each other and the disk. Raises UserError for missing or contradictory entries.

        With `many` a video may have any number of labels, else it must have one.
        """
        lists = located(self.folder, self.listed(many=many))
        lists = replace(lists, train=share_of(lists.train, self.share))

        def check_classes() -> None:
            if self.num_classes not in (None, len(lists.classes)):
                raise UserError(f"{self.root} names {len(lists.classes)} classes, data.num_classes={self.num_classes}")

        check_all(check_classes, *(partial(check_present, self.folder, videos) for videos in lists.parts.values()))
        return lists

    def listed(self, *, many: bool) -> Lists:
        """The lists as written, or found in folders, or a fold's. Raises UserError if they are wrong."""
        lists = (several if many else single)((self.named_lists() or self.lists)(self.folder))
        return in_folds(lists, self.fold if self.folds is None else None, self.groups)

    def named_lists(self) -> ListFiles | Table | None:
        """The given lists, completed by the usual ones; None without any.

        The usual list for the test alone belongs to the usual others. A table without its partner is the whole data
        set.
        """
        parts = ("train", "val", "test", "classes")
        named: dict[str, Any] = {part: name for part in parts if (name := getattr(self, part)) is not None}
        if self.folds is not None:
            named["folds"] = self.folds
        if not named:
            return None
        if named.keys() & {"train", "val"}:
            named.setdefault("test", None)
        if not isinstance(self.lists, ListFiles | ClassFolders):
            first, name = next(iter(named.items()))
            raise UserError(f"data.{first}={name} names a list file, and these data have none; use data=folder")
        if self.folds is not None and self.fold is not None:
            if given := [part for part in ("train", "val", "test") if part in named]:
                raise UserError(
                    f"data.{given[0]}={named[given[0]]} beside data.folds={self.folds}; leave one of them out"
                )
            return listed_in(self.folder, self.folds, self.fold, self.classes)
        if isinstance(self.lists, ClassFolders) and self.train is not None and self.val is None and self.test is None:
            table = named_file(self.folder, self.train)
            if table.is_file() and is_whole(table, usual_files(self.folder).keys() & {"val", "test"}):
                return Table(self.lists.val_share, self.train, self.classes or "classes.txt")
        return replace(self.lists if isinstance(self.lists, ListFiles) else USUAL_FILES, **named)

    def local_cache(self) -> Cache | None:
        """The cache for copies of videos, if one is requested and available."""
        return cache.opened(path_of(self.cache), self.cache_gb) if self.cache else None


@dataclass(frozen=True)
class VideoDataset:
    """Reads entries of a list: with Augment random clips of a video, with Views all views of the test."""

    root: Path
    videos: list[Video]
    reader: Reader
    clip: Clip
    transform: Augment | Views
    seed: int
    cache: Cache | None = None
    clips: int = 1  # random clips from one decoding of a video (repeated augmentation)
    bad: Mapping[str, str] = field(default_factory=dict)  # path -> reason; known beforehand and never read
    several: int | None = None  # classes, where a video may have any number of labels

    def __len__(self) -> int:
        return len(self.videos)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the result of `read`: "v t c h w"."""
        views = self.transform.temporal * self.transform.spatial if isinstance(self.transform, Views) else self.clips
        return views, self.clip.num_frames, 3, self.clip.size, self.clip.size

    @property
    def dtype(self) -> torch.dtype:
        return torch.uint8

    @property
    def in_process(self) -> bool:
        """Whether its entries are read in the process that takes them, whatever the number of workers."""
        return False

    @property
    def labels(self) -> NDArray[np.int64]:
        """Of all videos, as the task takes them."""
        return targets(self.videos, self.several)

    def path(self, index: int) -> Source:
        """The place of an entry's video."""
        return source_of(self.root, self.videos[index])

    def read(self, epoch: int, index: int) -> Tensor:
        """Uint8 "v t c h w", a function of (seed, epoch, index). Raises BadVideo if no reader can read the file."""
        return self.read_video(self.videos[index], epoch, index)[0]

    def read_video(self, video: Video, epoch: int, index: int) -> tuple[Tensor, NDArray[np.float32] | None]:
        """The result of `read` where `video` stands at `index`, for a worker that doesn't hold the list.

        And of a test's views "v 2" when their first and their last frame are shown, in seconds from the file's first.
        """
        if isinstance(self.transform, Views):
            return self._read_views(video, self.transform)
        indices_rng, transform_rng = np.random.default_rng([self.seed, epoch, index]).spawn(2)
        state = indices_rng.bit_generator.state

        def pick(num_frames: int) -> NDArray[np.int64]:
            indices_rng.bit_generator.state = state  # a second reader is asked for the same frames
            return train_indices(num_frames, self.clip, indices_rng, self.clips).ravel()

        clips = rearrange(self._frames(video, pick), "(v t) c h w -> v t c h w", v=self.clips)
        return torch.stack([self.transform(clip, self.clip.size, transform_rng) for clip in clips]), None

    def _read_views(self, video: Video, views: Views) -> tuple[Tensor, NDArray[np.float32]]:
        indices = np.empty(0, np.int64)

        def pick(num_frames: int) -> NDArray[np.int64]:
            nonlocal indices
            indices = test_indices(num_frames, self.clip, views.temporal)
            return indices.ravel()

        timed = Timed(pick)
        frames = self._frames(video, timed)
        clips = rearrange(views(frames, self.clip.size), "s (v t) c h w -> (v s) t c h w", v=views.temporal)
        seconds = timed.seconds[indices] if timed.seconds.size else np.full(indices.shape, np.nan)
        ends = np.stack([seconds.min(1), seconds.max(1)], 1, dtype=np.float32)
        return clips, ends.repeat(views.spatial, 0)

    def _frames(self, video: Video, pick: Pick) -> Tensor:
        """The picked frames, from a copy on this machine if there is an intact one."""
        source = source_of(self.root, video)
        span = span_of(video)
        if self.cache and (copy := self.cache.copy_of(source)):
            try:
                return self._read(copy, pick, span)
            except BadVideo:
                copy.unlink(missing_ok=True)  # damaged, or evicted just now: read the source
        return self._read(source, pick, span)

    def _read(self, source: Source, pick: Pick, span: tuple[float, float] | None) -> Tensor:
        """The picked frames by the reader, or by PyAV if that fails."""
        try:
            return self.reader(source, pick, span=span)
        except BadVideo as error:
            if isinstance(self.reader, PyAV) or isinstance(error, UnwantedVideo) or not file_of(source).is_file():
                raise
            return PyAV()(source, pick, span=span)


def span_of(video: Video) -> tuple[float, float] | None:
    """The listed part of a file, in seconds, if it isn't all of it."""
    return None if video.start is None or video.end is None else (video.start, video.end)
