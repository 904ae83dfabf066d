"""Orders of the videos of an epoch, the same on every rank."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Order(Protocol):
    """The order of a list's videos in an epoch, a function of the epoch alone."""

    def __call__(self, epoch: int, count: int) -> NDArray[np.int64]:
        """The places of so many videos in the list, each once."""
        ...


@dataclass(frozen=True)
class Listed:
    """The order of the list, in every epoch."""

    def __call__(self, epoch: int, count: int) -> NDArray[np.int64]:
        return np.arange(count, dtype=np.int64)


@dataclass(frozen=True)
class Shuffled:
    """A permutation for each epoch, drawn from the seed and the epoch."""

    seed: int

    def __call__(self, epoch: int, count: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch]).permutation(count).astype(np.int64)
