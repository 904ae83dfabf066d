"""VideoDataset: an entry of a list file -> a clip, or the views of a test."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from aim.data.judge import OnError
from aim.data.lists import Lists, Video, check_present
from aim.data.readers.interface import BadVideo, Pick, Reader
from aim.data.readers.pyav import PyAV
from aim.data.sampling import Clip, test_indices, train_indices
from aim.data.transforms import Augment, Views
from aim.errors import UserError


@dataclass(frozen=True)
class Data:
    """Where a data set lies and how it is read; the values of a configs/data/*.yaml."""

    root: str
    lists: Callable[[Path], Lists]
    num_classes: int | None  # null: as many as the lists name
    directional: bool  # labels tell left from right, so that clips must not be mirrored
    on_error: OnError  # of a video in training; a skipped one keeps its place in the batch with weight 0
    eval_on_error: OnError  # a test that skips says so in its result
    max_bad: float  # share of videos that may be skipped
    timeout: float  # seconds that one video may take
    workers: int  # decoding processes a rank; 0: decode in the training process itself

    @property
    def folder(self) -> Path:
        """The root, with ~ spelt out."""
        return Path(self.root).expanduser()

    def load(self) -> Lists:
        """The lists, checked against each other and the disk. Raises UserError for what is missing or disagrees."""
        lists = self.lists(self.folder)
        problems = []
        if self.num_classes is not None and len(lists.classes) != self.num_classes:
            problems.append(f"{self.root} names {len(lists.classes)} classes, data.num_classes={self.num_classes}")
        for videos in (lists.train, lists.val):  # one may be there and not the other
            try:
                check_present(self.folder, videos)
            except UserError as error:
                problems.append(str(error))
        if problems:
            raise UserError("; ".join(problems))
        return lists


@dataclass(frozen=True)
class VideoDataset:
    """Reads entries of a list: with Augment random clips of a video, with Views all views of the test."""

    root: Path
    videos: list[Video]
    reader: Reader
    clip: Clip
    transform: Augment | Views
    seed: int
    clips: int = 1  # random clips from one decoding of a video (repeated augmentation)

    def __len__(self) -> int:
        return len(self.videos)

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """What `read` returns: "v t c h w"."""
        views = self.transform.temporal * self.transform.spatial if isinstance(self.transform, Views) else self.clips
        return views, self.clip.num_frames, 3, self.clip.size, self.clip.size

    def path(self, index: int) -> Path:
        """Where an entry's file is."""
        return self.root / self.videos[index].path

    def read(self, epoch: int, index: int) -> Tensor:
        """Uint8 "v t c h w", a function of (seed, epoch, index). Raises BadVideo if no reader can read the file."""
        return self.read_video(self.videos[index], epoch, index)

    def read_video(self, video: Video, epoch: int, index: int) -> Tensor:
        """What `read` returns where `video` stands at `index`, for a worker that doesn't hold the list."""
        if isinstance(self.transform, Views):
            views = self.transform.temporal
            frames = self._frames(video, lambda n: test_indices(n, self.clip, views).ravel())
            return rearrange(self.transform(frames, self.clip.size), "s (v t) c h w -> (v s) t c h w", v=views)
        indices_rng, transform_rng = np.random.default_rng([self.seed, epoch, index]).spawn(2)
        state = indices_rng.bit_generator.state

        def pick(num_frames: int) -> NDArray[np.int64]:
            indices_rng.bit_generator.state = state  # a second reader is asked for the same frames
            return train_indices(num_frames, self.clip, indices_rng, self.clips).ravel()

        clips = rearrange(self._frames(video, pick), "(v t) c h w -> v t c h w", v=self.clips)
        return torch.stack([self.transform(clip, self.clip.size, transform_rng) for clip in clips])

    def _frames(self, video: Video, pick: Pick) -> Tensor:
        """The picked frames by the reader, or where that fails by PyAV."""
        path = self.root / video.path
        span = None if video.start is None or video.end is None else (video.start, video.end)
        try:
            return self.reader(path, pick, span=span)
        except BadVideo:
            if isinstance(self.reader, PyAV) or not path.is_file():
                raise
            return PyAV()(path, pick, span=span)
