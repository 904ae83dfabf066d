"""Orders of the videos of an epoch, the same on every rank."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Order(Protocol):
    """The order of a list's videos in an epoch, a function of the epoch alone."""

    def __call__(self, epoch: int, count: int) -> NDArray[np.int64]:
        """The places of `count` videos in the list; each repetition adds `count`."""
        ...


@dataclass(frozen=True)
class Listed:
    """The order of the list, in every epoch."""

    def __call__(self, epoch: int, count: int) -> NDArray[np.int64]:
        return np.arange(count, dtype=np.int64)


LISTED = Listed()


@dataclass(frozen=True)
class Shuffled:
    """A permutation for each epoch, drawn from the seed and the epoch."""

    seed: int

    def __call__(self, epoch: int, count: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch]).permutation(count).astype(np.int64)


@dataclass(frozen=True)
class Weighted:
    """As many places as videos, each video in proportion to its weight, drawn for each epoch.

    Systematic sampling (Madow 1949): each video's count is the expected one, rounded up or down.
    """

    seed: int
    weight: tuple[float, ...]  # of each video

    def __call__(self, epoch: int, count: int) -> NDArray[np.int64]:
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(count)
        ends = np.cumsum(np.asarray(self.weight, np.float64)[order])
        edges = np.floor(ends / ends[-1] * count + rng.random())
        times = np.diff(edges, prepend=0.0).astype(np.int64)
        again = np.arange(count) - np.repeat(np.cumsum(times) - times, times)  # from 0, of each video
        return rng.permutation(np.repeat(order, times) + count * again)
