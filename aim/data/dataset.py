"""(first version by the lead)"""
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from einops import rearrange
from torch import Tensor

from aim.data.lists import Lists, Video
from aim.data.sampling import Clip, test_indices, train_indices
from aim.data.transforms import Augment, Views
from aim.data.video import Reader


@dataclass(frozen=True)
class Data:
    root: str
    lists: Callable[[Path], Lists]
    num_classes: int | None
    directional: bool
    on_error: Literal["skip", "raise"]
    max_bad: float
    timeout: float
    workers: int

    def load(self) -> Lists:
        return self.lists(Path(self.root).expanduser())


@dataclass(frozen=True)
class VideoDataset:
    root: Path
    videos: list[Video]
    reader: Reader
    clip: Clip
    transform: Augment | Views
    seed: int

    def __len__(self) -> int:
        return len(self.videos)

    def read(self, epoch: int, index: int) -> Tensor:
        v = self.videos[index]
        rng = np.random.default_rng([self.seed, epoch, index])
        if isinstance(self.transform, Views):
            views = self.transform.temporal
            x = self.reader(self.root / v.path, lambda n: test_indices(n, self.clip, views).ravel())
            x = self.transform(x, self.clip.size)
            return rearrange(x, "s (v t) c h w -> (v s) t c h w", v=views)
        x = self.reader(self.root / v.path, lambda n: train_indices(n, self.clip, rng).ravel())
        return self.transform(x, self.clip.size, rng)[None]
