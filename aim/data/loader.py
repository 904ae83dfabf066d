"""(first version by the lead: no workers)"""
import math
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from aim.data.dataset import VideoDataset


class Batch(NamedTuple):
    video: Tensor
    label: Tensor
    index: Tensor
    weight: Tensor


class Loader:
    def __init__(self, dataset: VideoDataset, batch_size: int, *, rank: int, world_size: int, seed: int, shuffle: bool,
                 workers: int, timeout: float, on_error: str, max_bad: float) -> None:
        self.dataset, self.batch_size, self.rank, self.world_size, self.seed, self.shuffle = dataset, batch_size, rank, world_size, seed, shuffle
        self.bad: dict[str, str] = {}
        self.waited = 0.0
        n = len(dataset) if shuffle else math.ceil((len(dataset) - rank) / world_size) * world_size
        self.steps_per_epoch = math.ceil(n / (batch_size * world_size))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        n = len(self.dataset)
        for b in range(start, self.steps_per_epoch):
            t = time.monotonic()
            if self.shuffle:
                perm = np.random.default_rng([self.seed, epoch]).permutation(n)
                size = self.batch_size * self.world_size
                part = perm[b * size:(b + 1) * size][self.rank * self.batch_size:(self.rank + 1) * self.batch_size]
            else:
                part = np.arange(self.rank, n, self.world_size)[b * self.batch_size:(b + 1) * self.batch_size]
            video = torch.stack([self.dataset.read(epoch, int(i)) for i in part])
            label = torch.tensor([self.dataset.videos[i].label for i in part])
            self.waited += time.monotonic() - t
            yield Batch(video, label, torch.from_numpy(part.copy()), torch.ones(len(part)))

    def close(self) -> None:
        pass
