"""Uncertainty of a number: bootstrap intervals over videos, over seeds, over points."""

import functools
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aim.engine.scores.quality import LEVEL
from aim.ground.errors import UserError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float

    def __iter__(self) -> Iterator[float]:
        return iter((self.value, self.low, self.high))


def bootstrap(
    values: ArrayLike,
    statistic: Callable[[Floats], float] = np.mean,
    groups: Sequence[Hashable] | None = None,
    repeats: int = 2000,
    seed: int = 0,
) -> Interval:
    """The percentile bootstrap interval of a statistic of `values` "n"; those that are NaN are left out.

    With `groups` "n", such as the seed of each value, groups are drawn first and then the values within each drawn
    one (Davison and Hinkley 1997, section 3.8). Of a handful of groups that is too narrow: by a fifth for three.
    """
    found = np.asarray(values, np.float64).ravel()
    kept = ~np.isnan(found)
    if groups is not None and len(groups) != len(found):
        raise UserError(f"{len(groups)} groups for {len(found)} values; give one for each")
    if not kept.any():
        return Interval(np.nan, np.nan, np.nan)
    sizes: tuple[int, ...] = (int(kept.sum()),)
    found = found[kept]
    if groups is not None:
        names = [group for group, keep in zip(groups, kept, strict=True) if keep]
        places = {name: i for i, name in enumerate(dict.fromkeys(names))}
        which = np.array([places[name] for name in names])
        found = found[which.argsort(kind="stable")]
        sizes = tuple(np.bincount(which).tolist())
    counts = drawn(sizes, repeats, seed)
    if statistic is np.mean:
        means: Floats = counts @ found / counts.sum(1)
        return Interval(float(found.mean()), *percentiles(means))
    return Interval(
        float(statistic(found)), *percentiles(np.array([statistic(np.repeat(found, row)) for row in counts]))
    )


@functools.lru_cache(maxsize=8)
def drawn(sizes: tuple[int, ...], repeats: int, seed: int) -> NDArray[np.int64]:
    """How often each value is drawn, "repeats n", for groups of these sizes in a row."""
    rng = np.random.default_rng(seed)
    count = len(sizes)
    times = rng.multinomial(count, np.full(count, 1 / count), repeats) if count > 1 else np.ones((repeats, 1), np.int64)
    # What c copies of a group draw in all is what one draw of c times as many values gives.
    parts = [rng.multinomial(times[:, i] * n, np.full(n, 1 / n)) for i, n in enumerate(sizes)]
    return np.concatenate(parts, 1)


def percentiles(values: Floats) -> tuple[float, float]:
    """The ends of the 95 % interval of drawn values; infinite ones may be among them, NaN is left out."""
    kept = np.sort(values[~np.isnan(values)])
    if not len(kept):
        return np.nan, np.nan
    low, high = np.percentile(kept, LEVEL, method="nearest")
    return float(low), float(high)


def finite(value: Any) -> float | None:
    """The number, or None where there is none."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if number else None
